"""How the fence at the API server is asked for, and what each answer means."""

import pytest
from aiohttp import web

from asyncctl.clock import SystemClock
from asyncctl.ha.probe import State, probe
from asyncctl.ha.refusal import BEHIND
from tests.unit.support import http_server, make_transport, status

DENIED = "leases \"l-fence-probe\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
NO_RIGHT = 'User "u" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "team"'
BOUND = "asyncctl-fenced: in force; writer pod-1, the Lease is held by pod-0_x"
PATH = "/apis/coordination.k8s.io/v1/namespaces/team/leases"


def forbidden(message):
    return status(403, "Forbidden", DENIED + message)


def lease(holder):
    spec = {} if holder is None else {"holderIdentity": holder}
    return web.json_response({"kind": "Lease", "metadata": {"name": "l", "resourceVersion": "1"}, "spec": spec})


class Skipping(SystemClock):
    """Who sleeps by it is awake at once, and it is later."""

    def __init__(self):
        self.skipped = 0.0

    def monotonic(self):
        return self.skipped

    async def sleep(self, seconds):
        self.skipped += seconds


async def probed(answer, held=lambda: lease("pod-0_x")):
    """Ask a server that answers so; returns the finding, what was asked, and how many seconds that took."""
    seen, clock = [], Skipping()

    async def handler(request):
        seen.append((request.method, request.path_qs))
        if request.method == "GET":
            return held()
        assert (await request.json())["metadata"]["name"] == "l-fence-probe"
        return answer()

    async with http_server(handler) as url, make_transport(url) as transport:
        return await probe(transport, "team", "l", "pod-1", clock=clock), seen, clock.skipped


@pytest.mark.parametrize(
    "answer, state, said",
    [
        (lambda: forbidden(BOUND), State.IN_FORCE, "in force, for the Lease team/l"),
        (lambda: forbidden(BOUND.replace("pod-1", "(no pod-bound token)")), State.WRONG, "is bound to no pod"),
        (lambda: forbidden(BOUND.replace("pod-1", "pod-2")), State.WRONG, "bound to pod pod-2, and ASYNCCTL_POD_NAME"),
        (lambda: forbidden(BOUND.replace("in force; ", "")), State.WRONG, "not for the Lease team/l, or made by hand"),
        (lambda: forbidden("asyncctl-fenced: in force"), State.IN_FORCE, "in force, for the Lease team/l"),
        (lambda: web.json_response({}, status=201), State.OFF, "or the Lease team/l is gone; install what"),
        (lambda: status(409, "AlreadyExists", "it is there"), State.OFF, "not in force"),
        (lambda: status(403, "Forbidden", NO_RIGHT), State.UNKNOWN, "resources: [leases], verbs: [create]}, bound"),
        (lambda: status(404, "NotFound", "no namespace"), State.UNKNOWN, "can't tell: "),
        (lambda: status(503, "ServiceUnavailable", "not now"), State.UNKNOWN, "can't tell: "),
    ],
)
async def test_each_answer_has_its_meaning_and_says_what_to_do(answer, state, said):
    found, seen, took = await probed(answer)
    assert found.state is state
    assert said in found.text
    assert set(seen) - {("GET", f"{PATH}/l")} == {("POST", f"{PATH}?dryRun=All")}
    assert took == 0


@pytest.mark.parametrize(
    "held, holder",
    [
        (lambda: lease("pod-2_y"), "pod-2_y"),
        (lambda: lease(""), "nobody"),
        (lambda: lease(None), "nobody"),
        (lambda: status(404, "NotFound", "gone"), "nobody"),
    ],
)
async def test_a_server_that_names_somebody_who_holds_the_lease_no_longer_watches_it_no_more(held, holder):
    found, seen, took = await probed(lambda: forbidden(BOUND), held)
    assert found.state is State.WRONG
    assert f"held by pod-0_x, and {holder} holds it" in found.text
    assert "validationActions" in found.text
    assert took >= BEHIND
    assert len(seen) > 10


async def test_a_server_that_sees_the_takeover_yet_is_as_it_should_be():
    answers = [forbidden(BOUND)]
    found, _, took = await probed(
        lambda: answers.pop() if answers else forbidden(BOUND.replace("pod-0_x", "pod-2_y")), lambda: lease("pod-2_y")
    )
    assert found.state is State.IN_FORCE
    assert 0 < took < BEHIND


@pytest.mark.parametrize("holder", ["x\ny\x1b" * 2000, "a" * 253 + "_1"])
async def test_a_holder_that_no_message_could_hold_is_not_compared(holder):
    found, _, took = await probed(lambda: forbidden(BOUND.replace("pod-0_x", holder)), lambda: lease(holder))
    assert (found.state, took) == (State.IN_FORCE, 0)


@pytest.mark.parametrize("held", [lambda: status(403, "Forbidden", "no rights"), lambda: web.Response(text="a page")])
async def test_where_the_lease_can_not_be_read_the_refusal_is_all_there_is(held):
    assert (await probed(lambda: forbidden(BOUND), held))[0].state is State.IN_FORCE


async def test_a_server_that_is_away_is_no_answer():
    async with make_transport("http://127.0.0.1:1") as transport:
        assert (await probe(transport, "team", "l", "pod-1", clock=Skipping())).state is State.UNKNOWN

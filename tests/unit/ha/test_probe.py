"""How the fence at the API server is asked for, and what each answer means."""

import pytest
from aiohttp import web

from asyncctl.ha.probe import State, probe
from tests.unit.support import http_server, make_transport, status

DENIED = "leases \"l-fence-probe\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
NO_RIGHT = 'User "u" cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "team"'
BOUND = "asyncctl-fenced: in force; writer pod-1, the Lease is held by pod-0_x"


def forbidden(message):
    return status(403, "Forbidden", DENIED + message)


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
    seen = []

    async def handler(request):
        seen.append((request.method, request.path_qs, (await request.json())["metadata"]["name"]))
        return answer()

    async with http_server(handler) as url, make_transport(url) as transport:
        found = await probe(transport, "team", "l", "pod-1")
    assert found.state is state
    assert said in found.text
    path = "/apis/coordination.k8s.io/v1/namespaces/team/leases?dryRun=All"
    assert set(seen) == {("POST", path, "l-fence-probe")}


async def test_a_server_that_is_away_is_no_answer():
    async with make_transport("http://127.0.0.1:1") as transport:
        assert (await probe(transport, "team", "l", "pod-1")).state is State.UNKNOWN

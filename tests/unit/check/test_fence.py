"""The row about the fence at the API server."""

import pytest
from aiohttp import web

from asyncctl.operator.checking import State
from asyncctl.settings import Settings
from tests.unit.check.conftest import in_front_of
from tests.unit.support import status

ROW = "fence controllers/test-leader"
BOUND = "denied request: asyncctl-fenced: in force; writer {}, the Lease is held by nobody"
ACCOUNT = "system:serviceaccount:controllers:test"


def served(answer, user=ACCOUNT):
    """The API server as a user sees it that is told this of the Lease it would make."""

    def change(request):
        if request.path.endswith("/selfsubjectreviews"):
            return web.json_response({"status": {"userInfo": {"username": user}}}, status=201)
        if request.method == "POST" and request.path.endswith("/leases"):
            return answer() if answer is not None else probed(request)
        return None

    async def probed(request):
        lease = await request.json()
        denied = lease["metadata"]["name"] == "test-leader-fence-probe"
        return status(403, "Forbidden", BOUND.format("pod-1")) if denied else web.json_response(lease, status=201)

    return change


@pytest.mark.parametrize(
    "answer, state, said",
    [
        (None, State.OK, "in force, for the Lease controllers/test-leader"),
        (lambda: status(403, "Forbidden", BOUND.format("pod-2")), State.FAILED, "ASYNCCTL_POD_NAME is pod-1; set that"),
        (lambda: status(403, "Forbidden", BOUND.format("(no pod-bound token)")), State.FAILED, "is bound to no pod"),
        (lambda: web.json_response({}, status=201), State.WARNING, "not in force for whom this process writes as"),
        (lambda: status(403, "Forbidden", "no rights"), State.SKIPPED, "can't tell, since a Lease may not be created"),
    ],
)
async def test_it_is_told_to_the_operator_itself(check, cluster, answer, state, said):
    async with in_front_of(cluster.url, served(answer)) as url:
        rows = await check(url, settings=Settings(pod_name="pod-1"))
    assert rows[ROW].state is state
    assert said in rows[ROW].message


async def test_nobody_else_can_tell_that_there_is_none(check, cluster):
    async with in_front_of(cluster.url, served(lambda: web.json_response({}, status=201), user="jane")) as url:
        rows = await check(url)
    assert rows[ROW].state is State.SKIPPED
    assert rows[ROW].message.startswith("can't tell as jane: it is for the operator's ServiceAccount")


async def test_without_leader_election_it_is_not_asked_for(check, cluster):
    rows = await check(cluster.url, settings=Settings(leader_election=False))
    assert not any(row.check.startswith("fence") for row in rows)

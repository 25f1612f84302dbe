"""What is told at the start of the fence at the API server."""

import asyncio

import pytest
from aiohttp import web

from asyncctl.operator.server_fence import ServerFence
from tests.unit.support import Log, http_server, make_transport, status

BOUND = "denied request: asyncctl-fenced: in force; writer pod-1, the Lease is held by nobody"


@pytest.mark.parametrize(
    "answer, level, state",
    [
        (lambda: status(403, "Forbidden", BOUND), "info", "in force"),
        (lambda: status(403, "Forbidden", BOUND.replace("pod-1", "pod-2")), "error", "in force, and wrong"),
        (lambda: web.json_response({}, status=201), "warning", "not in force"),
    ],
)
async def test_it_is_told_once_and_shown_from_then_on(answer, level, state):
    async def handler(request):
        return answer()

    log = Log()
    async with http_server(handler) as url, make_transport(url) as transport:
        fence = ServerFence(transport, ("team", "l"), "pod-1", clock=transport._clock, logger=log.logger)
        assert fence.problem == "not asked for yet"
        await fence.run()
    (line,) = log.said("the fence at the API server")
    assert (line["level"], line["state"]) == (level, state)
    assert fence.problem == (None if state == "in force" else line["cause"])


async def test_where_nobody_can_tell_it_is_asked_again_until_one_can():
    answers = [status(503, "ServiceUnavailable", "not now") for _ in range(20)]

    async def handler(request):
        return answers.pop() if answers else status(403, "Forbidden", BOUND)

    log = Log()
    async with http_server(handler) as url, make_transport(url, tries=1) as transport:
        fence = ServerFence(transport, ("team", "l"), "pod-1", clock=transport._clock, logger=log.logger)
        async with asyncio.timeout(30):
            await fence.run()
    assert [line["state"] for line in log.said("the fence at the API server")] == ["can't tell", "in force"]


async def test_without_leader_election_nothing_is_asked():
    async with make_transport("http://127.0.0.1:1") as transport:
        fence = ServerFence(transport, None, "pod-1", clock=transport._clock, logger=Log().logger)
        await fence.run()
    assert fence.problem == "not needed: there is no leader election"

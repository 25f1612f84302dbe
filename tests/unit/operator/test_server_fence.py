"""What is told of the fence at the API server, at the start and when that changes."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from asyncctl.operator.server_fence import ServerFence
from tests.unit.support import Log, http_server, make_transport, status, until

BOUND = "denied request: asyncctl-fenced: in force; writer pod-1, the Lease is held by nobody"


OFF = dict  # what it answers where no fence is: the Lease, as if it had been made


@asynccontextmanager
async def asking(*answers):
    """A fence that is asked about; of the answers, which may be changed, the last is given for ever."""
    left = list(answers)

    async def handler(request):
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is OFF:
            return web.json_response({}, status=201)
        return status(403, "Forbidden", answer) if isinstance(answer, str) else status(answer, "", "not now")

    log = Log()
    async with http_server(handler) as url, make_transport(url, tries=1) as transport:
        fence = ServerFence(transport, ("team", "l"), "pod-1", clock=transport._clock, logger=log.logger)
        assert fence.problem == "not asked for yet"
        task = asyncio.create_task(fence.run())
        try:
            yield fence, log, transport._clock.slept, task, left
        finally:
            task.cancel()
            await asyncio.wait([task])


def told(log):
    return [(line["level"], line["state"]) for line in log.said("the fence at the API server")]


async def test_one_that_is_in_force_is_told_once_and_not_asked_about_again():
    async with asking(BOUND) as (fence, log, slept, task, _):
        await asyncio.wait_for(task, 30)
        assert fence.problem is None
        assert slept == []
    assert told(log) == [("info", "in force")]


@pytest.mark.parametrize(
    "answer, level, state",
    [(BOUND.replace("pod-1", "pod-2"), "error", "in force, and wrong"), (OFF, "warning", "not in force")],
)
async def test_one_that_is_not_is_told_once_and_shown_and_asked_about_until_it_is(answer, level, state):
    async with asking(answer) as (fence, log, slept, task, answers):
        await until(lambda: len(slept) > 3)
        assert fence.problem == log.said("the fence at the API server")[0]["cause"]
        answers[:] = [BOUND]
        await asyncio.wait_for(task, 30)
        assert fence.problem is None
        assert set(slept) == {300.0}
    assert told(log) == [(level, state), ("info", "in force")]


async def test_where_nobody_can_tell_it_is_asked_again_until_one_can():
    async with asking(*[503] * 20, BOUND) as (_, log, slept, task, _):
        await asyncio.wait_for(task, 30)
        assert slept == [30.0] * 20
    assert told(log) == [("info", "can't tell"), ("info", "in force")]


async def test_an_outage_makes_nothing_unknown_that_was_known():
    async with asking(OFF, 503) as (fence, log, slept, _, _):
        await until(lambda: len(slept) > 3)
        assert "not in force" in fence.problem
    assert told(log) == [("warning", "not in force")]


async def test_without_leader_election_nothing_is_asked():
    async with make_transport("http://127.0.0.1:1") as transport:
        fence = ServerFence(transport, None, "pod-1", clock=transport._clock, logger=Log().logger)
        await fence.run()
    assert fence.problem == "not needed: there is no leader election"

"""Lanes and limits: none waits for another, the Lease and watches for nobody; and when a busy server is asked again."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from asyncctl.client.errors import ServiceUnavailable, Target, TooManyRequests
from asyncctl.client.transport.transport import Lane, Request
from asyncctl.testing.clock import FakeClock
from tests.unit.support import ImpatientClock, http_server, make_transport, status, until

TARGET = Target("get", "pods", "team", "a")
READ = Request(target=TARGET, method="GET", path="/read", lane=Lane.READ, repeatable=True)
WRITE = Request(target=TARGET, method="POST", path="/write", lane=Lane.WRITE, body=b"{}")
LEASE = Request(target=TARGET, method="PUT", path="/lease", lane=Lane.LEASE, body=b"{}")
WATCH = Request(target=TARGET, method="GET", path="/watch", lane=Lane.WATCH)


@asynccontextmanager
async def limited(**options):
    """A transport with a limit whose time the test moves, and the paths that were asked for."""
    asked = []

    async def handler(request):
        asked.append(request.path)
        return web.json_response({})

    clock = FakeClock()
    async with http_server(handler) as url, make_transport(url, clock=clock, timeout=120, **options) as transport:
        yield transport, asked, clock


async def test_reads_and_writes_have_a_limit_each_and_the_rest_has_none():
    async with limited(qps=1.0, burst=2) as (transport, asked, clock):
        reads = [asyncio.create_task(transport.request(READ), name=f"read {n}") for n in range(5)]
        await until(lambda: asked.count("/read") == 2 and transport._limits[Lane.READ].waiting == 3)
        for _ in range(2):
            await transport.request(WRITE)
        for _ in range(10):
            await transport.request(LEASE)
            async with transport.stream(WATCH) as chunks:
                assert [chunk async for chunk in chunks] == [b"{}"]
        assert asked.count("/read") == 2
        for number in (3, 4, 5):
            clock.advance(1.0)
            await until(lambda number=number: asked.count("/read") == number)
        await asyncio.gather(*reads)


async def test_a_limit_of_zero_is_none():
    async with limited(qps=0.0) as (transport, asked, _):
        await asyncio.gather(*(transport.request(READ) for _ in range(300)))
        assert len(asked) == 300


async def test_who_waits_for_the_limit_and_is_cancelled_takes_no_token():
    async with limited(qps=1.0, burst=1) as (transport, asked, clock):
        await transport.request(WRITE)
        waiting = [asyncio.create_task(transport.request(WRITE), name=f"write {n}") for n in range(3)]
        await until(lambda: transport._limits[Lane.WRITE].waiting == 3)
        for task in waiting[:2]:
            task.cancel()
        clock.advance(1.0)
        await waiting[2]
        assert len(asked) == 2
        assert [task.cancelled() for task in waiting] == [True, True, False]


async def test_a_hundred_watches_do_not_hold_up_a_read_a_write_or_the_lease():
    watching, free = [], asyncio.Event()

    async def handler(request):
        if request.path != "/watch":
            return web.json_response({})
        response = web.StreamResponse()
        await response.prepare(request)
        watching.append(1)
        await free.wait()
        return response

    async def watch(transport):
        async with transport.stream(WATCH) as chunks:
            async for _ in chunks:
                pass

    async with http_server(handler) as url, make_transport(url, timeout=10) as transport:
        watches = [asyncio.create_task(watch(transport), name=f"watch {n}") for n in range(100)]
        await until(lambda: len(watching) == 100)
        for request in (READ, WRITE, LEASE):
            assert (await transport.request(request)).code == 200
        free.set()
        await asyncio.gather(*watches)


def later(code, after=None, *, in_body=None):
    details = {} if in_body is None else {"retryAfterSeconds": in_body}
    reason = {429: "TooManyRequests", 503: "ServiceUnavailable"}[code]
    answer = status(code, reason, "not now", **details)
    if after is not None:
        answer.headers["Retry-After"] = after
    return answer


@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("jitter, waited", [(0.0, 3.0), (1.0, 3.75)])
async def test_a_server_that_says_when_is_asked_again_then_and_not_before(code, in_body, jitter, waited):
    answers = [later(code, in_body=3) if in_body else later(code, "3")]
    clock = ImpatientClock()

    async def handler(request):
        return answers.pop() if answers else web.json_response({})

    async with http_server(handler) as url, make_transport(url, clock=clock, random=lambda: jitter) as transport:
        await transport.request(READ)
    assert clock.slept == [waited]


@pytest.mark.parametrize(
    "code, after, request_, times, error",
    [
        (429, "1", WRITE, 2, None),  # the server did not act
        (429, None, READ, 1, TooManyRequests),  # it does not say when: the queue knows better how long to wait
        (503, "1", WRITE, 1, ServiceUnavailable),  # it may have acted
        (503, None, WRITE, 1, ServiceUnavailable),
        (503, None, READ, 2, None),
        (503, "1", READ, 2, None),
        (503, "3600", READ, 1, ServiceUnavailable),  # longer than a request may take: the queue waits for that
    ],
)
async def test_what_is_asked_again_after_429_and_503(code, after, request_, times, error):
    asked = []

    async def handler(request):
        asked.append(1)
        return later(code, after) if len(asked) == 1 else web.json_response({})

    async with http_server(handler) as url, make_transport(url) as transport:
        if error is None:
            await transport.request(request_)
        else:
            with pytest.raises(error) as caught:
                await transport.request(request_)
            assert caught.value.retry_after == (float(after) if after else None)
    assert len(asked) == times

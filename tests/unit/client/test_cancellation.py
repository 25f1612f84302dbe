"""A request that is cancelled, at whatever moment, leaves nothing behind: no socket, no task, no place in a queue."""

import asyncio
import random
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import KubernetesError, Target
from asyncctl.client.transport.transport import Lane, Request
from tests.unit.support import http_server, make_transport, until

LANES = {Lane.READ: 32, Lane.WRITE: 32, Lane.LEASE: 1}
REQUESTS = [
    Request(target=Target("get", "pods"), method="GET", path="/", lane=Lane.READ, repeatable=True),
    Request(target=Target("create", "pods"), method="POST", path="/", lane=Lane.WRITE, body=b"{}" * 1000),
    Request(target=Target("get", "leases"), method="GET", path="/", lane=Lane.LEASE, repeatable=True),
]
WATCH = Request(target=Target("watch", "pods"), method="GET", path="/watch", lane=Lane.WATCH)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"debug": False, "use_uvloop": request.param == "uvloop"}


@pytest.fixture(params=["http", "https"])
def server_tls(request):
    if request.param == "http":
        return None, None
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, authority.cert_pem.bytes()


def sockets():
    """The sockets that this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            name = str(each.readlink())
            if name.startswith("socket:"):
                found.add(name)
    return found


async def slow(request):
    """An answer that takes a moment, in two pieces; a watch that speaks on."""
    response = web.StreamResponse()
    await asyncio.sleep(random.random() * 0.01)
    await response.prepare(request)
    for _ in range(200 if request.path == "/watch" else 2):
        await response.write(b" " * 1000)
        await asyncio.sleep(random.random() * 0.01)
    await response.write(b"{}")
    return response


async def test_a_thousand_cancelled_requests_leave_no_socket(server_tls, caplog):
    """Each is cancelled at a moment of its own: queued, connecting, shaking hands, sending, waiting, reading."""
    context, authority = server_tls
    chance = random.Random(20261126)
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    ended = {"cancelled": 0, "answered": 0}

    async def ask(transport, request):
        if request.lane is Lane.WATCH:
            async with transport.stream(request) as chunks:
                async for _ in chunks:
                    pass
        else:
            await transport.request(request)

    async def one(transport, number):
        request = WATCH if number % 10 == 0 else REQUESTS[number % 3]
        task = asyncio.create_task(ask(transport, request), name=f"request {number}")
        await asyncio.sleep(chance.random() * 0.05)
        task.cancel()
        try:
            await task
            ended["answered"] += 1
        except asyncio.CancelledError:
            ended["cancelled"] += 1

    async with http_server(slow, context) as url:
        before = sockets()
        async with make_transport(ClusterConfig(server=url, ca_data=authority), timeout=10) as transport:
            for start in range(0, 1000, 50):
                await asyncio.gather(*(one(transport, number) for number in range(start, start + 50)))
            for request in REQUESTS:  # nothing is jammed
                assert (await transport.request(request)).code == 200
            for lane, limit in LANES.items():
                pool = transport._pools[lane]
                assert len(pool._open) <= limit
                assert not pool._waiters
                assert pool._open == set(pool._idle)
            await until(lambda: not transport._pools[Lane.WATCH]._attempts)
            assert transport._pools[Lane.WATCH]._open == set(transport._pools[Lane.WATCH]._idle)
        assert not transport._pools[Lane.READ]._alive
        # what is left is the server's side of them, which hears of the end a moment later
        await until(lambda: sockets() <= before)
    assert ended["cancelled"] > 500
    assert heard == []
    assert [record.getMessage() for record in caplog.records if record.name.startswith("asyncio")] == []


async def test_closing_a_transport_ends_what_is_under_way(server_tls):
    context, authority = server_tls
    async with http_server(slow, context) as url:
        before = sockets()
        async with make_transport(ClusterConfig(server=url, ca_data=authority), timeout=20, tries=1) as transport:
            tasks = [asyncio.create_task(transport.request(REQUESTS[n % 3]), name=f"request {n}") for n in range(100)]
            await until(lambda: any(pool._open for pool in transport._pools.values()))
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, KubernetesError | tuple) for each in answers)
        with pytest.raises(KubernetesError, match="the client was closed"):
            await transport.request(REQUESTS[0])
        await until(lambda: sockets() <= before)

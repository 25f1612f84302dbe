"""Who is slow, huge or many costs himself the connection, and no probe its answer. Real sockets."""

import asyncio
import socket
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from asyncctl.http import Limits, Probes, Server, metrics_page, probe_pages
from asyncctl.observe import Metrics
from asyncctl.settings import Address
from tests.unit.http.support import told
from tests.unit.support import until

PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def serving(registry=None, **limits):
    metrics = Metrics(registry or CollectorRegistry(), process=False)
    pages = probe_pages(Probes()) | metrics_page(metrics.registry)
    async with (
        asyncio.timeout(30),
        Server(Address("127.0.0.1", 0), pages, metrics, variable="X", limits=Limits(**limits)) as server,
    ):
        yield server


@asynccontextmanager
async def connected(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(server, request=PROBE):
    async with connected(server) as (reader, writer):
        writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return await reader.read()


async def test_a_header_that_trickles_is_cut_off_though_it_never_pauses():
    async with serving(patience=0.3) as server, connected(server) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        cut = asyncio.create_task(reader.read())
        while not cut.done():
            with suppress(ConnectionError):
                writer.write(b"x")
                await writer.drain()
            await asyncio.sleep(0.01)
        with suppress(ConnectionError):
            assert b"200 OK" not in await cut
        assert b"200 OK" in await ask(server)


async def test_a_second_request_that_trickles_is_cut_off_too():
    async with serving(patience=0.3) as server, connected(server) as (reader, writer):
        writer.write(PROBE + b"GET /livez HTTP/1.1\r\n")
        assert b"200 OK" in await reader.readuntil(b"ok")
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_who_comes_when_there_are_too_many_is_served_and_the_oldest_goes():
    async with serving(connections=5) as server, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(server)) for _ in range(5)]
        await until(lambda: server.open == 5)
        assert b"200 OK" in await ask(server)
        with suppress(ConnectionError):
            assert await idle[0][0].read() == b""
        idle[1][1].write(PROBE)
        assert b"200 OK" in await idle[1][0].readuntil(b"ok")
        assert server.open <= 5


async def test_a_crowd_that_says_nothing_holds_up_no_probe():
    async with serving(connections=5) as server, AsyncExitStack() as stack:
        for _ in range(30):
            await stack.enter_async_context(connected(server))
        for _ in range(3):
            assert b"200 OK" in await ask(server)
        assert server.open <= 5


async def test_of_a_crowd_that_comes_in_one_moment_there_are_never_more_than_the_limit():
    """All are accepted in one turn of the loop: some have to go before they have come all the way."""
    async with serving(connections=5) as server, AsyncExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(30)]
        for each in crowd:
            each.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            each.setblocking(False)
        assert b"200 OK" in await ask(server)
        await until(lambda: sum(map(still_open, crowd)) <= 5, 5.0)  # long before any of them has run out of patience
        assert server.open <= 5


def still_open(connection):
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


class _Hanging(Collector):
    """Renders until it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    def collect(self):
        self.begun.set()
        assert self.go.wait(20)
        yield GaugeMetricFamily("hung", "Done.", 1)

    def describe(self):
        return []


@pytest.fixture
def hanging():
    hanging = _Hanging()
    yield hanging
    hanging.go.set()


def scrapers():
    return sum(thread.name == "scrape" for thread in threading.enumerate())


async def test_a_collector_that_hangs_costs_its_scrapes_and_no_probe_and_one_thread(hanging):
    registry = CollectorRegistry()
    registry.register(hanging)
    async with serving(registry, answer=0.3) as server:
        first = asyncio.create_task(ask(server, SCRAPE))
        assert await asyncio.to_thread(hanging.begun.wait, 5)
        assert b"200 OK" in await ask(server)
        assert (await first).startswith(b"HTTP/1.1 503 ")
        assert (await ask(server, SCRAPE)).startswith(b"HTTP/1.1 503 ")
        assert scrapers() == 1
        hanging.go.set()
        await until(lambda: scrapers() == 0)
        assert b"hung 1.0" in await ask(server, SCRAPE)


async def test_a_scrape_whose_client_has_gone_waits_for_nothing(hanging):
    registry = CollectorRegistry()
    registry.register(hanging)
    before = asyncio.all_tasks()
    async with serving(registry) as server:
        for _ in range(8):
            async with connected(server) as (_, writer):
                writer.write(SCRAPE)
                await until(lambda: server.open == 1)
            await until(lambda: server.open == 0)
        await until(
            lambda: len(asyncio.all_tasks() - before) <= 1, 10.0
        )  # this test's own; in less time than an answer may take


def probe(port, seconds):
    """As the kubelet asks: what came within so many seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(PROBE)
        try:
            return connection.recv(4096)
        except TimeoutError:
            return b"nothing"


async def test_while_the_loop_is_blocked_no_probe_is_answered():
    async with serving() as server:
        assert b"200 OK" in await asyncio.to_thread(probe, server.port, 10.0)
        asked, answers = threading.Event(), []

        def ask_and_free():
            answers.append(probe(server.port, 0.5))
            asked.set()

        threading.Thread(target=ask_and_free, daemon=True).start()
        assert asked.wait(10)  # here the loop is blocked
        assert answers == [b"nothing"]
        assert b"200 OK" in await asyncio.to_thread(probe, server.port, 10.0)


async def huge(request):
    return web.Response(body=b"x" * 16_000_000)


async def test_who_takes_no_answer_is_cut_off_and_holds_up_no_probe():
    pages = probe_pages(Probes()) | {"/huge": huge}
    limits = Limits(answer=0.3, patience=0.3)
    async with (
        asyncio.timeout(30),
        Server(Address("127.0.0.1", 0), pages, Metrics(process=False), variable="X", limits=limits) as server,
        connected(server) as (_, writer),
    ):
        writer.transport.pause_reading()
        writer.write(PROBE.replace(b"livez", b"huge"))
        await until(lambda: any(each.transport.get_write_buffer_size() for each in server._connections))
        assert b"200 OK" in await ask(server)
        await until(lambda: server.open == 0)


async def test_a_body_that_never_ends_is_not_read():
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 200_000_000:
                writer.write(b"x" * 65536)
                await asyncio.wait_for(writer.drain(), 5)
                sent += 65536
        assert sent < 200_000_000
        with suppress(ConnectionError):
            assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100_000)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300) + b"\r\n",
    ],
    ids=["path", "number of headers", "a TLS handshake"],
)
async def test_what_is_no_request_of_ours_is_refused_without_a_word_in_the_log(head, caplog):
    async with serving(patience=1.0) as server, connected(server) as (reader, writer):
        with suppress(ConnectionError):
            writer.write(head + b"\r\n")
            assert b"200 OK" not in await reader.read()
        assert not told(caplog)

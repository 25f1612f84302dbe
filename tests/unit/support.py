"""What the unit tests of the runtime share: real servers on loopback, a log to read, a clock that never waits."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from aiohttp import web

from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.transport.transport import Transport
from asyncctl.clock import SystemClock
from asyncctl.observe.logs import make_logger
from asyncctl.observe.metrics import Metrics

T = TypeVar("T")


async def until(condition: Callable[[], object], seconds: float = 30.0):
    """Return what `condition` returns as soon as that is true; fail after so many seconds."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)
        return found


async def answered(
    ask: Callable[[], Awaitable[T]],
    holds: Callable[[T], object] = lambda _: True,
    *,
    but: tuple[type[Exception], ...] = (),
    seconds: float = 30.0,
) -> T:
    """Ask a server, which tells nobody by itself, until its answer `holds`; fail after so many seconds.

    What is raised and is among `but` is an answer that does not hold.
    """
    async with asyncio.timeout(seconds):
        while True:
            with suppress(*but):
                if holds(found := await ask()):
                    return found
            await asyncio.sleep(0.01)


class Log:
    """A real logger, and what was written to it."""

    def __init__(self):
        self._stream = io.StringIO()
        self.logger = make_logger("debug", "json", self._stream, SystemClock())

    @property
    def lines(self):
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def said(self, part, level=None):
        """The lines whose text, or whose whole form, has `part` in it."""
        return [line for line in self.lines if part in json.dumps(line) and level in {None, line["level"]}]


class ImpatientClock(SystemClock):
    """The machine's clock, but no sleep takes time; `slept` has what was asked for."""

    def __init__(self):
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def http_server(handler, ssl_context=None, host="127.0.0.1", port=0) -> AsyncIterator[str]:
    """Serve `handler(request)` on a free loopback port, or this one; yields the URL."""
    runner = web.ServerRunner(web.Server(handler, access_log=None, handler_cancellation=True), shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=ssl_context)
    try:
        await site.start()
        scheme = "http" if ssl_context is None else "https"
        yield f"{scheme}://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(handler, ssl_context=None) -> AsyncIterator[str]:
    """Serve `handler(reader, writer)` on a free loopback port, below HTTP; yields the URL."""
    open_writers = set()

    async def serve(reader, writer):
        open_writers.add(writer)
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ssl_context)
    try:
        yield f"http{'s' if ssl_context else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_writers:
            with suppress(AttributeError):  # asyncio's own, of one that has ended by itself
                writer.transport.abort()
        await asyncio.sleep(0)


def make_transport(server: str | ClusterConfig, log: Log | None = None, **options) -> Transport:
    """A transport to `server`, whose jitter is none."""
    config = server if isinstance(server, ClusterConfig) else ClusterConfig(server=server)
    options = {"clock": ImpatientClock(), "random": lambda: 0.0, "qps": 0.0} | options
    metrics = Metrics(process=False).requests("test")
    return Transport(config, logger=(log or Log()).logger, metrics=metrics, **options)


@asynccontextmanager
async def connected(server: str | ClusterConfig, **options) -> AsyncIterator[Client]:
    """A client of `server`."""
    namespaces = options.pop("namespaces", ())
    async with make_transport(server, **options) as transport:
        yield Client(
            transport, field_manager="test", namespaces=namespaces, clock=transport._clock, random=transport._random
        )


def status(code, reason="", message="", *, causes=(), **details):
    """A `Status` as the API server answers it."""
    details = details | ({"causes": list(causes)} if causes else {})
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    return web.json_response(body | {"reason": reason, "message": message, "details": details}, status=code)


def informer_of(running, kind):
    """The cache that a running operator has of a kind; there is one."""
    (found,) = (informer for informer in running._informers if informer.kind == kind)
    return found

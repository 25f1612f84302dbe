"""A small HTTP server that nobody can wear out: a table of pages, and limits on whoever asks for them.

It answers GET and HEAD on the paths of its table and nothing else. A connection that has not sent a whole request in
time, or does not take its answer in time, is cut off. There are so many connections and no more: one too many costs
the oldest that nobody works for, so that a probe gets through whoever else has come. With TLS a connection counts from
the moment it is accepted, before its handshake, and plain HTTP is told to come with TLS. Stopping takes milliseconds.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_async.aio import time

from asyncctl.http.sockets import listen
from asyncctl.observe import Metrics
from asyncctl.settings import Address

__all__ = ["HEADERS", "Guard", "Limits", "Page", "Server", "TLSContext", "text"]

Page = Callable[[web.BaseRequest], Awaitable[web.Response]]
"""Answers a GET. It runs in the event loop, and is cancelled when it takes too long."""
Guard = Callable[[web.BaseRequest], Awaitable[web.Response | None]]
"""Asked before every page: None lets the request pass, an answer refuses it."""
TLSContext = Callable[[], Awaitable[ssl.SSLContext]]
"""The context for the next connection."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
CONNECTIONS = 64  # at once, of one listener; a kubelet and a few Prometheus servers have one each
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REST = 1.0  # seconds until another connection is accepted, when the process has no room for one
_AT_ONCE = 16  # connections that are accepted in one turn of the loop
_TURNS = 100
_PLAIN = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"this port speaks HTTPS: use https:// in the address\n"
)


class Limits(NamedTuple):
    """What one connection may take, in seconds, and how many there may be."""

    patience: float = 15.0
    """For a whole request to come, and for its answer to be taken."""
    answer: float = 20.0
    """For a page to be made; longer than Prometheus waits by default."""
    connections: int = CONNECTIONS
    header: int = 8190
    """Bytes of the request line, and of one header: a token may be long."""


DEFAULT = Limits()


def text(status: int, said: str, **headers: str) -> web.Response:
    """An answer of plain text; `Retry_After` is the header `Retry-After`."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, text=said, headers={**HEADERS, **more})


class _Connection:
    """One that was accepted. With TLS it has a task while hands are shaken, and a transport from then on."""

    __slots__ = ("busy", "opening", "protocol", "timer", "transport")

    def __init__(self) -> None:
        self.busy = False
        self.opening: asyncio.Task[None] | None = None
        self.protocol: asyncio.BaseProtocol | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    def end(self) -> None:
        """Cut it off, and drop what was not sent yet."""
        self.disarm()
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def arm(self, seconds: float) -> None:
        self.disarm()
        self.timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Web(web.Server):
    """Aiohttp's side of it, which tells of connections that come and go."""

    def __init__(self, serve: Page, came: Callable[..., None], went: Callable[..., None], **options: Any) -> None:  # noqa: ANN401 - as aiohttp has them
        super().__init__(serve, access_log=None, **options)
        self._came, self._went = came, went

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._came(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._went(handler)


class Server:
    """Serves a table of pages on one address.

    Use it as `async with Server(...)`, or call `start` and `stop`.

    Args:
        address: Where to listen; port 0 takes a free one.
        pages: By their paths.
        metrics: Where requests are timed, by path.
        variable: The setting that the address came from, for the error's text.
        tls: Asked for each connection; None: plain HTTP.
        guard: Asked for each request.
        timed_as: What all pages are timed as; None: each by its path.
        limits: On who asks.
        grace: Seconds that `stop` waits for answers under way.
    """

    def __init__(
        self,
        address: Address,
        pages: Mapping[str, Page],
        metrics: Metrics,
        *,
        variable: str,
        tls: TLSContext | None = None,
        guard: Guard | None = None,
        timed_as: str | None = None,
        limits: Limits = DEFAULT,
        grace: float = 0.1,
    ) -> None:
        self._address = address
        self._variable = variable
        self._tls = tls
        self._guard = guard
        self._limits = limits
        self._grace = grace
        handles = {name: metrics.http(name) for name in dict.fromkeys(timed_as or path for path in pages)}
        self._pages: dict[str, Page] = {
            path: time(handles[timed_as or path])(page) for path, page in pages.items()
        }  # fmt: skip
        self._listening: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._web: _Web | None = None
        # Invariant: every connection that is open or being opened, in the order they came; never more than the limit.
        self._connections: dict[_Connection, None] = {}
        self._of: dict[asyncio.BaseProtocol, _Connection] = {}

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenError: The address is taken, not ours, or not allowed.
            TLSError: There is no certificate to serve with.
        """
        if self._web is not None:
            raise RuntimeError(f"the server on {self._address} is started already")
        if self._tls is not None:
            await self._tls()
        self._listening = await listen(self._address, self._variable)
        header = self._limits.header
        self._web = _Web(
            self._serve, self._came, self._went, logger=_logger(), keepalive_timeout=self._limits.patience,
            lingering_time=1.0, max_line_size=header, max_field_size=header, handler_cancellation=True,
        )  # fmt: skip
        for each in self._listening:
            if self._tls is None:
                # The loop's own way, which is the shortest: a probe waits for few turns of a busy loop.
                self._servers.append(await asyncio.get_running_loop().create_server(self._arrived, sock=each))
            else:
                self._listen(each)

    async def stop(self) -> None:
        """Stop listening and close every connection; harmless when it was not started."""
        server, self._web = self._web, None
        if server is None:
            return
        while self._servers:
            self._servers.pop().close()
        while self._listening:
            each = self._listening.pop()
            if self._tls is not None:
                asyncio.get_running_loop().remove_reader(each)
            each.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        server.pre_shutdown()
        await server.shutdown(self._grace)
        for connection in list(self._of.values()):
            connection.end()
        for _ in range(_TURNS):
            if not self._of:
                break
            await asyncio.sleep(0)  # what was cut off is gone in a later turn of the loop

    @property
    def port(self) -> int:
        """The port that is listened on; the one that was asked for while not started."""
        if self._web is None:
            return self._address.port
        port: int = self._listening[0].getsockname()[1]
        return port

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    def _own(self, step: Any, name: str) -> "asyncio.Task[None]":  # noqa: ANN401 - a coroutine of any kind
        task: asyncio.Task[None] = asyncio.create_task(step, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _arrived(self) -> asyncio.BaseProtocol:
        """The protocol of a connection without TLS that was accepted."""
        return self._protocol(self._welcome())

    def _welcome(self) -> _Connection:
        if len(self._connections) >= self._limits.connections:
            self._make_room()
        connection = _Connection()
        self._connections[connection] = None
        connection.arm(self._limits.patience)
        return connection

    def _listen(self, listening: socket.socket) -> None:
        if listening in self._listening:  # it may have been stopped meanwhile
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept who comes for TLS. The loop's own way would count nobody before the handshake is over."""
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:  # of a peer that has gone meanwhile, or of no room
                if error.errno in _NO_ROOM:
                    self._make_room()
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(listening)
                    loop.call_later(_REST, self._listen, listening)
                    return
                continue
            connection = self._welcome()
            connection.opening = self._own(self._open(accepted, connection), f"connection {self._address}")

    def _make_room(self) -> None:
        """End the oldest connection whose request nobody works at; if there is none, the oldest."""
        idle = (each for each in self._connections if not each.busy)
        victim = next(idle, None) or next(iter(self._connections), None)
        if victim is not None:
            del self._connections[victim]
            victim.end()

    async def _open(self, accepted: socket.socket, connection: _Connection) -> None:
        """Shake hands with who was accepted. The connection's timer is the deadline."""
        handed_over = False
        try:
            assert self._tls is not None
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not await _begins_with_tls(accepted):
                return
            context = await self._tls()
            handed_over = True
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(connection), accepted, ssl=context,
                ssl_handshake_timeout=self._limits.patience, ssl_shutdown_timeout=1.0,
            )  # fmt: skip
        except (OSError, TimeoutError):  # the peer's: it has gone, or does not speak TLS as we do
            pass
        finally:
            connection.opening = None
            if not handed_over:
                accepted.close()
            if connection.transport is None:
                self._forget(connection)

    def _protocol(self, connection: _Connection) -> asyncio.BaseProtocol:
        assert self._web is not None
        connection.protocol = protocol = self._web()
        self._of[protocol] = connection
        return protocol

    def _came(self, protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        connection = self._of.get(protocol)
        if connection not in self._connections:  # it was given up before it had come: no timer would end it
            transport.abort()
        else:
            connection.transport = transport

    def _went(self, protocol: asyncio.BaseProtocol) -> None:
        connection = self._of.get(protocol)
        if connection is not None:
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        connection.disarm()
        self._connections.pop(connection, None)
        if connection.protocol is not None:
            self._of.pop(connection.protocol, None)

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        connection = self._of.get(request.protocol) or _Connection()
        connection.arm(self._limits.answer + self._limits.patience)  # until all of the answer is taken
        connection.busy = True
        try:
            async with asyncio.timeout(self._limits.answer):
                return await self._answer(request)
        except TimeoutError:
            return text(503, f"not ready within {self._limits.answer:g} s\n")
        finally:
            connection.busy = False

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if self._guard is not None and (refused := await self._guard(request)) is not None:
            return refused
        page = self._pages.get(request.path)
        if page is None:
            return text(404, f"not found; here are {' '.join(self._pages)}\n")
        if request.method not in {"GET", "HEAD"}:
            return text(405, "only GET and HEAD\n", Allow="GET, HEAD")
        return await page(request)


async def _begins_with_tls(accepted: socket.socket) -> bool:
    """Wait for the first byte, and leave it where it is. Who does not begin a handshake is told so."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def look() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(accepted, look)
    try:
        await readable
    finally:
        loop.remove_reader(accepted)
    first = accepted.recv(1, socket.MSG_PEEK)
    if first == b"\x16":  # a handshake record, RFC 8446 5.1
        return True
    if first.isalpha():  # a method
        with contextlib.suppress(OSError):
            accepted.recv(1 << 16)  # closing a socket with unread bytes would take our answer back
            accepted.send(_PLAIN)
            accepted.shutdown(socket.SHUT_WR)
    return False


class _OursOnly(logging.Filter):
    """Keeps out what is the sender's fault: anybody could fill the log with malformed requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _logger() -> logging.Logger:
    """Return a logger of our own, so that the filter is on no one else's; it speaks through the root's handlers."""
    logger = logging.Logger(__name__)  # noqa: LOG001  # one from `getLogger` is the whole process's
    logger.parent = logging.getLogger()
    logger.addFilter(_OursOnly())
    return logger

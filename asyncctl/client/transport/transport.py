"""Requests to the API server: lanes, deadlines, limits, retries and the fence.

Reads, writes and watches have connection pools of their own, so that none can starve another. Every request has a
deadline, and a bounded number of tries; only what is safe to repeat is sent twice. A write asks the fence as its
bytes are handed to the socket, in one step, and waits for its answer no longer than the process may write. What comes
back is the reply's bytes, or an error of `asyncctl.client.errors`; nothing is decoded here.
"""

import asyncio
import enum
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

import anyio

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import Credentials, Identity
from asyncctl.client.config.proxy_choice import redacted
from asyncctl.client.errors import (
    ConfigError,
    Fenced,
    HandshakeInterrupted,
    HandshakeTimeout,
    KubernetesError,
    ServerError,
    StatusError,
    Target,
    TLSError,
    TooManyRequests,
    TransportError,
    Unauthorized,
    error_from_reply,
)
from asyncctl.client.tls.context import ClientTLS, explain, explain_reply
from asyncctl.client.transport.connection import Connection, Headers, ProtocolError
from asyncctl.client.transport.dial import Dialer, HandshakeFailed, ProxyError
from asyncctl.client.transport.peer import shown_certificate
from asyncctl.client.transport.pool import Pool, PoolClosed
from asyncctl.client.transport.warnings import Warnings
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import RequestMetrics
from asyncctl.queue.backoff import Backoff, Random, jittered
from asyncctl.queue.token_bucket import TokenBucket
from asyncctl.version import __version__

Fence = Callable[[], float]
"""How long this process may still write, in seconds; raises `Fenced` when it may not."""

_FOREVER = float("inf")
WATCH_IDLE = 150.0  # seconds without a byte; bookmarks come each minute
_RETRY = Backoff(base=0.1, maximum=2.0)
_PATH = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER = re.compile(r"[\t -~\x80-\U0010ffff]*")  # what is no ASCII is sent as UTF-8, as Go does


class Lane(enum.Enum):
    """A pool of connections; a hundred watches or a thousand lists must not starve a write."""

    READ = "read"
    WRITE = "write"
    WATCH = "watch"
    LEASE = "lease"
    REVIEW = "review"
    """Who somebody else is, and what they may: changes nothing, so asks no fence; who asks limits how often."""


_LIMITS = {Lane.READ: 32, Lane.WRITE: 32, Lane.WATCH: 0, Lane.LEASE: 1, Lane.REVIEW: 2}  # connections; 0: any number


@dataclass(slots=True, kw_only=True, eq=False, repr=False)  # not frozen: that would cost 4 µs a request
class Request:
    """One request, complete; not changed once it is made. Its repr has no body: that may be a Secret.

    Attributes:
        target: What it is about, for errors and logs.
        method: GET, PUT …
        path: The path and query, percent-encoded.
        lane: Whose connections it uses.
        body: What is sent; None for nothing.
        content_type: What the body is.
        accept: What the answer should be.
        repeatable: Sending it twice has the effect of sending it once.
        audit_id: Goes into the API server's audit log.
        caller: The controller that asks, for the log of warnings.
        headers: More of them; none that the transport sets itself.
        timeout: Seconds for each try, or of a stream without a byte; None: as the transport has it.
    """

    target: Target
    method: str
    path: str
    lane: Lane
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    repeatable: bool = False
    audit_id: str | None = None
    caller: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path})"


class Reply(NamedTuple):
    """A successful answer."""

    code: int
    body: bytes
    headers: Headers


class Transport:
    """Requests to one API server, within one event loop. Use it as an async context manager.

    Args:
        config: Which server, and as whom.
        clock: Time, for limits and the wait before a retry; deadlines are the event loop's.
        random: Of jitter.
        logger: For warnings.
        metrics: What is counted.
        fence: Asked in the step that sends a write.
        on_fenced: Called for each write that was refused, here or by the API server's fence.
        on_refused: Called with its message when the API server's fence refuses a write; returns True where that is
            going to pass, so that the write is sent again: the server has not acted on it.
        timeout: Seconds for one try of a request, from its start to the end of its answer.
        qps: Requests a second for reads, and as many for writes; 0 is no limit.
        burst: Requests at once.
        tries: How often a request is sent at the most.
        connect_timeout: Seconds to make a connection, and for TLS; None: as the dialer has it.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        clock: Clock,
        random: Random,
        logger: Logger,
        metrics: RequestMetrics,
        fence: Fence = lambda: float("inf"),
        on_fenced: Callable[[], object] = lambda: None,
        on_refused: Callable[[str], object] = lambda _: False,
        timeout: float = 30.0,
        qps: float = 50.0,
        burst: int = 100,
        tries: int = 5,
        connect_timeout: float | None = None,
    ) -> None:
        self.config = config
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._fence = fence
        self._on_fenced = on_fenced
        self._on_refused = on_refused
        self._timeout = timeout
        self._tries = tries
        self._limits = {lane: TokenBucket(qps, burst, clock=clock) for lane in (Lane.READ, Lane.WRITE)}
        self._credentials = Credentials(config, clock, logger)
        self._identity: Identity | None = None
        self._who = ""  # its headers, as lines
        self._tls = ClientTLS(config, clock, logger)
        self._pools: dict[Lane, Pool] = {}
        self._sealed: str | None = None
        self._in_doubt = float("-inf")  # when a write was given up last that may have been made, or will be
        self._closed = False
        self._warnings = Warnings(logger, metrics)
        url = _address(config)
        self._dialer = Dialer(
            config.server, proxy=config.proxy, server_name=config.tls_server_name, timeout=connect_timeout
        )  # fmt: skip
        self._base = url.path.rstrip("/")
        self._common = (
            f"Host: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: asyncctl/{__version__}\r\n"
            "Accept-Encoding: identity\r\n"
        )

    async def __aenter__(self) -> Self:
        await self._tls.context(None)  # a file that can't be used is told at the start
        self._pools = {lane: Pool(self._dialer, limit=limit, name=lane.value) for lane, limit in _LIMITS.items()}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._credentials.aclose()
            await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def seal(self, reason: str) -> None:
        """From now on refuse every write. There is no way back: the process has to end."""
        self._sealed = reason

    @property
    def in_doubt_for(self) -> float:
        """Seconds since the last write that got no answer, or one that does not tell whether it was made; inf: none.

        Cancelled, cut off or timed out: it is with the server, or on its way there, and may take effect yet.
        """
        return self._clock.monotonic() - self._in_doubt

    async def request(self, request: Request) -> Reply:
        """Send `request` and return its answer.

        Raises:
            StatusError: The server answered with an error.
            TransportError: There was no answer.
            CredentialsError: There is nothing to ask as now.
            Fenced: It is a write, and this process may not write.
        """
        bucket = self._limits.get(request.lane)
        if bucket is not None:
            self._metrics.limited(request.method, await bucket.acquire())
        tries = _Tries()
        while True:
            identity = await self._credentials.current()
            try:
                return await self._try(request, identity)
            except (StatusError, TransportError, Fenced) as error:
                await self._wait_to_retry(request, identity, error, tries)

    async def _wait_to_retry(
        self, request: Request, identity: Identity, error: StatusError | TransportError | Fenced, tries: "_Tries"
    ) -> None:
        """Wait until it makes sense to send `request` once more; raises `error` where it does not."""
        if isinstance(error, Fenced):
            if not self._passes(request, error, tries):
                raise tries.told(error, request.target)
            self._metrics.retried(403, request.method)
            await self._clock.sleep(_RETRY.delay(tries.count, self._random))
            tries.count += 1
            return
        if isinstance(error, Unauthorized) and not tries.refreshed:
            tries.refreshed = True
            if await self._credentials.refresh(identity):
                self._metrics.retried(401, request.method)
                return
        delay = None if self._closed else self._retry_delay(request, error, tries.count)
        tries.note(error)
        if delay is None:
            raise tries.told(error, request.target)
        self._metrics.retried(error.code if isinstance(error, StatusError) else "<error>", request.method)
        await self._clock.sleep(delay)
        tries.count += 1

    def _passes(self, request: Request, error: Fenced, tries: "_Tries") -> bool:
        """Whether a write that the API server's fence has refused makes sense to be sent once more."""
        if not error.by_server or request.lane is not Lane.WRITE:
            return False
        if self._on_refused(str(error)) is True and tries.count < self._tries and not self._closed:
            return True
        self._on_fenced()
        return False

    def _retry_delay(self, request: Request, error: StatusError | TransportError, attempt: int) -> float | None:
        """Seconds until the next try, or None when there is none."""
        asked = error.retry_after if isinstance(error, StatusError) else None
        if attempt == self._tries or not 0 <= (asked or 0) <= self._timeout:  # longer is for the queue to wait
            return None
        patience = _RETRY.delay(attempt, self._random)
        if asked is not None:  # "at once" is not taken at its word
            patience = max(patience, jittered(asked, 0.25, self._random))
        if isinstance(error, TooManyRequests):
            return None if asked is None else patience
        if isinstance(error, TLSError) and not isinstance(error, HandshakeInterrupted | HandshakeTimeout):
            return None  # trust does not come by asking again
        unsent = isinstance(error, TransportError) and not error.sent
        transient = isinstance(error, TransportError) or (isinstance(error, ServerError) and error.code >= 500)
        return patience if transient and (request.repeatable or unsent) else None

    async def _try(self, request: Request, identity: Identity) -> Reply:
        started = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + self._limit(request)
        pool = self._pools[request.lane]
        code: int | str = "<error>"
        try:
            connection, head = await self._connected(pool, request, identity, deadline)
            try:
                reply = await self._exchange(connection, head, request, deadline)
            finally:
                pool.release(connection)
            code = reply.code
        except Fenced:
            self._on_fenced()
            raise
        finally:
            self._metrics.answered(code, request.method, time.perf_counter() - started)
        self._note_warnings(request, reply.headers)
        if 200 <= reply.code < 300:
            return reply
        raise self._refused(request, *reply)

    async def _exchange(self, connection: Connection, head: str, request: Request, deadline: float) -> Reply:
        """Send a request, and wait for the whole answer."""
        data = head.encode() + (request.body or b"")
        left = self._may_write() if request.lane is Lane.WRITE else _FOREVER  # from here to `send` nothing else runs
        connection.send(data)
        watch = _Deadline(connection, deadline, left, self._may_write)
        told = False
        try:
            await connection.answer
            told = connection.status < 500
        except Fenced as error:
            raise Fenced(
                f"{request.target}: the Lease's validity ended before the answer came; the write may have been made"
            ) from error
        except (OSError, ProtocolError) as error:
            raise await self._failure(request, error, sent=True) from error
        finally:
            watch.cancel()
            if not told and request.lane is Lane.WRITE:
                self._in_doubt = self._clock.monotonic()
        return Reply(connection.status, connection.body, connection.headers)

    @asynccontextmanager
    async def stream(self, request: Request) -> "AsyncIterator[Chunks]":
        """Open a watch: yields its chunks as they come. Idle for longer than `WATCH_IDLE` is a `TransportError`.

        Opening it raises, and is tried again, as `request` is.
        """
        tries = _Tries()
        while True:
            identity = await self._credentials.current()
            try:
                connection = await self._opened(request, identity)
                break
            except (StatusError, TransportError) as error:
                await self._wait_to_retry(request, identity, error, tries)
        silence = _Silence(connection, request.timeout or WATCH_IDLE)
        try:
            yield Chunks(connection, lambda error: self._failure(request, error, sent=True))
        finally:
            silence.cancel()
            self._pools[request.lane].release(connection)

    async def _opened(self, request: Request, identity: Identity) -> Connection:
        """A connection on which the head of a good answer has come."""
        started = time.perf_counter()
        code: int | str = "<error>"
        pool = self._pools[request.lane]
        deadline = asyncio.get_running_loop().time() + self._timeout
        good = False
        try:
            connection, head = await self._connected(pool, request, identity, deadline)
            try:
                connection.send(head.encode(), streaming=True)
                watch = _Deadline(connection, deadline)
                try:
                    await connection.head()
                    code = status = connection.status
                    good = 200 <= status < 300
                    body = b"" if good else b"".join([chunk async for chunk in connection])
                except (OSError, ProtocolError) as error:
                    raise await self._failure(request, error, sent=True) from error
                finally:
                    watch.cancel()
                if not good:
                    raise self._refused(request, status, body, connection.headers)
                self._note_warnings(request, connection.headers)
                return connection
            finally:
                if not good:
                    pool.release(connection)
        finally:
            self._metrics.answered(code, "GET", time.perf_counter() - started)

    async def _connected(
        self, pool: Pool, request: Request, identity: Identity, deadline: float
    ) -> tuple[Connection, str]:
        """A connection, one that is there or one that is made, and the head to send on it."""
        if identity is not self._identity:
            self._identity, self._who = identity, _lines(identity.headers)
        who = self._who
        context = await self._tls.context(identity.certificate)
        connection = pool.idle(context)
        if connection is None:
            if request.lane is Lane.WRITE:
                self._may_write()
            scope = asyncio.timeout_at(deadline)
            try:
                async with scope:
                    connection = await pool.acquire(context)
            except TimeoutError as error:
                within = self._limit(request) if scope.expired() else self._dialer.timeout
                through = self._through()
                raise TransportError(
                    f"{request.target}: no connection to {self.config.server}{through} within {within:g} s; is there a "
                    "firewall between, does something else listen there, or are all connections busy?",
                    sent=False,
                ) from error
            except OSError as error:
                raise await self._failure(request, error, sent=False) from error
        try:
            return connection, self._head(connection, request, who)
        except ValueError:
            pool.unused(connection)
            raise

    def _head(self, connection: Connection, request: Request, who: str) -> str:
        """The request line and headers. Raises `ValueError` for what would end a line of them."""
        path, extra = self._base + request.path, connection.extra + who
        if _PATH.fullmatch(path) is None:
            raise ValueError(f"{request.target}: {request.path!r} is no path of a URL: percent-encode it")
        if request.headers:
            extra += _lines(request.headers)
        if request.audit_id is not None:
            extra += _lines((("Audit-ID", request.audit_id),))
        if request.body is not None:
            extra += f"Content-Type: {request.content_type}\r\nContent-Length: {len(request.body)}\r\n"
        elif request.method in {"POST", "PUT", "PATCH"}:
            extra += "Content-Length: 0\r\n"
        return (
            f"{request.method} {connection.prefix}{path} HTTP/1.1\r\n{self._common}Accept: {request.accept}\r\n"
            f"{extra}\r\n"
        )

    def _refused(self, request: Request, code: int, body: bytes, headers: Headers) -> KubernetesError:
        """The error that an answer of 300 and above is."""
        if code == 400 and (wrong_port := explain_reply(self.config, body)) is not None:
            return wrong_port
        json_patch = request.content_type == "application/json-patch+json"
        return error_from_reply(request.target, code, body, headers, json_patch=json_patch)

    def _may_write(self) -> float:
        if self._sealed is not None:
            raise Fenced(f"nothing is written any more: {self._sealed}")
        return self._fence()

    async def _failure(self, request: Request, error: Exception, *, sent: bool) -> KubernetesError:
        """What a failed connection (`sent` False) or exchange is, in words that a person can act on."""
        server = self.config.server
        known = await self._tls_failure(error, sent=sent)
        if known is not None:
            return known
        if isinstance(error, _Silent):
            text = f"no byte from {server} for {request.timeout or WATCH_IDLE:g} s; the connection is taken for dead"
        elif isinstance(error, PoolClosed):
            text = str(error)
        elif isinstance(error, TimeoutError) and sent:
            text = (
                f"no answer from {server}{self._through()} within {self._limit(request):g} s; is it overloaded, or is "
                "something on the way?"
            )
        elif sent:
            text = f"the connection to {server}{self._through()} broke: {str(error) or type(error).__name__}"
        elif isinstance(error, ProxyError):
            text = f"{server} can't be reached: {error}"
        elif isinstance(error, socket.gaierror):
            host = urlsplit(self.config.proxy or server).hostname
            text = (
                f"{server} can't be reached: the name {host!r} has no address here ({error.strerror}); is it spelled "
                f"right ({self.config.source}), and does DNS work?"
            )
        else:
            number = error.errno if isinstance(error, OSError) else None
            reason = os.strerror(number) if number else str(error) or type(error).__name__
            what = "proxy" if self.config.proxy else "API server"
            text = (
                f"{server} can't be reached{self._through()}: {reason}; is the {what} up, and is this its address "
                f"({self.config.source})?"
            )
        return TransportError(f"{request.target}: {text}", sent=sent)

    def _through(self) -> str:
        return f" through the proxy {redacted(self.config.proxy)}" if self.config.proxy else ""

    async def _tls_failure(self, error: Exception, *, sent: bool) -> TransportError | None:
        """What TLS has to do with a failure."""
        if isinstance(error, ProtocolError):
            return explain_reply(self.config, error.start)
        config = self.config
        handshake = isinstance(error, HandshakeFailed)
        if isinstance(error, HandshakeFailed) and error.proxy is not None:
            config = ClusterConfig(server=error.proxy, source=f"the proxy of {config.source}")
        elif handshake:
            self._tls.look_again()
        certificate = self._identity.certificate if self._identity is not None else None
        return await explain(
            config, error, lambda: shown_certificate(config), handshake=handshake, certificate=certificate, sent=sent,
            clock=self._clock,
        )  # fmt: skip

    def _limit(self, request: Request) -> float:
        """Seconds until the answer has to be there, or to have begun where it is a stream."""
        own = None if request.lane is Lane.WATCH else request.timeout
        return own or self._timeout

    def _note_warnings(self, request: Request, headers: Headers) -> None:
        self._warnings.note(headers.getall("Warning"), request.target, request.caller)


def _address(config: ClusterConfig) -> SplitResult:
    try:
        url = urlsplit(config.server)
        if url.scheme in {"http", "https"} and url.hostname and url.port != 0:
            return url
    except ValueError:  # a port that is no number, an IPv6 address without its bracket
        pass
    raise ConfigError(
        f"{config.server!r} is no address of a server ({config.source}); it should look like https://host:6443"
    )


def _lines(headers: tuple[tuple[str, str], ...]) -> str:
    """Headers as lines. Raises `ValueError` for a value that would end its line; it may be a secret, so is not told."""
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _HEADER.fullmatch(value) is None:
            raise ValueError(f"the header {name!r} can't be sent: it has a line end or another control character")
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


class _Tries:
    """What became of one request so far."""

    def __init__(self) -> None:
        self.count = 1
        self.refreshed = False
        self._sent = False  # the server may have acted on one of them

    def note(self, error: StatusError | TransportError) -> None:
        self._sent = self._sent or (error.sent if isinstance(error, TransportError) else error.code >= 500)

    def told(self, error: StatusError | TransportError | Fenced, target: Target) -> KubernetesError:
        """The last error, with what it does not know of the tries before."""
        if self._sent and isinstance(error, TransportError):
            error.sent = True
        if self._sent and isinstance(error, Fenced):
            text = f"{error}; an earlier try of {target} may have been made"
            return Fenced(text, by_server=error.by_server)
        return error


class Chunks:
    """The body of a stream as it comes; what ends it too early is told as `explained`.

    Attributes:
        peer: The address that it comes from, as `host:port`.
    """

    def __init__(self, connection: Connection, explained: Callable[[Exception], Awaitable[KubernetesError]]) -> None:
        self.peer = connection.peer()
        self._connection = connection
        self._explained = explained

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._connection.__anext__()
        except (OSError, ProtocolError) as error:
            raise await self._explained(error) from error


class _Silent(TimeoutError):
    """Nothing came for too long."""


class _Deadline:
    """Gives up an exchange when its time is over, or when the right to write has ended and was not renewed.

    Args:
        connection: Whose exchange it is.
        at: The end, in the loop's time.
        left: Seconds for which a write may be waited for, unless the right to it is renewed.
        may_write: Asked then how many seconds are left.
    """

    def __init__(
        self, connection: Connection, at: float, left: float = _FOREVER, may_write: Fence = lambda: _FOREVER
    ) -> None:
        self._connection = connection
        self._at = at
        self._may_write = may_write
        self._loop = asyncio.get_running_loop()
        self._arm(left)

    def _arm(self, left: float) -> None:
        until = self._loop.time() + left
        if until < self._at:
            self._timer = self._loop.call_at(until, self._look)
        else:
            self._timer = self._loop.call_at(self._at, self._connection.give_up, TimeoutError())

    def _look(self) -> None:
        try:
            self._arm(self._may_write())
        except Fenced as error:
            self._connection.give_up(error)

    def cancel(self) -> None:
        self._timer.cancel()


class _Silence(_Deadline):
    """Gives up a stream on which nothing has come for `idle` seconds; one timer, whatever comes."""

    def __init__(self, connection: Connection, idle: float) -> None:
        self._idle = idle
        super().__init__(connection, _FOREVER, idle)

    def _look(self) -> None:
        left = self._idle - self._connection.silent_for()
        if left > 0:
            self._arm(left)
        else:
            self._connection.give_up(_Silent())

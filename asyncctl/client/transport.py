"""The one place that opens connections to the API server: lanes, deadlines, limits, retries and the fence.

Reads, writes and watches have connection pools of their own, so that none can starve another. Every request has a
deadline, and a bounded number of tries; only what is safe to repeat is sent twice. A write asks the fence as its
bytes are handed to the socket, in one step, and waits for its answer no longer than the process may write. What comes
back is the reply's bytes, or an error of `asyncctl.client.errors`; nothing is decoded here.
"""

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import anyio
import anyio.to_thread
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from asyncctl.client.config import ClusterConfig
from asyncctl.client.connector import Connector
from asyncctl.client.credentials import Credentials
from asyncctl.client.errors import (
    Fenced,
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
from asyncctl.client.tls import explain, make_context
from asyncctl.client.warnings import Warnings
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import RequestMetrics
from asyncctl.queue.backoff import Backoff, Random, jittered
from asyncctl.queue.token_bucket import TokenBucket
from asyncctl.version import __version__

Fence = Callable[[], float]
"""How long this process may still write, in seconds; raises `Fenced` when it may not."""

CONNECT_TIMEOUT = 10.0  # seconds
WATCH_IDLE = 150.0  # seconds without a byte; bookmarks come each minute
_RETRY = Backoff(base=0.1, maximum=2.0)


class Lane(enum.Enum):
    """A pool of connections; a hundred watches or a thousand lists must not starve a write."""

    READ = "read"
    WRITE = "write"
    WATCH = "watch"
    LEASE = "lease"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, complete. `repeatable`: sending it twice has the effect of sending it once."""

    target: Target
    method: str
    path: str
    lane: Lane
    body: bytes | None = None
    content_type: str = "application/json"
    repeatable: bool = False
    audit_id: str | None = None
    caller: str = ""
    """The controller that asks, for the log of the server's warnings."""
    accept: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    """More headers; none of those that the transport sets itself."""
    timeout: float | None = None
    """Seconds for each try, or of a watch without a byte, instead of the transport's own."""


class Reply(NamedTuple):
    """A successful answer."""

    code: int
    body: bytes
    headers: CIMultiDictProxy[str]


class _FencedBody(Payload):
    """A write's body, which asks the fence in the same step in which it hands itself and the headers to the socket.

    No `BytesPayload`: that one warns of what is above 1 MiB, which an object may be.
    """

    _autoclose = True

    def __init__(self, value: bytes, content_type: str, fence: Fence) -> None:
        super().__init__(value, content_type=content_type)
        self._size = len(value)
        self._fence = fence
        self.refused: Fenced | None = None
        self.sent = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        text: str = self._value.decode(encoding, errors)
        return text

    async def write(self, writer: AbstractStreamWriter) -> None:
        try:
            self._fence()
        except Fenced as error:
            self.refused = error
            raise
        self.sent = True
        await writer.write(self._value)


class Transport:
    """Requests to one API server, within one event loop. Use it as an async context manager."""

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
        timeout: float = 30.0,
        qps: float = 50.0,
        burst: int = 100,
        tries: int = 5,
    ) -> None:
        self.config = config
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._fence = fence
        self._on_fenced = on_fenced
        self._timeout = timeout
        self._tries = tries
        self._limits = {lane: TokenBucket(qps, burst, clock=clock) for lane in (Lane.READ, Lane.WRITE)}
        self._credentials = Credentials(config, clock)
        self._sessions: dict[Lane, aiohttp.ClientSession] = {}
        self._sealed: str | None = None
        self._warnings = Warnings(logger, metrics)

    async def __aenter__(self) -> Self:
        context = await anyio.to_thread.run_sync(make_context, self.config)
        limits = {Lane.READ: 32, Lane.WRITE: 32, Lane.WATCH: 0, Lane.LEASE: 1}
        for lane, limit in limits.items():
            connector = Connector(limit=limit, tls=context)
            session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                headers={"User-Agent": f"asyncctl/{__version__}", "Accept-Encoding": "identity"},
                read_bufsize=2**18,
                auto_decompress=True,
            )
            session._retry_connection = False  # noqa: SLF001 - aiohttp would repeat a PUT or DELETE unasked
            self._sessions[lane] = session
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*(_close(session) for session in self._sessions.values()))

    def seal(self, reason: str) -> None:
        """From now on refuse every write. There is no way back: the process has to end."""
        self._sealed = reason

    async def request(self, request: Request) -> Reply:
        """Send `request` and return its answer.

        Raises:
            StatusError: The server answered with an error.
            TransportError: There was no answer.
            Fenced: It is a write, and this process may not write.
        """
        bucket = self._limits.get(request.lane)
        if bucket is not None:
            self._metrics.limited(request.method, await bucket.acquire())
        refreshed = False
        attempt = 1
        while True:
            try:
                return await self._try(request)
            except (StatusError, TransportError) as error:
                if isinstance(error, Unauthorized) and not refreshed:
                    refreshed = True
                    if await self._credentials.refresh():
                        self._metrics.retried(401, request.method)
                        continue
                delay = self._retry_delay(request, error, attempt)
                if delay is None:
                    raise
                self._metrics.retried(error.code if isinstance(error, StatusError) else "<error>", request.method)
            await self._clock.sleep(delay)
            attempt += 1

    def _retry_delay(self, request: Request, error: StatusError | TransportError, attempt: int) -> float | None:
        """Seconds until the next try, or None when there is none."""
        asked = error.retry_after if isinstance(error, StatusError) else None
        if attempt == self._tries or not 0 <= (asked or 0) <= self._timeout:  # longer is for the queue to wait
            return None
        if isinstance(error, TooManyRequests):
            return None if asked is None else jittered(asked, 0.25, self._random)
        unsent = isinstance(error, TransportError) and not error.sent
        transient = isinstance(error, TransportError) or (isinstance(error, ServerError) and error.code >= 500)
        if not (transient and (request.repeatable or unsent)):
            return None
        return _RETRY.delay(attempt, self._random) if asked is None else jittered(asked, 0.25, self._random)

    async def _try(self, request: Request) -> Reply:
        started = time.perf_counter()
        code: int | str = "<error>"
        payload: _FencedBody | None = None
        validity: _Validity | None = None
        try:
            async with asyncio.timeout(request.timeout or self._timeout) as deadline:
                if request.lane is Lane.WRITE:
                    payload = _FencedBody(request.body or b"", request.content_type, self._may_write)
                    validity = _Validity(self._may_write, deadline)
                async with self._send(request, request.body if payload is None else payload) as response:
                    body = await response.read()
            code = response.status
        except Fenced:
            self._on_fenced()
            raise
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if payload is not None and validity is not None and (payload.refused or validity.over):
                self._on_fenced()
                raise _fenced(request.target, payload) from None
            raise self._failure(request.target, error, sent=payload is None or payload.sent) from error
        finally:
            if validity is not None:
                validity.cancel()
            self._metrics.answered(code, request.method, time.perf_counter() - started)
        self._note_warnings(response.headers, request)
        if response.status < 300:
            return Reply(response.status, body, response.headers)
        json_patch = request.content_type == "application/json-patch+json"
        failure = error_from_reply(request.target, response.status, body, response.headers, json_patch=json_patch)
        if isinstance(failure, Fenced):
            self._on_fenced()
        raise failure

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch: yields its chunks as they come. Idle for longer than `WATCH_IDLE` is a `TransportError`."""
        started = time.perf_counter()
        code: int | str = "<error>"
        try:
            async with asyncio.timeout(self._timeout) as deadline, self._send(request, None) as response:
                code = response.status
                self._metrics.answered(code, "GET", time.perf_counter() - started)
                if response.status == 401:
                    await self._credentials.refresh()
                if response.status >= 300:
                    raise error_from_reply(request.target, response.status, await response.read(), response.headers)
                self._note_warnings(response.headers, request)
                deadline.reschedule(None)
                yield response.content.iter_any()
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(request.target, error, sent=True) from error
        finally:
            if code == "<error>":
                self._metrics.answered(code, "GET", time.perf_counter() - started)

    @asynccontextmanager
    async def _send(self, request: Request, body: bytes | Payload | None) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = CIMultiDict(request.headers)
        headers["Accept"] = request.accept
        authorization = await self._credentials.current()
        if authorization is not None:
            headers["Authorization"] = authorization
        if request.audit_id is not None:
            headers["Audit-ID"] = request.audit_id
        if body is not None:
            headers["Content-Type"] = request.content_type
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=CONNECT_TIMEOUT,
            sock_read=(request.timeout or WATCH_IDLE) if request.lane is Lane.WATCH else None,
        )
        async with self._sessions[request.lane].request(
            request.method,
            URL(self.config.server + request.path, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,
            server_hostname=self.config.tls_server_name,
            timeout=timeout,
        ) as response:
            yield response

    def _may_write(self) -> float:
        if self._sealed is not None:
            raise Fenced(f"nothing is written any more: {self._sealed}")
        return self._fence()

    def _failure(self, target: Target, error: Exception, *, sent: bool) -> KubernetesError:
        server = self.config.server
        known = explain(server, error)
        if known is not None:
            return TLSError(known, sent=sent and not isinstance(error, aiohttp.ClientConnectorError))
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            message = f"{target}: no connection to {server} within {CONNECT_TIMEOUT:g} s; is there a firewall between?"
            return TransportError(message, sent=False)
        if isinstance(error, aiohttp.SocketTimeoutError):
            message = f"{target}: no byte from {server} for {WATCH_IDLE:g} s; the connection is taken for dead"
            return TransportError(message, sent=sent)
        if isinstance(error, TimeoutError):
            return TransportError(f"{target}: no answer from {server} within {self._timeout:g} s", sent=sent)
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = error.os_error.strerror or str(error.os_error)
            return TransportError(
                f"{target}: {server} can't be reached: {reason}; is the API server up, and is this its "
                f"address ({self.config.source})?",
                sent=False,
            )
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return TransportError(
                f"{target}: {server!r} is no address of a server ({self.config.source}); "
                "it should look like https://host:6443",
                sent=False,
            )
        return TransportError(f"{target}: the connection to {server} broke: {error}", sent=sent)

    def _note_warnings(self, headers: CIMultiDictProxy[str], request: Request) -> None:
        self._warnings.note(headers.getall("Warning", ()), request.target, request.caller)


async def _close(session: aiohttp.ClientSession) -> None:
    assert isinstance(session.connector, Connector)
    await session.connector.settle()
    await session.close()


def _fenced(target: Target, payload: _FencedBody) -> Fenced:
    if payload.refused is not None:
        return payload.refused
    done = "the write may have been made" if payload.sent else "nothing was sent"
    return Fenced(f"{target}: the Lease's validity ended before the answer came; {done}")


class _Validity:
    """Ends a write's wait when the Lease's validity ends, unless it was renewed meanwhile.

    Raises `Fenced` when it has ended already.
    """

    def __init__(self, fence: Fence, deadline: asyncio.Timeout) -> None:
        self._fence = fence
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.over = False
        self._arm(fence())

    def _arm(self, left: float) -> None:
        if left != float("inf"):
            self._timer = self._loop.call_later(left, self._look)

    def _look(self) -> None:
        try:
            self._arm(self._fence())
        except Fenced:
            self.over = True
            if not self._deadline.expired():
                self._deadline.reschedule(self._loop.time())

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

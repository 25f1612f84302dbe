"""kubernetes-asyncio's generated APIs over our own transport.

`CoreV1Api(api)` and its like build a request and decode the answer; all between is ours: credentials, TLS, lanes,
limits, deadlines, retries, the fence, the namespace boundary, warnings and metrics. No session of aiohttp is opened.

An answer of the server that is an error is an `ApiException`, raised from our `StatusError`; so is a request outside of
`ASYNCCTL_NAMESPACES`, which is not sent. What is no answer stays ours: `Fenced`, `TransportError` (a `TimeoutError` too
if it was one). What can't be asked this way (a websocket, credentials of the caller's own, another server) is an
`ApiValueError`. kubernetes-asyncio is imported inside functions only.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partialmethod
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote, urlencode

import anyio.to_thread
import msgspec
import orjson

from asyncctl.client.api_path import ApiPath, parse_api_path
from asyncctl.client.bridge.answer import Answer, Streams, TimedOut, as_timeout, whole
from asyncctl.client.bridge.errors import api_exception, refuse
from asyncctl.client.errors import (
    NamespaceBoundaryExceeded,
    StatusError,
    Target,
    TransportError,
    Unauthorized,
    not_an_object,
)
from asyncctl.client.patch import Patch, pins_version, repeatable
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.objects.resource import ResourceType
from asyncctl.version import __version__

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

Boundary = Callable[[Target, ResourceType], None]
QUIET = 4 * 3600.0  # seconds without a byte of a log, or of a watch without bookmarks; TCP finds a dead peer sooner

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OURS = frozenset(
    ("accept", "accept-encoding", "audit-id", "connection", "content-length", "content-type", "host", "user-agent")
) | {"transfer-encoding"}
_WEBSOCKETS = ("exec", "attach", "portforward")
_NO_OBJECT = ("log", "proxy")  # subresources whose answer is somebody else's
_TRUE = ("true", "1")


class Opening:
    """An `ApiClient` to come: `async with client.kubernetes_asyncio() as api`, or `await` it and close it oneself."""

    def __init__(self, make: "Callable[[], Awaitable[ApiClient]]") -> None:
        self._make = make
        self._made: ApiClient | None = None

    def __await__(self) -> "Generator[Any, Any, ApiClient]":
        return self._make().__await__()

    async def __aenter__(self) -> "ApiClient":
        self._made = await self
        return self._made

    async def __aexit__(self, *_: object) -> None:
        if self._made is not None:
            await self._made.close()


async def open_bridge(
    transport: Transport, *, check_boundary: Boundary, field_manager: str, audit_id: str | None = None, caller: str = ""
) -> "ApiClient":
    """Make an `ApiClient` whose requests go through `transport`.

    Args:
        transport: It stays the caller's, and open.
        check_boundary: Raises `NamespaceBoundaryExceeded` for what may not be touched.
        field_manager: The name under which a write is owned that names none.
        audit_id: For each request.
        caller: The controller that asks.
    """
    await anyio.to_thread.run_sync(importlib.import_module, "kubernetes_asyncio.client")
    from kubernetes_asyncio.client import ApiClient, Configuration

    class BridgedApiClient(ApiClient):
        """As `ApiClient.__init__` makes it, but for its session, and the credentials in its configuration."""

        def __init__(self) -> None:
            self.configuration = Configuration(host=transport.config.server)
            self.pool_threads = 1
            self.rest_client = RestClient(  # type: ignore[assignment]  # its face, not its class
                transport, check_boundary=check_boundary, field_manager=field_manager, audit_id=audit_id, caller=caller
            )
            self.default_headers = {"User-Agent": f"asyncctl/{__version__}"}
            self.cookie = ""
            self.client_side_validation = self.configuration.client_side_validation

    return BridgedApiClient()


class _Known(msgspec.Struct):
    """As much of an answer as tells that it is an object of the API."""

    kind: str


class _Timeouts(NamedTuple):
    """Seconds: for an answer with all its tries, for a stream as a whole, and for a stream without a byte."""

    answer: float | None = None
    stream: float | None = None
    idle: float | None = None


_decode_known = msgspec.json.Decoder(_Known).decode


class RestClient:
    """What `ApiClient` calls its `rest_client`, without a session of its own."""

    def __init__(
        self, transport: Transport, *, check_boundary: Boundary, field_manager: str, audit_id: str | None, caller: str
    ) -> None:
        self._transport = transport
        self._check_boundary = check_boundary
        self._field_manager = field_manager
        self._audit_id = audit_id
        self._caller = caller
        self._streams = Streams(transport)
        self._closed = False

    @property
    def pool_manager(self) -> NoReturn:
        """What `WsApiClient` would open a websocket on."""
        _no_websocket("it")

    async def close(self) -> None:
        """End the streams that are still open; the transport is not ours."""
        self._closed = True
        await self._streams.close()

    async def request(
        self, method: str, url: str, query_params: Sequence[tuple[str, object]] | None = None,
        headers: Mapping[str, object] | None = None, body: object = None, post_params: object = None,
        _preload_content: bool = True, _request_timeout: object = None,  # noqa: FBT001, FBT002 - that library's own face
    ) -> Answer:  # fmt: skip
        """Send one request, and return its answer.

        Args:
            method: GET …
            url: Complete; the API server's.
            query_params: For the query.
            headers: What is not the transport's own to set is sent along.
            body: What is encoded as JSON; bytes are sent as they are, and so is text that is not to be JSON.
            post_params: None: the API has no forms.
            _preload_content: False: the body is for the caller to read, of a watch or a followed log as it comes.
            _request_timeout: Seconds for all tries together, (to connect, without a byte) or aiohttp's `ClientTimeout`.

        Raises:
            ApiException: The server answered with an error; or the request is outside of `ASYNCCTL_NAMESPACES`.
            ApiValueError: It can't be asked this way.
            TransportError: There was no answer.
            Fenced: It is a write, and this process may not write.
            RuntimeError: The `ApiClient` is closed.
        """
        if self._closed:
            raise RuntimeError("this ApiClient is closed: that of a pass ends with it")
        if post_params:
            refuse("a form can't be sent: the API has none")
        timeouts = _timeouts(_request_timeout)
        request, place = self._request(method.upper(), url, list(query_params or ()), dict(headers or {}), body)
        try:
            if request.lane is Lane.WATCH:
                if request.target.verb == "watch" and _preload_content:
                    refuse("a watch has no end to wait for: use watch.Watch().stream(…), or _preload_content=False")
                quiet = timeouts.idle or (None if "allowWatchBookmarks=true" in request.path else QUIET)
                answer = await self._open(replace(request, timeout=quiet), timeouts.stream)
                if not _preload_content:
                    return answer
                async with answer:
                    return whole(200, {}, await answer.read())
            async with asyncio.timeout(timeouts.answer):
                reply = await self._transport.request(replace(request, timeout=timeouts.answer))
            _know(request, place, reply.body)
        except StatusError as error:
            raise api_exception(error) from error
        except TransportError as error:
            raise as_timeout(error) from error.__cause__
        except TimeoutError as error:
            message = f"{request.target}: no answer within {timeouts.answer:g} s (_request_timeout)"
            raise TimedOut(message, sent=True) from error
        return whole(reply.code, reply.headers, reply.body)

    async def _open(self, request: Request, total: float | None) -> Answer:
        try:
            return await self._streams.open(request, total=total)
        except Unauthorized:  # the transport has looked for new credentials meanwhile
            return await self._streams.open(request, total=total)

    GET = partialmethod(request, "GET")
    HEAD = partialmethod(request, "HEAD")
    OPTIONS = partialmethod(request, "OPTIONS")
    POST = partialmethod(request, "POST")
    PUT = partialmethod(request, "PUT")
    PATCH = partialmethod(request, "PATCH")
    DELETE = partialmethod(request, "DELETE")

    def _request(
        self, method: str, url: str, query: list[tuple[str, object]], headers: dict[str, object], body: object
    ) -> tuple[Request, ApiPath | None]:
        path, in_path = self._path(url)
        asked = [(key, _text(value)) for key, value in (*in_path, *query)]
        try:
            place = parse_api_path(path)
        except ValueError as error:
            refuse(str(error))
        if method == "HEAD":
            refuse("HEAD can't be asked: the API server has no use for it but to hand it on; use GET")
        reads = method in {"GET", "OPTIONS"}
        given = dict(asked)
        old_watch = place is not None and place.watch
        watches = reads and (old_watch or given.get("watch", "").lower() in _TRUE)
        follows = reads and given.get("follow", "").lower() in _TRUE
        connects = place is not None and place.subresource in {*_WEBSOCKETS, "proxy"}
        if place is not None and place.subresource in _WEBSOCKETS:
            _no_websocket(place.resource)
        target = _target(method, path, place, watches=watches)
        if place is not None:
            self._check(target, place)
        if method in {"POST", "PUT", "PATCH"} and place is not None and not connects and not given.get("fieldManager"):
            asked.append(("fieldManager", self._field_manager))
        lower = {name.lower(): str(value) for name, value in headers.items() if value is not None}
        content_type = lower.get("content-type", "application/json")
        if asked:
            path += "?" + urlencode(asked, quote_via=quote)
        request = Request(
            target=target, method=method, path=path,
            lane=Lane.WATCH if watches or follows else Lane.READ if reads else Lane.WRITE,
            body=None if reads else _encode(body, content_type), content_type=content_type,
            repeatable=reads or _repeatable(method, body, content_type),
            audit_id=self._audit_id, caller=self._caller,
            accept=lower.get("accept", "application/json"), headers=_headers(lower),
        )  # fmt: skip
        return request, place

    def _path(self, url: str) -> tuple[str, list[tuple[str, str]]]:
        server = self._transport.config.server
        if not url.startswith(f"{server}/"):
            refuse(f"{url!r} is not at {server}, which alone is asked with these credentials")
        path, _, query = url[len(server) :].partition("#")[0].partition("?")
        return quote(path, safe="/%:@!$&'()*+,;=~"), parse_qsl(query, keep_blank_values=True)

    def _check(self, target: Target, place: ApiPath) -> None:
        kind = ResourceType(
            group=place.group, version=place.version, kind=place.plural, plural=place.plural, singular="",
            list_kind="", namespaced=place.namespace is not None,
        )  # fmt: skip
        try:
            try:
                self._check_boundary(target, kind)
            except NamespaceBoundaryExceeded:
                if place.name is None:  # of all namespaces, most likely: the path does not tell
                    self._check_boundary(target, replace(kind, namespaced=True))
                raise
        except NamespaceBoundaryExceeded as error:
            raise api_exception(error) from error


def _target(method: str, path: str, place: ApiPath | None, *, watches: bool) -> Target:
    if place is None:
        return Target(method.lower(), path)
    verb = _VERBS.get(method)
    if verb is None:
        verb = "watch" if watches else "list" if place.name is None else "get"
    elif verb == "delete" and place.name is None:
        verb = "deletecollection"
    return Target(verb, place.resource, place.namespace, place.name)


def _repeatable(method: str, body: object, content_type: str) -> bool:
    """Whether sending it twice has the effect of sending it once: it says of which version or which object it is."""
    if method == "DELETE":
        preconditions = body.get("preconditions") if isinstance(body, dict) else None
        return isinstance(preconditions, dict) and bool(preconditions.get("uid"))
    if method == "PUT":
        return isinstance(body, dict) and pins_version(body)
    if method != "PATCH":
        return False
    if content_type == Patch.APPLY.value:
        return True
    if isinstance(body, list):
        return all(isinstance(step, dict) for step in body) and repeatable(Patch.JSON, body)
    return isinstance(body, dict) and repeatable(Patch.MERGE, body)


def _encode(body: object, content_type: str) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    json = "json" in content_type.lower()
    if isinstance(body, str) and not json:
        return body.encode()
    if json or content_type == Patch.APPLY.value:  # JSON is YAML
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    return refuse(f"a body of {content_type} has to be given as bytes, not as {type(body).__name__}")


def _headers(lower: dict[str, str]) -> tuple[tuple[str, str], ...]:
    for name, value in lower.items():
        if name in {"authorization", "cookie"} or name.startswith("impersonate-"):
            refuse(f"{name!r} can't be set: requests carry the operator's own credentials; use another ApiClient")
        plain = f"{name}{value}".isascii() and value.isprintable() and name.replace("-", "").replace("_", "").isalnum()
        if not plain:
            refuse(f"{name!r} is no header: a name or its value has a sign that must not be there")
    return tuple((name, value) for name, value in lower.items() if name not in _OURS)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _timeouts(given: Any) -> _Timeouts:  # noqa: ANN401 - what that library takes
    """Read `_request_timeout`; for the time to connect there is one limit for all."""
    match given:
        case None | 0 | False:
            return _Timeouts()
        case int() | float():
            return _Timeouts(answer=float(given), stream=float(given))
        case (connect, read):
            return _Timeouts(answer=None if connect is None or read is None else connect + read, idle=read)
        case _:
            total = getattr(given, "total", None)
            return _Timeouts(answer=total, stream=total, idle=getattr(given, "sock_read", None))


def _know(request: Request, place: ApiPath | None, body: bytes) -> None:
    """Raise `ServerError` for a success that is no object of the API: a page of a proxy would be an empty object."""
    if place is None or place.subresource in _NO_OBJECT or request.method == "OPTIONS" or "json" not in request.accept:
        return
    try:
        _decode_known(body)
    except ValueError as error:
        raise not_an_object(request.target, body) from error


def _no_websocket(what: str) -> NoReturn:
    refuse(
        f"{what} needs a websocket, which this ApiClient has none of; use kubernetes_asyncio.stream.WsApiClient with "
        "a configuration of its own, which shares neither the limits nor the fence of this operator"
    )

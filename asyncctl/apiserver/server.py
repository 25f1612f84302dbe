"""The server: HTTP on a loopback port, the paths that are no objects, and the life of it all.

Starting takes milliseconds and leaves nothing behind: everything is in memory, every open watch ends when the server
stops, and no task or socket outlives it. Plain HTTP/1.1, no authentication: whoever reaches the port may do everything.
"""

import asyncio
import hashlib
import os
import random
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
import yaml
from aiohttp import web

from asyncctl.apiserver import discovery, errors, openapi, request, reviews
from asyncctl.apiserver.cluster import Cluster
from asyncctl.apiserver.errors import ApiError
from asyncctl.apiserver.resources import builtins
from asyncctl.apiserver.rest import Answer, Incoming, Stream
from asyncctl.apiserver.wire import JsonObject

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_LINGER = 0.05
"""Seconds that open watches have to end by themselves when the server stops, before they are cancelled."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ApiServer:
    """A Kubernetes API server inside the process. Use it as an async context manager.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        now: gives the time as an aware UTC datetime.
        history: how many changes of each resource are kept for watches and old lists, at least.
        bookmark_interval: seconds between two bookmarks of a watch.
        version: what `/version` says.
        rng: what uids and generated names are drawn from; None: a source of its own.

    Attributes:
        url: where it is reached, once it is started.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        now: Callable[[], datetime] = _utc_now,
        history: int = 10_000,
        bookmark_interval: float = 60.0,
        version: str = "v1.36.3",
        rng: random.Random | None = None,
    ) -> None:
        self.url = ""
        self._host = host
        self._port = port
        self._version = version
        self._now = now
        self._history = history
        self._bookmark_interval = bookmark_interval
        self._rng = rng or random.Random()
        self._cluster: Cluster | None = None
        self._runner: web.ServerRunner | None = None
        self._streams: dict[asyncio.Task[object], Stream] = {}

    async def __aenter__(self) -> Self:
        """Listen. Raise OSError when the port is taken."""
        # The types of the built-in kinds are read from a file of the package.
        kinds = await asyncio.to_thread(builtins)
        self._cluster = Cluster(kinds, self._now, self._history, self._bookmark_interval, self._rng)
        # A watch must end when its client has gone, also when it has nothing to write.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_LINGER)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, backlog=1024).start()
        except OSError:
            await self._runner.cleanup()
            raise
        port = self._runner.addresses[0][1]
        self.url = f"http://{self._host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every watch, close every connection."""
        for stream in list(self._streams.values()):
            stream.watch.stop()
        if self._streams:
            _, slow = await asyncio.wait(list(self._streams), timeout=_LINGER)
            for task in slow:
                task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def _started(self) -> Cluster:
        assert self._cluster is not None, "the API server is not started: use it as `async with`"
        return self._cluster

    def compact(self) -> None:
        """Forget the history: whoever resumes from an older resourceVersion gets 410."""
        self._started.store.compact()

    def write_kubeconfig(self, path: str | os.PathLike[str]) -> None:
        """Write a kubeconfig (mode 0600) whose only context, `asyncctl-apiserver`, is this server."""
        name = "asyncctl-apiserver"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        where = Path(path)
        where.touch(mode=0o600)
        where.chmod(0o600)
        where.write_text(yaml.safe_dump(config, sort_keys=False))

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        headers = {
            "Audit-Id": str(uuid.uuid4()),
            "Cache-Control": "no-cache, private",
            "Date": format_datetime(self._now(), usegmt=True),
        }
        warnings: list[str] = []
        try:
            answer = await self._answer(http, warnings)
        except ApiError as error:
            headers.update(error.headers)
            if error.text is not None:
                headers["X-Content-Type-Options"] = "nosniff"
                return web.Response(status=error.code, text=error.text, headers=headers)
            answer = Answer(error.code, orjson.dumps(error.status()))
        if isinstance(answer, Stream):
            return await self._stream(http, answer, headers, warnings)
        headers.update(answer.headers)
        response = web.Response(status=answer.code, body=answer.body, headers=headers)
        response.headers["Content-Type"] = answer.content_type
        _warn(response, warnings)
        return response

    async def _stream(
        self, http: web.BaseRequest, stream: Stream, headers: dict[str, str], warnings: list[str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Content-Type": "application/json"})
        _warn(response, warnings)
        response.enable_chunked_encoding()
        await response.prepare(http)
        task = asyncio.current_task()
        assert task is not None
        self._streams[task] = stream
        try:
            await stream.watch.run(response.write)
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            # The client has gone: what is left to send goes with it.
            if http.transport is not None:
                http.transport.abort()
        finally:
            del self._streams[task]
        return response

    async def _answer(self, http: web.BaseRequest, warnings: list[str]) -> Answer | Stream:
        path = http.path
        target = request.target(path)
        if target is None or not target.plural:
            return self._other(http, path, target)
        values = http.query
        query = request.Query(values, {name: values.getall(name) for name in values})
        incoming = Incoming(
            http.method,
            target,
            query,
            http.headers.get("Accept", ""),
            http.headers.get("Content-Type", ""),
            http.headers.get("User-Agent", ""),
            await _body(http),
            warnings,
        )
        if reviews.known(target.group, target.plural):
            return self._review(incoming)
        return await self._started.rest.answer(incoming)

    def _review(self, incoming: Incoming) -> Answer:
        request.form(incoming.accept, ())
        if incoming.method != "POST":
            raise errors.method_not_allowed()
        target = incoming.target
        body = request.decode(incoming.body, incoming.content_type, target.plural).value
        return _json(reviews.review(target.group, target.plural, body), 201)

    def _other(self, http: web.BaseRequest, path: str, target: request.Target | None) -> Answer:
        """Answer the paths that name no resource."""
        if re.fullmatch(r"/(healthz|livez|readyz)(/[\w/.-]*)?", path):
            return Answer(200, b"ok", "text/plain; charset=utf-8")
        if path in {"/version", "/version/"}:
            return _json(self._version_info())
        if path.startswith("/openapi/"):
            return self._openapi(path)
        accept = http.headers.get("Accept", "")
        kinds = self._started.kinds()
        if path.rstrip("/") in {"/api", "/apis"}:
            core = path.rstrip("/") == "/api"
            if re.search(r"g=apidiscovery\.k8s\.io", accept) and re.search(r"v=v2\b(?!beta)", accept):
                return _tagged(discovery.aggregated(kinds, core=core), _AGGREGATED, {"Vary": "Accept"})
            address = self.url.removeprefix("http://")
            return _json(discovery.api_versions(address) if core else discovery.api_group_list(kinds))
        body = None
        if target is not None:
            body = discovery.api_resource_list(kinds, target.group, target.version)
        elif found := re.fullmatch(r"/apis/([^/]+)/?", path):
            body = discovery.api_group(kinds, found[1])
        if body is None:
            raise errors.no_such_path()
        return _json(body)

    def _openapi(self, path: str) -> Answer:
        kinds = self._started.kinds()
        if path == "/openapi/v2":
            return _json(openapi.swagger(kinds))
        if path == "/openapi/v3":
            return _json(openapi.index(kinds))
        document = openapi.document_at(kinds, path.removeprefix("/openapi/v3/"))
        if document is None:
            raise errors.no_such_path()
        return Answer(200, document, headers={"ETag": f'"{openapi.document_hash(document)}"'})

    def _version_info(self) -> JsonObject:
        major, minor, *_ = self._version.removeprefix("v").split(".")
        return {
            "major": major,
            "minor": minor,
            "gitVersion": self._version,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "asyncctl/embedded",
        }


def _warn(response: web.StreamResponse, warnings: list[str]) -> None:
    for text in dict.fromkeys(warnings):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{quoted}"')


def _json(body: JsonObject | None, code: int = 200) -> Answer:
    return Answer(code, orjson.dumps(body))


def _tagged(body: JsonObject, content_type: str, headers: dict[str, str]) -> Answer:
    content = orjson.dumps(body)
    tag = hashlib.sha512(content).hexdigest().upper()
    return Answer(200, content, content_type, headers={**headers, "ETag": f'"{tag}"'})


async def _body(http: web.BaseRequest) -> bytes:
    """Read a request's body; raise 413 when it is too large."""
    if not http.can_read_body:
        return b""
    if (http.content_length or 0) > request.BODY_LIMIT:
        raise errors.too_large(request.BODY_LIMIT)
    body = bytearray()
    async for chunk in http.content.iter_any():
        body += chunk
        if len(body) > request.BODY_LIMIT:
            raise errors.too_large(request.BODY_LIMIT)
    return bytes(body)

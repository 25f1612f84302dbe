"""The two wires of a daemon, to the API server and to PostgreSQL, and a cut through both at one single effect.

What goes over them is read, so that an effect is what the servers were asked for, whatever code has asked. A crash is
the cut: nothing that the daemon does afterwards, its cleaning up among it, reaches anybody. Before the effect is sent,
or after it took effect and before the answer is seen.
"""

import asyncio
import base64
import contextlib
import json
import logging
import re
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.controlplane.controlplane import ControlPlane
from tests.e2e.node import free_address

Cut = Callable[[str], str | None]
"""Whether to cut at an effect of this name: `before`, `after`, or not."""
POSTGRES = 5432
READS = re.compile(
    r"(SELECT|SET|SHOW|BEGIN|COMMIT|ROLLBACK|WITH|VALUES|SAVEPOINT|RELEASE|RESET|DISCARD)\b", re.IGNORECASE
)
ACTS = re.compile(r"pg_(terminate|cancel)_backend", re.IGNORECASE)  # a SELECT with an effect
NO_EFFECT = ("/authorization.k8s.io/", "/authentication.k8s.io/", "/coordination.k8s.io/")
UNDONE = "in a transaction: "  # that is not committed: a crash undoes it
_SAME_EACH_TIME = (
    (re.compile(r"'SCRAM-SHA-256[^']*'"), "'…'"),
    (re.compile(r"'asyncctl:[^']*'"), "'<claim>'"),
)


@dataclass
class Effects:
    """What took effect, in order, by names that are the same for another database.

    A statement of a transaction is there when that is committed; an object that was made is there once as `made …`.
    """

    names: list[str] = field(default_factory=list)
    seen: dict[str, None] = field(default_factory=dict)  # whatever was asked for, also what was rolled back
    count: int = 0  # of what was asked for


class Wires:
    """Both wires, for one daemon after the other; a context manager.

    Attributes:
        url: Where the daemon finds the API server.
        port: Where it finds PostgreSQL on loopback.
        address: Where it finds it at PostgreSQL's own port, as in a pod; also on loopback.
        target: Where PostgreSQL really is: host and port.
        effects: What came of it.
        crashed: Set by the cut; `mend` clears it.
        at: Where it was cut.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self.address = free_address()
        self.target = ("127.0.0.1", 0)
        self.effects = Effects()
        self.crashed = threading.Event()
        self.at = ""
        self.cut: Cut = lambda _: None
        self.alike: tuple[tuple[str, str], ...] = ()  # what stands for names that differ
        self._plane = plane
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires")
        self._open: set[asyncio.BaseTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._await(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._await(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def mend(self) -> None:
        """Let a new daemon through."""
        self._await(self._cut())  # what is left of the old one
        self.at = ""
        self.crashed.clear()

    def lead_to(self, host: str, port: int = POSTGRES) -> str:
        """Have PostgreSQL be here; return where a daemon finds it at that port."""
        self.target = (host, port)
        return self.address

    def name(self, text: str) -> str:
        for found, shown in _SAME_EACH_TIME:
            text = found.sub(shown, text)
        for name, shown in self.alike:
            text = text.replace(name, shown)
        return " ".join(text.split())

    def asked(self, name: str) -> str | None:
        """An effect is about to be sent. Returns where to cut."""
        self.effects.seen[name] = None
        self.effects.count += 1
        return None if self.crashed.is_set() else self.cut(name)

    def crash(self, how: str, name: str) -> None:
        self.at = f"{how} {name}"
        self.crashed.set()
        for transport in self._open:
            transport.abort()  # type: ignore[attr-defined]

    def opened(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(transport)
        if self.crashed.is_set():
            transport.abort()  # type: ignore[attr-defined]

    def closed(self, transport: asyncio.BaseTransport) -> None:
        self._open.discard(transport)

    async def _start(self) -> None:
        self._sql = await asyncio.start_server(self._serve_sql, "127.0.0.1", 0)
        self._pod = await asyncio.start_server(self._serve_sql, self.address, POSTGRES)
        self.port = self._sql.sockets[0].getsockname()[1]
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self._plane.ca_file, self._plane.ca_file.with_suffix(".key"))
        there = ssl.create_default_context(cafile=self._plane.ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=there, limit=0), auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )  # fmt: skip
        silent = logging.getLogger("wires")  # that an answer was cut is the purpose
        silent.setLevel(logging.CRITICAL)
        server = web.Server(self._serve_api, access_log=None, logger=silent, handler_cancellation=True)
        self._api = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._api.setup()
        await web.TCPSite(self._api, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"https://127.0.0.1:{self._api.addresses[0][1]}"

    async def _stop(self) -> None:
        self._sql.close()
        self._pod.close()
        await self._cut()
        await self._api.cleanup()
        await self._session.close()

    async def _cut(self) -> None:
        for transport in list(self._open):
            transport.abort()  # type: ignore[attr-defined]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve_sql(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(_Session(self).serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_api(self, request: web.BaseRequest) -> web.StreamResponse:
        shown = request.transport
        assert shown is not None
        if self.crashed.is_set():
            shown.abort()  # type: ignore[attr-defined]
            raise ConnectionAbortedError
        self._open.add(shown)
        try:
            body = await request.read()
            name = None if self.crashed.is_set() else self._effect(request, body)
            how = self.asked(name) if name else None
            if how == "before" and name:
                self.crash(how, name)
            if self.crashed.is_set():
                raise ConnectionAbortedError
            kept = {"Authorization", "Content-Type", "Accept", "User-Agent", "Accept-Encoding"}
            headers = {key: value for key, value in request.headers.items() if key in kept}
            url = self._plane.url + request.raw_path
            async with self._session.request(request.method, url, data=body, headers=headers) as answer:
                if "watch=" in request.raw_path:
                    return await self._stream(request, answer)
                content = await answer.read()
                if name and answer.status < 300:
                    self.effects.names.append(name)
                    if answer.status == 201:
                        self.effects.names.append(f"made {name.partition(' ')[2]}")
                if how == "after" and name:
                    self.crash(how, name)
                if self.crashed.is_set():
                    raise ConnectionAbortedError
                return web.Response(status=answer.status, body=content, headers=_shown(answer))
        finally:
            self._open.discard(shown)

    async def _stream(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_shown(answer))
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        return response

    def _effect(self, request: web.BaseRequest, body: bytes) -> str | None:
        path = request.path
        if request.method == "GET" or "dryRun" in request.query or any(group in path for group in NO_EFFECT):
            return None
        rest = re.sub(r"^/(api/v1|apis/[^/]+/[^/]+)/(namespaces/[^/]+/)?", "", path)
        return self.name(f"{request.method} {rest}{_about(rest, body)}")

    def _await(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(15)


def _shown(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {key: answer.headers[key] for key in ("Content-Type", "Content-Encoding") if key in answer.headers}


def _about(path: str, body: bytes) -> str:
    """What tells one write of an object from the next."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        said = json.loads(body)
        if path.startswith("events"):
            return f" {said['reason']}"
        if path.startswith("secrets") and "data" in said:
            return f" as {base64.b64decode(said['data']['username']).decode()}"
        if path.endswith("/status"):
            status = said["status"]
            ready = next((each for each in status.get("conditions") or () if each["type"] == "Ready"), {})
            return f" {status.get('phase', '')} {ready.get('reason', '')}".rstrip()
        if "finalizers" in said.get("metadata", {}):
            return f" finalizers {said['metadata']['finalizers']}"
    return ""


class _Session:
    """One session of PostgreSQL's protocol (version 3), in clear."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires
        self._pending: str | None = None  # the effect that is being waited for
        self._after = False  # whether to cut when it is there
        self._failed = False
        self._written: list[str] = []  # in the transaction that is open
        self._open = False  # a transaction

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, onward = await asyncio.open_connection(*self._wires.target)
        except OSError:  # refused, as the daemon is then
            writer.transport.abort()
            return
        for each in (writer, onward):
            self._wires.opened(each.transport)
        try:
            await asyncio.gather(self._forth(reader, onward), self._back(there, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # over, by whoever has closed it
        finally:
            for each in (writer, onward):
                each.transport.abort()
                self._wires.closed(each.transport)

    async def _forth(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        size = await source.readexactly(4)
        sink.write(size + await source.readexactly(int.from_bytes(size, "big") - 4))  # the startup, or a cancellation
        while True:
            kind, content = await _message(source)
            text = _statement(kind[:1], content)
            if text is not None:
                self._ask(text)
            if self._wires.crashed.is_set():
                raise ConnectionAbortedError
            sink.write(kind + content)
            await sink.drain()

    async def _back(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while True:
            kind, content = await _message(source)
            if kind[:1] == b"E":
                self._failed = True
            if kind[:1] == b"Z":
                self._answered(content)
            if self._wires.crashed.is_set():
                raise ConnectionAbortedError
            sink.write(kind + content)
            await sink.drain()

    def _ask(self, text: str) -> None:
        self._failed = False
        first = text.split(maxsplit=1)[0].rstrip(";").upper() if text.strip() else ""
        if first == "ROLLBACK":
            self._written = []
        if first == "COMMIT" and self._written:
            self._pending = f"COMMIT of {self._written[-1]}"
        elif not READS.match(text.strip()) or ACTS.search(text):
            self._pending = self._wires.name(text)
            if self._open:
                self._pending = UNDONE + self._pending
        else:
            self._pending = None
            return
        how = self._wires.asked(self._pending)
        if how == "before":
            self._wires.crash(how, self._pending)
        self._after = how == "after"

    def _answered(self, state: bytes) -> None:
        name, self._pending = self._pending, None
        self._open = state != b"I"
        if name is not None and not self._failed and not name.startswith("COMMIT of "):
            self._written.append(name.removeprefix(UNDONE))
        if not self._open:
            if not self._failed:
                self._wires.effects.names += self._written
            self._written = []
        if name is not None and self._after:
            self._wires.crash("after", name)


async def _message(source: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one: its type with its length, and its content."""
    head = await source.readexactly(5)
    return head, await source.readexactly(int.from_bytes(head[1:], "big") - 4)


def _statement(kind: bytes, content: bytes) -> str | None:
    """What a simple query or a Parse asks for."""
    if kind == b"Q":
        return content[:-1].decode()
    return content.split(b"\0")[1].decode() if kind == b"P" else None

"""The HTTP listener for the kubelet and for Prometheus: `/livez`, `/healthz`, `/readyz` and `/metrics`.

It answers GET and HEAD on these paths and nothing else. A slow or huge request costs its sender the connection, a large
scrape is rendered in a thread so that probes are answered meanwhile, and stopping takes milliseconds. It has no TLS and
no access control: what it shows holds no secret. It is the first thing that starts and the last that stops.
"""

import errno
import gzip
import logging
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from anyio import CapacityLimiter, to_thread
from prometheus_async.aio import time
from prometheus_client.exposition import choose_encoder, gzip_accepted

from asyncctl.http.probes import Answer, Probes
from asyncctl.observe import Metrics
from asyncctl.settings import Address

__all__ = ["ListenError", "SideServer"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_WORTH_PACKING = 1024  # bytes; below that gzip adds more than it takes


class ListenError(Exception):
    """The address can't be listened on. Its text is one line: which, why, and what to do."""


class SideServer:
    """Serves probes and metrics.

    Use it as `async with SideServer(...)`, or call `start` and `stop`.

    Args:
        address: where to listen; port 0 takes a free one.
        probes: what `/livez` and `/readyz` ask.
        metrics: what `/metrics` shows, with all else that is on its registry.
        variable: the setting that the address came from, for the error's text.
        patience: seconds that a connection may stay without having sent a whole request.
        grace: seconds that `stop` waits for answers under way.
    """

    def __init__(
        self,
        address: Address,
        probes: Probes,
        metrics: Metrics,
        *,
        variable: str = "ASYNCCTL_HTTP_ADDRESS",
        patience: float = 15.0,
        grace: float = 0.1,
    ) -> None:
        self._address = address
        self._probes = probes
        self._registry = metrics.registry
        self._variable = variable
        self._patience = patience
        self._grace = grace
        self._handlers: dict[str, Handler] = {}
        for path, handler in (
            ("/livez", self._livez),
            ("/healthz", self._livez),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
        ):
            self._handlers[path] = time(metrics.http(path))(handler)
        self._limiter = CapacityLimiter(1)  # scrapes one after the other: more would only share the interpreter
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenError: the address is taken, not ours, or not allowed.
        """
        if self._runner is not None:
            raise RuntimeError(f"the server on {self._address} is started already")
        server = web.Server(
            self._serve,
            access_log=None,
            logger=_logger(),
            keepalive_timeout=self._patience,
            lingering_time=1.0,
            max_line_size=4096,
            max_field_size=4096,
        )
        runner = web.ServerRunner(server, shutdown_timeout=self._grace)
        await runner.setup()
        try:
            await self._site(runner).start()
        except OSError as error:
            await runner.cleanup()
            raise ListenError(f"can't listen on {self._address}: {self._advice(error)}") from error
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening and close every connection; harmless when it was not started."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def port(self) -> int:
        """The port that is listened on; the one that was asked for while not started."""
        if self._runner is None:
            return self._address.port
        port: int = self._runner.addresses[0][1]
        return port

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    def _site(self, runner: web.ServerRunner) -> web.BaseSite:
        host, port = self._address
        if host == "::" and socket.has_dualstack_ipv6():  # asyncio would listen for IPv6 alone
            return web.SockSite(runner, socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))
        return web.TCPSite(runner, host, port)

    def _advice(self, error: OSError) -> str:
        another = f"set {self._variable} to another one"
        if error.errno == errno.EADDRINUSE:
            return f"something listens there already; stop it or {another}"
        # From Python 3.13 on asyncio says so in words only.
        if error.errno == errno.EADDRNOTAVAIL or "could not bind on any address" in str(error):
            return f"this machine does not have that address; {another}, such as 0.0.0.0:{self._address.port}"
        if error.errno == errno.EACCES:
            return f"that port is not allowed to this user; {another}, with a port from 1024 up"
        if isinstance(error, socket.gaierror):
            return f"that name has no address ({error.strerror}); {another}"
        return f"{error.strerror or error}; {another}"

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = self._handlers.get(request.path)
        if handler is None:
            return _text(404, f"not found; here are {' '.join(self._handlers)}\n")
        if request.method not in {"GET", "HEAD"}:
            refused = _text(405, "only GET and HEAD\n")
            refused.headers["Allow"] = "GET, HEAD"
            return refused
        return await handler(request)

    async def _livez(self, request: web.BaseRequest) -> web.StreamResponse:
        return _probed(request, self._probes.livez)

    async def _readyz(self, request: web.BaseRequest) -> web.StreamResponse:
        return _probed(request, self._probes.readyz)

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        encoder, content_type = choose_encoder(",".join(request.headers.getall("Accept", ())))
        packed = gzip_accepted(",".join(request.headers.getall("Accept-Encoding", ())))

        def render() -> tuple[bytes, bool]:
            body = encoder(self._registry)
            pack = packed and len(body) >= _WORTH_PACKING
            return gzip.compress(body, compresslevel=1) if pack else body, pack

        body, pack = await to_thread.run_sync(render, limiter=self._limiter, abandon_on_cancel=True)
        headers = {**_HEADERS, "Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if pack:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)


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


def _probed(request: web.BaseRequest, ask: Callable[..., Answer]) -> web.Response:
    query = request.query
    answer = ask(verbose="verbose" in query, exclude=query.getall("exclude", []))
    return _text(200 if answer.ok else 500, answer.text)


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_HEADERS)

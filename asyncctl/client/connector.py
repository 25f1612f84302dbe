"""Connections to the API server that do not outlive who asked for them.

One that is not kept is aborted: TLS would wait for the peer's farewell, and nobody would wait for TLS. An attempt whose
asker is cancelled goes on in peace, and its connection is aborted then: uvloop reports an error for a handshake that is
cancelled. A dead peer is found within 30 seconds.
"""

import asyncio
import socket
import ssl

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.tracing import Trace

KEEP = 75.0  # seconds for which an idle connection is kept
SETTLE = 0.5  # seconds; a handshake takes milliseconds


class Connector(aiohttp.TCPConnector):
    """A pool of at most `limit` connections (0: any number); without `tls`, an `https` address is verified as usual."""

    def __init__(self, *, limit: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(
            limit=limit, ssl=tls if tls is not None else True, socket_factory=_socket, keepalive_timeout=KEEP
        )
        self._left: set[asyncio.Task[ResponseHandler]] = set()

    async def settle(self) -> None:
        """Wait for the attempts whose askers are gone, before closing; not for long, where nobody answers them."""
        if self._left:
            _, slow = await asyncio.wait(self._left, timeout=SETTLE)
            for attempt in slow:
                attempt.cancel()
            await asyncio.gather(*slow, return_exceptions=True)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        attempt = asyncio.get_running_loop().create_task(
            super()._create_connection(req, traces, timeout), name="connect"
        )
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            self._left.add(attempt)
            attempt.add_done_callback(self._abandon)
            raise

    def _abandon(self, attempt: asyncio.Task[ResponseHandler]) -> None:
        self._left.discard(attempt)
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().abort()

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if should_close or protocol.should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)


def _socket(address: tuple[object, ...]) -> socket.socket:
    """A socket that finds a dead peer within 30 seconds."""
    family, kind, protocol = address[0], address[1], address[2]
    made = socket.socket(family, kind, protocol)  # type: ignore[arg-type]  # an addrinfo tuple, as aiohttp hands it
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made

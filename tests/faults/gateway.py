"""A way to the API server that knows what each connection is for: it cuts those of the Lease, or holds back watches.

It has the server's own certificate and key, or it could not read. asyncctl has connections of their own for the Lease,
reads, writes and watches, so that the first request of one tells what all of it is for.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.proxy import Proxy

LEASES = b"/apis/coordination.k8s.io/"


class Gateway(Proxy):
    """Forwards a loopback port to that of an API server."""

    def __init__(self, port: int, certificate: Path) -> None:
        """Prepare the way; the key is beside the certificate, which signs itself."""
        shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        shown.load_cert_chain(certificate, certificate.with_suffix(".key"))
        super().__init__(port, tls=shown)
        self._tls = ssl.create_default_context(cafile=certificate)
        self._leases: set[asyncio.StreamWriter] = set()
        self._without_leases = False
        self._watches_flow = asyncio.Event()
        self._watches_flow.set()

    def cut_leases(self) -> None:
        """Cut the connections of the Lease, and let none through any more."""
        self._await(self._cut_leases())

    @contextlib.contextmanager
    def watches_held(self) -> Iterator[None]:
        """Let nothing that a watch says through in the block; it comes afterwards."""
        self._loop.call_soon_threadsafe(self._watches_flow.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._watches_flow.set)

    async def _cut_leases(self) -> None:
        self._without_leases = True
        for writer in self._leases:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readuntil(b"\r\n")
        path = first.split(b" ")[1]
        if path.startswith(LEASES):
            if self._without_leases:
                return
            self._leases.add(writer)
        flows = self._watches_flow if b"watch=" in path else None
        there, onward = await asyncio.open_connection("127.0.0.1", self._target, ssl=self._tls)
        try:
            onward.write(first)
            await asyncio.gather(_pump(reader, onward), _pump(there, writer, flows))
        finally:
            self._leases.discard(writer)
            onward.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event | None = None) -> None:
    while data := await source.read(65536):
        if flows is not None:
            await flows.wait()
        sink.write(data)
        await sink.drain()
    sink.close()

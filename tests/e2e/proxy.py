"""A TCP proxy in a thread: takes a server away and gives it back, or makes it hang, without touching the server."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, Self


class Proxy:
    """Forwards a loopback port to another.

    While it is down, connections are refused, and the open ones are cut; while it is held, none gets an answer.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """Prepare the way to `port`; with `tls` it is spoken to whoever comes."""
        self._shown = tls
        self.port = 0
        self.holding = False  # whether a connection has come since it is held
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._server: asyncio.Server | None = None
        self._pipes: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._flows = asyncio.Event()
        self._flows.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        self._await(self._up())

    def lead_to(self, port: int) -> None:
        """Have another server behind it, for who connects from now on; who is connected is cut."""
        self.down()
        self._target = port
        self.up()

    def down(self) -> None:
        self._await(self._down())

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing through in the block."""
        self.holding = False
        self._loop.call_soon_threadsafe(self._flows.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flows.set)

    def _await(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _up(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._shown)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        for writer in self._pipes.values():
            await _cut(writer)
        self._pipes.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pipes[self._loop.create_task(self._serve(reader, writer))] = writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.holding = not self._flows.is_set()
            await self._flows.wait()
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # cut, from either side
        finally:
            await _cut(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._pump(reader, onward), self._pump(there, writer))
        finally:
            await _cut(onward)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._flows.wait()
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()


async def _cut(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

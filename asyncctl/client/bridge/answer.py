"""An answer in the shape in which kubernetes-asyncio and its users want one, whole or as a stream.

It looks like that library's `RESTResponse` and, for who asks with `_preload_content=False`, like aiohttp's response as
far as that is used with an API server: `status`, `headers`, `content`, `read`, `text`, `json`, `release`, `close`.
A stream belongs to a task, which ends with it: when it is closed, forgotten, or its `ApiClient` is closed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Self

import orjson
from multidict import CIMultiDict

from asyncctl.client.errors import StreamError, TransportError
from asyncctl.client.transport.transport import Request, Transport
from asyncctl.client.watch import MAX_LINE

Item = bytes | Exception | None
"""What a stream is made of: chunks, and at the end an error, or None where it ended as it should."""


class TimedOut(TransportError, TimeoutError):
    """The wait for an answer, or for the next byte of a stream, took too long; also what `TimeoutError` catches."""


def as_timeout(error: TransportError) -> TransportError:
    """The same error, as a `TimeoutError` too if it was one: kubernetes-asyncio's `Watch` connects anew then."""
    if not isinstance(error.__cause__, TimeoutError):
        return error
    timed_out = TimedOut(str(error), sent=error.sent)
    timed_out.__cause__ = error
    return timed_out


def phrase(code: int) -> str:
    """What HTTP says for a status code."""
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


class Content:
    """Bytes as they come; iterating gives lines. A read that is cancelled loses nothing."""

    def __init__(self, items: Callable[[], Awaitable[Item]]) -> None:
        self._items = items
        self._buffer = bytearray()
        self._ended = False
        self._error: Exception | None = None  # how it ended, told again to who reads on

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _until_empty(self.readline)

    def iter_any(self) -> AsyncIterator[bytes]:
        """Iterate over what comes, as it comes."""
        return _until_empty(self.readany)

    def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Iterate over pieces of at most `size` bytes."""
        return _until_empty(lambda: self.read(size))

    async def readany(self) -> bytes:
        """Return what is there, or comes next; nothing at the end."""
        return await self.read(max(len(self._buffer), MAX_LINE))

    async def read(self, size: int = -1) -> bytes:
        """Return everything; or what is there, or comes next, at most `size` bytes."""
        while (size < 0 or not self._buffer) and await self._more():
            pass
        return self._take(len(self._buffer) if size < 0 else size)

    async def readline(self) -> bytes:
        """Return the next line with its end; the last may have none.

        Raises:
            StreamError: It is longer than any object.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise StreamError(f"a line of the answer is longer than {MAX_LINE} bytes")
            if not await self._more():
                return self._take(searched)
        return self._take(end + 1)

    async def _more(self) -> bool:
        if not self._ended:
            item = await self._items()
            if isinstance(item, bytes):
                self._buffer += item
                return True
            self._ended, self._error = True, item
        if self._error is not None:
            raise self._error
        return False

    def _take(self, size: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken


class Answer:
    """A successful answer. `data` is the body, where it was read."""

    def __init__(
        self, status: int, headers: Mapping[str, str], content: Content, *,
        data: bytes = b"", task: asyncio.Task[None] | None = None,
    ) -> None:  # fmt: skip
        self.status = status
        self.reason = phrase(status)
        self.ok = True
        self.headers = headers
        self.content = content
        self.data: bytes | str = data  # ApiClient puts the text here
        self._task = task

    def getheaders(self) -> Mapping[str, str]:
        """All headers."""
        return self.headers

    def getheader(self, name: str, default: str | None = None) -> str | None:
        """One header, by its name in any case."""
        return self.headers.get(name, default)

    async def read(self) -> bytes:
        """Return the rest of the body."""
        return await self.content.read()

    async def text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the rest of the body as text."""
        return (await self.read()).decode(encoding, errors)

    async def json(self, **_: object) -> Any:  # noqa: ANN401 - whatever the server says
        """Return the rest of the body, decoded."""
        return orjson.loads(await self.read())

    @property
    def closed(self) -> bool:
        """Whether nothing more comes from the server."""
        return self._task is None or self._task.done()

    def close(self) -> None:
        """Give the stream up, and its connection with it."""
        if self._task is not None:
            self._task.cancel()

    release = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._task is not None:
            await asyncio.wait([self._task])

    def __del__(self) -> None:
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)


def whole(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """An answer that is there."""
    items: list[Item] = [None, body]

    async def pop() -> Item:
        return items.pop()

    return Answer(status, headers, Content(pop), data=body)


class Streams:
    """The streams of one `ApiClient`: each is a task, which holds its connection."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, request: Request, *, total: float | None) -> Answer:
        """Send `request`, and return its answer when that begins.

        Args:
            request: A GET on the lane for watches.
            total: Seconds for the whole stream; None for any time.

        Raises:
            StatusError: The server answered with an error.
            TransportError: There was no answer.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        items: asyncio.Queue[Item] = asyncio.Queue(1)  # who reads slowly holds the server up
        task = loop.create_task(self._read(request, opened, items, total), name=f"bridge {request.target}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await opened
        except BaseException:
            task.cancel()
            await asyncio.wait([task])
            raise
        return Answer(200, CIMultiDict(), Content(items.get), task=task)

    async def close(self) -> None:
        """End all streams, and return when their connections are given up."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _read(
        self, request: Request, opened: asyncio.Future[None], items: asyncio.Queue[Item], total: float | None
    ) -> None:
        end: Exception | None = None
        try:
            async with asyncio.timeout(total), self._transport.stream(request) as chunks:
                if not opened.done():
                    opened.set_result(None)
                async for chunk in chunks:
                    await items.put(chunk)
        except TransportError as error:
            end = as_timeout(error)
        except TimeoutError as error:
            end = TimedOut(f"{request.target}: the answer did not end within {total:g} s (_request_timeout)", sent=True)
            end.__cause__ = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for who opened the stream or reads it
            end = error
        except asyncio.CancelledError:
            if not opened.done():
                opened.set_exception(_closed())
            if items.empty():  # somebody may wait for the next
                items.put_nowait(_closed())
            raise
        if not opened.done():
            opened.set_exception(end or _closed())
        else:
            await items.put(end)


def _closed() -> RuntimeError:
    return RuntimeError("this stream is closed, and so is perhaps its ApiClient")


async def _until_empty(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while piece := await read():
        yield piece

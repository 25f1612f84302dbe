"""One HTTP/1.1 connection (RFC 9112): a request is handed to the socket in one step, and its answer is put together.

One request at a time, and no pipelining. The parser is llhttp's, by httptools. A connection is reusable only after an
answer that was complete and asked for nothing else; whatever else happens, a deadline, a cancellation, an answer that
is no HTTP, aborts it, and what is not yet in the kernel is thrown away. Nothing is decoded but gzip and deflate.
"""

import asyncio
import select
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, Self, cast

import httptools

MAX_HEAD = 2**18  # bytes of an answer's status line and headers
MAX_BODY = 2**30  # bytes of an answer, after decompression; a list of 300,000 objects in one page
LARGE = 2**16  # bytes of a request that the kernel takes at once, whatever the peer does
HIGH_WATER = 2**20  # bytes of a stream that wait for their reader, before the socket is left to fill


class ProtocolError(Exception):
    """What came is no answer by the rules of HTTP/1.1; the text says in which way, `start` how it began."""

    def __init__(self, text: str, start: bytes = b"") -> None:
        super().__init__(text)
        self.start = start


class Headers(Mapping[str, str]):
    """The headers of an answer, by name in any case. Of several of one name `[]` and `get` give the first."""

    __slots__ = ("_raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def getall(self, name: str) -> list[str]:
        """Every value that came under `name`, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self._raw if key.lower() == wanted]

    def __getitem__(self, name: str) -> str:
        found = self.getall(name)
        if not found:
            raise KeyError(name)
        return found[0]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1").lower() for key, _ in self._raw))

    def __len__(self) -> int:
        return len(set(self))


class _Decompressor(Protocol):
    """As much of zlib's as is used."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class Connection(asyncio.Protocol):
    """A connection that was made. Whose it is for one exchange calls `send`, awaits `head` or `answer`, then `done`.

    Attributes:
        context: The TLS context it was made with; None for plain HTTP.
        prefix: What stands before the path in a request line: `http://host:port` towards a proxy, else nothing.
        extra: Header lines for each request, for a proxy too; each ends with CRLF.
        idle_since: When the last answer was complete (loop time).
        fresh: Nothing was asked on it yet.

    Invariants: `_answer` is a future exactly while a request is out; `_closed` never goes back to False.
    """

    def __init__(self, *, context: ssl.SSLContext | None = None, prefix: str = "", extra: str = "") -> None:
        self.context = context
        self.prefix = prefix
        self.extra = extra
        self.idle_since = 0.0
        self.fresh = True
        self.on_close: Callable[[Connection], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._closed = False
        self._answer: asyncio.Future[None] | None = None
        self._headed: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self._head_size = 0  # of what came until it was complete, a header without end among it
        self._headers_size = 0
        self._size = 0
        self._raw: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._decompressor: _Decompressor | None = None
        self._complete = False
        self._surplus = False
        self._reusable = False
        self._started = False
        self._has_head = False
        self._until_eof = False
        self._broken: BaseException | None = None
        self._streaming = False
        self._sent = 0
        self._paused = False
        self._reader: asyncio.Future[None] | None = None
        self._heard = 0.0

    # The life of the connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop says that it is there."""
        self._transport = cast("asyncio.Transport", transport)
        self.idle_since = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The loop says that it is gone."""
        self._closed = True
        self._transport = None  # asyncio's fails when it is aborted after this
        if self._answer is not None and not self._complete:
            if exc is None and self._until_eof:
                self._finish()
            else:
                self._fail(exc or ProtocolError(self._how_it_ended()))
        if self.on_close is not None:
            self.on_close(self)
        self.on_close = None
        self._parser = None  # it knows us: what refers to itself is freed late

    def eof_received(self) -> None:
        """The peer has closed its side; the loop closes ours."""
        self._closed = True

    def abort(self) -> None:
        """Close at once; what is not yet in the kernel is thrown away."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def closed(self) -> bool:
        """Whether it is of no more use."""
        return self._closed or self._transport is None or self._transport.is_closing()

    def stale(self) -> bool:
        """Ask the kernel whether an idle connection has been closed, or spoken on, since the loop last looked."""
        if self._transport is None:
            return True
        if self._poll is None:
            found = self._transport.get_extra_info("socket")
            if found is None or found.fileno() < 0:
                return True
            self._poll = select.poll()
            self._poll.register(found.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(self._poll.poll(0))

    def peer(self) -> str:
        """The address at the other end, as `host:port`: the server's, or its load balancer's, or the proxy's."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    def peer_certificate(self) -> bytes:
        """The certificate that the peer showed, as DER; empty where there is no TLS."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""

    # One exchange.

    def send(self, data: bytes, *, streaming: bool = False) -> None:
        """Hand a request, head and body, to the socket. Not HEAD: the parser would wait for the body of its answer.

        Args:
            data: All of it.
            streaming: The answer is iterated over.
        """
        assert self._transport is not None
        assert self._answer is None, "one request at a time"
        self._reset()
        self.fresh = False
        self._streaming = streaming
        self._answer = self._loop.create_future()
        self._sent = len(data)
        self._transport.write(data)

    @property
    def answer(self) -> "asyncio.Future[None]":
        """Done when the answer is complete; fails with what went wrong."""
        assert self._answer is not None
        return self._answer

    async def head(self) -> None:
        """Wait for the status and headers of the answer; raises what went wrong."""
        if not self._has_head and self._broken is None:
            self._headed = self._loop.create_future()
            try:
                await self._headed
            finally:
                self._headed = None
        elif self._broken is not None:
            raise self._broken

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        return Headers(self._raw)

    @property
    def body(self) -> bytes:
        """The body of an answer that is complete."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The body of a streaming answer as it comes, cut anywhere; ends with it, or raises what went wrong."""
        while not self._chunks:
            if self._complete:
                raise StopAsyncIteration
            if self._broken is not None:
                raise self._broken
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data, self._chunks, self._size = self.body, [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._heard = self._loop.time()
            self._transport.resume_reading()
        return data

    def silent_for(self) -> float:
        """Seconds since something came from the peer, or could have come: while the reader is slow, nothing can."""
        return 0.0 if self._paused else self._loop.time() - self._heard

    def give_up(self, error: BaseException) -> None:
        """Let the exchange fail with `error`, and abort the connection. Of no effect when the answer is complete."""
        if self._answer is not None and not self._complete:
            self._fail(error)
            self.abort()

    def done(self) -> bool:
        """End the exchange; True when the connection can serve another. Else it is aborted."""
        clean = (
            self._complete
            and not self._closed
            and self._transport is not None
            and not self._unsent()  # answered before it had all: who knows what it reads next
            and self._reusable
        )
        if self._answer is not None and self._answer.done() and not self._answer.cancelled():
            self._answer.exception()  # it was told by `head`, or to who iterates
        self._answer = self._broken = None
        if self._paused and clean and self._transport is not None:
            self._transport.resume_reading()
        self._chunks, self._raw = [], []
        if not clean:
            self.abort()
        self.idle_since = self._loop.time()
        return clean

    def _unsent(self) -> bool:
        """Whether some of the request may still wait here. What waits below TLS is not known: a large one may."""
        assert self._transport is not None
        return self._transport.get_write_buffer_size() > 0 or (self.context is not None and self._sent > LARGE)

    # What the parser says. Its names are httptools'.

    def data_received(self, data: bytes) -> None:
        """The loop has bytes."""
        if self._answer is None or self._complete:
            self.abort()  # nobody has asked for anything
            return
        self._heard = self._loop.time()
        assert self._parser is not None
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
            if not self._has_head and self._head_size > MAX_HEAD:
                raise ProtocolError(f"its headers are longer than {MAX_HEAD} bytes")  # noqa: TRY301 - one way out
        except httptools.HttpParserUpgrade:
            self.give_up(ProtocolError("it wants to change the protocol"))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self.give_up(cause if isinstance(cause, ProtocolError) else ProtocolError(f"its body is broken: {cause}"))
        except ProtocolError as error:
            self.give_up(error)
        except httptools.HttpParserError as error:
            self.give_up(ProtocolError(f"it is no HTTP: {error}", data[:200]))
        if self._surplus:
            self.abort()
        if self._streaming and self._chunks:
            self._wake()
            if self._size > HIGH_WATER and not self._paused and not self._closed:
                assert self._transport is not None
                self._transport.pause_reading()
                self._paused = True

    def on_message_begin(self) -> None:
        """A status line follows."""
        if self._complete:
            self._surplus = True
            raise ProtocolError("a second answer came, which nobody has asked for")
        self._started = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._raw.append((name, value))
        self._headers_size += len(name) + len(value)
        if self._headers_size > MAX_HEAD:
            raise ProtocolError(f"its headers are longer than {MAX_HEAD} bytes")

    def on_headers_complete(self) -> None:
        """The head of an answer is there; that of an interim one (100 to 199) is thrown away."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self._has_head = True
        framed = self.status in {204, 304}
        for name, value in self._raw:
            key = name.lower()
            if key in {b"content-length", b"transfer-encoding"}:
                framed = True
            elif key == b"content-encoding":
                self._decompressor = _decompressor(value)
        self._until_eof = not framed
        if self._headed is not None and not self._headed.done():
            self._headed.set_result(None)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._decompressor is not None:
            if self._decompressor.eof:
                raise ProtocolError("its body goes on after the end of what is compressed")
            body = self._decompressor.decompress(body, MAX_BODY + 1)
            if self._decompressor.unused_data:
                raise ProtocolError("its body goes on after the end of what is compressed")
        self._size += len(body)
        if self._size > MAX_BODY:
            raise ProtocolError(f"it is longer than {MAX_BODY} bytes")
        if body:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The answer is there, or an interim one before it."""
        if self.status < 200:
            self._raw = []
            return
        assert self._parser is not None
        self._reusable = self._parser.should_keep_alive()  # to be asked here: afterwards it has forgotten
        self._finish()

    def _finish(self) -> None:
        if self._decompressor is not None and not self._decompressor.eof:
            self._fail(ProtocolError("its compressed body ends in the middle"))
            self.abort()
            return
        self._complete = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        self._wake()

    def _fail(self, error: BaseException) -> None:
        if self._broken is not None:  # the first reason is the one to tell
            return
        self._broken = error
        for each in (self._answer, self._headed):
            if each is not None and not each.done():
                each.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _how_it_ended(self) -> str:
        if not self._started:
            return "it was closed before an answer came"
        if not self._has_head:
            return "it was closed in the middle of the headers"
        return f"it was closed after {sum(map(len, self._chunks))} bytes of a body that is longer"


def _decompressor(encoding: bytes) -> _Decompressor | None:
    match encoding.strip().lower():
        case b"" | b"identity":
            return None
        case b"gzip" | b"x-gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        case b"deflate":
            return zlib.decompressobj()
        case other:
            raise ProtocolError(f"its content-encoding is {other.decode('latin-1')!r}, which nobody has asked for")

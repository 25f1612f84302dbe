"""Answers as no API server sends them, but a proxy, a broken network or an enemy may.

Whatever comes over the wire: an error of ours or the body that was meant, never another one, never later than the
deadline; and the next request on the same transport is answered by its own answer.
"""

import asyncio
import gzip
import itertools
import socket
import struct
import zlib
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asyncctl.client.errors import KubernetesError, Target
from asyncctl.client.transport.transport import Lane, Request
from tests.unit.support import make_transport, raw_server

TIMEOUT = 0.3  # seconds, for a request that is not answered
PATIENCE = 20.0  # seconds in which a loaded machine does all else
OK = b'{"kind":"Ok"}'
EVIL = b'{"kind":"Evil"}'
GOOD = b'{"kind":"Good"}'
TARGET = Target("get", "configmaps", "team", "a")
GET = Request(target=TARGET, method="GET", path="/bad", lane=Lane.READ)
POST = Request(target=TARGET, method="POST", path="/bad", lane=Lane.WRITE, body=b"{}")
WATCH = Request(target=TARGET, method="GET", path="/bad", lane=Lane.WATCH)


def answer(body=OK, *headers, start="HTTP/1.1 200 OK", length=True):
    lines = [start, *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*parts, end=b"0\r\n\r\n", headers=()):
    body = b"".join(f"{len(part):x}".encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return answer(body + end, "Transfer-Encoding: chunked", *headers, length=False)


@dataclass
class Endless:
    """Bytes without end."""

    beginning: bytes
    piece: bytes

    def __iter__(self):
        return itertools.chain([self.beginning], itertools.repeat(self.piece))


def bomb():
    """A small answer that is 16 MiB when it is unpacked."""
    zeros, total = bytes(2**20), 0
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(16):
        total = zlib.crc32(zeros, total)
    packed = gzip.compress(b"")[:10] + block * 16 + b"\x03\0" + struct.pack("<II", total, 2**24)
    return answer(packed, "Content-Encoding: gzip")


@dataclass
class Case:
    """What is sent as an answer, what happens to the connection then, and which bodies may come of it, if any."""

    sent: object  # bytes, pieces of them, or what makes those
    then: str = "keep"  # or close, reset, hang
    bodies: tuple = ()
    must: bool = False  # it is right: an error would be wrong
    said: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader, writer):
        """Answer each request: one for /good as it should be, all others with this."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"content-length: 2\r\n" in head.lower():
                    await reader.readexactly(2)
                if b" /good " in head:
                    writer.write(answer(GOOD))
                elif not await self.misbehave(reader, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.said.set()

    async def misbehave(self, reader, writer):
        sent = self.sent() if callable(self.sent) else self.sent
        for piece in [sent] if isinstance(sent, bytes) else sent:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if self.then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif self.then == "hang":
            await reader.read()
        else:
            self.said.set()
        return self.then == "keep"

    async def over(self):
        """Return when all was said, and could be heard."""
        async with asyncio.timeout(PATIENCE):
            await self.said.wait()
        for _ in range(10):
            await asyncio.sleep(0)


async def outcome(transport, request):
    """The body of the answer, or our error; anything else is raised."""
    async with asyncio.timeout(PATIENCE / 2):
        try:
            return (await transport.request(request)).body
        except KubernetesError as error:
            return error


async def check(transport, case, request):
    silent = case.then == "hang" or isinstance(case.sent, Endless)
    got = await outcome(transport, replace(request, timeout=TIMEOUT) if silent else request)
    if isinstance(got, bytes):
        assert got in case.bodies
    else:
        assert not case.must, got
    await case.over()
    for _ in range(2):
        assert await outcome(transport, replace(request, path="/good")) == GOOD


def right(sent, body=OK, **more):
    return Case(sent, bodies=(body,), must=True, **more)


def either(sent, *bodies, **more):
    return Case(sent, bodies=bodies or (OK,), **more)


def wrong(sent, **more):
    return Case(sent, **more)


CASES = {
    # What is right.
    "plain": right(answer()),
    "plain and closed": right(answer(), then="close"),
    "announced to close": right(answer(OK, "Connection: close"), then="close"),
    "until the end": right(answer(OK, length=False), then="close"),
    "chunked": right(chunked(OK[:4], OK[4:])),
    "chunked, single bytes": right(chunked(*(OK[i : i + 1] for i in range(len(OK))))),
    "empty": right(answer(b""), b""),
    "empty chunked": right(chunked(), b""),
    "no reason": right(answer(start="HTTP/1.1 200 ")),
    "a byte at a time": right([bytes([byte]) for byte in answer()]),
    "chunked, a byte at a time": right([bytes([byte]) for byte in chunked(OK)]),
    "headers twice": right(answer(OK, "X-A: 1", "X-A: 2", 'Warning: 299 - "a"', 'Warning: 299 - "b"')),
    "encoding identity": right(answer(OK, "Content-Encoding: identity")),
    "100 first": right(b"HTTP/1.1 100 Continue\r\n\r\n" + answer()),
    "103 and 102 first": right(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + answer()),
    "trailers": right(chunked(OK, end=b"0\r\nX-T: 1\r\nX-U: 2\r\n\r\n")),
    "chunk extensions": right(
        answer(b"d;a=b;c\r\n" + OK + b"\r\n0;x\r\n\r\n", "Transfer-Encoding: chunked", length=False)
    ),
    "HTTP/1.0": right(answer(start="HTTP/1.0 200 OK"), then="close"),
    "space around values": right(answer(OK, "X-A:   b  ", f"Content-Length:  {len(OK)}  ", length=False)),
    # Lengths.
    "half a body": wrong(answer()[:-5], then="close"),
    "half a body, reset": wrong(answer()[:-5], then="reset"),
    "half a body and silence": wrong(answer()[:-5], then="hang"),
    "no body": wrong(answer()[: -len(OK)], then="close"),
    "too long a length": wrong(answer(OK, "Content-Length: 5000", length=False), then="close"),
    "too short a length": either(answer(OK, "Content-Length: 5", length=False), OK[:5]),
    "length zero": either(answer(OK, "Content-Length: 0", length=False), b""),
    "until the end, reset": wrong(answer(OK, length=False), then="reset"),
    "until the end, and silence": wrong(answer(OK, length=False), then="hang"),
    **{
        f"length {value!r}": wrong(answer(OK, f"Content-Length: {value}", length=False), then="close")
        for value in ("abc", "-13", "+13", "1 3", "0xd", "13.0", "13,14", "9" * 30, "\xb9\xb3", "13 x", "1_3")
    },
    "an empty length": either(answer(OK, "Content-Length: ", length=False), then="close"),
    "length twice in one": either(answer(OK, "Content-Length: 13, 13", length=False)),
    "length twice, the same": either(answer(OK, "Content-Length: 13", "Content-Length: 13", length=False)),
    "length twice, another": wrong(answer(OK, "Content-Length: 13", "Content-Length: 5", length=False), then="close"),
    "length twice, a longer": wrong(answer(OK, "Content-Length: 5", "Content-Length: 13", length=False), then="close"),
    "length with leading zeros": either(answer(OK, "Content-Length: 0013", length=False)),
    # Both.
    "length and chunked": either(chunked(OK, headers=["Content-Length: 13"])),
    "length zero and chunked": either(chunked(OK, headers=["Content-Length: 0"])),
    "length and chunked, unchunked": wrong(answer(OK, "Transfer-Encoding: chunked"), then="close"),
    # Transfer codings.
    **{
        f"coding {value!r}": either(
            answer(b"d\r\n" + OK + b"\r\n0\r\n\r\n", f"Transfer-Encoding: {value}", length=False), OK, then="close"
        )
        for value in (
            "Chunked",
            "chunked, chunked",
            "gzip, chunked",
            "chunked;q=1",
            "\tchunked",
            "chunked,",
            "\x0bchunked",
        )
    },
    **{
        f"coding {value!r}": either(answer(OK, f"Transfer-Encoding: {value}", length=False), OK, then="close")
        for value in ("identity", "xchunked", "chunked, identity", "gzip", "")
    },
    # Chunks.
    **{
        f"chunk size {size!r}": wrong(
            answer(size + b"\r\n" + OK + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), then="close"
        )
        for size in (
            b"zz",
            b"-d",
            b"+d",
            b"0xd",
            b"",
            b" ",
            b"F" * 17,
            b"F" * 5000,
            b"d d",
            b"\0d",
            b"c",
            b"e",
            b"5000",
        )
    },
    "chunk size with spaces": either(
        answer(b"d  \r\n" + OK + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), then="close"
    ),
    "chunk lines with bare LF": either(
        answer(b"d\n" + OK + b"\n0\n\n", "Transfer-Encoding: chunked", length=False), then="close"
    ),
    "chunk without its end of line": wrong(
        answer(b"d\r\n" + OK + b"0\r\n\r\n", "Transfer-Encoding: chunked", length=False), then="close"
    ),
    "chunk with more": wrong(
        answer(b"d\r\n" + OK + b"xx\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), then="close"
    ),
    "no last chunk": wrong(chunked(OK, end=b""), then="close"),
    "no last chunk, reset": wrong(chunked(OK, end=b""), then="reset"),
    "no last chunk and silence": wrong(chunked(OK, end=b""), then="hang"),
    "half a last chunk": wrong(chunked(OK, end=b"0\r"), then="close"),
    "no end of the trailers": wrong(chunked(OK, end=b"0\r\nX-A: b\r\n"), then="hang"),
    "a bad trailer": either(chunked(OK, end=b"0\r\nno colon\r\n\r\n"), then="close"),
    "a trailer with a length": either(chunked(OK, end=b"0\r\nContent-Length: 3\r\n\r\n")),
    # Heads.
    "nothing": wrong(b"", then="close"),
    "nothing, reset": wrong(b"", then="reset"),
    "nothing at all": wrong(b"", then="hang"),
    "half a head": wrong(b"HTTP/1.1 200 OK\r\nContent-Le", then="close"),
    "half a head and silence": wrong(b"HTTP/1.1 200 OK\r\nContent-Le", then="hang"),
    **{
        f"start {start!r}": wrong(answer(start=start), then="close")
        for start in (
            "FOO",
            "HTTP/1.1",
            "HTTP/1.1 abc OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 -20 OK",
            "HTTP/9.9 200 OK",
            "ICY 200 OK",
            "\0HTTP/1.1 200 OK",
            "HTTP/1.1 000 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.1 999 OK",
            "GET / HTTP/1.1",
            "HTTP/1.1\t200 OK\0",
        )
    },
    **{
        f"start {start!r}": either(answer(start=start), then="close")
        for start in (
            "http/1.1 200 OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 200",
            "\r\nHTTP/1.1 200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/1.1 200 \xff",
            "HTTP/1.1 200 a\rb",
        )
    },
    "a page without a head": wrong(b"<html>" + b"x" * 5000, then="close"),
    "TLS on a plain port": wrong(b"\x15\x03\x01\x00\x02\x02\x16", then="close"),
    "random bytes": wrong(bytes((i * 7919 + i // 3) % 256 for i in range(4096)), then="close"),
    **{
        f"header {line!r}": either(answer(OK, line), then="close")
        for line in (
            "X-A: a\0b",
            "X\0A: b",
            "X-A : b",
            "no colon",
            ": no name",
            " folded: first",
            "X-A: a\r\n folded",
            "X-A: a\r\n\tfolded",
            "X-A: a\rb",
            "X-A: a\nContent-Length: 5",
            "X-\xff: \xfe",
            "X-A: \x7f\x01",
            "X(A): b",
            "",
        )[:-1]
    },
    "bare LF": either(answer().replace(b"\r\n", b"\n"), then="close"),
    "a head of one long line": either(answer(OK, "X-A: " + "x" * 2**21)),
    "a long name": either(answer(OK, "x" * 2**21 + ": a")),
    "a long reason": either(answer(start="HTTP/1.1 200 " + "x" * 2**21)),
    "a hundred thousand headers": either(answer(OK, *(f"X-{i}: a" for i in range(100_000)))),
    # Without end.
    "endless start": wrong(Endless(b"HTTP/1.1 200 ", b"x" * 4096), then="close"),
    "endless headers": wrong(Endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 500), then="close"),
    "endless value": wrong(Endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"x" * 4096), then="close"),
    "endless 1xx": wrong(Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), then="close"),
    "endless chunk size": wrong(Endless(chunked(end=b"") + b"1;", b"x" * 4096), then="close"),
    "endless zeros for a size": wrong(Endless(chunked(end=b""), b"0" * 4096), then="close"),
    "endless trailers": wrong(Endless(chunked(OK, end=b"0\r\n"), b"X-A: b\r\n" * 500), then="close"),
    "endless body": wrong(Endless(answer(b"", length=False), b"x" * 4096), then="close"),
    "endless chunks": wrong(Endless(chunked(end=b""), b"1\r\nx\r\n" * 500), then="close"),
    "endless empty lines": wrong(Endless(b"", b"\r\n" * 2000), then="close"),
    # Codes.
    "101": wrong(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + answer(), then="close"
    ),
    "100 alone": wrong(b"HTTP/1.1 100 Continue\r\n\r\n", then="close"),
    "100 with a length": either(b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + answer(), then="close"),
    "204": right(answer(b"", start="HTTP/1.1 204 No Content", length=False), b""),
    "204 with a body": either(answer(EVIL, start="HTTP/1.1 204 No Content"), b""),
    "204 with an answer in its body": either(answer(answer(EVIL), start="HTTP/1.1 204 No Content"), b""),
    "205 with a body": either(answer(EVIL, start="HTTP/1.1 205 Reset"), b"", EVIL),
    "304": wrong(answer(b"", start="HTTP/1.1 304 Not Modified", length=False)),
    "304 with a length and no body": wrong(answer(b"", "Content-Length: 13", start="HTTP/1.1 304 Not", length=False)),
    "304 with an answer in its body": wrong(answer(answer(EVIL), start="HTTP/1.1 304 Not Modified")),
    "302": wrong(answer(OK, "Location: /good", start="HTTP/1.1 302 Found")),
    "401 with a challenge": wrong(answer(OK, "WWW-Authenticate: Basic", start="HTTP/1.1 401 No")),
    "407": wrong(answer(OK, start="HTTP/1.1 407 Proxy")),
    "426": wrong(answer(OK, "Upgrade: h2c", "Connection: Upgrade", start="HTTP/1.1 426 Upgrade"), then="close"),
    "a broken 500": wrong(answer(OK, start="HTTP/1.1 500 No")[:-5], then="close"),
    # What comes after the answer.
    "an answer too many": either(answer() + answer(EVIL)),
    "an answer too many, chunked": either(chunked(OK) + chunked(EVIL)),
    "an answer too many, later": either([answer(), b"", answer(EVIL)]),
    "half an answer too many": either(answer() + answer(EVIL)[:-3]),
    "garbage after": either(answer() + b"\0\xff\r\nxyz"),
    "an empty line after": either(answer() + b"\r\n\r\n"),
    "an answer after a closing one": either(answer(OK, "Connection: close") + answer(EVIL), then="close"),
    "closing, but it does not": either(answer(OK, "Connection: close"), then="hang"),
    # Codings of the content.
    "gzip": either(answer(gzip.compress(OK), "Content-Encoding: gzip")),
    "gzip, chunked": either(chunked(gzip.compress(OK), headers=["Content-Encoding: gzip"])),
    "gzip twice": either(answer(gzip.compress(gzip.compress(OK)), "Content-Encoding: gzip, gzip")),
    "gzip in two members": either(answer(gzip.compress(OK[:3]) + gzip.compress(OK[3:]), "Content-Encoding: gzip")),
    "deflate": either(answer(zlib.compress(OK), "Content-Encoding: deflate")),
    "raw deflate": either(answer(zlib.compress(OK)[2:-4], "Content-Encoding: deflate")),
    "half a gzip": wrong(answer(gzip.compress(OK)[:-9], "Content-Encoding: gzip")),
    "gzip without its sum": wrong(answer(gzip.compress(OK)[:-8], "Content-Encoding: gzip")),
    "gzip with another sum": wrong(answer(gzip.compress(OK)[:-8] + b"\0" * 8, "Content-Encoding: gzip")),
    "gzip with garbage after": either(answer(gzip.compress(OK) + b"garbage", "Content-Encoding: gzip")),
    "half a deflate": wrong(answer(zlib.compress(OK)[:-5], "Content-Encoding: deflate")),
    "gzip that is none": wrong(answer(OK, "Content-Encoding: gzip")),
    "gzip of nothing": either(answer(b"", "Content-Encoding: gzip"), b""),
    **{
        f"encoding {name}": wrong(answer(b"\x8b\x05\x80" + OK, f"Content-Encoding: {name}"))
        for name in ("br", "zstd", "compress", "x")
    },
}


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_answer_is_what_was_meant_or_an_error_and_the_next_one_is_its_own(case, request_):
    case = replace(case, said=asyncio.Event())
    async with raw_server(case.serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        await check(transport, case, request_)


async def test_a_bomb_is_an_error_before_it_has_unfolded(monkeypatch):
    monkeypatch.setattr("asyncctl.client.transport.connection.MAX_BODY", 2**20)
    case = wrong(bomb)
    async with raw_server(case.serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        await check(transport, case, GET)


@pytest.mark.parametrize("whole", [answer(), chunked(OK[:5], OK[5:])], ids=["length", "chunked"])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_connection_that_ends_after_any_byte_is_an_error(whole, then):
    case = Case(b"", then=then, bodies=(OK,))
    async with raw_server(case.serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        for end in range(len(whole)):
            case.sent = whole[:end]
            got = await outcome(transport, GET)
            assert isinstance(got, KubernetesError), (end, got)
        case.sent, case.then, case.must = whole, "keep", True
        await check(transport, case, GET)


async def test_an_answer_before_the_request_does_no_harm():
    """Whether it is taken for the answer depends on which bytes come first; the next request has its own."""
    case, number = Case(answer()), itertools.count()

    async def serve(reader, writer):
        if next(number) == 0:
            writer.write(answer(EVIL))
            await writer.drain()
        await case.serve(reader, writer)

    async with raw_server(serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        await outcome(transport, GET)
        await case.over()
        assert await outcome(transport, replace(GET, path="/good")) == GOOD


async def test_an_answer_on_an_idle_connection_is_not_the_next_requests():
    said = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        if not said.is_set():
            await say.wait()
            writer.write(answer(EVIL))
            await writer.drain()
            said.set()
        await Case(answer()).serve(reader, writer)

    say = asyncio.Event()
    async with raw_server(serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        assert await outcome(transport, GET) == OK
        say.set()
        await said.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        got = await outcome(transport, replace(GET, path="/good"))
        assert got != EVIL


async def read(transport):
    async with asyncio.timeout(PATIENCE / 2), transport.stream(WATCH) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_watch_that_ends_after_any_byte_is_an_error_until_its_last(then):
    whole = chunked(b'{"a":1}\n', b'{"b":2}\n')
    case = Case(b"", then=then)

    async with raw_server(case.serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        for end in range(len(whole)):
            case.sent = whole[:end]
            with pytest.raises(KubernetesError):
                await read(transport)
        case.sent, case.then = whole, "close"
        assert await read(transport) == b'{"a":1}\n{"b":2}\n'


WATCHES = [name for name, case in CASES.items() if not case.must and not case.bodies and not name.startswith("endless")
           and case.then != "hang"]  # fmt: skip


@pytest.mark.parametrize("name", WATCHES)
async def test_a_watch_that_is_answered_wrongly_is_an_error(name):
    async with raw_server(CASES[name].serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
        with pytest.raises(KubernetesError):
            await read(transport)


pieces = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"0\r\n\r\n", b"Content-Length: 5\r\n", b"HTTP/1.1 200 OK\r\n",
         b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Content-Encoding: gzip\r\n", b"ffffffff", b"-1"]
    ),
)  # fmt: skip


@st.composite
def mutated(draw):
    """A right answer of which a few pieces were cut out, put in or written over."""
    made = bytearray(
        draw(st.sampled_from([answer(), chunked(OK[:4], OK[4:]), answer(gzip.compress(OK), "Content-Encoding: gzip")]))
    )
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(made)))
        made[at : at + draw(st.integers(0, 6))] = draw(pieces)
    return bytes(made)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sent=mutated(), then=st.sampled_from(["keep", "close", "reset"]))
def test_a_mutated_answer_gives_bytes_or_an_error_of_ours_and_harms_no_other(sent, then):
    async def main():
        case = Case(sent, then=then)
        async with raw_server(case.serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
            await outcome(transport, replace(GET, timeout=0.3))  # it may wait for more, in vain
            await case.over()
            assert await outcome(transport, replace(GET, path="/good")) == GOOD

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(
    whole=st.sampled_from([answer(), chunked(OK), chunked(OK[:1], OK[1:], end=b"0\r\nX: y\r\n\r\n")]), data=st.data()
)
def test_an_answer_is_the_same_wherever_it_is_cut(whole, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=6)))
    parts = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]

    async def main():
        case = right(parts)
        async with raw_server(case.serve) as url, make_transport(url, timeout=PATIENCE, tries=1) as transport:
            await check(transport, case, GET)

    asyncio.run(main())

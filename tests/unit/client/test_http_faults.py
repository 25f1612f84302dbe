"""Answers that are not what HTTP says, and connections that do not do what they should: real sockets, both loops.

Each ends in an error of ours within its deadline, no wrong body is taken for an answer, and the next request works.
"""

import asyncio
import gzip
import socket
import ssl
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress

import pytest
import trustme

from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import ConfigError, CredentialsError, ServerError, Target, TransportError
from asyncctl.client.transport import connection as connection_module, dial
from asyncctl.client.transport.transport import Lane, Request
from asyncctl.objects import ConfigMap
from tests.unit.support import make_transport, raw_server, until

GET = Request(target=Target("get", "configmaps", "team", "a"), method="GET", path="/x", lane=Lane.READ, repeatable=True)
POST = Request(
    target=Target("create", "configmaps", "team", "a"), method="POST", path="/x", lane=Lane.WRITE, body=b"{}"
)
WATCH = Request(target=Target("watch", "pods"), method="GET", path="/", lane=Lane.WATCH)
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"debug": True, "use_uvloop": request.param == "uvloop"}


@pytest.fixture(params=["http", "https"])
def tls(request):
    """A server's context, and the CA to trust; None and None for plain HTTP."""
    if request.param == "http":
        return None, None
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, authority.cert_pem.bytes()


@asynccontextmanager
async def answering(*answers, close=True):
    """A server that gives each answer to one request and hangs up after it; then it answers well."""
    left = list(answers)
    served = []

    async def handler(reader, writer):
        served.append(writer)
        while head := await _request(reader):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            answer = left.pop(0) if left else GOOD
            writer.write(answer)
            await writer.drain()
            if answer is not GOOD and close:
                return

    async with raw_server(handler) as url:
        yield url, served


async def _request(reader):
    """The head of a request; nothing when the client is gone."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def answer(body, *headers, line=b"200 OK"):
    return b"\r\n".join([b"HTTP/1.1 " + line, *headers, b"", body])


def sized(body, *headers, length=None):
    size = len(body) if length is None else length
    return answer(body, f"Content-Length: {size}".encode(), *headers)


BROKEN = {
    "half a body": (sized(b'{"kind":', length=100), "closed after 8 bytes of a body that is longer"),
    "half a chunk": (answer(b"10\r\n{}", b"Transfer-Encoding: chunked"), "closed after 2 bytes"),
    "no last chunk": (answer(b"2\r\n{}\r\n", b"Transfer-Encoding: chunked"), "closed after 2 bytes"),
    "a chunk without a size": (answer(b"zz\r\n{}", b"Transfer-Encoding: chunked"), "it is no HTTP"),
    "half the headers": (b"HTTP/1.1 200 OK\r\nContent-Le", "closed in the middle of the headers"),
    "half a status line": (b"HTT", "closed in the middle of the headers"),
    "nothing": (b"", "closed before an answer came"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "it is no HTTP"),
    "HTTP/2": (b"\0\0\x12\x04\0\0\0\0\0", "it is no HTTP"),
    "two lengths": (answer(b"{}", b"Content-Length: 2", b"Content-Length: 3"), "it is no HTTP"),
    "a length and chunks": (
        answer(b"2\r\n{}\r\n0\r\n\r\n", b"Content-Length: 2", b"Transfer-Encoding: chunked"), "it is no HTTP",
    ),
    "a length that is no number": (answer(b"{}", b"Content-Length: two"), "it is no HTTP"),
    "a negative length": (answer(b"{}", b"Content-Length: -2"), "it is no HTTP"),
    "a header with NUL": (sized(b"{}", b"X: a\0b"), "it is no HTTP"),
    "a folded header": (sized(b"{}", b"X: a\r\n\tb"), "it is no HTTP"),
    "endless headers": (sized(b"{}", *[b"X-%d: %s" % (n, b"y" * 1000) for n in range(300)]), "headers are longer than"),
    "half of gzip": (sized(gzip.compress(b"{}" * 99)[:-12], b"Content-Encoding: gzip"), "ends in the middle"),
    "gzip that is none": (sized(b"{}", b"Content-Encoding: gzip"), "incorrect header check"),
    "an unknown encoding": (sized(b"{}", b"Content-Encoding: br"), "content-encoding is 'br'"),
    "another protocol, politely": (
        answer(b"", b"Connection: Upgrade", b"Upgrade: h2c", line=b"101 Switching Protocols"), "change the protocol",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer_is_a_transport_error_and_the_next_request_works(case):
    sent, text = BROKEN[case]
    async with answering(sent) as (url, _), make_transport(url, tries=1, timeout=5) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.request(GET)
        assert text in str(caught.value)
        assert f"get configmaps team/a: the connection to {url} broke: " in str(caught.value)
        assert caught.value.sent
        assert (await transport.request(GET)).body == b"{}"


@pytest.mark.parametrize("case", BROKEN)
async def test_what_is_safe_is_repeated_after_a_broken_answer_and_nothing_else(case):
    async with (
        answering(BROKEN[case][0], BROKEN[case][0]) as (url, served),
        make_transport(url, timeout=5) as transport,
    ):
        with pytest.raises(TransportError):
            await transport.request(POST)
        assert len(served) == 1
        assert (await transport.request(GET)).body == b"{}"
        assert len(served) == 3


@pytest.mark.parametrize("case", BROKEN)
async def test_a_watch_that_breaks_is_a_transport_error(case):
    """Nothing that came whole before the break is lost."""
    async with answering(BROKEN[case][0]) as (url, _), make_transport(url, timeout=5) as transport:
        got = []

        async def read():
            async with transport.stream(WATCH) as chunks:
                got.extend([chunk async for chunk in chunks])

        with pytest.raises(TransportError, match="watch pods: the connection to"):
            await read()


WHOLE = {
    "no length: it ends with the connection": answer(b"{}"),
    "chunks with extensions and trailers": answer(
        b"1;a=b\r\n{\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n", b"Transfer-Encoding: chunked"
    ),
    "gzip": sized(gzip.compress(b"{}"), b"Content-Encoding: gzip"),
    "deflate": sized(zlib.compress(b"{}"), b"Content-Encoding: deflate"),
    "gzip in chunks": answer(
        b"".join(b"1\r\n%c\r\n" % each for each in gzip.compress(b"{}")) + b"0\r\n\r\n",
        b"Transfer-Encoding: chunked", b"Content-Encoding: gzip",
    ),
    "interim answers before it": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + GOOD[:],
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n{}",
    "a header that is no ASCII": sized(b"{}", b"X: \xc3\xa4"),
    "close": sized(b"{}", b"Connection: close"),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("how", ["request", "stream"])
async def test_an_answer_in_an_unusual_form_is_read(case, how):
    async with answering(WHOLE[case]) as (url, _), make_transport(url, timeout=5) as transport:
        if how == "request":
            assert (await transport.request(GET)).body == b"{}"
        else:
            async with transport.stream(WATCH) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == b"{}"
        assert (await transport.request(GET)).body == b"{}"


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_an_answer_is_the_same_wherever_it_is_cut(cut):
    whole = answer(b"5\r\nhello\r\n3\r\n ab\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", b"X-Y: z")

    async def handler(reader, writer):
        while await _request(reader):
            for start in range(0, len(whole), cut):
                writer.write(whole[start : start + cut])
                await writer.drain()
                await asyncio.sleep(0)

    async with raw_server(handler) as url, make_transport(url, tries=1, timeout=5) as transport:
        reply = await transport.request(GET)
        assert (reply.body, reply.headers.get("x-y")) == (b"hello ab", "z")


@pytest.mark.parametrize("code", [204, 304])
async def test_an_answer_that_has_no_body_ends_with_its_head(code):
    sent = answer(b"", b"X: y", line=b"%d Whatever" % code)
    async with answering(sent, close=False) as (url, served), make_transport(url, tries=1, timeout=5) as transport:
        if code == 204:
            assert (await transport.request(GET)).body == b""
        else:
            with pytest.raises(ServerError):
                await transport.request(GET)
        assert (await transport.request(GET)).body == b"{}"
        assert len(served) == 1, "the connection serves on"


async def test_a_second_answer_that_nobody_asked_for_is_never_taken_for_the_next():
    async with answering(GOOD + sized(b'{"evil":1}')) as (url, served), make_transport(url, timeout=5) as transport:
        assert (await transport.request(GET)).body == b"{}"
        assert (await transport.request(GET)).body == b"{}"
        assert len(served) == 2


async def test_a_body_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(connection_module, "MAX_BODY", 1000)
    bomb = gzip.compress(b"0" * 10**6)
    for sent in (sized(bomb, b"Content-Encoding: gzip"), sized(b"0" * 1001)):
        async with answering(sent) as (url, _), make_transport(url, tries=1, timeout=5) as transport:
            with pytest.raises(TransportError, match="longer than 1000 bytes"):
                await transport.request(GET)


@pytest.mark.parametrize("line", [b"200 OK", b"502 Bad Gateway", b"301 Moved Permanently"])
async def test_a_page_of_a_proxy_is_never_taken_for_an_object(line):
    page = b"<html><title>Sign in</title>"
    head = b"HTTP/1.1 " + line + b"\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    async with answering(head + page) as (url, _), make_transport(url, tries=1) as transport:
        with pytest.raises(ServerError, match="Sign in"):
            await Client(transport, field_manager="test").get(ConfigMap, "a", namespace="team")


# Connections.


async def test_an_idle_connection_that_the_server_closed_does_not_cost_a_post():
    """The loop has not heard of it yet, so the kernel is asked: a POST can't be repeated."""
    listening = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()
    requests = []

    def serve():
        for _ in range(2):
            client, _ = listening.accept()
            with closing(client):
                requests.append(client.recv(10_000))
                client.sendall(GOOD)
            closed.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with make_transport(url, tries=1, timeout=5) as transport:
            await transport.request(POST)
            closed.wait()  # in which the loop can't look
            assert (await transport.request(POST)).body == b"{}"
    finally:
        thread.join()
        listening.close()
    assert len(requests) == 2


@contextmanager
def closing_server(context):
    """A server of threads, whose end of each connection is right behind its answer; yields URL and what it served."""
    served = []
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)

    def serve(client):
        with suppress(OSError), client if context is None else context.wrap_socket(client, server_side=True) as peer:
            got = b""
            while not got.endswith(b"{}"):
                if not (piece := peer.recv(10_000)):
                    return
                got += piece
            served.append(got)
            peer.sendall(GOOD)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)

    def accept():
        with suppress(OSError), ThreadPoolExecutor(64) as threads:
            while True:
                client, _ = listening.accept()
                client.settimeout(10)
                threads.submit(serve, client)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{listening.getsockname()[1]}", served
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


async def test_a_connection_that_is_handed_on_is_looked_at_first(tls):
    """A server that closes after each answer without a word: of many who wait for a connection none gets a dead one."""
    context, authority = tls
    with closing_server(context) as (url, served):
        config = ClusterConfig(server=url, ca_data=authority)
        async with make_transport(config, tries=1, timeout=20) as transport:
            await asyncio.gather(*(transport.request(POST) for _ in range(200)))
        assert len(served) == 200


async def test_a_server_that_hangs_up_at_once_is_not_dialled_in_a_circle():
    dialled = []

    async def handler(reader, writer):
        dialled.append(1)

    async with raw_server(handler) as url, make_transport(url, tries=3) as transport:
        with pytest.raises(TransportError):
            await transport.request(GET)
    assert len(dialled) == 3


async def test_a_connection_with_an_unsent_body_serves_nobody_else(tls):
    """The server has answered before it read it all, and reads no more."""

    async def handler(reader, writer):
        await _request(reader)
        writer.write(GOOD)
        await writer.drain()
        if big:
            big.pop()
            await over.wait()

    over, big = asyncio.Event(), [1]
    context, authority = tls
    async with raw_server(handler, context) as url:
        config = ClusterConfig(server=url, ca_data=authority)
        async with make_transport(config, tries=1, timeout=5) as transport:
            body = b'"' + b"x" * 2**25 + b'"'
            large = Request(target=POST.target, method="PUT", path="/x", lane=Lane.WRITE, body=body)
            assert (await transport.request(large)).body == b"{}"
            assert (await transport.request(POST)).body == b"{}"
            over.set()


async def test_a_reset_is_told(anyio_backend):
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with raw_server(handler) as url, make_transport(url, tries=1, timeout=5) as transport:
        with pytest.raises(TransportError, match=r"broke: .*reset by peer") as caught:
            await transport.request(GET)
    assert caught.value.sent


@pytest.fixture
def black_hole():
    """A port where nobody answers: its queue of connections is full, so what comes is dropped."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def took(seconds, coroutine, since=None):
    """Await what must raise a `TransportError` after that time, give or take a tenth; return the error.

    It is held against a plain timer of the same loop, started at once or with `since`: what else the machine does with
    its time holds up both.
    """
    loop = asyncio.get_running_loop()

    async def timer():
        if since is not None:
            await since.wait()
        await asyncio.sleep(seconds)
        return loop.time()

    async def failure():
        with pytest.raises(TransportError) as caught:
            await coroutine
        return loop.time(), caught.value

    (failed_at, error), over_at = await asyncio.gather(failure(), timer())
    assert abs(failed_at - over_at) <= seconds / 10
    return error


async def test_nobody_answers_a_connection_within_its_deadline(black_hole, monkeypatch):
    monkeypatch.setattr(dial, "CONNECT_TIMEOUT", 1.0)
    async with make_transport(black_hole, tries=1) as transport:
        error = await took(1.0, transport.request(POST))
    assert "no connection to http://127.0.0.1" in str(error)
    assert "within 1 s" in str(error)
    assert not error.sent


async def test_a_request_has_one_deadline_for_connecting_and_answering(black_hole):
    async with make_transport(black_hole, tries=1, timeout=1.0) as transport:
        error = await took(1.0, transport.request(POST))
    assert not error.sent


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", sized(b"{", length=10)])
async def test_an_answer_that_stops_is_given_up_at_the_deadline(sent):
    async with answering(sent, close=False) as (url, _), make_transport(url, tries=1, timeout=1.0) as transport:
        error = await took(1.0, transport.request(GET))
    assert f"no answer from {url} within 1 s" in str(error)
    assert error.sent


async def test_a_watch_on_which_nothing_comes_is_given_up(monkeypatch):
    monkeypatch.setattr("asyncctl.client.transport.transport.WATCH_IDLE", 1.0)
    sent = answer(b"2\r\n{}\r\n", b"Transfer-Encoding: chunked")
    async with answering(sent, close=False) as (url, _), make_transport(url, timeout=0.5) as transport:
        heard = asyncio.Event()

        async def read():
            async with transport.stream(WATCH) as chunks:
                async for _ in chunks:
                    heard.set()

        error = await took(1.0, read(), since=heard)
    assert "no byte from" in str(error)


async def test_a_slow_reader_is_not_taken_for_a_dead_server(monkeypatch):
    monkeypatch.setattr(connection_module, "HIGH_WATER", 2**16)
    monkeypatch.setattr("asyncctl.client.transport.transport.WATCH_IDLE", 0.1)
    size = 2**22

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()

    async with raw_server(handler) as url, make_transport(url) as transport, transport.stream(WATCH) as chunks:
        got = 0
        async for chunk in chunks:
            got += len(chunk)
            if got < size / 4:
                await asyncio.sleep(0.3)  # three times as long as a server may be silent
        assert got == size


async def test_the_first_reason_is_the_one_that_is_told(monkeypatch):
    """The reader is busy when the stream is given up, and the connection's end comes before it looks."""
    monkeypatch.setattr("asyncctl.client.transport.transport.WATCH_IDLE", 0.1)
    sent = answer(b"2\r\n{}\r\n", b"Transfer-Encoding: chunked")
    async with (
        answering(sent, close=False) as (url, _),
        make_transport(url) as transport,
        transport.stream(WATCH) as chunks,
    ):
        await anext(chunks)
        await until(lambda: chunks._connection._transport is None)
        with pytest.raises(TransportError, match=r"no byte from .* for 0\.1 s"):
            await anext(chunks)


async def test_a_watch_that_speaks_now_and_then_lives_longer_than_its_silence(monkeypatch):
    monkeypatch.setattr("asyncctl.client.transport.transport.WATCH_IDLE", 0.3)

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            writer.write(b"2\r\n{}\r\n")
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with raw_server(handler) as url, make_transport(url) as transport, transport.stream(WATCH) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"{}" * 6


async def test_a_name_without_an_address_is_told(monkeypatch):
    def unknown(*_args, **_more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    config = ClusterConfig(server="https://cluster.example.com:6443", source="KUBECONFIG (/x), context a")
    async with make_transport(config, tries=1) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.request(POST)
    assert "the name 'cluster.example.com' has no address here (Name or service not known)" in str(caught.value)
    assert "KUBECONFIG (/x), context a" in str(caught.value)
    assert not caught.value.sent


async def test_a_name_that_can_be_none_is_told():
    async with make_transport(ClusterConfig(server="http://a..b:1"), tries=1) as transport:
        with pytest.raises(TransportError, match=r"a\.\.b.* can't be reached"):
            await transport.request(GET)


@pytest.mark.parametrize("server", ["cluster:6443", "ftp://cluster", "https://", "https://[::1", "https://a:b"])
def test_what_is_no_address_is_refused_at_once(server):
    with pytest.raises(ConfigError, match="no address of a server"):
        make_transport(server)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nHost: evil", "/ä", "a", ""])
async def test_a_path_that_would_break_the_request_line_is_refused(path):
    async with answering() as (url, served), make_transport(url) as transport:
        await transport.request(GET)
        with pytest.raises(ValueError, match="percent-encode"):
            await transport.request(Request(target=GET.target, method="GET", path=path, lane=Lane.READ))
        await transport.request(GET)
        assert len(served) == 1


async def test_a_token_that_would_break_the_headers_is_refused_and_not_told():
    config = ClusterConfig(server="http://127.0.0.1:1", authorization="Bearer geheim\r\nX: y")
    async with make_transport(config) as transport:
        with pytest.raises(CredentialsError, match="the Authorization of given can't be used") as caught:
            await transport.request(GET)
    assert "geheim" not in str(caught.value)


async def test_a_large_stream_waits_for_its_reader(monkeypatch):
    """What a slow reader has not taken stays with the server, not in our memory."""
    monkeypatch.setattr(connection_module, "HIGH_WATER", 2**16)
    written = []

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            writer.write(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            await writer.drain()
            written.append(2**16)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with raw_server(handler) as url, make_transport(url, timeout=20) as transport:
        async with transport.stream(WATCH) as chunks:
            size = len(await anext(chunks))
            before = 0
            while len(written) != before:
                before = len(written)
                await asyncio.sleep(0.05)  # until nothing moves any more
            assert sum(written) < 20 * 2**20
            async for chunk in chunks:
                size += len(chunk)
        assert size == 1000 * 2**16


async def test_what_is_sent_leaves_before_the_loop_turns():
    """The fence is asked in that step: bytes that waited for the loop could leave after the Lease has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = connection_module.Connection()
        address = listening.getsockname()
        await asyncio.get_running_loop().create_connection(lambda: connection, *address)
        with listening.accept()[0] as peer:
            peer.settimeout(1.0)  # in which the loop does nothing
            connection.send(b"x")
            assert peer.recv(10) == b"x"
            connection.done()
            await until(lambda: connection._transport is None)


async def test_connections_are_used_again_the_last_one_first():
    async with answering() as (url, served), make_transport(url) as transport:
        for _ in range(5):
            await transport.request(GET)
        assert len(served) == 1
        await asyncio.gather(*(transport.request(GET) for _ in range(20)))
        made = len(served)
        await asyncio.gather(*(transport.request(GET) for _ in range(20)))
        assert len(served) == made <= 20


async def test_an_idle_connection_is_closed_in_time(monkeypatch):
    monkeypatch.setattr("asyncctl.client.transport.pool.KEEP", 0.05)
    async with answering() as (url, served), make_transport(url) as transport:
        await transport.request(GET)
        await until(lambda: not transport._pools[Lane.READ]._open)
        await transport.request(GET)
        assert len(served) == 2

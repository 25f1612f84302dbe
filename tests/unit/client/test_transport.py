"""Requests over real sockets: what is repeated, what is told, what a cancellation leaves behind."""

import asyncio

import orjson
import pytest
from aiohttp import web

from asyncctl.client.config.cluster import ClusterConfig, Impersonation
from asyncctl.client.errors import (
    Conflict,
    ServerError,
    StreamError,
    Target,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from asyncctl.client.transport.transport import Lane, Request
from asyncctl.client.watch import lines
from tests.unit.support import ImpatientClock, Log, http_server, make_transport, raw_server, status, until

GET = Request(target=Target("get", "configmaps", "team", "a"), method="GET", path="/x", lane=Lane.READ, repeatable=True)
POST = Request(
    target=Target("create", "configmaps", "team", "a"), method="POST", path="/x", lane=Lane.WRITE, body=b"{}"
)
PATCH = Request(
    target=Target("patch", "configmaps", "team", "a"), method="PATCH", path="/x", lane=Lane.WRITE, body=b"{}",
    content_type="application/apply-patch+yaml", repeatable=True,
)  # fmt: skip


def scripted(*answers):
    """A handler that gives each answer once, then 200, and remembers what it was asked."""
    left = list(answers)

    async def handler(request):
        handler.seen.append((request.method, await request.read()))
        answer = left.pop(0) if left else web.json_response({"ok": True})
        return answer() if callable(answer) else answer

    handler.seen = []
    return handler


async def test_an_answer_comes_back_as_bytes():
    async with http_server(scripted()) as url, make_transport(url) as transport:
        assert orjson.loads((await transport.request(GET)).body) == {"ok": True}


async def test_a_refused_connection_names_the_server_and_where_its_address_came_from():
    async with raw_server(None) as url:
        pass
    config = ClusterConfig(server=url, source="KUBECONFIG (/x)")
    async with make_transport(config, tries=1) as transport:
        with pytest.raises(TransportError, match="can't be reached: Connect") as caught:
            await transport.request(GET)
    assert url in str(caught.value)
    assert "KUBECONFIG (/x)" in str(caught.value)
    assert "get configmaps team/a" in str(caught.value)
    assert not caught.value.sent


async def test_a_post_is_repeated_when_nobody_could_have_seen_it():
    clock = ImpatientClock()
    async with raw_server(None) as url:
        pass
    async with make_transport(url, tries=3, clock=clock) as transport:
        with pytest.raises(TransportError):
            await transport.request(POST)
    assert len(clock.slept) == 2


async def hang_up_after_the_request(reader, writer):
    hang_up_after_the_request.count += 1
    await reader.readuntil(b"{}")


async def test_a_post_that_was_sent_is_not_repeated():
    hang_up_after_the_request.count = 0
    async with raw_server(hang_up_after_the_request) as url, make_transport(url) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.request(POST)
    assert caught.value.sent
    assert hang_up_after_the_request.count == 1


async def test_an_apply_whose_answer_was_lost_is_repeated():
    hang_up_after_the_request.count = 0
    async with raw_server(hang_up_after_the_request) as url, make_transport(url, tries=3) as transport:
        with pytest.raises(TransportError):
            await transport.request(PATCH)
    assert hang_up_after_the_request.count == 3


async def test_a_connection_that_breaks_in_an_answer_repeats_a_get_once_more():
    broken = []

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if not broken:
            broken.append(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with raw_server(handler) as url, make_transport(url) as transport:
        assert (await transport.request(GET)).body == b"{}"


@pytest.mark.parametrize("code", [500, 503, 504])
@pytest.mark.parametrize("request_, times", [(GET, 2), (PATCH, 2), (POST, 1)])
async def test_only_what_is_safe_to_repeat_is_sent_again_after_a_5xx(code, request_, times):
    handler = scripted(status(code, "", "later"))
    async with http_server(handler) as url, make_transport(url) as transport:
        if times == 1:
            with pytest.raises(ServerError):
                await transport.request(request_)
        else:
            await transport.request(request_)
    assert len(handler.seen) == times


async def test_tries_are_bounded():
    handler = scripted(*[lambda: status(500, "", "no")] * 9)
    async with http_server(handler) as url, make_transport(url, tries=4) as transport:
        with pytest.raises(ServerError):
            await transport.request(GET)
    assert len(handler.seen) == 4


def busy(after):
    answer = status(429, "TooManyRequests", "busy")
    if after is not None:
        answer.headers["Retry-After"] = after
    return answer


@pytest.mark.parametrize("request_", [GET, POST, PATCH])
async def test_429_with_retry_after_repeats_anything_after_that_time(request_):
    handler, clock = scripted(busy("3")), ImpatientClock()
    async with http_server(handler) as url, make_transport(url, clock=clock) as transport:
        await transport.request(request_)
    assert len(handler.seen) == 2
    assert clock.slept == [3.0]


@pytest.mark.parametrize("after", [None, "Wed, 21 Oct 2026 07:28:00 GMT", "nan", "-1", "3600"])
async def test_429_is_handed_on_when_no_sensible_time_is_given(after):
    """An hour is for the queue to wait, not for a worker."""
    handler = scripted(busy(after))
    async with http_server(handler) as url, make_transport(url) as transport:
        with pytest.raises(TooManyRequests):
            await transport.request(GET)
    assert len(handler.seen) == 1


async def test_a_deadline_ends_a_silent_request():
    async def silent(request):
        await asyncio.sleep(3600)

    async with http_server(silent) as url, make_transport(url, timeout=0.05, tries=1) as transport:
        with pytest.raises(TransportError, match=r"no answer from http://127.* within 0\.05 s"):
            await transport.request(GET)


async def test_a_redirect_is_an_error_and_never_an_object():
    handler = scripted(web.Response(status=302, headers={"Location": "/login"}, text="<html>log in</html>"))
    async with http_server(handler) as url, make_transport(url, tries=1) as transport:
        with pytest.raises(ServerError, match="log in"):
            await transport.request(GET)


async def test_a_conflict_is_raised_at_once():
    handler = scripted(status(409, "Conflict", "changed"))
    async with http_server(handler) as url, make_transport(url) as transport:
        with pytest.raises(Conflict):
            await transport.request(PATCH)
    assert len(handler.seen) == 1


def token_server(good):
    async def handler(request):
        given = request.headers["Authorization"]
        handler.seen.append(given)
        return web.json_response({}) if given == f"Bearer {good}" else status(401, "Unauthorized", "Unauthorized")

    handler.seen = []
    return handler


@pytest.mark.parametrize("tries", [1, 5])
async def test_a_401_reads_a_rotated_token_and_tries_once_more(tmp_path, tries):
    file = tmp_path / "token"
    file.write_text("old\n")
    handler = token_server("new")
    async with (
        http_server(handler) as url,
        make_transport(ClusterConfig(server=url, token_file=file), tries=tries) as transport,
    ):
        with pytest.raises(Unauthorized):
            await transport.request(GET)
        assert handler.seen == ["Bearer old"]  # the same token again would not help
        file.write_text("new\n")
        await transport.request(POST)
    assert handler.seen[1:] == ["Bearer old", "Bearer new"]


async def test_what_a_header_says_beyond_ascii_is_sent_as_utf_8():
    async def handler(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    heads = []
    config = {"impersonate": Impersonation(user="Jürgen 山")}
    async with raw_server(handler) as url, make_transport(ClusterConfig(server=url, **config)) as transport:
        await transport.request(GET)
    assert "\r\nImpersonate-User: Jürgen 山\r\n".encode() in heads[0]


async def test_a_second_401_is_raised(tmp_path):
    file = tmp_path / "token"
    file.write_text("old")
    handler = token_server("none of these")
    async with (
        http_server(handler) as url,
        make_transport(ClusterConfig(server=url, token_file=file)) as transport,
    ):
        with pytest.raises(Unauthorized):
            await transport.request(GET)
        file.write_text("new")
        with pytest.raises(Unauthorized):
            await transport.request(GET)
    assert handler.seen == ["Bearer old", "Bearer old", "Bearer new"]


async def test_a_watch_refused_with_401_is_opened_with_the_new_token(tmp_path):
    file = tmp_path / "token"
    file.write_text("old")
    handler = token_server("new")
    watch = Request(target=Target("watch", "pods"), method="GET", path="/", lane=Lane.WATCH)
    async with (
        http_server(handler) as url,
        make_transport(ClusterConfig(server=url, token_file=file)) as transport,
    ):
        await transport._credentials.current()
        file.write_text("new")
        async with transport.stream(watch) as chunks:
            assert [chunk async for chunk in chunks] == [b"{}"]
    assert handler.seen == ["Bearer old", "Bearer new"]


async def test_a_watch_is_asked_for_again_when_the_server_says_when():
    handler, clock = scripted(busy("3")), ImpatientClock()
    watch = Request(target=Target("watch", "pods"), method="GET", path="/", lane=Lane.WATCH)
    async with (
        http_server(handler) as url,
        make_transport(url, clock=clock) as transport,
        transport.stream(watch) as chunks,
    ):
        assert b"".join([chunk async for chunk in chunks]) == b'{"ok": true}'
    assert clock.slept == [3.0]


@pytest.mark.parametrize("error", [FileNotFoundError("mine"), TimeoutError("mine"), ValueError("mine")])
async def test_what_goes_wrong_in_the_reader_of_a_watch_is_not_the_servers_fault(error):
    watch = Request(target=Target("watch", "pods"), method="GET", path="/", lane=Lane.WATCH)
    async with http_server(scripted()) as url, make_transport(url) as transport:
        with pytest.raises(type(error), match=r"^mine$"):
            async with transport.stream(watch):
                raise error
        assert (await transport.request(GET)).code == 200


async def test_at_once_is_not_taken_at_its_word():
    handler, clock = scripted(*(busy("0") for _ in range(3))), ImpatientClock()
    async with http_server(handler) as url, make_transport(url, clock=clock) as transport:
        await transport.request(GET)
    assert clock.slept == [0.2, 0.4, 0.8]


async def test_an_error_says_that_the_server_may_have_seen_an_earlier_try():
    async def handler(reader, writer):
        await reader.readuntil(b"{}")
        server.close()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with make_transport(url, tries=3) as transport:
        with pytest.raises(TransportError, match="refused") as caught:
            await transport.request(PATCH)
    assert caught.value.sent
    await server.wait_closed()


async def test_a_request_that_is_out_when_its_client_is_closed_ends_at_once_and_says_why():
    asked = asyncio.Event()

    async def silent(request):
        asked.set()
        await asyncio.sleep(3600)

    clock = ImpatientClock()
    async with http_server(silent) as url:
        async with make_transport(url, clock=clock) as transport:
            out = asyncio.create_task(transport.request(GET), name="out")
            await asked.wait()
        with pytest.raises(TransportError):
            await out
        with pytest.raises(TransportError, match=r"get configmaps team/a: the client was closed$"):
            await transport.request(GET)
    assert clock.slept == []


async def test_a_warning_is_logged_once_per_text():
    def warned(text):
        return web.json_response({}, headers={"Warning": f'299 - "{text}"'})

    handler, log = scripted(warned('old \\"v1\\"'), warned('old \\"v1\\"'), warned("other")), Log()
    async with http_server(handler) as url, make_transport(url, log) as transport:
        for _ in range(3):
            await transport.request(GET)
    assert [line["warning"] for line in log.said("the API server warns")] == ['old "v1"', "other"]


async def test_a_body_above_one_mebibyte_is_sent_whole_and_without_a_warning():
    handler = scripted()
    body = b'"' + b"x" * (3 * 2**20) + b'"'
    big = Request(target=POST.target, method="POST", path="/x", lane=Lane.WRITE, body=body)

    async def limited(request):
        request._client_max_size = 2**23
        return await handler(request)

    async with http_server(limited) as url, make_transport(url) as transport:
        await transport.request(big)
    assert handler.seen == [("POST", body)]


async def test_cancelling_a_request_frees_its_connection():
    """The Lease's lane has one connection: were it not given back, the second request would wait for ever."""
    asked = asyncio.Event()

    async def handler(request):
        if not asked.is_set():
            asked.set()
            await asyncio.sleep(3600)
        return web.json_response({})

    one = Request(target=GET.target, method="GET", path="/", lane=Lane.LEASE)
    async with http_server(handler) as url, make_transport(url, timeout=5) as transport:
        task = asyncio.create_task(transport.request(one), name="first")
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await transport.request(one)).code == 200


async def test_a_watch_ends_as_a_transport_error_when_the_connection_breaks():
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    watch = Request(target=Target("watch", "pods"), method="GET", path="/", lane=Lane.WATCH)
    async with raw_server(handler) as url, make_transport(url) as transport:
        got = []

        async def read():
            async with transport.stream(watch) as chunks:
                got.extend([chunk async for chunk in chunks])

        with pytest.raises(TransportError, match=r"watch pods: the connection to .* broke"):
            await read()


async def test_a_token_file_that_is_gone_keeps_the_last_token(tmp_path):
    file = tmp_path / "token"
    file.write_text("good")
    handler = token_server("good")
    async with (
        http_server(handler) as url,
        make_transport(ClusterConfig(server=url, token_file=file)) as transport,
    ):
        await transport.request(GET)
        file.unlink()
        assert not await transport._credentials.refresh()
        await transport.request(GET)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
async def test_an_unusable_token_file_keeps_the_last_token(tmp_path, content):
    """A kubelet that is out of disk leaves such files."""
    file = tmp_path / "token"
    file.write_text("good")
    handler = token_server("good")
    async with (
        http_server(handler) as url,
        make_transport(ClusterConfig(server=url, token_file=file)) as transport,
    ):
        await transport.request(GET)
        file.write_bytes(content)
        assert not await transport._credentials.refresh()
        await transport.request(GET)


# Lines of a watch.


async def chunked(*chunks):
    for chunk in chunks:
        yield chunk


STREAM = b'{"a":"\xc3\xa4"}\n{"b":2}\n\n{"c":3}\n'


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
async def test_lines_are_the_same_wherever_the_chunks_are_cut(cut):
    batches = [batch async for batch in lines(chunked(STREAM[:cut], STREAM[cut:]))]
    assert [line for batch in batches for line in batch] == STREAM.split(b"\n")[:-1]


async def test_lines_come_whole_from_single_bytes():
    batches = [batch async for batch in lines(chunked(*(STREAM[i : i + 1] for i in range(len(STREAM)))))]
    assert [line for batch in batches for line in batch] == STREAM.split(b"\n")[:-1]


async def test_an_end_inside_a_line_is_told():
    batches = lines(chunked(b'{"a":1}\n{"b"'))
    assert await anext(batches) == [b'{"a":1}']
    with pytest.raises(StreamError, match="ended in the middle"):
        await anext(batches)


async def test_a_line_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr("asyncctl.client.watch.MAX_LINE", 100)

    async def endless():
        while True:
            yield b"x" * 30

    with pytest.raises(StreamError, match="longer than 100 bytes"):
        async for _ in lines(endless()):
            pass


async def test_reads_do_not_wait_for_writes():
    """Lanes have their own pools: forty writes that hang leave a read alone."""
    hanging = []

    async def handler(request):
        if request.method == "POST":
            hanging.append(1)
            await asyncio.sleep(3600)
        return web.json_response({})

    async with http_server(handler) as url, make_transport(url, timeout=5) as transport:
        writes = [asyncio.create_task(transport.request(POST), name=f"write {n}") for n in range(40)]
        await until(lambda: len(hanging) == 32)
        assert (await transport.request(GET)).code == 200
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)

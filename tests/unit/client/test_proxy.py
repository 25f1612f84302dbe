"""The way to the server through a proxy: of HTTP, of HTTP in TLS, of SOCKS 5; and what is said when it bars the way."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Target, TransportError
from asyncctl.client.transport.transport import Lane, Request
from tests.unit.client.proxies import http_proxy, socks_proxy
from tests.unit.support import http_server, make_transport, raw_server

NAME = "cluster.example.com"
GET = Request(target=Target("get", "pods"), method="GET", path="/x?y=z", lane=Lane.READ, repeatable=True)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"debug": True, "use_uvloop": request.param == "uvloop"}


@pytest.fixture(autouse=True)
async def refused_handshakes_are_no_news():
    """In debug mode asyncio's servers report each client that leaves in the middle of a handshake."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop, context):
        if not isinstance(context.get("exception"), ConnectionResetError):
            before(loop, context)

    loop.set_exception_handler(handle)
    yield
    loop.set_exception_handler(before)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(NAME, "127.0.0.1").configure_cert(context)
    return context


async def answer(request):
    return web.json_response({"host": request.host, "path": request.path_qs, "user": request.headers.get("X-User")})


@asynccontextmanager
async def through(proxy, server, authority=None, **options):
    """A transport through `proxy` to a server that only the proxy can find."""
    port = server.rpartition(":")[2]
    scheme = server.partition(":")[0]
    config = ClusterConfig(
        server=f"{scheme}://{NAME}:{port}", proxy=proxy, source="given", authorization="Bearer geheim",
        ca_data=None if authority is None else authority.cert_pem.bytes(),
    )  # fmt: skip
    async with make_transport(config, timeout=5, **({"tries": 1} | options)) as transport:
        yield transport


async def test_an_https_server_is_reached_by_connect(authority, tls):
    async with http_server(answer, tls) as server, http_proxy(names={NAME: "127.0.0.1"}) as (proxy, seen):
        async with through(proxy, server, authority) as transport:
            for _ in range(3):
                reply = await transport.request(GET)
        assert NAME in reply.body.decode()
        assert seen == [f"CONNECT {NAME}:{server.rpartition(':')[2]}"], "one tunnel, kept alive"


async def test_an_http_server_is_asked_for_with_whole_urls():
    async with http_server(answer) as server, http_proxy(names={NAME: "127.0.0.1"}) as (proxy, seen):
        async with through(proxy, server) as transport:
            reply = await transport.request(GET)
        assert reply.code == 200
        assert seen == [f"GET http://{NAME}:{server.rpartition(':')[2]}/x?y=z"]


async def test_a_proxy_that_is_spoken_to_in_tls(authority, tls, monkeypatch, tmp_path):
    """Its certificate is verified with the system's CAs, by its own name."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))  # of what the way is trusted with, nothing is logged
    async with (
        http_server(answer, tls) as server,
        http_proxy(names={NAME: "127.0.0.1"}, ssl_context=tls) as (proxy, _),
        through(proxy, server, authority) as transport,
    ):
        assert (await transport.request(GET)).code == 200
        assert (await transport.request(GET)).code == 200
        monkeypatch.delenv("SSL_CERT_FILE")
        async with through(proxy, server, authority) as stranger:
            with pytest.raises(TransportError, match=f"{proxy}: the server's certificate is signed by"):
                await stranger.request(GET)
    assert not (tmp_path / "keys").exists()


async def test_a_watch_goes_through_a_tunnel(authority, tls):
    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"{}\n")
        return response

    watch = Request(target=Target("watch", "pods"), method="GET", path="/", lane=Lane.WATCH)
    async with (
        http_server(stream, tls) as server,
        http_proxy(names={NAME: "127.0.0.1"}) as (proxy, _),
        through(proxy, server, authority) as transport,
        transport.stream(watch) as chunks,
    ):
        assert b"".join([chunk async for chunk in chunks]) == b"{}\n" * 3


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_user_and_password_of_a_proxy_are_for_the_proxy(authority, tls, scheme):
    async with (
        http_server(answer, tls if scheme == "https" else None) as server,
        http_proxy(user="ann:p@ss", names={NAME: "127.0.0.1"}) as (proxy, _),
    ):
        host = proxy.removeprefix("http://")
        async with through(f"http://ann:p%40ss@{host}", server, authority) as transport:
            assert (await transport.request(GET)).code == 200


async def test_a_proxy_that_wants_a_password_says_so_and_none_is_told(authority, tls):
    async with (
        http_server(answer, tls) as server,
        http_proxy(user="ann:right") as (proxy, _),
        through(f"http://ann:geheim@{proxy[7:]}", server, authority) as transport,
    ):
        with pytest.raises(TransportError, match=r"wants a user and password .* are not accepted") as caught:
            await transport.request(GET)
    assert f"http://ann:***@{proxy[7:]}" in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert not caught.value.sent


@pytest.mark.parametrize(
    "said, text",
    [
        (b"HTTP/1.1 403 Forbidden by policy\r\n\r\n", "refuses to connect: 403 Forbidden by policy"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "refuses to connect: 502"),
        (b"220 mail ESMTP\r\n\r\n", "speaks no HTTP"),
        (b"", "has closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10**5, "has no end"),
    ],
)
async def test_a_proxy_that_bars_the_way_is_named_with_what_it_said(authority, tls, said, text):
    async with (
        http_server(answer, tls) as server,
        http_proxy(refuse=said) as (proxy, _),
        through(proxy, server, authority) as transport,
    ):
        with pytest.raises(TransportError, match=text) as caught:
            await transport.request(GET)
    assert proxy in str(caught.value)
    assert not caught.value.sent


async def test_a_proxy_that_is_not_there_is_named(authority, tls):
    async with raw_server(None) as proxy:
        pass
    async with through(proxy, "https://127.0.0.1:1", authority) as transport:
        with pytest.raises(
            TransportError, match=f"through the proxy {proxy}: Connection refused; is the proxy up"
        ) as caught:
            await transport.request(GET)
    assert not caught.value.sent


@pytest.mark.parametrize("user", [None, "ann:p@ss"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_of_socks_resolves_the_name_itself(authority, tls, scheme, user):
    async with (
        http_server(answer, tls if scheme == "https" else None) as server,
        socks_proxy(user=user, names={NAME: "127.0.0.1"}) as (proxy, seen),
    ):
        known = proxy.replace("://", "://ann:p%40ss@") if user else proxy
        async with through(known, server, authority) as transport:
            assert (await transport.request(GET)).code == 200
            assert (await transport.request(GET)).code == 200
        assert seen == [f"socks {NAME}:{server.rpartition(':')[2]}"]


async def test_a_proxy_of_socks_that_refuses_is_named(authority, tls):
    async with (
        http_server(answer, tls) as server,
        socks_proxy(refuse=2) as (proxy, _),
        through(proxy.replace("://", "://ann:geheim@"), server, authority) as transport,
    ):
        with pytest.raises(TransportError) as caught:
            await transport.request(GET)
    assert proxy.partition("//")[2] in str(caught.value)
    assert "geheim" not in str(caught.value)


async def test_the_certificate_is_held_against_the_servers_name_and_not_the_proxys(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example.com").configure_cert(context)
    async with (
        http_server(answer, context) as server,
        http_proxy(names={NAME: "127.0.0.1"}) as (proxy, _),
        through(proxy, server, authority) as transport,
    ):
        with pytest.raises(TransportError, match=r"is not for cluster\.example\.com; it is for other\.example"):
            await transport.request(GET)

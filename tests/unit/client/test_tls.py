"""TLS trouble, told as what it is; with real certificates and a real server."""

import asyncio
import http.server
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import trustme
from aiohttp import web

from asyncctl.client.config import ClusterConfig
from asyncctl.client.errors import Target, TLSError, TransportError
from asyncctl.client.tls import make_context
from asyncctl.client.transport import Lane, Request
from tests.unit.support import http_server, make_transport, raw_server

GET = Request(target=Target("get", "x"), method="GET", path="/x", lane=Lane.READ, repeatable=True)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(ca, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    for authority, name in ((ca, "ca.crt"), (trustme.CA(), "other.crt")):
        authority.cert_pem.write_to_path(folder / name)
    for name in ("one", "two"):
        made = ca.issue_cert(f"{name}.example.com")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / "bad").write_text("this is no certificate")
    return folder


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a handshake that fails is what the tests are about


@contextmanager
def server(ca, *names, client_ca=None, **options):
    """In a thread: asyncio would report each handshake that fails to the test's own loop."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*names, **options).configure_cert(context)
    if client_ca is not None:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    with Server(("127.0.0.1", 0), Handler) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"https://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()


async def ask(**config):
    async with make_transport(ClusterConfig(**config), tries=1) as transport:
        return (await transport.request(GET)).code


async def test_a_trusted_server_is_talked_to(ca, files):
    with server(ca, "127.0.0.1") as url:
        assert await ask(server=url, ca_file=str(files / "ca.crt")) == 200


async def test_an_unknown_ca_is_told(ca, files):
    with server(ca, "127.0.0.1") as url:
        with pytest.raises(TLSError, match="signed by a CA that is not trusted; check certificate-authority") as caught:
            await ask(server=url, ca_file=str(files / "other.crt"))
        assert url in str(caught.value)
        assert not caught.value.sent
        assert await ask(server=url, ca_file=str(files / "other.crt"), verify=False) == 200


@pytest.mark.parametrize("name", ["other.example.com", "10.1.1.1"])
async def test_a_certificate_for_another_host_is_told(ca, files, name):
    with server(ca, name) as url:
        with pytest.raises(TLSError, match=r"is for another (host|address)"):
            await ask(server=url, ca_file=str(files / "ca.crt"))
        if name[0] == "o":
            assert await ask(server=url, ca_file=str(files / "ca.crt"), tls_server_name=name) == 200


async def test_an_expired_certificate_is_told(ca, files):
    expired = {"not_after": datetime(2020, 1, 1, tzinfo=UTC)}
    with server(ca, "127.0.0.1", **expired) as url, pytest.raises(TLSError, match="has expired"):
        await ask(server=url, ca_file=str(files / "ca.crt"))


async def test_plain_http_on_a_tls_port_is_told():
    async def handler(request):
        return web.json_response({})

    async with http_server(handler) as url:
        with pytest.raises(TLSError, match="speaks plain HTTP on this port"):
            await ask(server=url.replace("http:", "https:"))


async def test_a_server_that_wants_a_certificate_of_ours_is_told(ca, files):
    with server(ca, "127.0.0.1", client_ca=ca) as url:
        trusted = {"server": url, "ca_file": str(files / "ca.crt")}
        with pytest.raises(TransportError, match=r"CERTIFICATE_REQUIRED|broke"):
            await ask(**trusted)
        ours = {"client_certificate": str(files / "one.crt"), "client_key": str(files / "one.key")}
        assert await ask(**trusted, **ours) == 200


async def test_a_write_that_breaks_within_tls_is_not_taken_for_unsent(ca, files):
    """After the handshake an error of TLS is one of the connection: the server may have read the request."""
    asked = []

    async def handler(reader, writer):
        asked.append(await reader.readuntil(b"{}"))
        writer._transport._ssl_protocol._transport.write(b"this is no TLS record")
        await asyncio.sleep(0.1)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    write = Request(target=Target("create", "x"), method="POST", path="/x", lane=Lane.WRITE, body=b"{}")
    async with raw_server(handler, context) as url:
        config = ClusterConfig(server=url, ca_file=str(files / "ca.crt"))
        async with make_transport(config) as transport:
            with pytest.raises(TLSError) as caught:
                await transport.request(write)
    assert caught.value.sent
    assert len(asked) == 1


@pytest.mark.parametrize(
    "config, said",
    [
        ({"ca_file": "absent"}, "the CA file .*absent can't be used"),
        ({"ca_file": "bad"}, "the CA file .*bad can't be used"),
        ({"client_certificate": "one.crt"}, "one.crt has no key; set client-key"),
        ({"client_certificate": "one.crt", "client_key": "two.key"}, "can't be used together: .*MISMATCH"),
        ({"client_certificate": "bad", "client_key": "one.key"}, "can't be used together"),
        ({"client_certificate": "one.crt", "client_key": "absent"}, "can't be used together"),
    ],
)
def test_a_file_that_can_not_be_used_is_named(files, config, said):
    config = {key: str(files / name) for key, name in config.items()}
    with pytest.raises(TLSError, match=said):
        make_context(ClusterConfig(server="https://x", **config))


def test_plain_http_needs_no_context():
    assert make_context(ClusterConfig(server="http://x", ca_file="absent")) is None

"""TLS trouble as a caller of the transport meets it: the error's class, its text, and whether anything was sent."""

import asyncio
import ssl

import pytest
import trustme
from aiohttp import web

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import (
    BadCertificateFile,
    CertificateExpired,
    ClientCertificateRefused,
    HandshakeInterrupted,
    HostnameMismatch,
    PlainHTTP,
    Target,
    TLSError,
    UnknownAuthority,
)
from asyncctl.client.transport.transport import Lane, Request
from tests.unit.client import tls_kit
from tests.unit.client.tls_kit import DAY, Issued, Volume, answers, server_context, serving
from tests.unit.support import ImpatientClock, Log, http_server, make_transport, raw_server, until

HERE = ["127.0.0.1"]
GET = Request(target=Target("get", "x"), method="GET", path="/x", lane=Lane.READ, repeatable=True)


@pytest.fixture(scope="module")
def ca():
    return Issued("the cluster's CA", ca=True)


async def ask(url, **config):
    async with make_transport(ClusterConfig(server=url, **config), tries=1) as transport:
        return (await transport.request(GET)).code


async def test_a_trusted_server_is_talked_to(ca, tmp_path):
    with serving(answers(server_context(tmp_path, Issued("server", ca, names=HERE)))) as url:
        assert await ask(url, ca_data=ca.pem) == 200
        assert await ask(url, verify=False) == 200


@pytest.mark.parametrize(
    "kind, odd, said",
    [
        (UnknownAuthority, {"issuer": Issued("another CA", ca=True)}, "signed by the CA CN=another CA"),
        (CertificateExpired, {"ends": -3 * DAY}, "3 days ago"),
        (HostnameMismatch, {"names": ["x.example"]}, r"not for 127\.0\.0\.1; it is for x\.example"),
    ],
)
async def test_a_server_that_is_not_trusted_is_sent_nothing(ca, tmp_path, kind, odd, said):
    context = server_context(tmp_path, Issued("server", **{"issuer": ca, "names": HERE} | odd))
    with serving(answers(context)) as url, pytest.raises(kind, match=said) as caught:
        await ask(url, ca_data=ca.pem)
    assert url in str(caught.value)
    assert not caught.value.sent


async def test_tls_server_name_is_the_name_that_is_asked_for(ca, tmp_path):
    with serving(answers(server_context(tmp_path, Issued("server", ca, names=["x.example"])))) as url:
        assert await ask(url, ca_data=ca.pem, tls_server_name="x.example") == 200


async def test_plain_http_on_a_tls_port_is_told():
    async def handler(request):
        return web.json_response({})

    async with http_server(handler) as url:
        with pytest.raises(PlainHTTP, match="does not speak TLS on this port") as caught:
            await ask(url.replace("http:", "https:"))
    assert not caught.value.sent


async def test_a_reset_in_the_handshake_is_told():
    with serving(tls_kit.resets) as url, pytest.raises(HandshakeInterrupted, match="in the middle of") as caught:
        await ask(url)
    assert not caught.value.sent


async def test_a_server_that_wants_a_certificate_of_ours_is_told(ca, tmp_path):
    with serving(answers(server_context(tmp_path, Issued("server", ca, names=HERE), client_ca=ca))) as url:
        with pytest.raises(ClientCertificateRefused, match="demands a client certificate, and there is none"):
            await ask(url, ca_data=ca.pem)
        assert await ask(url, ca_data=ca.pem, **Issued("me", ca).write(tmp_path, "me")) == 200


async def test_a_write_that_breaks_within_tls_is_not_taken_for_unsent():
    """After the handshake an error of TLS is one of the connection: the server may have read the request."""
    asked = []

    async def handler(reader, writer):
        asked.append(await reader.readuntil(b"{}"))
        writer._transport._ssl_protocol._transport.write(b"this is no TLS record")
        await asyncio.sleep(0.1)

    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*HERE).configure_cert(context)
    write = Request(target=Target("create", "x"), method="POST", path="/x", lane=Lane.WRITE, body=b"{}")
    async with raw_server(handler, context) as url:
        config = ClusterConfig(server=url, ca_data=authority.cert_pem.bytes())
        async with make_transport(config) as transport:
            with pytest.raises(TLSError) as caught:
                await transport.request(write)
    assert caught.value.sent
    assert type(caught.value) is TLSError
    assert "TLS has failed: " in str(caught.value)
    assert len(asked) == 1


class Clock(ImpatientClock):
    """Goes on by itself, and further when a test says so."""

    ahead = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead


async def test_a_new_client_certificate_is_shown_with_the_next_request_and_the_old_connection_closed(ca, tmp_path):
    async def whoami(request):
        shown = request.transport.get_extra_info("peercert")
        connections.add(request.transport)
        return web.json_response(dict(*shown["subject"])["commonName"])

    connections = set()
    clock, volume = Clock(), Volume(tmp_path / "volume")
    old, new = Issued("old", ca), Issued("new", ca)
    volume.put(crt=old.pem, key=old.key_pem())
    context = server_context(tmp_path, Issued("server", ca, names=HERE), client_ca=ca)
    async with http_server(whoami, context) as url:
        ours = {"client_certificate": str(volume.path / "crt"), "client_key": str(volume.path / "key")}
        config = ClusterConfig(server=url, ca_data=ca.pem, **ours)
        async with make_transport(config, clock=clock) as transport:
            said = [(await transport.request(GET)).body]
            volume.put(crt=new.pem, key=new.key_pem())
            said.append((await transport.request(GET)).body)
            clock.ahead = 60.0
            said += [(await transport.request(GET)).body for _ in range(2)]
            assert said == [b'"old"', b'"old"', b'"new"', b'"new"']
            assert len(connections) == 2
            await until(lambda: sum(each.is_closing() for each in connections) == 1)


async def test_after_a_handshake_that_failed_a_new_ca_is_used_at_once(ca, tmp_path):
    """The file was swapped less than a minute after it was looked at."""
    new, volume, log = Issued("new CA", ca=True), Volume(tmp_path / "volume"), Log()
    volume.put(ca=ca.pem)
    contexts = [server_context(tmp_path, Issued("server", each, names=HERE)) for each in (ca, new)]

    def handle(connection):
        answers(contexts[0])(connection)

    with serving(handle) as url:
        async with make_transport(ClusterConfig(server=url, ca_file=str(volume.path / "ca")), log) as transport:
            assert (await transport.request(GET)).code == 200
            del contexts[0]
            volume.put(ca=new.pem)
            with pytest.raises(UnknownAuthority, match="it is now, and the next connection trusts it"):
                await transport.request(GET)
            assert (await transport.request(GET)).code == 200
    assert len(log.said("TLS has new certificates from now on")) == 1


async def test_a_file_that_can_not_be_used_is_told(tmp_path):
    with pytest.raises(BadCertificateFile, match="absent does not exist"):
        await ask("https://127.0.0.1:1", ca_file=str(tmp_path / "absent"))

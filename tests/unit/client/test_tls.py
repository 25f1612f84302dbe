"""TLS trouble, told as what it is: real certificates, real servers, under asyncio's loop and uvloop's."""

import asyncio
import re
import ssl
from contextlib import suppress

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ExtendedKeyUsageOID as Usage
from hypothesis import given, settings, strategies

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import ClientCertificate
from asyncctl.client.errors import (
    BadServerCertificate,
    CertificateExpired,
    CertificateNotYetValid,
    ClientCertificateRefused,
    HandshakeInterrupted,
    HandshakeTimeout,
    HostnameMismatch,
    PlainHTTP,
    ProtocolMismatch,
    SelfSignedCertificate,
    TLSError,
    TLSRequired,
    UnknownAuthority,
)
from asyncctl.client.tls.context import ClientTLS, explain, explain_reply
from asyncctl.clock import SystemClock
from tests.unit.client import tls_kit
from tests.unit.client.tls_kit import DAY, NOW, Issued, answers, ask, server_context, serving
from tests.unit.support import Log

HERE = ("127.0.0.1",)
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
SOURCE = "KUBECONFIG (/home/ann/.kube/config), context test"


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request):
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"debug": True, "use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="module")
def ca():
    return Issued("the cluster's CA", ca=True)


@pytest.fixture
def serve(tmp_path):
    """Serve with `issued`; yields the URL."""
    return lambda issued, **options: serving(answers(server_context(tmp_path, issued, **options)))


@pytest.fixture
def config(ca, tmp_path):
    """The configuration of who trusts the cluster's CA, by a file."""
    file = tmp_path / "ca.crt"
    file.write_bytes(ca.pem)
    return lambda url, **rest: ClusterConfig(**{"server": url, "source": SOURCE, "ca_file": str(file)} | rest)


def date(moment):
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def says(caught, *parts):
    text = str(caught.value)
    missing = [part for part in parts if part not in text]
    assert not missing, text


async def test_a_trusted_server_is_talked_to(ca, serve, config):
    with serve(Issued("server", ca, names=HERE)) as url:
        assert await ask(config(url)) == tls_kit.REPLY
        assert await ask(config(url, ca_file=None, ca_data=ca.pem)) == tls_kit.REPLY


async def test_what_trustme_issues_is_trusted_and_http_1_1_is_agreed_upon():
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", *HERE).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    config = ClusterConfig(server="https://x", ca_data=authority.cert_pem.bytes())
    ours = await ClientTLS(config, SystemClock(), Log().logger).context(None)
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        ours.wrap_bio(server, client, server_hostname="localhost"),
        context.wrap_bio(client, server, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].selected_alpn_protocol() == "http/1.1"
    assert ends[0].version() == "TLSv1.3"


async def test_an_unknown_ca_is_told_with_its_name_and_the_file_that_lacks_it(serve, config, tmp_path):
    stranger = Issued("another CA", ca=True)
    with serve(Issued("server", stranger, names=HERE)) as url:
        with pytest.raises(UnknownAuthority) as caught:
            await ask(config(url))
        says(caught, url, "signed by the CA CN=another CA", f"the CA file {tmp_path}/ca.crt", "CN=the cluster's CA")
        says(caught, f"write this cluster's CA into {tmp_path}/ca.crt", SOURCE)
        assert not caught.value.sent
        assert await ask(config(url, verify=False)) == tls_kit.REPLY


async def test_a_ca_given_as_data_is_named_by_its_field(ca, serve, config):
    with serve(Issued("server", Issued("another CA", ca=True), names=HERE)) as url:
        with pytest.raises(UnknownAuthority) as caught:
            await ask(config(url, ca_file=None, ca_data=ca.pem))
        says(
            caught,
            f"those of certificate-authority-data of {SOURCE} (CN=the cluster's CA)",
            "set certificate-authority",
        )


async def test_without_a_ca_the_systems_are_trusted_and_named(ca, serve, config, tmp_path, monkeypatch):
    with serve(Issued("server", ca, names=HERE)) as url:
        (tmp_path / "empty").touch()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty"))
        with pytest.raises(UnknownAuthority) as caught:
            await ask(config(url, ca_file=None))
        says(caught, f"the system's CAs ({tmp_path}/empty)", "set certificate-authority to this cluster's CA")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
        assert await ask(config(url, ca_file=None)) == tls_kit.REPLY


async def test_in_a_pod_an_unknown_ca_is_not_for_the_reader_to_add(serve, config):
    with serve(Issued("server", Issued("another CA", ca=True), names=HERE)) as url:
        with pytest.raises(UnknownAuthority) as caught:
            await ask(config(url, source="in-cluster"))
        says(caught, "does something else answer for the API server, or is the pod's service account of another")


@pytest.mark.parametrize("bare", [False, True])
async def test_a_namesake_of_the_ca_with_another_key_is_told(serve, config, bare):
    """As when a cluster was made anew under the same name; without key identifiers only the signature tells."""
    namesake = Issued("the cluster's CA", ca=True, bare=bare)
    with serve(Issued("server", namesake, names=HERE, bare=bare)) as url:
        with pytest.raises(UnknownAuthority) as caught:
            await ask(config(url))
        says(
            caught,
            "CN=the cluster's CA",
            "but with another key (was the cluster made anew?); write",
        )


async def test_an_intermediate_ca_that_is_not_sent_along_is_told(ca, serve, config):
    middle = Issued("the middle CA", ca, ca=True)
    issued = Issued("server", middle, names=HERE)
    with serve(issued) as url:
        with pytest.raises(UnknownAuthority) as caught:
            await ask(config(url))
        says(caught, "CN=the middle CA", "if it is an intermediate one, let the server send it along")
        assert await ask(config(url, ca_file=None, ca_data=middle.pem)) == tls_kit.REPLY  # as for kubectl
    with serve(issued, chain=[middle]) as url:
        assert await ask(config(url)) == tls_kit.REPLY


async def test_a_ca_without_key_identifiers_is_good_enough(serve, config):
    """As those of many clusters are; Python's default context refuses them from 3.13 on."""
    plain = Issued("kubernetes", ca=True, bare=True)
    with serve(Issued("server", plain, names=HERE, bare=True)) as url:
        assert await ask(config(url, ca_file=None, ca_data=plain.pem)) == tls_kit.REPLY


async def test_a_self_signed_certificate_is_told(serve, config, tmp_path):
    alone = Issued("alone", names=HERE)
    with serve(alone) as url:
        with pytest.raises(SelfSignedCertificate) as caught:
            await ask(config(url))
        says(caught, url, "(CN=alone) is self-signed", f"{tmp_path}/ca.crt")
        assert await ask(config(url, ca_file=None, ca_data=alone.pem)) == tls_kit.REPLY


async def test_an_expired_certificate_is_told_with_its_date(ca, serve, config):
    with serve(Issued("server", ca, names=HERE, ends=-3 * DAY)) as url:
        with pytest.raises(CertificateExpired) as caught:
            await ask(config(url))
        says(caught, url, f"CN=server) expired on {date(NOW - 3 * DAY)}, 3 days ago", "or have the certificate renewed")
        assert re.search(r"this machine's clock says \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", str(caught.value))


async def test_a_certificate_that_is_not_valid_yet_is_told_with_its_date(ca, serve, config):
    with serve(Issued("server", ca, names=HERE, begins=3 * DAY)) as url:
        with pytest.raises(CertificateNotYetValid) as caught:
            await ask(config(url))
        says(caught, url, f"is valid only from {date(NOW + 3 * DAY)} on, in 2 days", "this machine's clock says")


@pytest.mark.parametrize("given", ["ca_file", "ca_data"])
async def test_a_ca_that_has_expired_is_told_with_its_file(serve, config, tmp_path, given):
    old = Issued("the old CA", ca=True, ends=-DAY)
    (tmp_path / "old.crt").write_bytes(old.pem)
    value = {"ca_file": str(tmp_path / "old.crt"), "ca_data": old.pem}[given]
    where = {"ca_file": f"the CA file {tmp_path}/old.crt", "ca_data": f"certificate-authority-data of {SOURCE}"}[given]
    with serve(Issued("server", old, names=HERE)) as url:
        with pytest.raises(CertificateExpired) as caught:
            await ask(config(url, **{"ca_file": None, given: value}))
        says(caught, f"the CA CN=the old CA in {where} expired on {date(NOW - DAY)}, 1 day ago")


async def test_an_intermediate_ca_that_has_expired_is_told(ca, serve, config):
    middle = Issued("the middle CA", ca, ca=True, ends=-DAY)
    with serve(Issued("server", middle, names=HERE), chain=[middle]) as url:
        with pytest.raises(CertificateExpired) as caught:
            await ask(config(url))
        says(caught, "a CA above the server's certificate (CN=server, issued by CN=the middle CA) has expired")


@pytest.mark.parametrize("names", [("one.example", "two.example"), ("10.1.1.1", "kubernetes")])
async def test_a_certificate_for_other_hosts_is_told_with_their_names(ca, serve, config, names):
    with serve(Issued("server", ca, names=names)) as url:
        with pytest.raises(HostnameMismatch) as caught:
            await ask(config(url))
        says(caught, url, "not for 127.0.0.1; it is for ", *names, "tls-server-name", SOURCE)
        assert await ask(config(url, tls_server_name=names[1])) == tls_kit.REPLY
        with pytest.raises(HostnameMismatch, match=r"not for three\.example"):
            await ask(config(url, tls_server_name="three.example"))


async def test_of_many_names_some_are_told(ca, serve, config):
    with serve(Issued("server", ca, names=[f"n{number}.example" for number in range(20)])) as url:
        with pytest.raises(HostnameMismatch) as caught:
            await ask(config(url))
        says(caught, "n6.example, n7.example and 12 more")


async def test_a_certificate_that_is_not_for_servers_is_told(ca, serve, config):
    with serve(Issued("server", ca, names=HERE, usage=Usage.CLIENT_AUTH)) as url:
        with pytest.raises(BadServerCertificate) as caught:
            await ask(config(url))
        says(caught, url, "(CN=server, issued by CN=the cluster's CA) is not acceptable: ", "purpose")


async def nobody(_):
    raise ConnectionRefusedError(111, "Connection refused")


async def never(_):
    await asyncio.Event().wait()


async def nonsense(_):
    return b"this is no certificate"


@pytest.mark.parametrize("peer", [nobody, never, nonsense])
@pytest.mark.parametrize(
    "kind, said, odd",
    [
        (UnknownAuthority, "signed by a CA that is not among", {"issuer": Issued("x", ca=True)}),
        (CertificateExpired, "has expired; this machine's clock", {"ends": -DAY}),
        (CertificateNotYetValid, "is not valid yet; this machine's clock", {"begins": DAY}),
        (HostnameMismatch, "not for 127.0.0.1; it is for others", {"names": ("x.example",)}),
        (BadServerCertificate, "is not acceptable: ", {"usage": Usage.CLIENT_AUTH}),
    ],
)
async def test_where_the_certificate_can_not_be_had_openssl_is_quoted(
    ca, serve, config, monkeypatch, kind, said, odd, peer
):
    monkeypatch.setattr("asyncctl.client.tls.failure.PATIENCE", 0.01)
    with serve(Issued("server", **{"issuer": ca, "names": HERE} | odd)) as url:
        with pytest.raises(kind) as caught:
            await ask(config(url), peer=peer)
        says(caught, url, said)


@pytest.mark.parametrize("reply", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_a_port_without_tls_is_told(config, reply):
    with serving(tls_kit.says(reply)) as url:
        with pytest.raises(PlainHTTP) as caught:
            await ask(config(url))
        says(caught, url, "does not speak TLS on this port", "http:// in its address", SOURCE)


@pytest.mark.parametrize(
    "reply, wanted",
    [
        (b"Client sent an HTTP request to an HTTPS server.\n", True),
        (b"<title>400 The plain HTTP request was sent to HTTPS port</title>", True),
        (b"\x15\x03\x01\x00\x02\x02\x46", True),
        (b"{}", False),
        (b"", False),
    ],
)
async def test_a_port_with_tls_is_told_from_its_reply_to_plain_http(config, reply, wanted):
    told = explain_reply(config("http://host:6443"), reply)
    assert (told is not None) is wanted
    if told is not None:
        assert isinstance(told, TLSRequired)
        assert str(told) == (
            f"http://host:6443: the server answers only to TLS on this port; use https://host:6443 ({SOURCE})"
        )
    assert explain_reply(config("https://host:6443"), reply) is None


@pytest.mark.parametrize("break_off", [tls_kit.closes, tls_kit.resets, lambda _: None])
async def test_an_end_in_the_handshake_is_told(config, break_off):
    with serving(break_off) as url:
        with pytest.raises(HandshakeInterrupted) as caught:
            await ask(config(url))
        says(caught, url, "in the middle of the TLS handshake", "is this the right port")


async def test_an_end_halfway_through_the_handshake_is_told(ca, tmp_path, config):
    context = server_context(tmp_path, Issued("server", ca, names=HERE))
    with serving(tls_kit.stops_halfway(context)) as url, pytest.raises(HandshakeInterrupted):
        await ask(config(url))


async def test_an_end_after_the_handshake_is_none_of_tls(ca, tmp_path, config):
    context = server_context(tmp_path, Issued("server", ca, names=HERE))

    def leaves(connection):
        with context.wrap_socket(connection.dup(), server_side=True) as secured:
            secured.recv(10_000)

    with serving(leaves) as url, pytest.raises(tls_kit.Failed):
        await ask(config(url))


async def test_a_refused_connection_is_none_of_tls(config):
    with serving(tls_kit.closes) as url:
        pass
    with pytest.raises(tls_kit.Failed):
        await ask(config(url))


async def test_a_handshake_that_does_not_go_on_is_told(config):
    with serving(tls_kit.drain) as url:
        with pytest.raises(HandshakeTimeout) as caught:
            await ask(config(url), patience=0.05)
        says(caught, url, "did not go on with the TLS handshake", "is it overloaded")


async def test_a_time_out_of_the_caller_s_own_is_one_of_the_handshake(config):
    told = await explain(config("https://x"), TimeoutError(), never, handshake=True)
    assert isinstance(told, HandshakeTimeout)
    assert await explain(config("https://x"), TimeoutError(), never) is None


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
async def test_a_server_that_demands_a_certificate_is_told(ca, serve, config, tmp_path, version):
    with serve(Issued("server", ca, names=HERE), client_ca=ca, version=version) as url:
        with pytest.raises(ClientCertificateRefused if version is TLS_1_3 else ProtocolMismatch) as caught:
            await ask(config(url), sent=True)
        says(caught, url, "demands a client certificate", "set client-certificate", SOURCE)
        assert caught.value.sent
        ours = Issued("me", ca).write(tmp_path, "me")
        assert await ask(config(url, **ours)) == tls_kit.REPLY


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    "odd, said",
    [
        ({"issuer": Issued("my CA", ca=True)}, "does not know the CA that signed it"),
        ({"ends": -DAY}, "says that it has expired"),
        ({"usage": Usage.SERVER_AUTH}, "can't use one of this kind; was it made for clients"),
    ],
)
async def test_a_certificate_that_the_server_refuses_is_told_with_its_file(
    ca, serve, config, tmp_path, version, odd, said
):
    """With TLS 1.3 that comes after the handshake, on the first read."""
    mine = Issued("me", **{"issuer": ca} | odd)
    ours = mine.write(tmp_path, "me")
    until = date(mine.certificate.not_valid_after_utc)
    issuer = odd["issuer"].certificate.subject.rfc4514_string() if "issuer" in odd else "CN=the cluster's CA"
    with serve(Issued("server", ca, names=HERE), client_ca=ca, version=version) as url:
        with pytest.raises(ClientCertificateRefused) as caught:
            await ask(config(url, **ours))
        says(caught, url, f"refuses the client certificate file {tmp_path}/me.crt", said)
        says(caught, f"(CN=me, issued by {issuer}, valid until {until})", "use one that this cluster has issued")


async def test_a_plugin_s_certificate_that_the_server_refuses_is_told(ca, serve, config):
    mine = Issued("me", Issued("my CA", ca=True))
    with serve(Issued("server", ca, names=HERE), client_ca=ca) as url:
        with pytest.raises(ClientCertificateRefused) as caught:
            await ask(config(url), certificate=ClientCertificate(mine.pem, mine.key_pem()))
        says(caught, "refuses the client certificate of the exec plugin (CN=me, issued by CN=my CA")


async def test_a_server_with_old_tls_alone_is_told(ca, tmp_path, config):
    context = server_context(tmp_path, Issued("server", ca, names=HERE))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(answers(context)) as url:
        with pytest.raises(ProtocolMismatch) as caught:
            await ask(config(url))
        says(caught, url, "share no version of TLS: we speak 1.2 and 1.3")


async def test_a_server_with_other_ciphers_is_told(ca, tmp_path, config):
    key = rsa.generate_private_key(65537, 2048)
    context = server_context(tmp_path, Issued("server", ca, names=HERE, key=key), version=TLS_1_2)
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")  # nobody's certificate, which no client of today accepts
    with serving(answers(context)) as url:
        with pytest.raises(ProtocolMismatch) as caught:
            await ask(config(url))
        says(caught, url, "share no cipher suite for TLS 1.2 or 1.3")


async def test_a_server_that_knows_no_such_name_is_told(ca, tmp_path, config):
    context = server_context(tmp_path, Issued("server", ca, names=HERE))
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    with serving(answers(context)) as url:
        with pytest.raises(HostnameMismatch) as caught:
            await ask(config(url, tls_server_name="x.example"))
        says(caught, url, "has no certificate for x.example", "or set tls-server-name")


async def test_a_server_that_fails_in_the_handshake_is_told(ca, tmp_path, config):
    context = server_context(tmp_path, Issued("server", ca, names=HERE))
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
    with serving(answers(context)) as url:
        with pytest.raises(TLSError) as caught:
            await ask(config(url, tls_server_name="x.example"))
        says(caught, url, "TLS has failed: ", "INTERNAL_ERROR; what does the server's log say?")
        assert type(caught.value) is TLSError


@pytest.mark.parametrize("reason", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", None, ""])
async def test_the_trouble_is_found_among_many_causes(config, reason):
    """Where Python does not know OpenSSL's reason it says None; an error that a library has made has no such word."""
    refused = ssl.SSLError(1, "[SSL] tlsv13 alert certificate required (_ssl.c:1)")
    if reason != "":
        refused.reason = reason
    outer = RuntimeError("a library's own")
    outer.__cause__ = ExceptionGroup("addresses", [OSError("no route"), ConnectionResetError(104, "reset"), refused])
    assert isinstance(await explain(config("https://x"), outer, never, handshake=True), ClientCertificateRefused)
    said = HandshakeTimeout("said already")
    outer.__cause__.__context__ = said
    assert await explain(config("https://x"), outer, never) is said
    refused.__context__ = outer  # a circle
    assert await explain(config("https://x"), outer, never) is said


WORDS = strategies.sampled_from("tlsv1 alert handshake failure certificate version (_ssl.c:1) SSL/TLS".split())  # noqa: SIM905


@settings(deadline=None)
@given(
    text=strategies.one_of(strategies.text(), strategies.lists(WORDS).map(" ".join)),
    reason=strategies.one_of(strategies.none(), strategies.lists(WORDS).map("_".join)),
    code=strategies.integers(0, 100),
    kind=strategies.sampled_from([ssl.SSLError, ssl.SSLCertVerificationError, ssl.SSLEOFError]),
    peer=strategies.binary(),
)
def test_whatever_ssl_says_an_error_of_ours_comes_of_it(text, reason, code, kind, peer):
    async def other(_=None):
        return peer

    error = kind(1, text)
    error.reason, error.verify_code = reason, code
    told = asyncio.run(explain(ClusterConfig(server="https://host"), error, other))
    assert isinstance(told, TLSError)
    assert str(told).startswith("https://host: ")

"""The certificate of a listener of ours: reloaded, kept when the new one is broken, or made. Real TLS, real files."""

import asyncio
import ssl
from contextlib import suppress
from datetime import timedelta

import aiohttp
import pytest
import trustme
from prometheus_client import CollectorRegistry

from asyncctl.client.errors import BadCertificateFile
from asyncctl.http import Limits, Server, ServingTLS, metrics_page
from asyncctl.http.certificate import LIFE, LOOK
from asyncctl.observe import Metrics
from asyncctl.settings import Address
from asyncctl.testing.clock import FakeClock
from tests.unit.client.tls_kit import NOW
from tests.unit.http.support import told
from tests.unit.support import Log, until


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(tmp_path):
    return tmp_path / "tls.crt", tmp_path / "tls.key"


def issue(authority, files, name="127.0.0.1"):
    made = authority.issue_cert(name, common_name=name)
    files[0].write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    files[1].write_bytes(made.private_key_pem.bytes())
    return made


def serving_tls(files=(None, None), log=None, clock=None):
    return ServingTLS(
        *files, setting="ASYNCCTL_METRICS", names=("pod-1",), clock=clock or FakeClock(now=NOW),
        logger=(log or Log()).logger,
    )  # fmt: skip


class Served:
    def __init__(self, server):
        self.server = server
        self.url = f"https://127.0.0.1:{server.port}/metrics"

    async def shown(self):
        """The common name of the certificate that the next connection is shown."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context)
        try:
            from cryptography import x509

            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            found = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            return found[0].value
        finally:
            writer.transport.abort()


@pytest.fixture
def serve():
    servers = []

    async def start(tls, **limits):
        metrics = Metrics(CollectorRegistry(), process=False)
        server = Server(
            Address("127.0.0.1", 0), metrics_page(metrics.registry), metrics, variable="X", tls=tls,
            limits=Limits(**limits),
        )  # fmt: skip
        await server.start()
        servers.append(server)
        return Served(server)

    return start, servers


@pytest.fixture
async def start(serve):
    begin, servers = serve
    yield begin
    for server in servers:
        await server.stop()


async def test_metrics_are_read_over_tls_with_the_certificate_of_the_files(authority, files, start):
    issue(authority, files)
    served = await start(serving_tls(files))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with aiohttp.ClientSession() as session, session.get(served.url, ssl=context) as answer:
        assert answer.status == 200
        assert "asyncctl_build_info" in await answer.text()


async def test_nothing_older_than_tls_1_2_is_spoken(authority, files):
    issue(authority, files)
    assert (await serving_tls(files)()).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_new_pair_is_shown_from_the_next_look_on(authority, files, start):
    log, clock = Log(), FakeClock(now=NOW)
    issue(authority, files, "old.example.com")
    served = await start(serving_tls(files, log, clock))
    assert await served.shown() == "old.example.com"
    issue(authority, files, "new.example.com")
    assert await served.shown() == "old.example.com"  # the disk is not asked for each connection
    clock.advance(LOOK)
    assert await served.shown() == "new.example.com"
    assert log.said("there is a new serving certificate", "info")


@pytest.mark.parametrize("broken", ["half", "key", "gone", "empty"])
async def test_a_broken_pair_leaves_the_old_one_and_is_warned_of_once(authority, files, start, broken):
    log, clock = Log(), FakeClock(now=NOW)
    issue(authority, files, "old.example.com")
    served = await start(serving_tls(files, log, clock))
    old_key = files[1].read_bytes()
    new = issue(authority, files, "new.example.com")
    if broken == "half":
        files[0].write_bytes(files[0].read_bytes()[:400])
    elif broken == "key":
        files[1].write_bytes(old_key)
    elif broken == "gone":
        files[0].unlink()
    else:
        files[1].write_bytes(b"")
    for _ in range(3):
        clock.advance(LOOK)
        assert await served.shown() == "old.example.com"
    (line,) = log.said("the old one stays in use", "warning")
    assert str(files[broken in {"key", "empty"}]) in line["problem"]
    files[0].write_bytes(b"".join(each.bytes() for each in new.cert_chain_pems))
    files[1].write_bytes(new.private_key_pem.bytes())
    clock.advance(LOOK)
    assert await served.shown() == "new.example.com"


async def test_a_broken_pair_at_the_start_is_told_by_its_setting(authority, files):
    issue(authority, files)
    files[1].write_text("no key")
    with pytest.raises(BadCertificateFile, match=r"the serving key file .*tls.key .*correct ASYNCCTL_METRICS_KEY"):
        await serving_tls(files)()


async def test_without_files_one_is_made_and_said_to_be_so(start):
    log = Log()
    served = await start(serving_tls(log=log))
    assert await served.shown() == "pod-1"
    (line,) = log.said("signed itself", "warning")
    assert line["instead"] == "set ASYNCCTL_METRICS_CERT and ASYNCCTL_METRICS_KEY"


async def test_the_one_that_was_made_is_made_anew_before_its_end():
    clock = FakeClock(now=NOW)
    tls = serving_tls(clock=clock)
    first = await tls()
    clock.advance(LOOK)
    assert await tls() is first
    clock.advance(LIFE.total_seconds() * 0.95)
    assert await tls() is not first


async def test_the_end_of_a_certificate_is_warned_of_before_and_after(authority, files):
    log, clock = Log(), FakeClock(now=NOW)
    issue(authority, files)
    tls = serving_tls(files, log, clock)
    await tls()
    assert not log.said("expire", "warning")
    ends = tls._made.shown.not_after
    for left in (timedelta(days=2), timedelta(days=-1)):
        clock.set_wall(ends - left)
        for _ in range(2):
            clock.advance(LOOK)
            await tls()
    assert [line["msg"].partition(";")[0] for line in log.said("the serving certificate")] == [
        "the serving certificate expires soon",
        "the serving certificate has expired",
    ]


async def test_plain_http_is_told_to_come_with_tls(start):
    served = await start(serving_tls())
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.0 400 Bad Request")
    assert b"this port speaks HTTPS" in answer


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05hello", b"\x00\x01\x02"])
async def test_who_does_not_shake_hands_is_cut_off_and_counted_until_then(start, sent, caplog):
    served = await start(serving_tls(), patience=0.5, connections=5)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    if not sent:
        await until(lambda: served.server.open == 1)
    writer.write(sent)
    with suppress(ConnectionError):
        assert b"200" not in await reader.read()
    writer.close()
    await until(lambda: served.server.open == 0)
    assert not served.server._of
    assert not told(caplog)


async def test_a_crowd_before_the_handshake_holds_up_no_scrape(start):
    served = await start(serving_tls(), connections=5)
    crowd = [await asyncio.open_connection("127.0.0.1", served.server.port) for _ in range(20)]
    assert await served.shown() == "pod-1"
    assert served.server.open <= 5
    for _, writer in crowd:
        writer.transport.abort()

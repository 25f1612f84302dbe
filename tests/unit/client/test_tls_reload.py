"""Certificates that change while the process runs: seen within a minute, and never for the worse."""

import asyncio
import os
import ssl
import time
from datetime import timedelta

import pytest

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import ClientCertificate
from asyncctl.client.errors import BadCertificateFile, ClientKeyMismatch, UnknownAuthority
from asyncctl.client.tls.context import LOOK, ClientTLS, explain
from asyncctl.client.tls.pem import Pem
from asyncctl.testing.clock import FakeClock
from tests.unit.client import tls_kit
from tests.unit.client.tls_kit import DAY, NOW, Failed, Issued, Volume, answers, exchange, peer_certificate, serving
from tests.unit.support import Log, until

CHANGED = "TLS has new certificates from now on"
KEPT = "the new TLS files can't be used"


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path / "volume")


@pytest.fixture(scope="module")
def ca():
    return Issued("the cluster's CA", ca=True)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def clock():
    return FakeClock(now=NOW)


@pytest.fixture
def pair(volume, ca, clock, log):
    """A client certificate in a volume, and the TLS that uses it."""

    def put(name, key=None, **options):
        issued = Issued(name, ca, **options)
        volume.put(crt=issued.pem, key=(key or issued).key_pem())
        return issued

    put.tls = ClientTLS(
        ClusterConfig(
            server="https://host",
            ca_data=ca.pem,
            client_certificate=str(volume.path / "crt"),
            client_key=str(volume.path / "key"),
        ),
        clock,
        log.logger,
    )
    return put


def trusting(file, clock, log):
    return ClientTLS(ClusterConfig(server="https://host", ca_file=str(file)), clock, log.logger)


def trusted(context):
    return [dict(*each["subject"])["commonName"] for each in context.get_ca_certs()]


def date(moment):
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


async def test_the_context_is_the_same_object_until_something_changes(volume, ca, clock, log):
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    first = await tls.context(None)
    for _ in range(3):
        clock.advance(LOOK)
        assert await tls.context(None) is first
    volume.put(ca=ca.pem)  # the same words in another file
    clock.advance(LOOK)
    second = await tls.context(None)
    assert second is not first
    assert await tls.context(None) is second


async def test_a_swapped_volume_is_seen_after_a_minute_and_said_once(volume, ca, clock, log):
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    first = await tls.context(None)
    volume.put(ca=Issued("the next CA", ca=True, ends=9 * DAY).pem)
    clock.advance(LOOK - 1)
    assert await tls.context(None) is first
    clock.advance(1)
    assert trusted(await tls.context(None)) == ["the next CA"]
    clock.advance(LOOK)
    await tls.context(None)
    (line,) = log.lines
    assert (line["msg"], line["level"]) == (CHANGED, "info")
    assert line["ca_expires"] == date(NOW + 9 * DAY)


async def test_after_a_failed_handshake_the_files_are_looked_at_at_once(volume, ca, clock, log):
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    await tls.context(None)
    volume.put(ca=Issued("the next CA", ca=True).pem)
    tls.look_again()
    assert trusted(await tls.context(None)) == ["the next CA"]


@pytest.mark.parametrize("way", ["in place", "renamed over", "grown"])
async def test_a_file_that_is_written_anew_is_seen(tmp_path, ca, clock, log, way):
    """By its time alone, its inode alone, its size alone."""
    file, new = tmp_path / "ca", tmp_path / "new"
    file.write_bytes(ca.pem)
    tls = trusting(file, clock, log)
    first, before = await tls.context(None), file.stat()
    target = new if way == "renamed over" else file
    target.write_bytes(ca.pem + b"\n" * (way == "grown"))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns + (way == "in place")))
    target.rename(file)
    clock.advance(LOOK)
    assert await tls.context(None) is not first


async def test_a_new_client_certificate_is_used_and_its_end_said(pair, ca, clock, log, tmp_path):
    pair("old")
    assert await self_named(pair.tls, ca, tmp_path) == "old"
    pair("new", ends=20 * DAY)
    assert await self_named(pair.tls, ca, tmp_path) == "old"
    clock.advance(LOOK)
    assert await self_named(pair.tls, ca, tmp_path) == "new"
    (line,) = log.said(CHANGED)
    assert line["client_certificate_expires"] == date(NOW + 20 * DAY)


async def self_named(tls, ca, tmp_path, certificate=None):
    """As whom `tls` makes itself known to a server that asks."""
    server = tls_kit.server_context(tmp_path, Issued("server", ca, names=["host"]), client_ca=ca)
    context = await tls.context(certificate)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [context.wrap_bio(one, other, server_hostname="host"), server.wrap_bio(other, one, server_side=True)]
    for end in (*ends, *ends):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return dict(*ends[1].getpeercert()["subject"])["commonName"]


async def test_a_pair_that_does_not_match_yet_is_warned_of_once_and_tried_again(pair, clock, log):
    pair("old")
    first = await pair.tls.context(None)
    pair("new", key=Issued("other"))
    for _ in range(3):
        clock.advance(LOOK)
        assert await pair.tls.context(None) is first
    (line,) = log.said(KEPT, "warning")
    assert "does not belong to the client certificate file" in line["problem"]
    pair("new")
    clock.advance(LOOK)
    assert await pair.tls.context(None) is not first
    assert len(log.said(CHANGED)) == 1


async def test_each_new_problem_is_warned_of_and_the_end_of_it_said(volume, ca, clock, log):
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    first = await tls.context(None)
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\nMII", b""):
        volume.put(ca=broken)
        for _ in range(2):
            clock.advance(LOOK)
            assert await tls.context(None) is first
    (volume.path / "..data").unlink()
    clock.advance(LOOK)
    assert await tls.context(None) is first
    problems = [line["problem"] for line in log.said(KEPT)]
    assert [problem.partition(str(volume.path / "ca"))[2].split(";")[0].split(":")[0] for problem in problems] == [
        " is empty", " is broken", " is empty", " does not exist",
    ]  # fmt: skip
    (volume.path / "..data").symlink_to("..1")
    clock.advance(LOOK)
    assert await tls.context(None) is first  # it is the very file that it was made from
    (volume.path / "..data").unlink()
    clock.advance(LOOK)
    assert await tls.context(None) is first
    assert [line["problem"] for line in log.said(KEPT)] == [*problems, problems[-1]]  # the same, after it was mended
    volume.put(ca=Issued("the next CA", ca=True).pem)
    clock.advance(LOOK)
    assert trusted(await tls.context(None)) == ["the next CA"]
    assert len(log.said(CHANGED)) == 1


async def test_what_is_broken_from_the_start_is_raised_until_it_is_mended(tmp_path, ca, clock, log):
    tls = trusting(tmp_path / "ca", clock, log)
    for _ in range(2):
        with pytest.raises(BadCertificateFile, match="does not exist"):
            await tls.context(None)
    (tmp_path / "ca").write_bytes(ca.pem)
    assert trusted(await tls.context(None)) == ["the cluster's CA"]
    assert not log.lines


async def test_a_plugins_certificate_is_used_as_soon_as_it_changes(ca, clock, log, tmp_path):
    tls = ClientTLS(ClusterConfig(server="https://host", ca_data=ca.pem), clock, log.logger)
    one, two = Issued("one", ca), Issued("two", ca, ends=DAY)
    certificates = [ClientCertificate(each.pem, each.key_pem()) for each in (one, two)]
    assert await self_named(tls, ca, tmp_path, certificates[0]) == "one"
    context = await tls.context(certificates[0])
    assert await tls.context(ClientCertificate(*certificates[0])) is context
    assert await self_named(tls, ca, tmp_path, certificates[1]) == "two"
    (line,) = log.lines  # no word of its end: the plugin renews it
    assert line["client_certificate_expires"] == date(NOW + DAY)


async def test_a_plugins_certificate_is_not_lost_when_it_comes_while_a_file_is_away(ca, clock, log, tmp_path):
    one, two = (ClientCertificate(each.pem, each.key_pem()) for each in (Issued("one", ca), Issued("two", ca)))
    file = tmp_path / "ca"
    file.write_bytes(ca.pem)
    tls = trusting(file, clock, log)
    first = await tls.context(one)
    away = file.rename(tmp_path / "away")
    assert await tls.context(two) is first
    away.rename(file)  # the same file again
    assert await tls.context(two) is first
    clock.advance(LOOK)
    assert await self_named(tls, ca, tmp_path, two) == "two"


async def test_a_plugins_broken_certificate_keeps_the_old_one(ca, clock, log):
    tls = ClientTLS(ClusterConfig(server="https://host", ca_data=ca.pem), clock, log.logger)
    one, other = Issued("one", ca), Issued("other", ca)
    broken = ClientCertificate(one.pem, other.key_pem())
    with pytest.raises(ClientKeyMismatch):
        await tls.context(broken)
    good = await tls.context(ClientCertificate(one.pem, one.key_pem()))
    for _ in range(3):
        assert await tls.context(broken) is good
        clock.advance(LOOK)
    assert len(log.said(KEPT)) == 1


@pytest.mark.parametrize(
    "life, begun, warned",
    [
        (365 * DAY, 365 * DAY - 6 * DAY, True),
        (365 * DAY, 365 * DAY - 8 * DAY, False),
        (DAY, DAY / 2, False),
        (DAY, DAY * 9 / 10, True),
    ],
)
async def test_an_end_that_is_near_is_warned_of_once(pair, clock, log, volume, life, begun, warned):
    pair("me", begins=-begun, ends=life - begun)
    for _ in range(3):
        await pair.tls.context(None)
        clock.advance(LOOK)
    lines = log.said("the client certificate expires soon", "warning")
    assert len(lines) == warned
    if warned:
        assert lines[0]["certificate"] == f"the client certificate file {volume.path}/crt"
        assert lines[0]["subject"] == "CN=me"
        assert lines[0]["expires"] == date(NOW + life - begun)


async def test_an_end_that_has_come_is_warned_of_once_more(pair, clock, log):
    pair("me", ends=timedelta(minutes=30))
    for _ in range(3):
        await pair.tls.context(None)
        clock.advance(20 * 60)
    assert [line["msg"] for line in log.lines] == [
        "the client certificate expires soon",
        "the client certificate has expired; renew it",
    ]
    pair("me", ends=90 * DAY)
    clock.advance(LOOK)
    await pair.tls.context(None)
    assert [line["msg"] for line in log.lines[2:]] == [CHANGED]


async def test_of_many_who_ask_at_once_one_looks(volume, ca, clock, log, monkeypatch):
    looks = []
    real = Pem.stamp
    monkeypatch.setattr(Pem, "stamp", lambda pem: looks.append(pem) or real(pem))
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    contexts = await asyncio.gather(*(tls.context(None) for _ in range(20)))
    assert len(set(contexts)) == len(looks) == 1
    volume.put(ca=ca.pem)
    clock.advance(LOOK)
    contexts = await asyncio.gather(*(tls.context(None) for _ in range(20)))
    assert contexts[1:] == [contexts[1]] * 19  # they go on with the old one, and do not wait for the disk
    assert contexts[0] is not contexts[1]
    assert len(looks) == 2


async def test_a_disk_that_hangs_holds_nobody_beyond_a_deadline(tmp_path, clock, log):
    os.mkfifo(tmp_path / "ca")  # to open it is to wait for a writer
    tls = trusting(tmp_path / "ca", clock, log)
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await tls.context(None)
    finally:  # let the threads go
        await until(lambda: writer(tmp_path / "ca"))
        await asyncio.to_thread((tmp_path / "ca").unlink)


def writer(pipe):
    """Open and close the other end of `pipe`; False when nobody waits for it."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


async def test_who_is_cancelled_while_looking_leaves_the_next_one_to_look(volume, ca, clock, log):
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    for _ in range(3):
        looking = asyncio.create_task(tls.context(None))
        await asyncio.sleep(0)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
    assert trusted(await tls.context(None)) == ["the cluster's CA"]


async def test_everything_rotates_under_requests_and_none_fails(tmp_path, volume, clock, log):
    """CA, server and client go over to a new authority in the usual steps, with requests at every moment."""
    old, new = Issued("old CA", ca=True), Issued("new CA", ca=True)
    both = old.pem + new.pem
    contexts = []

    def server(authority, clients):
        issued = Issued("server", authority, names=["127.0.0.1"])
        contexts.append(tls_kit.server_context(tmp_path, issued, client_ca=clients))

    def handle(connection):
        answers(contexts[-1])(connection)

    def client(authority, trust):
        mine = Issued("me", authority)
        volume.put(ca=trust, crt=mine.pem, key=mine.key_pem())

    server(old, old)
    client(old, old.pem)
    with serving(handle) as url:
        names = {"ca_file": "ca", "client_certificate": "crt", "client_key": "key"}
        config = ClusterConfig(server=url, **{key: str(volume.path / name) for key, name in names.items()})
        tls = ClientTLS(config, clock, log.logger)
        answered = [0]
        over = asyncio.Event()

        async def keep_asking():
            while not over.is_set():
                assert await exchange(config, await tls.context(None)) == tls_kit.REPLY
                answered[0] += 1

        async def some_requests():
            clock.advance(LOOK)
            wanted = answered[0] + 6  # some were under way, with what was before
            await until(lambda: answered[0] >= wanted, 10)

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(keep_asking())
            await some_requests()
            client(old, both)
            await some_requests()
            server(new, Both(both))
            await some_requests()
            client(new, both)
            await some_requests()
            server(new, new)
            client(new, new.pem)
            await some_requests()
            over.set()
    assert len(log.said(CHANGED)) == 3
    assert not log.said(KEPT)


class Both:
    """Two authorities as one."""

    def __init__(self, pem):
        self.pem = pem


async def test_a_ca_that_comes_late_is_told_until_it_is_there(tmp_path, volume, clock, log):
    old, new = Issued("old CA", ca=True), Issued("new CA", ca=True)
    volume.put(ca=old.pem)
    server = tls_kit.server_context(tmp_path, Issued("server", new, names=["127.0.0.1"]))
    with serving(answers(server)) as url:
        config = ClusterConfig(server=url, ca_file=str(volume.path / "ca"))
        tls = ClientTLS(config, clock, log.logger)
        with pytest.raises(Failed) as caught:
            await exchange(config, await tls.context(None))
        told = await explain(config, caught.value, lambda: peer_certificate(config), handshake=True, clock=clock)
        assert isinstance(told, UnknownAuthority)
        volume.put(ca=new.pem)
        tls.look_again()
        assert await exchange(config, await tls.context(None)) == tls_kit.REPLY


async def test_plain_http_has_no_context(clock, log):
    tls = ClientTLS(ClusterConfig(server="http://host", ca_file="absent"), clock, log.logger)
    assert await tls.context(None) is None


async def test_a_context_at_hand_costs_next_to_nothing(volume, ca, clock, log):
    volume.put(ca=ca.pem)
    tls = trusting(volume.path / "ca", clock, log)
    me = Issued("me", ca)
    certificate = ClientCertificate(me.pem, me.key_pem())
    await tls.context(certificate)
    started = time.perf_counter()
    for _ in range(1000):
        await tls.context(certificate)
    assert (time.perf_counter() - started) / 1000 < 50e-6  # under 1 µs, where nothing else runs

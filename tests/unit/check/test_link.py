"""The way to the cluster: each row seen failing for its own cause, and what it makes of those after it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from aiohttp import web

from asyncctl.check import link, waiting
from asyncctl.client.transport import dial
from asyncctl.clock import SystemClock
from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.operator.checking import State
from asyncctl.settings import Settings
from tests.unit.check.conftest import (
    SERVER_ROWS,
    answering,
    in_front_of,
    kubeconfig,
    prepared,
    skipped_because,
    tls_server,
)
from tests.unit.support import http_server, raw_server, status

FENCE = "fence controllers/test-leader"  # which only the operator itself can tell of


async def test_all_is_well_on_a_cluster_that_is_prepared(check, cluster):
    rows = await check(cluster.url)
    assert rows.states(State.WARNING, State.FAILED, State.SKIPPED) == {FENCE: "skipped"}
    assert "context x; server http://127.0.0.1" in rows["configuration"].message
    assert rows["configuration"].details.keys() >= {"source", "server", "user"}
    assert rows["user"].details["username"] == "admin"
    assert rows["version"].message == "v1.36.3"


async def test_no_configuration_names_the_places_and_skips_the_rest(check, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = await check()
    assert rows.failed() == ["configuration"]
    assert "KUBECONFIG: not set" in rows["configuration"].message
    skipped_because(rows, "there is no cluster configuration", *SERVER_ROWS)
    assert "protection" not in rows.states()  # of Widgets there is none


async def test_without_a_cluster_the_protection_is_skipped_as_all_else(check, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = await check(operator=database_operator(), settings=DatabaseSettings())
    skipped_because(rows, "there is no cluster configuration", "protection", *SERVER_ROWS)


async def test_a_kubeconfig_that_others_may_read_is_warned_of(check, cluster, tmp_path):
    path = kubeconfig(tmp_path / "open", cluster.url)
    path.chmod(0o644)
    rows = await check(environ={"KUBECONFIG": str(path)})
    assert rows.states(State.WARNING) == {"configuration": "warning"}
    assert f"chmod 600 {path}" in rows["configuration"].message


async def test_a_misspelt_setting_is_warned_of(check, cluster):
    rows = await check(cluster.url, environ={"ASYNCCTL_WORKER": "3"})
    assert rows.states(State.WARNING) == {"settings": "warning"}
    assert "did you mean ASYNCCTL_WORKERS?" in rows["settings"].message


async def test_a_server_that_is_down(check):
    rows = await check("http://127.0.0.1:1")
    assert rows.failed() == ["api-server"]
    assert "http://127.0.0.1:1 can't be reached" in rows["api-server"].message
    others = [name for name in SERVER_ROWS if name != "api-server"]
    skipped_because(rows, "the server can't be reached", *others)


async def test_a_server_that_does_not_answer_is_not_waited_for(check):
    async def silent(reader, writer):
        await reader.read(-1)

    async with raw_server(silent) as url:
        rows = await check(url, settings=Settings(request_timeout=0.1))
    assert rows.failed() == ["api-server"]
    assert "no answer" in rows["api-server"].message


async def test_a_port_that_is_silent_in_the_handshake_is_a_trouble_of_tls(check, monkeypatch):
    async def silent(reader, writer):
        await reader.read(-1)

    small = 0.5
    monkeypatch.setattr(link, "REQUEST", link.REQUEST * small / dial.CONNECT_TIMEOUT)
    monkeypatch.setattr(dial, "CONNECT_TIMEOUT", small)
    async with raw_server(silent) as url:
        rows = await check(url.replace("http:", "https:"))
    assert rows.failed() == ["tls"]
    assert "handshake" in rows["tls"].message
    assert "firewall" not in rows["tls"].message
    skipped_because(rows, "TLS fails", "api-server", "user", "rbac")


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ((), {"not_after": datetime(2020, 1, 1, tzinfo=UTC)}, "expired"),
        (("other.example.com",), {}, "127.0.0.1"),
    ],
)
async def test_a_certificate_that_is_not_good(check, ca, ca_file, names, options, said):
    with tls_server(ca, *names, **options) as url:
        rows = await check(url, **{"certificate-authority": ca_file})
    assert rows.failed() == ["tls"]
    assert said in rows["tls"].message
    skipped_because(rows, "TLS fails", "api-server", "version", "user", "clock", "api", "crd", "rbac", "lease")


async def test_a_certificate_of_another_authority(check, ca_file):
    with tls_server(trustme.CA()) as url:
        rows = await check(url, **{"certificate-authority": ca_file})
    assert rows.failed() == ["tls"]
    assert "CA" in rows["tls"].message


async def test_an_authority_whose_file_is_missing(check, tmp_path):
    rows = await check("https://127.0.0.1:1", **{"certificate-authority": str(tmp_path / "none.crt")})
    (failed,) = (row for row in rows if row.state is State.FAILED)
    assert "none.crt" in failed.message
    assert rows["rbac"].state is State.SKIPPED


async def test_a_good_certificate_is_told_with_its_authority_and_its_end(check, ca, ca_file):
    end = datetime.now(UTC) + timedelta(days=90, hours=1)
    with tls_server(ca, not_after=end) as url:
        rows = await check(url, **{"certificate-authority": ca_file})
    assert rows["tls"].state is State.OK
    assert f"verified by the CA file {ca_file}; " in rows["tls"].message
    assert f"expires {end:%Y-%m-%d %H:%M} UTC, in 90 days" in rows["tls"].message
    assert rows["tls"].details["certificate"]["names"] == ["127.0.0.1"]


async def test_a_certificate_that_ends_soon_is_warned_of(check, ca, ca_file):
    end = datetime.now(UTC) + timedelta(days=2, hours=1)
    with tls_server(ca, not_after=end) as url:
        rows = await check(url, **{"certificate-authority": ca_file})
    assert rows["tls"].state is State.WARNING
    assert rows["tls"].message.endswith("in 2 days: renew it")


@pytest.mark.parametrize(("days", "state"), [(90, State.OK), (2, State.WARNING)])
async def test_a_certificate_of_our_own_is_told_with_its_end(check, ca, ca_file, tmp_path, days, state):
    end = datetime.now(UTC) + timedelta(days=days, hours=1)
    made = ca.issue_cert("me@example.com", not_after=end)
    made.cert_chain_pems[0].write_to_path(tmp_path / "me.crt")
    made.private_key_pem.write_to_path(tmp_path / "me.key")
    user = {"client-certificate": str(tmp_path / "me.crt"), "client-key": str(tmp_path / "me.key")}
    with tls_server(ca) as url:
        rows = await check(url, user=user, **{"certificate-authority": ca_file})
    assert rows["tls"].state is state
    assert f"expires {end:%Y-%m-%d %H:%M} UTC, in {days} days" in rows["tls"].message
    assert rows["tls"].details["clientCertificate"]["issuer"]


async def test_a_server_that_is_not_verified_is_warned_of(check, ca):
    with tls_server(ca) as url:
        rows = await check(url, **{"insecure-skip-tls-verify": True})
    assert rows["tls"].state is State.WARNING
    assert "not verified (insecure-skip-tls-verify)" in rows["tls"].message


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        ("v1.28.15-eks-1", State.WARNING, "older than 1.29"),
        ("v1.29.0", State.OK, "v1.29.0"),
        ("v1.40.1", State.OK, "newer than 1.36"),
    ],
)
async def test_a_version_is_held_against_those_that_are_supported(check, version, state, said):
    async with prepared(version=version) as cluster:
        rows = await check(cluster.url)
    assert rows["version"].state is state
    assert said in rows["version"].message
    assert rows.failed() == []


async def test_a_version_that_is_none_of_kubernetes(check):
    async with http_server(answering(version=lambda: web.json_response({"gitVersion": "devel"}))) as url:
        rows = await check(url)
    assert rows["version"].state is State.WARNING
    assert "'devel' is no version of Kubernetes" in rows["version"].message


async def test_what_is_no_api_server(check):
    page = lambda: web.Response(text="<html>hello</html>", content_type="text/html")  # noqa: E731
    async with http_server(answering(version=page)) as url:
        rows = await check(url)
    assert rows.failed() == ["version"]
    assert "<html>hello" in rows["version"].message
    skipped_because(rows, "the server does not answer as a Kubernetes API server does", "user", "clock", "rbac")


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda: status(429, "TooManyRequests", "try again later"), 429, "try again later"),
        (lambda: status(503, "ServiceUnavailable", "etcd is away"), 503, "etcd is away"),
        (lambda: web.Response(status=503, text="no backend"), 503, "no backend"),
    ],
)
async def test_a_server_that_can_not_answer_now_is_told_with_its_answer(check, answer, code, said):
    async with http_server(answering(version=answer)) as url:
        rows = await check(url)
    assert rows.failed() == ["version"]
    assert said in rows["version"].message
    skipped_because(rows, f"the server answers {code} now: see version", "user", "clock", "rbac")


async def test_a_server_that_takes_long_is_told_while_it_is_waited_for(check, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    told = asyncio.Event()

    async def handler(request):
        await told.wait()
        return web.Response(status=503)

    async with http_server(handler) as url:
        rows = await check(url, tell=lambda line: told.set() if url in line else None)
    assert rows.failed() == ["version"]


async def test_a_version_that_may_not_be_read_ends_nothing(check, cluster):
    def closed(request):
        return status(403, "Forbidden", "no") if request.path == "/version" else None

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert rows.states(State.WARNING, State.FAILED, State.SKIPPED) == {
        "version": "warning", "clock": "skipped", FENCE: "skipped",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "state", "said"),
    [
        (0, State.OK, "agree"),
        (10, State.WARNING, "10 s behind"),
        (-10, State.WARNING, "10 s ahead of"),
        (3600, State.FAILED, "3600 s behind"),
        (-3600, State.FAILED, "3600 s ahead of"),
    ],
)
async def test_a_clock_that_is_wrong(check, seconds, state, said):
    """The server's clock is moved; that of this machine is behind where the server's is ahead."""
    async with prepared(now=lambda: datetime.now(UTC) + timedelta(seconds=seconds)) as cluster:
        rows = await check(cluster.url)
    assert rows["clock"].state is state
    assert abs(rows["clock"].details["skewSeconds"] - seconds) <= 1.5
    shown = rows["clock"].message
    assert said in shown or str(abs(seconds) + 1) in shown or str(abs(seconds) - 1) in shown
    assert ("behind" in shown) == (seconds > 0)


async def test_a_server_too_far_away_to_renew_a_lease(check, cluster):
    class Slow(SystemClock):
        """Each look at it is a second later than the last."""

        def __init__(self):
            self.looks = 0

        def monotonic(self):
            self.looks += 1
            return super().monotonic() + 1.5 * self.looks

    rows = await check(cluster.url, clock=Slow())
    assert rows["api-server"].state is State.WARNING
    assert "too far" in rows["api-server"].message


async def test_a_check_that_is_cancelled_ends_at_once(check):
    asked = asyncio.Event()

    async def silent(reader, writer):
        asked.set()
        await reader.read(-1)

    async with raw_server(silent) as url, asyncio.timeout(5):
        task = asyncio.create_task(check(url))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

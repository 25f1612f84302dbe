"""The way to the cluster: each row seen failing for its own cause, and what it makes of those after it."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from aiohttp import web

from asyncctl.check import link, waiting
from asyncctl.client.transport import dial
from asyncctl.clock import SystemClock
from asyncctl.operator.checking import State
from asyncctl.settings import Settings
from tests.unit.check.conftest import in_front_of, kubeconfig, prepared, tls_server
from tests.unit.support import http_server, raw_server, status

SERVER_ROWS = ["tls", "api-server", "version", "user", "clock", "api", "crd", "rbac", "lease"]


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def ca_file(ca, tmp_path):
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    return str(tmp_path / "ca.crt")


def server_context(ca):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def answering(**paths):
    """A handler that knows `/version`, and answers another path as is given for its last part."""

    async def handler(request):
        found = paths.get(request.path.rpartition("/")[2])
        if callable(found):
            return found()
        if request.path == "/version":
            return web.json_response({"gitVersion": "v1.36.3"})
        return web.Response(status=404, text="404 page not found")

    return handler


def skipped_because(rows, why, *names):
    for name in names:
        row = rows[name]
        assert (row.state, row.message) == (State.SKIPPED, f"not reached because {why}"), name


async def test_all_is_well_on_a_cluster_that_is_prepared(check, cluster):
    rows = await check(cluster.url)
    assert rows.states(State.WARNING, State.FAILED, State.SKIPPED) == {}
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


@pytest.mark.parametrize("path", ["version", "selfsubjectreviews"])
async def test_credentials_that_are_not_accepted(check, path):
    async with http_server(answering(**{path: lambda: status(401, "Unauthorized", "Unauthorized")})) as url:
        rows = await check(url, user={"token": "old"})
    assert rows.failed() == ["user"]
    assert rows["api-server"].state is State.OK
    assert "the server does not accept the credentials of KUBECONFIG" in rows["user"].message
    skipped_because(rows, "the server does not accept the credentials", "api", "crd", "rbac", "lease")
    assert "old" not in str(rows["user"].details)


@pytest.mark.parametrize("user", [{"tokenFile": "/nowhere/token"}, {"token": "two\nlines"}])
async def test_credentials_that_the_configuration_can_not_have(check, ca, ca_file, user):
    with tls_server(ca) as url:
        rows = await check(url, user=user, **{"certificate-authority": ca_file})
    assert rows.failed() == ["configuration"]
    assert "two" not in rows["configuration"].message
    skipped_because(rows, "there is no cluster configuration", "user", "rbac")


def plugin(folder, script):
    """A user whose credentials come from a command."""
    command = folder / "plugin"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": str(command), "interactiveMode": "Never"}}


def plugin_that_fails(folder):
    said = f"the exec plugin {folder}/plugin failed with exit code 3; it said: log in first"
    return plugin(folder, "echo log in first >&2; exit 3"), said


def file_that_is_empty(folder):
    (folder / "token").touch()
    return {"tokenFile": str(folder / "token")}, f"the token file {folder}/token can't be used: it is empty"


@pytest.mark.parametrize("broken", [plugin_that_fails, file_that_is_empty])
async def test_credentials_that_can_not_be_had_are_no_fault_of_the_server(check, ca, ca_file, tmp_path, broken):
    user, said = broken(tmp_path)
    with tls_server(ca) as url:
        rows = await check(url, user=user, **{"certificate-authority": ca_file})
    assert rows.states(State.FAILED) == {"user": "failed"}
    assert said in rows["user"].message
    others = [name for name in SERVER_ROWS if name != "user"]
    skipped_because(rows, "there are no credentials to use", *others)


async def test_a_plugin_that_takes_long_is_told_while_it_is_waited_for(check, ca, ca_file, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    told = []

    def tell(line):
        told.append(line)
        (tmp_path / "told").touch()

    script = f"until test -e {tmp_path}/told; do sleep 0.01; done; exit 3"
    with tls_server(ca) as url:
        rows = await check(url, user=plugin(tmp_path, script), tell=tell, **{"certificate-authority": ca_file})
    assert "failed with exit code 3" in rows["user"].message
    assert told[0] == (
        f"waiting for the exec plugin {tmp_path}/plugin (at most 60 s), then for {url} (at most 25 s for an answer)"
    )


async def test_a_server_that_takes_long_is_told_while_it_is_waited_for(check, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    told = asyncio.Event()

    async def handler(request):
        await told.wait()
        return web.Response(status=503)

    async with http_server(handler) as url:
        rows = await check(url, tell=lambda line: told.set() if url in line else None)
    assert rows.failed() == ["version"]


async def test_a_credential_that_can_not_be_renewed_is_no_fault_of_the_server(check, ca, ca_file, tmp_path):
    """It ends between the question for the version and the one who we are."""

    class Jumping(SystemClock):
        ahead = timedelta(0)

        def now(self):
            return super().now() + self.ahead

    async def handler(request):
        clock.ahead = timedelta(hours=2)
        return web.json_response({"gitVersion": "v1.36.3"})

    clock = Jumping()
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    credential = json.dumps({
        "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
        "status": {"token": "t", "expirationTimestamp": end},
    })  # fmt: skip
    script = f"test -e {tmp_path}/once && exit 3; touch {tmp_path}/once; echo '{credential}'"
    async with http_server(handler, server_context(ca)) as url:
        rows = await check(url, user=plugin(tmp_path, script), clock=clock, **{"certificate-authority": ca_file})
    assert "failed with exit code 3" in rows["user"].message
    skipped_because(rows, "there are no credentials to use", "rbac", "lease")


async def test_a_version_that_may_not_be_read_ends_nothing(check, cluster):
    def closed(request):
        return status(403, "Forbidden", "no") if request.path == "/version" else None

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert rows.states(State.WARNING, State.FAILED, State.SKIPPED) == {"version": "warning", "clock": "skipped"}


async def nobody(request):
    return status(403, "Forbidden", f'User "system:anonymous" cannot get path "{request.path}"')


@pytest.fixture
async def anonymous(ca):
    """A server that takes everybody for nobody, over TLS."""
    async with http_server(nobody, server_context(ca)) as url:
        yield url


async def test_without_a_credential_it_ends_at_the_user_and_says_what_to_configure(check, anonymous, ca_file):
    rows = await check(anonymous, **{"certificate-authority": ca_file})
    assert rows.failed() == ["user"]
    assert "there is no credential in KUBECONFIG" in rows["user"].message
    assert "configure a token, tokenFile" in rows["user"].message
    skipped_because(rows, "the server does not know us", "api", "crd", "rbac", "lease")


async def test_a_credential_that_is_not_sent_in_plain_http_is_told_as_that(check):
    async with http_server(nobody) as url:
        rows = await check(url, user={"token": "sesame"})
    assert rows.failed() == ["user"]
    assert f"no credential is sent to {url}, since it is plain HTTP" in rows["user"].message


async def test_a_credential_that_is_not_heeded_ends_it_at_the_user(check, anonymous, ca_file):
    rows = await check(anonymous, user={"token": "sesame"}, **{"certificate-authority": ca_file})
    assert rows.failed() == ["user"]
    assert "the credentials of KUBECONFIG" in rows["user"].message
    assert "system:anonymous" in rows["user"].message
    skipped_because(rows, "the server does not know us", "api", "crd", "rbac", "lease")


@pytest.mark.parametrize("answer", [{"kind": "Pod"}, {"kind": "SelfSubjectReview", "status": {"userInfo": {}}}])
async def test_an_answer_that_is_no_review_is_told_as_that(check, answer):
    async with http_server(answering(selfsubjectreviews=lambda: web.json_response(answer))) as url:
        rows = await check(url)
    assert rows["user"].state is State.FAILED
    assert f"{url} answers something else than a SelfSubjectReview" in rows["user"].message
    assert f'"kind":"{answer["kind"]}"' in rows["user"].message


async def test_a_token_bound_to_a_pod_is_told(check):
    extra = {"authentication.kubernetes.io/pod-name": ["p-1"], "authentication.kubernetes.io/node-name": ["n-1"]}
    info = {"username": "system:serviceaccount:controllers:o", "groups": ["g1", "g2"], "extra": extra}
    answer = lambda: web.json_response({"kind": "SelfSubjectReview", "status": {"userInfo": info}}, status=201)  # noqa: E731
    async with http_server(answering(selfsubjectreviews=answer)) as url:
        rows = await check(url)
    assert rows["user"].message == ("system:serviceaccount:controllers:o; groups g1, g2; bound to pod p-1 on node n-1")
    assert rows["user"].details["pod"] == "p-1"


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

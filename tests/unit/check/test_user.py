"""Who the server takes us for: credentials that can't be had, are refused, or say nobody; and what that ends."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from asyncctl.check import waiting
from asyncctl.clock import SystemClock
from asyncctl.operator.checking import State
from tests.unit.check.conftest import SERVER_ROWS, answering, server_context, skipped_because, tls_server
from tests.unit.support import http_server, status


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

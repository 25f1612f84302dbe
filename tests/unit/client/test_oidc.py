"""OIDC against a real identity provider's face over TLS: refresh, rotation, and the kubeconfig that is written back."""

import asyncio
import base64
import json
import socketserver
import ssl
import stat
import threading
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import parse_qs

import pytest
import trustme
import yaml
from aiohttp import web
from hypothesis import HealthCheck, given, settings, strategies as st

from asyncctl.client.config import oidc
from asyncctl.client.config.cluster import find_config
from asyncctl.client.config.credentials import Credentials
from asyncctl.client.config.kubeconfig import parse
from asyncctl.client.config.kubeconfig_tokens import read_tokens, write_tokens
from asyncctl.client.errors import CredentialsError
from asyncctl.testing.clock import FakeClock
from tests.unit.support import Log, http_server, until

CA = trustme.CA()


def token(clock, lasts, **claims):
    """An id-token that ends after so many seconds."""
    claims |= {"iat": clock.now().timestamp() - 600, "exp": (clock.now() + timedelta(seconds=lasts)).timestamp()}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def tls(*names):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert(*names).configure_cert(context)
    return context


class Idp:
    """An identity provider that gives what the test wants, and remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.answers = []
        self.discovery = {}
        self.gate = None

    async def __call__(self, request):
        base = f"https://{request.host}"
        if request.path == "/idp/.well-known/openid-configuration":
            return web.json_response({"token_endpoint": f"{base}/token"} | self.discovery)
        assert (request.method, request.path) == ("POST", "/token")
        form = {key: value for key, (value,) in parse_qs(await request.text()).items()}
        self.asked.append((request.headers.get("Authorization"), form))
        if self.gate is not None:
            await self.gate.wait()
        code, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=code, text=body if isinstance(body, str) else json.dumps(body))


TEXT = """\
# mine
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://c:6443"}}}}]  # flow
contexts:
- name: x
  context: {{cluster: c, user: "u"}}
current-context: x
users:
- name: other
  user: {{auth-provider: {{name: oidc, config: {{id-token: theirs, refresh-token: theirs}}}}}}
- name: u
  user:
    auth-provider:
      name: oidc
      config:
        client-id: me   # a comment
        client-secret: {secret!r}
        id-token: '{id_token}'
        idp-certificate-authority-data: {ca}
        idp-issuer-url: {issuer}/idp/
        refresh-token: first
"""


class Setting:
    """A kubeconfig whose user has an identity provider, and credentials of it."""

    def __init__(self, file, url, idp, *, secret="", lasts=600, environ=None):
        self.file, self.url, self.idp, self.clock, self.log = file, url, idp, FakeClock(), Log()
        ca = base64.b64encode(CA.cert_pem.bytes()).decode()
        self.first = token(self.clock, lasts, jti="first")
        file.touch(0o600)
        file.write_text(TEXT.format(secret=secret, id_token=self.first, ca=ca, issuer=url))
        self.environ = {"KUBECONFIG": str(file)} | (environ or {})
        self.opened = []

    async def open(self, **changes):
        config = await find_config(self.environ, service_account=self.file / "none")
        self.opened.append(Credentials(config, self.clock, self.log.logger))
        return config, self.opened[-1]

    def gives(self, *answers):
        self.idp.answers[:] = [answer if isinstance(answer, tuple) else (200, answer) for answer in answers]

    async def tokens(self):
        return await asyncio.to_thread(read_tokens, self.file, "u")


@pytest.fixture
async def start(tmp_path):
    """Serve an identity provider, and write a kubeconfig that names it."""
    idp, made = Idp(), []
    async with http_server(idp, tls("127.0.0.1")) as url:

        def make(**options):
            made.append(Setting(tmp_path / "config", url, idp, **options))
            return made[-1]

        yield make
        for setting in made:
            for credentials in setting.opened:
                await credentials.aclose()


async def shown(credentials):
    return dict((await credentials.current()).headers)["Authorization"]


# When.


async def test_an_id_token_is_used_until_a_minute_before_its_end_and_then_refreshed(start):
    setting = start(lasts=600)
    _, credentials = await setting.open()
    second = token(setting.clock, 2000)
    setting.gives({"id_token": second})
    setting.clock.advance(539)
    assert await shown(credentials) == f"Bearer {setting.first}"
    assert setting.idp.asked == []
    setting.clock.advance(1)
    await shown(credentials)  # valid yet: nobody waits
    await asyncio.wait([credentials._task])
    assert await shown(credentials) == f"Bearer {second}"
    assert setting.idp.asked == [(None, {"grant_type": "refresh_token", "refresh_token": "first", "client_id": "me"})]


async def test_an_id_token_that_is_about_to_end_does_as_long_as_the_provider_does_not_answer(start):
    setting = start(lasts=59)
    setting.gives((503, "come back later"))
    _, credentials = await setting.open()
    assert await shown(credentials) == f"Bearer {setting.first}"
    await asyncio.wait([credentials._task])
    assert await shown(credentials) == f"Bearer {setting.first}"
    assert setting.log.said("the credential could not be renewed; the last one is used", "warning")
    setting.clock.advance(59)
    with pytest.raises(CredentialsError, match="answered with 503"):
        await shown(credentials)


async def test_an_id_token_that_has_ended_is_refreshed_before_it_is_shown(start):
    setting = start(lasts=-1)
    _, credentials = await setting.open()
    second = token(setting.clock, 600)
    setting.gives({"id_token": second})
    assert await shown(credentials) == f"Bearer {second}"


async def test_all_who_ask_share_one_refresh(start):
    setting = start(lasts=-1)
    _, credentials = await setting.open()
    setting.gives({"id_token": token(setting.clock, 600)})
    assert len(set(await asyncio.gather(*(shown(credentials) for _ in range(20))))) == 1
    assert len(setting.idp.asked) == 1


async def test_an_id_token_with_a_line_end_within_is_told_without_the_token(start):
    setting = start(lasts=-1)
    _, credentials = await setting.open()
    second = token(setting.clock, 600) + "\nx"
    setting.gives({"id_token": second})
    with pytest.raises(CredentialsError, match=r"the id-token of .* for user 'u' .* can't be used: it has") as told:
        await shown(credentials)
    assert second[:20] not in str(told.value)


async def test_a_401_refreshes_a_token_that_says_it_is_valid(start):
    setting = start()
    _, credentials = await setting.open()
    used = await credentials.current()
    second = token(setting.clock, 600, jti="second")
    setting.gives({"id_token": second})
    assert await credentials.refresh(used)
    assert await shown(credentials) == f"Bearer {second}"


async def test_two_event_loops_refresh_once_since_a_refresh_token_may_be_used_once(start):
    setting = start(lasts=-1)
    config, credentials = await setting.open()
    second = token(setting.clock, 600)
    setting.gives({"id_token": second, "refresh_token": "next"}, (400, {"error": "invalid_grant"}))
    found = []

    async def other():
        mine = Credentials(config, setting.clock, setting.log.logger)
        found.append(await shown(mine))
        await mine.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(other()), name="other loop")
    thread.start()
    found.append(await shown(credentials))
    await asyncio.to_thread(thread.join)
    assert found == [f"Bearer {second}"] * 2
    assert len(setting.idp.asked) == 1


# What is written back.


async def test_the_new_tokens_are_written_and_nothing_else_in_the_file_changes(start):
    setting = start(lasts=-1)
    setting.file.chmod(0o640)
    before = setting.file.read_text()
    _, credentials = await setting.open()
    second = token(setting.clock, 600)
    setting.gives({"id_token": second, "refresh_token": 'a"b\\c: #'})
    await shown(credentials)
    assert await setting.tokens() == (second, 'a"b\\c: #')
    after = setting.file.read_text()
    assert after == before.replace(f"'{setting.first}'", f'"{second}"').replace(
        "refresh-token: first", r'refresh-token: "a\"b\\c: #"'
    )
    assert stat.S_IMODE(setting.file.stat().st_mode) == 0o640
    assert [each.name for each in setting.file.parent.iterdir()] == ["config"]  # no lock and no half of a file


async def test_a_rotated_refresh_token_is_the_one_that_is_used_next(start):
    setting = start(lasts=-1)
    _, credentials = await setting.open()
    for name in ("second", "third"):
        second = token(setting.clock, 600)
        setting.gives({"id_token": second, "refresh_token": name})
        await shown(credentials)
        setting.clock.advance(601)
    assert [form["refresh_token"] for _, form in setting.idp.asked] == ["first", "second"]
    assert await setting.tokens() == (second, "third")


async def test_what_kubectl_has_written_meanwhile_is_taken_and_not_asked_for_again(start):
    setting = start(lasts=600)
    _, credentials = await setting.open()
    theirs = token(setting.clock, 6000)
    assert await asyncio.to_thread(write_tokens, setting.file, "u", theirs, "rotated") is None
    setting.clock.advance(600)
    assert await shown(credentials) == f"Bearer {theirs}"
    setting.clock.advance(6000)
    setting.gives({"id_token": token(setting.clock, 600)})
    await shown(credentials)
    assert [form["refresh_token"] for _, form in setting.idp.asked] == ["rotated"]


@pytest.mark.parametrize("rotates", [True, False])
async def test_a_file_that_is_read_only_is_left_alone_and_told_once_where_it_matters(start, rotates):
    setting = start(lasts=-1)
    setting.file.chmod(0o400)
    before = setting.file.read_text()
    _, credentials = await setting.open()
    for number in range(2):
        second = token(setting.clock, 600)
        setting.gives({"id_token": second, "refresh_token": f"r{number}"} if rotates else {"id_token": second})
        assert await shown(credentials) == f"Bearer {second}"
        setting.clock.advance(601)
    assert setting.file.read_text() == before
    assert [form["refresh_token"] for _, form in setting.idp.asked] == ["first", "r0" if rotates else "first"]
    said = setting.log.said("the new refresh-token could not be written", "warning")
    assert [line["cause"] for line in said] == ["the file is read-only"][: int(rotates)]


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "config"
    real.write_text(CONFIGS["flow"])
    link.symlink_to(real)
    assert write_tokens(link, "u", "a.b.c", "new") is None
    assert link.is_symlink()
    assert read_tokens(real, "u") == ("a.b.c", "new")


async def test_a_lock_that_kubectl_left_is_named_and_the_file_left_alone(start):
    setting = start()
    lock = setting.file.with_name("config.lock")
    lock.touch()
    before = setting.file.read_bytes()
    problem = await asyncio.to_thread(write_tokens, setting.file, "u", "a.b.c", "new")
    assert problem == f"{lock} is there; remove it if no kubectl is running"
    assert setting.file.read_bytes() == before
    assert lock.exists()


CONFIGS = {
    "block": "users:\n- name: u\n  user:\n    auth-provider:\n      config:\n        a: b\n        id-token: old\n",
    "flow": "users: [{name: u, user: {auth-provider: {config: {id-token: old, a: b}}}}]",
    "json": '{"users": [{"name": "u", "user": {"auth-provider": {"config": {"id-token": "old"}}}}]}',
    "empty": "users: [{name: u, user: {auth-provider: {config: {}}}}]",
    "folded": "users:\n- name: u\n  user:\n    auth-provider:\n      config:\n        id-token: >-\n          old\n"
    "          er\n        a: b\n",
    "windows": "users:\r\n- name: u\r\n  user:\r\n    auth-provider:\r\n      config:\r\n        id-token: old\r\n",
    "marked": "\ufeffusers:\n- name: u\n  user: {auth-provider: {config: {refresh-token: ''}}}\n",
    "first of a line": "users:\n- {name: v}\n- user: {auth-provider: {config: {\n  id-token: old}}}\n  name: u\n",
}


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_the_tokens_are_written_whatever_the_form_of_the_file(tmp_path, content):
    file = tmp_path / "config"
    file.write_bytes(content.encode())
    assert write_tokens(file, "u", "new.id.token", "näw") is None
    assert read_tokens(file, "u") == ("new.id.token", "näw")
    wanted = parse(file, content.encode())
    (user,) = [item["user"] for item in wanted["users"] if item["name"] == "u"]
    user["auth-provider"]["config"] |= {"id-token": "new.id.token", "refresh-token": "näw"}
    assert parse(file, file.read_bytes()) == wanted
    assert content.startswith("\ufeff") == file.read_bytes().startswith("\ufeff".encode())


@pytest.mark.parametrize(
    "content, said",
    [
        ("users: [{name: u, user: {auth-provider: {config: {id-token: &c old}}}}]\nx: *c", "can't be changed alone"),
        ("users: [{name: v}]", "has no auth-provider any more"),
        ("users: [{name: u, user: {token: t}}]", "has no auth-provider any more"),
        ("users: 3", "has no auth-provider any more"),
        ("users: [", "is not YAML"),
    ],
)  # fmt: skip
def test_what_can_not_be_changed_alone_is_left_as_it_is(tmp_path, content, said):
    file = tmp_path / "config"
    file.write_text(content)
    assert said in write_tokens(file, "u", "new.id.token", "new")
    assert file.read_text() == content
    assert [each.name for each in tmp_path.iterdir()] == ["config"]


def test_a_file_that_is_gone_is_told(tmp_path):
    assert "No such file or directory" in write_tokens(tmp_path / "gone", "u", "a", "b")
    assert read_tokens(tmp_path / "gone", "u") is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["id-token", "refresh-token", "z: 'q'", "ü"]), st.text(max_size=12), max_size=4),
    st.text(max_size=12),
    st.text(max_size=12),
    st.booleans(),
)
def test_any_texts_come_back_as_they_were_written(tmp_path, config, id_token, refresh_token, flow):
    file = tmp_path / "config"
    content = {"a": {"b": 1}, "users": [{"name": "u", "user": {"auth-provider": {"name": "oidc", "config": config}}}]}
    file.write_text(yaml.safe_dump(content, default_flow_style=flow), encoding="utf-8")
    problem = write_tokens(file, "u", id_token, refresh_token)
    if problem is None:
        content["users"][0]["user"]["auth-provider"]["config"] |= {
            key: value
            for key, value in (("id-token", id_token), ("refresh-token", refresh_token))
            if config.get(key, "") != value
        }
    assert parse(file, file.read_bytes()) == content


# What is asked, and of whom.


async def test_a_client_with_a_secret_shows_it_in_a_header(start):
    setting = start(lasts=-1, secret="s:/ü")
    _, credentials = await setting.open()
    setting.gives({"id_token": token(setting.clock, 600)})
    await shown(credentials)
    ((header, form),) = setting.idp.asked
    assert base64.b64decode(header.removeprefix("Basic ")) == b"me:s%3A%2F%C3%BC"
    assert form == {"grant_type": "refresh_token", "refresh_token": "first"}


async def test_a_provider_that_wants_the_secret_in_the_body_gets_it_there(start):
    setting = start(lasts=-1, secret="hush")
    _, credentials = await setting.open()
    setting.gives((401, {"error": "invalid_client"}), {"id_token": token(setting.clock, 600)})
    await shown(credentials)
    header, form = setting.idp.asked[1]
    assert header is None
    assert form == {
        "grant_type": "refresh_token", "refresh_token": "first", "client_id": "me", "client_secret": "hush",
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer, said",
    [
        ((400, {"error": "invalid_grant", "error_description": "gone"}), "with 400 invalid_grant, gone; log in again"),
        ((500, "<html>secret"), "the refresh-token was answered with 500"),
        ((302, ""), "the refresh-token was answered with 302"),
        ((200, "[]"), "the answer to a refresh has no id_token; log in again with the scope openid"),
        ((200, {"access_token": "secret"}), "the answer to a refresh has no id_token"),
        ((200, {"id_token": "secret"}), "the new id-token has ended already"),
        ((200, {"id_token": ["secret"]}), "the answer to a refresh has no id_token"),
        ((200, {"id_token": "a.b.c", "refresh_token": 3}), "the answer to a refresh has no id_token"),
        ((200, "x" * 2**21), "the answer has more than 1 MiB"),
    ],
)
async def test_an_answer_that_does_not_help_is_told_without_its_secrets(start, answer, said):
    setting = start(lasts=-1)
    before = setting.file.read_text()
    _, credentials = await setting.open()
    setting.gives(answer)
    with pytest.raises(CredentialsError) as caught:
        await shown(credentials)
    text = str(caught.value)
    assert said in text
    assert "https://127.0.0.1" in text
    assert not any(part in text for part in ("secret", "first"))
    assert setting.file.read_text() == before


@pytest.mark.parametrize(
    "discovery, said",
    [
        ({"token_endpoint": None}, "answered 200 without a token_endpoint; check idp-issuer-url"),
        ({"token_endpoint": "http://127.0.0.1:1/token"}, "its token_endpoint is not https; nothing was sent to it"),
        ({"token_endpoint": "https://127.0.0.1:1/token"}, "no new id-token: 127.0.0.1:1 can't be connected to"),
    ],
)
async def test_a_discovery_that_leads_nowhere_is_told(start, discovery, said):
    setting = start(lasts=-1)
    _, credentials = await setting.open()
    setting.idp.discovery = discovery
    with pytest.raises(CredentialsError) as caught:
        await shown(credentials)
    assert said in str(caught.value)
    assert setting.idp.asked == []


@contextmanager
def threaded():
    """A TLS server in a thread: asyncio would report the handshake that fails to the test's own loop."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as made:
        made.handle_error = lambda *_: None
        made.socket = tls("127.0.0.1").wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, name="threaded")
        thread.start()
        try:
            yield f"https://127.0.0.1:{made.server_address[1]}"
        finally:
            made.shutdown()
            thread.join()


async def test_a_provider_is_verified_by_the_systems_cas_where_none_is_given(start):
    setting = start(lasts=-1)
    with threaded() as url:
        lines = [line for line in setting.file.read_text().splitlines() if "idp-certificate-authority" not in line]
        setting.file.write_text("\n".join(lines).replace(setting.url, url))
        _, credentials = await setting.open()
        with pytest.raises(CredentialsError, match=r"is not trusted .*; set idp-certificate-authority"):
            await shown(credentials)


async def test_a_provider_is_verified_by_a_ca_in_a_file_beside_the_kubeconfig(start, tmp_path):
    setting = start(lasts=-1)
    CA.cert_pem.write_to_path(tmp_path / "ca.crt")
    lines = [line for line in setting.file.read_text().splitlines() if "idp-certificate-authority" not in line]
    setting.file.write_text(
        "\n".join(lines).replace("client-id:", "idp-certificate-authority: ca.crt\n        client-id:")
    )
    second = token(setting.clock, 600)
    setting.gives({"id_token": second})
    _, credentials = await setting.open()
    assert await shown(credentials) == f"Bearer {second}"


async def test_a_provider_with_another_name_in_its_certificate_is_told_apart(start):
    setting = start(lasts=-1)
    with threaded() as url:
        setting.file.write_text(setting.file.read_text().replace(setting.url, url.replace("127.0.0.1", "localhost")))
        _, credentials = await setting.open()
        with pytest.raises(CredentialsError, match=r"is not trusted \(Hostname mismatch.*; use a name that is in it"):
            await shown(credentials)


async def test_no_key_of_a_session_with_a_provider_is_logged(start, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    setting = start(lasts=-1)
    setting.gives({"id_token": token(setting.clock, 600)})
    _, credentials = await setting.open()
    await shown(credentials)
    assert not (tmp_path / "keys").exists()


async def test_a_ca_that_is_none_is_told_with_its_place(start, tmp_path):
    setting = start(lasts=-1)
    (tmp_path / "ca.crt").write_text("no certificate")
    lines = [line for line in setting.file.read_text().splitlines() if "idp-certificate-authority" not in line]
    setting.file.write_text(
        "\n".join(lines).replace("client-id:", "idp-certificate-authority: ca.crt\n        client-id:")
    )
    _, credentials = await setting.open()
    with pytest.raises(CredentialsError, match=r"the CA of idp-certificate-authority .*/ca\.crt can't be used"):
        await shown(credentials)


async def test_a_provider_that_does_not_answer_is_given_up(start, monkeypatch):
    monkeypatch.setattr(oidc, "DEADLINE", 0.3)
    setting = start(lasts=-1)
    setting.idp.gate = asyncio.Event()
    _, credentials = await setting.open()
    with pytest.raises(CredentialsError, match=r"no new id-token within 0.3 s; is it reachable"):
        await shown(credentials)


async def test_a_refresh_that_is_cancelled_lets_the_next_one_begin(start):
    setting = start(lasts=-1)
    setting.idp.gate = asyncio.Event()
    config, credentials = await setting.open()
    waiting = asyncio.create_task(shown(credentials), name="waiting")
    await until(lambda: setting.idp.asked)
    await credentials.aclose()
    with pytest.raises(CredentialsError):
        await waiting
    assert not config.oidc.tokens.lock.locked()


async def test_the_proxy_of_the_environment_is_used(start):
    """A proxy that is not there: the error names it."""
    setting = start(lasts=-1, environ={"HTTPS_PROXY": "http://127.0.0.1:1"})
    setting.file.write_text(setting.file.read_text().replace("https://127.0.0.1", "https://idp.example.com"))
    _, credentials = await setting.open()
    with pytest.raises(CredentialsError, match=r"127.0.0.1:1 can't be connected to"):
        await shown(credentials)


async def test_without_a_refresh_token_the_end_is_told_when_it_has_come(start):
    setting = start(lasts=600)
    setting.file.write_text(setting.file.read_text().replace("refresh-token: first", ""))
    _, credentials = await setting.open()
    assert await shown(credentials) == f"Bearer {setting.first}"
    setting.clock.advance(600)
    with pytest.raises(CredentialsError, match=r"user 'u': the id-token has ended, and there is no refresh-token"):
        await shown(credentials)

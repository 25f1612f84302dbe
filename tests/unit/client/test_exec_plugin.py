"""Exec plugins, as real processes: what they are told, what they may print, and that none is left behind."""

import asyncio
import contextlib
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import trustme

from asyncctl.client.config.exec_plugin import ClientCertificate, ExecPlugin, PluginCredential, _Ended, _Status, run
from asyncctl.client.errors import CredentialsError
from asyncctl.clock import SystemClock
from asyncctl.testing.clock import FakeClock
from tests.unit.support import until

V1, V1BETA1 = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
CLOCK = SystemClock()


def plugin(program, *, environ=None, **options):
    """A plugin that is a Python program."""
    environ = {"PATH": os.defpath} | (environ or {})
    return ExecPlugin(command=sys.executable, args=("-c", program), environ=tuple(environ.items()), **options)


def prints(status, *, kind="ExecCredential", version=V1):
    return f"print({json.dumps({'kind': kind, 'apiVersion': version, 'status': status})!r})"


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


HANGS_WITH_A_CHILD = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
print("log in at https://idp", file=sys.stderr, flush=True)
pathlib.Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(3600)
"""


def hanging(tmp_path):
    """A plugin that never ends, with a child that does not either; and a function that waits for their numbers."""
    pids = tmp_path / "pids"

    def both():
        found = pids.read_text().split() if pids.exists() else []
        return [int(pid) for pid in found] if len(found) == 2 else None

    return plugin(HANGS_WITH_A_CHILD, environ={"PIDS": str(pids)}), both


# What it gives.


async def test_a_plugin_that_path_finds_below_the_current_folder_is_not_run(tmp_path, monkeypatch):
    """As client-go, which takes `exec.ErrDot` for an error."""
    program, ran = tmp_path / "login", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    for path in (".", "", f".:{tmp_path}"):
        with pytest.raises(CredentialsError, match="login is found below the current folder"):
            await run(ExecPlugin(command="login", search_path=f"{path}:{os.defpath}"), CLOCK)
    assert not ran.exists()
    with pytest.raises(CredentialsError, match="printed nothing"):
        await run(ExecPlugin(command="login", search_path=f"{tmp_path}:."), CLOCK)
    assert ran.exists()


def test_no_secret_is_in_a_repr():
    shown = (
        PluginCredential("SECRET", ClientCertificate(b"SECRET", b"SECRET"), None),
        _Ended(0, b"SECRET", b"SECRET"),
        _Status(token="SECRET", client_key_data="SECRET"),
    )
    assert "SECRET" not in repr(shown)


async def test_a_token_and_its_end_are_taken():
    status = {"token": "t", "expirationTimestamp": "2026-01-01T01:00:00+01:00"}
    clock = FakeClock(now=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(CredentialsError, match=r"gave a credential that ended at 2026-01-01T00:00:00Z"):
        await run(plugin(prints(status)), clock)
    found = await run(plugin(prints(status | {"expirationTimestamp": "2026-01-01T00:00:01Z"})), clock)
    assert found == PluginCredential("t", None, datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))


async def test_a_client_certificate_and_its_key_are_taken_beside_a_token_or_alone():
    made = trustme.CA().issue_cert("me")
    certificate, key = made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes()
    status = {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}
    for also in ({}, {"token": "t"}):
        found = await run(plugin(prints(status | also)), CLOCK)
        assert found == PluginCredential(also.get("token"), ClientCertificate(certificate, key), None)
    assert "BEGIN" not in repr(found.certificate)


async def test_the_older_version_is_taken_where_the_kubeconfig_asks_for_it():
    found = await run(plugin(prints({"token": "t"}, version=V1BETA1), api_version=V1BETA1), CLOCK)
    assert found.token == "t"


# What it is told.


async def test_it_gets_its_environment_and_nothing_to_read_and_no_terminal(tmp_path):
    seen = tmp_path / "seen"
    program = f"""
import json, os, pathlib, sys
try:
    terminal = os.open("/dev/tty", os.O_RDWR)
except OSError:
    terminal = None
seen = [dict(os.environ), sys.stdin.read(), terminal, os.getsid(0) == os.getpid(), sys.argv[1:]]
pathlib.Path({str(seen)!r}).write_text(json.dumps(seen))
{prints({"token": "t"})}
"""
    made = plugin(program, environ={"A": "1"}, cluster=b'{"server":"https://c"}')
    await run(ExecPlugin(**vars(made) | {"args": (*made.args, "--audience", "a b")}), CLOCK)
    environ, read, terminal, own_session, arguments = json.loads(seen.read_text())
    assert environ["A"] == "1"
    assert "HOME" not in environ  # what is not in the given environment is not there
    assert json.loads(environ["KUBERNETES_EXEC_INFO"]) == {
        "kind": "ExecCredential", "apiVersion": V1,
        "spec": {"interactive": False, "cluster": {"server": "https://c"}},
    }  # fmt: skip
    assert (read, terminal, own_session, arguments) == ("", None, True, ["--audience", "a b"])


async def test_a_command_is_looked_for_in_the_path_of_the_process_and_not_its_own(tmp_path):
    command = tmp_path / "get-token"
    command.write_text(f"#!/bin/sh\necho '{json.dumps({'kind': 'ExecCredential', 'apiVersion': V1})[:-1]}, ")
    command.write_text(command.read_text() + '"status": {"token": "t"}}\'\n')
    command.chmod(0o700)
    made = ExecPlugin(command="get-token", search_path=str(tmp_path), environ=(("PATH", "/nowhere"),))
    assert (await run(made, CLOCK)).token == "t"


# What goes wrong.


@pytest.mark.parametrize(
    "program, said",
    [
        ("import sys; sys.exit(3)", "failed with exit code 3; it said nothing"),
        (
            "import sys; print('secret'); sys.stderr.write('\\n'.join(map(str, range(99))) + '\\n\\n'); sys.exit(1)",
            "failed with exit code 1; it said: 94 / 95 / 96 / 97 / 98",
        ),
        ("import sys; sys.stderr.write('\\x1b[1mno\\a\\x00!\\xff'); sys.exit(1)", "exit code 1; it said: [1mno !ÿ"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "was ended by signal 15"),
        ("", "printed nothing; it should print an ExecCredential"),
        ("print('secret, but no JSON')", "printed something that is no JSON"),
        ("print('[' * 100000)", "printed something that is no JSON"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "printed something that is no JSON"),
        ("print('[\"secret\"]')", "printed something that is no ExecCredential"),
        (prints({"token": "secret"}, kind="Secret"), "printed something that is no ExecCredential"),
        (prints({"token": "secret"}, version=V1BETA1), f"of another version than {V1}, which the kubeconfig asks for"),
        (prints({"token": "secret"}, version=None), f"of another version than {V1}"),
        (prints(None), "gave neither a token nor a client certificate"),
        (prints({}), "gave neither a token nor a client certificate"),
        (prints({"token": ""}), "gave neither a token nor a client certificate"),
        (prints("secret"), "whose status is wrong: Expected `object`, got `str`"),
        (prints({"token": 7}), "whose status is wrong: Expected `str | null`, got `int` - at `$.token`"),
        (prints({"token": "secret", "expirationTimestamp": "secret"}), "whose status is wrong: Invalid RFC3339"),
        (prints({"token": "secret", "expirationTimestamp": "2027-01-01T00:00:00"}), "without a time zone"),
        (prints({"token": "secret\r\nX: y"}), "gave a token with characters that none has"),
        (prints({"clientCertificateData": "secret"}), "gave a client certificate or a key only, and not both"),
        (prints({"clientKeyData": "secret", "token": "secret"}), "or a key only, and not both"),
        (prints({"clientCertificateData": "secret", "clientKeyData": "secret"}), "that is not PEM"),
        ("print('secret' * 1000000)", "printed more than 1 MiB"),
    ],
)
async def test_what_it_does_wrong_is_told_with_its_command_and_without_what_it_printed(program, said):
    with pytest.raises(CredentialsError) as caught:
        await run(plugin(program), CLOCK)
    text = str(caught.value)
    assert text.startswith(f"the exec plugin {sys.executable} ")
    assert said in text
    assert "secret" not in text
    assert "\n" not in text
    assert caught.value.__cause__ is None or "secret" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "said, told",
    [
        ("login: token=s3cr3t-value, again", "login: token=***, again"),  # pragma: allowlist secret
        ("Authorization: Bearer s3cr3t to idp", "Authorization: *** to idp"),
        ('{"access_token": "s3cr3t value", "expires": 1}', '{"access_token": ***, "expires": 1}'),
        ("Password:\\ns3cr3t is wrong", "Password: / *** is wrong"),
        ("usage: --client-secret s3cr3t --region eu", "usage: --client-secret *** --region eu"),
        ("got eyJzM2NyM3QiOjF9.eyJzM2NyM3QiOjF9.c2ln!", "got ***!"),  # pragma: allowlist secret
        ("https://me:s3cr3t@idp/x is down", "https://***@idp/x is down"),
        ("k8s-aws-v1.czNjcjN0czNjcjN0czNjcjN0 is refused", "k8s-aws-v1.*** is refused"),
        ("key id 0123456789abcdef0123456789abcdef", "key id ***"),
        ("s3cr3t" * 500 + " at the end", "at the end"),  # begins before what is kept
        ("the token has expired; run `aws sso login`", "the token has expired; run `aws sso login`"),
        ("no /Users/anna/Library/Caches/gke-plugin2", "no /Users/anna/Library/Caches/gke-plugin2"),
        ("request 550e8400-e29b-41d4-a716-446655440000", "request 550e8400-e29b-41d4-a716-446655440000"),
    ],
)
async def test_what_looks_like_a_credential_is_taken_out_of_what_it_says(said, told):
    with pytest.raises(CredentialsError) as caught:
        await run(plugin(f"import sys; sys.stderr.write('{said}'); sys.exit(1)"), CLOCK)
    assert str(caught.value).endswith(f"; it said: {told}")


async def test_a_command_that_is_gone_is_told_with_how_to_get_it(tmp_path):
    made = ExecPlugin(command="no-such", search_path=str(tmp_path), install_hint="brew install it")
    with pytest.raises(CredentialsError, match=r"^the exec plugin no-such is not found in PATH; brew install it$"):
        await run(made, CLOCK)


async def test_a_command_that_is_no_program_is_told(tmp_path):
    command = tmp_path / "bad"
    command.write_bytes(b"\x7fELF, but not really")
    command.chmod(0o700)
    with pytest.raises(CredentialsError, match=r"bad can't be started: Exec format error"):
        await run(ExecPlugin(command=str(command)), CLOCK)


# That nothing is left.


async def test_one_that_hangs_is_killed_with_its_child_at_the_deadline(tmp_path):
    made, both = hanging(tmp_path)
    began = time.monotonic()
    with pytest.raises(CredentialsError) as caught:
        await run(made, CLOCK, deadline=2.0)
    assert 2.0 <= time.monotonic() - began < 4.0
    assert "did not end within 2 s and was killed; does it wait for somebody to log in?" in str(caught.value)
    assert str(caught.value).endswith("it said: log in at https://idp")
    await until(lambda: not any(map(alive, both())))


async def test_one_that_is_no_longer_wanted_is_killed_with_its_child(tmp_path):
    made, both = hanging(tmp_path)
    task = asyncio.create_task(run(made, CLOCK), name="run")
    plugin_pid, child_pid = await until(both, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(plugin_pid)  # at once: `run` waits for it
    await until(lambda: not alive(child_pid))


async def test_one_that_is_cancelled_again_and_again_is_killed_all_the_same(tmp_path):
    made, both = hanging(tmp_path)
    task = asyncio.create_task(run(made, CLOCK), name="run")
    pids = await until(both, 20)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(map(alive, pids)))


async def test_one_that_is_cancelled_before_it_began_is_not_left_running(tmp_path):
    mark = tmp_path / "mark"
    made = plugin(f"import time, pathlib; time.sleep(0.5); pathlib.Path({str(mark)!r}).touch()")
    before = set(psutil.Process().children())
    task = asyncio.create_task(run(made, CLOCK), name="run")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not set(psutil.Process().children()) - before)
    assert not mark.exists()


async def test_one_that_leaves_a_helper_behind_is_not_waited_for(tmp_path):
    """As an agent that keeps a password: it holds the pipes open, and lives on."""
    pid = tmp_path / "pid"
    program = f"""
import pathlib, subprocess, sys
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
pathlib.Path({str(pid)!r}).write_text(str(helper.pid))
{prints({"token": "t"})}
"""
    began = time.monotonic()
    try:
        assert (await run(plugin(program), CLOCK, deadline=30.0)).token == "t"
        assert time.monotonic() - began < 20
        assert alive(int(pid.read_text()))
    finally:
        os.kill(int(pid.read_text()), 9)


async def test_no_descriptor_is_left_open(tmp_path):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    await run(plugin(prints({"token": "t"})), CLOCK)
    before = count()
    for program in (prints({"token": "t"}), "print('x' * 2000000)", "import sys; sys.exit(1)"):
        with contextlib.suppress(CredentialsError):
            await run(plugin(program), CLOCK)
    with pytest.raises(CredentialsError):
        await run(plugin("import time; time.sleep(60)"), CLOCK, deadline=0.1)
    await until(lambda: count() <= before)


async def test_the_event_loop_goes_on_meanwhile():
    task = asyncio.create_task(
        run(plugin(f"import time; time.sleep(0.3); {prints({'token': 't'})}"), CLOCK), name="run"
    )
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert (await task).token == "t"
    assert turns > 3

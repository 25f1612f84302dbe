"""`asyncctl check` as a process: what it prints for people, for `grep`, for programs, and with which code it ends."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from asyncctl.cli.table import as_json, as_lines, as_table
from asyncctl.operator.checking import Row, State
from tests.unit.check.conftest import kubeconfig, prepared
from tests.unit.support import raw_server, until

MODULE = """
from asyncctl import Operator, Resource, Spec, Status, field
from asyncctl.objects import ConfigMap

class WidgetSpec(Spec):
    size: int = 1

class WidgetStatus(Status):
    parts: int | None = None
    note: str | None = None

class Widget(Resource, group="runtime.example.com", version="v1"):
    spec: WidgetSpec = field(default_factory=WidgetSpec)
    status: WidgetStatus = field(default_factory=WidgetStatus)

def make():
    operator = Operator("widgets")
    @operator.controller(Widget, owns=[ConfigMap])
    async def reconcile(ctx, widget):
        pass
    @operator.check("mail server")
    async def look(checking):
        checking.ok("mail.example.com answers", host="mail.example.com")
    return operator

operator = make()
number = 3
"""
COMMAND = [sys.executable, "-m", "asyncctl", "check"]


@pytest.fixture
async def cluster(backends):
    backends.have("embedded")
    async with prepared() as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path):
    """Where an author keeps his module, and starts the command."""
    (tmp_path / "widgets.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def environ(folder):
    return {"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C.UTF-8"}


@pytest.fixture
def run(folder, environ):
    """Run the command to its end; returns exit code, stdout and stderr."""

    async def start(*arguments, server=None, user=None, **settings):
        given = {f"ASYNCCTL_{name.upper()}": value for name, value in settings.items()}
        if server is not None:
            given["KUBECONFIG"] = str(kubeconfig(folder / "kubeconfig", server, user))
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, cwd=folder, env=environ | given,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, error = await process.communicate()
        assert "Traceback" not in (out + error).decode()
        return process.returncode, out.decode(), error.decode()

    return start


async def test_what_is_ready_ends_with_0_and_a_line_for_each_row(run, cluster):
    code, out, error = await run("widgets:operator", server=cluster.url)
    assert (code, error) == (0, "")
    *rows, last = out.splitlines()
    (fence,) = [row for row in rows if not re.match(r"ok       [a-z]", row)]
    assert fence.startswith("skipped  fence controllers/widgets-leader")  # which is for a ServiceAccount
    assert len({row.partition("  ")[2].lstrip()[:30] for row in rows}) > 10
    assert rows[-1].split("  ")[-1] == "mail.example.com answers"
    assert last == f"ready ({len(rows) - 1} ok, 1 skipped)"


async def test_what_is_not_ready_ends_with_1_and_names_what_has_failed(run):
    code, out, error = await run("widgets:operator")
    assert (code, error) == (1, "")
    rows = out.splitlines()
    assert rows[1].startswith("failed   configuration  no cluster found; looked at: in-cluster: ")
    assert rows[2] == "skipped  tls            not reached because there is no cluster configuration"
    assert rows[-1] == "not ready: configuration (2 ok, 1 failed, 10 skipped)"


async def test_json_has_this_shape(run, cluster):
    code, out, error = await run("widgets:operator", "--output", "json", server=cluster.url)
    assert (code, error) == (0, "")
    found = json.loads(out)
    assert found.keys() == {"checks", "summary"}
    assert all(list(row) == ["check", "state", "message", "details"] for row in found["checks"])
    counts = {"ok": len(found["checks"]) - 1, "warning": 0, "failed": 0, "skipped": 1}
    assert found["summary"] == {"passed": True} | counts
    rows = {row["check"]: row for row in found["checks"]}
    assert list(rows) == [
        "settings", "configuration", "tls", "api-server", "version", "user", "clock",
        "api runtime.example.com/v1 Widget", "api v1 ConfigMap", "api events.k8s.io/v1 Event",
        "api coordination.k8s.io/v1 Lease", "crd widgets.runtime.example.com",
        "rbac widgets.runtime.example.com", "rbac widgets.runtime.example.com/status", "rbac configmaps",
        "rbac widgets.runtime.example.com/finalizers", "rbac events.events.k8s.io",
        "rbac leases.coordination.k8s.io in controllers",
        "rbac leases.coordination.k8s.io widgets-leader in controllers",
        "lease controllers/widgets-leader", "fence controllers/widgets-leader", "mail server",
    ]  # fmt: skip
    assert rows["mail server"] == {
        "check": "mail server", "state": "ok", "message": "mail.example.com answers",
        "details": {"host": "mail.example.com"},
    }  # fmt: skip
    assert rows["rbac configmaps"]["details"] == {
        "rule": {
            "apiGroups": [""], "resources": ["configmaps"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        "namespace": None, "missing": [], "optional": False,
    }  # fmt: skip


@pytest.mark.parametrize("output", ["text", "json"])
def test_standard_output_that_is_full_ends_with_1_and_one_line(folder, environ, output):
    with Path("/dev/full").open("r+b", buffering=0) as full:
        done = subprocess.run(
            [*COMMAND, "--output", output], cwd=folder, env=environ, stdout=full, stderr=subprocess.PIPE, timeout=30,
            check=False, text=True,
        )  # fmt: skip
    said = "asyncctl check: standard output can't be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


async def test_json_of_what_has_failed_ends_with_1(run):
    code, out, _ = await run("widgets:operator", "--output", "json")
    assert code == 1
    assert json.loads(out)["summary"] == {"passed": False, "ok": 2, "warning": 0, "failed": 1, "skipped": 10}


@pytest.mark.parametrize("name", ["widgets:operator", "widgets:make"])
async def test_an_operator_or_a_function_that_returns_one(run, name):
    assert "mail server" in (await run(name))[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("widgets", "'widgets' does not name an operator; write MODULE:NAME"),
        ("nothing:operator", "nothing:operator can't be loaded: ModuleNotFoundError: No module named 'nothing'"),
        ("widgets:operators", "can't be loaded: AttributeError"),
        ("widgets:number", "widgets:number is a int, and no Operator"),
        ("broken:operator", "broken:operator can't be loaded: ZeroDivisionError"),
    ],
)
async def test_what_is_no_operator_is_an_error_of_usage(run, folder, name, said):
    (folder / "broken.py").write_text("1 / 0")
    code, out, error = await run(name)
    assert (code, out) == (2, "")
    assert said in " ".join(error.split())


async def test_bad_settings_are_told_as_the_daemon_tells_them(run, folder, environ):
    code, out, error = await run(workers="none", leese_name="x")
    assert (code, out) == (2, "")
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asyncctl", "run", stderr=asyncio.subprocess.PIPE, cwd=folder,
        env=environ | {"ASYNCCTL_WORKERS": "none", "ASYNCCTL_LEESE_NAME": "x"},
    )  # fmt: skip
    assert ((await daemon.communicate())[1].decode(), daemon.returncode) == (error, 2)
    assert "ASYNCCTL_WORKERS=none: must be a whole number" in error


async def test_bad_settings_are_a_document_too_where_json_is_wanted(run):
    code, out, error = await run("--output", "json", workers="none", leese_name="x")
    assert code == 2
    assert "ASYNCCTL_WORKERS=none: must be a whole number" in error
    found = json.loads(out)
    (row,) = found["checks"]
    assert (row["check"], row["state"]) == ("settings", "failed")
    assert "ASYNCCTL_WORKERS=none: must be a whole number" in row["message"]
    assert len(row["details"]["problems"]) == len(row["details"]["unknown"]) == 1
    assert found["summary"] == {"passed": False, "ok": 0, "warning": 0, "failed": 1, "skipped": 0}


async def test_no_credential_is_ever_printed(run, cluster):
    for output in ("text", "json"):
        _, out, error = await run("--output", output, server=cluster.url, user={"token": "sesame-open"})
        assert "sesame" not in out + error


async def test_help_tells_a_stranger_what_it_looks_at(run):
    code, out, _ = await run("--help")
    assert code == 0
    for part in ("MODULE:OPERATOR", "clock", "rbac RULE", "exit code: 0", "Nothing is changed"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 120


async def test_ctrl_c_ends_it_at_once(folder, environ):
    asked = asyncio.Event()

    async def silent(reader, writer):
        asked.set()
        await reader.read(-1)

    async with raw_server(silent) as url, asyncio.timeout(20):
        path = kubeconfig(folder / "kubeconfig", url)
        process = await asyncio.create_subprocess_exec(
            *COMMAND, cwd=folder, env=environ | {"KUBECONFIG": str(path)}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        await asked.wait()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(2):
            out, _ = await process.communicate()
    assert (process.returncode, out) == (130, b"")


async def test_ctrl_c_ends_a_plugin_that_hangs_too(folder, environ):
    plugin, noted = folder / "plugin", folder / "pid"
    plugin.write_text(f"#!/bin/sh\necho $$ > {noted}.new && mv {noted}.new {noted}\nexec sleep 60\n")
    plugin.chmod(0o755)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    path = kubeconfig(folder / "kubeconfig", "https://127.0.0.1:1", {"exec": command})
    process = await asyncio.create_subprocess_exec(
        *COMMAND, cwd=folder, env=environ | {"KUBECONFIG": str(path)}, stdout=asyncio.subprocess.DEVNULL
    )
    await until(noted.exists, 20)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(5):
        assert await process.wait() == 130
    await until(lambda: not _runs(int(noted.read_text())))


def test_on_a_terminal_a_plugin_that_hangs_is_told(folder, environ):
    plugin = folder / "plugin"
    plugin.write_text("#!/bin/sh\nexec sleep 60\n")
    plugin.chmod(0o755)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    path = kubeconfig(folder / "kubeconfig", "https://127.0.0.1:1", {"exec": command})
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        COMMAND, cwd=folder, env=environ | {"KUBECONFIG": str(path)}, stdout=subprocess.PIPE, stderr=its_end
    )
    os.close(its_end)
    try:
        assert os.read(terminal, 65536).startswith(f"waiting for the exec plugin {plugin} (at most 60 s)".encode())
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
        os.close(terminal)
    assert (process.returncode, out) == (130, b"")


def _runs(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def on_a_terminal(folder, environ, columns):
    """Run the command in a terminal of that width; returns what is seen there."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = environ | {"PYTHONPATH": os.pathsep.join([str(folder), environ["PYTHONPATH"]])}
    process = subprocess.Popen([*COMMAND, "widgets:operator"], env=environ, stdout=its_end, stderr=its_end)
    os.close(its_end)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while part := os.read(terminal, 65536):
            seen += part
    os.close(terminal)
    assert process.wait(10) == 1
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_on_a_terminal_it_is_a_table_of_its_width(folder, environ, columns):
    seen = on_a_terminal(folder, environ | {"NO_COLOR": "1", "TERM": "xterm"}, columns)
    lines = seen.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith("✓ ok       settings")
    assert lines[1].startswith("✗ failed   configuration")
    begin = lines[0].index("usable")
    assert all(line[begin - 2 : begin] == "  " for line in lines[:-2] if line and line[begin - 2 :])
    assert "\x1b" not in seen


def test_on_a_terminal_that_knows_colours_the_states_have_them(folder, environ):
    seen = on_a_terminal(folder, environ | {"TERM": "xterm"}, 100)
    assert "\x1b[31m✗ failed \x1b[0m  configuration" in seen
    assert "\x1b" not in on_a_terminal(folder, environ | {"TERM": "dumb"}, 100)


ROWS = [
    Row("tls", State.OK, "verified by /etc/kubernetes/pki/ca.crt; the server's certificate expires 2030-01-01"),
    Row(
        "rbac widgets.runtime.example.com/finalizers in some-namespace", State.WARNING, "first\n- an item that is long"
    ),
    Row("lease", State.FAILED, "gone", {"holder": "ä"}),
    Row("mail", State.SKIPPED, ""),
]


def test_a_terminal_without_unicode_gets_ascii():
    assert as_table(ROWS, width=80, colour=False, unicode=False).isascii()


@pytest.mark.parametrize("width", [1, 40, 79, 300])
def test_a_table_never_loses_a_word(width):
    shown = as_table(ROWS, width=width, colour=False, unicode=True)
    for row in ROWS:
        for word in [*row.check.split(), *row.message.split()]:
            assert word in shown.replace("\n", "") or len(word) > 12
    assert shown.splitlines()[-1].endswith("skipped)")


LONG = "rbac databases.apps.example.com/status"


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_name_is_not_broken_in_a_word(width):
    rows = [Row(LONG, State.OK, "may get, patch, and " + "so on " * 20), *ROWS]
    shown = as_table(rows, width=width, colour=False, unicode=True)
    for row in rows:
        for word in row.check.split():
            assert word in shown
    assert max(map(len, shown.splitlines())) <= width


def test_on_a_narrow_terminal_the_text_is_below_the_name():
    shown = as_table([Row(LONG, State.OK, "may get\nand patch")], width=60, colour=False, unicode=True)
    indent = " " * 11
    assert shown.splitlines()[:3] == [f"✓ ok       {LONG}", f"{indent}may get", f"{indent}and patch"]


def test_columns_are_heeded(folder, environ):
    seen = on_a_terminal(folder, environ | {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}, 200)
    assert 40 < max(map(len, seen.splitlines())) <= 60


def test_a_line_is_one_row_whatever_its_message_has():
    *lines, last = as_lines(ROWS).splitlines()
    assert len(lines) == len(ROWS)
    assert "first; an item that is long" in lines[1]
    assert last == "not ready: lease (1 ok, 1 warning, 1 failed, 1 skipped)"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("user u\nok.yaml: user 'u' has a token", "user u; ok.yaml: user 'u' has a token"),
        (
            "looked at:\n  - in-cluster: no\n  - HOME: no\nSet KUBECONFIG.",
            "looked at: in-cluster: no; HOME: no; Set KUBECONFIG.",
        ),
        ("It is old.\n\nAnd  far", "It is old. And far"),
        ("", ""),
    ],
)
def test_a_line_keeps_the_lines_of_a_message_apart(message, said):
    assert as_lines([Row("name", State.OK, message)]).splitlines()[0] == f"ok       name  {said}"


def test_json_keeps_details():
    assert json.loads(as_json(ROWS))["checks"][2]["details"] == {"holder": "ä"}

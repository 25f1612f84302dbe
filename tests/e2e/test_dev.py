"""`asyncctl dev --demo` as a process: what it shows works, and nothing of it is left."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

RUNNING = 30.0  # seconds; it takes three on an idle machine


@pytest.fixture
def folder():
    """Where it has its temporary files: PostgreSQL's own user must get there."""
    folder = Path(tempfile.mkdtemp(prefix="asyncctl-e2e-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def dev(request, tmp_path, folder, postgres):
    """Start `asyncctl dev`; `postgres` says whether it can have one."""
    started = []

    def begin(*arguments, **settings):
        home = tmp_path / "home"
        home.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(folder)}
        environment |= {f"ASYNCCTL_{name.upper()}": value for name, value in settings.items()}
        started.append(Daemon(environment, tmp_path / "dev.log", arguments=("dev", *arguments)))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        print(process.text)
        assert not process.blemishes(), process.blemishes()


def family(pid):
    """The process ids of a process and all that came of it."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return {pid}.union(*map(family, children))


def those_alive(pids):
    return {
        pid
        for pid in pids
        if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    }


def shown(process, beginning):
    """Return the rest of the line that begins so, when it is there."""
    lines = until(
        lambda: [
            line.split(maxsplit=1)[1] for line in process.text.splitlines() if line.lstrip().startswith(beginning)
        ],
        deadline=RUNNING,
    )
    return lines[0]


def output(command):
    """Return what a program prints, which must end well."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=20).stdout


def test_demo_exit_ends_with_0_and_leaves_nothing(dev, folder):
    process = dev("--demo", "--exit")
    assert process.wait(RUNNING) == 0
    assert "Running: database demo_orders_" in process.text
    assert '"level"' not in process.text  # there is nothing to warn of
    assert not list(folder.iterdir())
    print(f"figure: {process.text}")


def test_what_the_demo_shows_works_until_ctrl_c(dev, folder, tmp_path):
    process = dev("--demo")
    uri = shown(process, "connect:")
    assert ask_as_tenant(uri, "SELECT 1") == [(1,)]
    psql = shlex.split(shown(process, "psql"))
    assert psql == [uri]
    kubectl = shown(process, "watch:")
    assert re.fullmatch(r"KUBECONFIG=\S+ kubectl get databases -A -w", kubectl)
    if shutil.which("psql"):
        assert output(["psql", uri, "-Atc", "SELECT 40 + 2"]) == "42\n"
    if shutil.which("kubectl"):
        once = f"{kubectl.removesuffix(' -w')} --cache-dir={tmp_path}/kubectl"
        assert re.search(r"demo +orders +Running +True", output(["sh", "-c", once]))
    pids = family(process.pid)
    assert len(pids) > 3  # PostgreSQL has several
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    assert process.wait(15) == 0
    until(lambda: those_alive(pids), lambda alive: not alive)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("line", ["API server", "PostgreSQL", "daemon"])
def test_ctrl_c_during_the_start_ends_it_with_0_and_leaves_nothing(dev, folder, line):
    process = dev("--demo")
    until(lambda: process.text, lambda text: line in text, deadline=RUNNING)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(15) == 0
    assert not list(folder.iterdir())


def test_ctrl_c_before_running_is_no_success_for_who_waits_for_it(dev, folder):
    process = dev("--demo", "--exit")
    until(lambda: process.text, lambda text: "API server" in text, deadline=RUNNING)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(15) == 1
    assert not list(folder.iterdir())


def test_without_the_demo_it_serves_until_ctrl_c(dev, folder, tmp_path):
    process = dev()
    kubectl = shown(process, "watch:")
    if shutil.which("kubectl"):
        once = f"{kubectl.removesuffix(' -w')} --cache-dir={tmp_path}/kubectl 2>&1"
        assert "No resources found" in output(["sh", "-c", once])
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(15) == 0
    assert not list(folder.iterdir())


def test_ctrl_c_ends_it_while_nothing_moves(dev, folder):
    process = dev("--demo", qps="0.01", burst="8")  # the daemon may ask so seldom that the Database stays as it is
    until(lambda: process.text, lambda text: "was created" in text, deadline=RUNNING)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(15) == 0
    assert not list(folder.iterdir())


@pytest.mark.parametrize("line", ["API server", "connect:"])
def test_when_it_is_killed_all_goes_too(dev, folder, line):
    process = dev("--demo")
    until(lambda: process.text, lambda text: line in text, deadline=RUNNING)
    assert list(folder.iterdir())
    pids = family(process.pid)
    process.kill()
    until(lambda: those_alive(pids), lambda alive: not alive)
    until(lambda: list(folder.iterdir()), lambda left: not left)


def test_a_second_signal_ends_it_at_once_and_leaves_nothing_either(dev, folder):
    process = dev("--demo")
    shown(process, "connect:")
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(15) in {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}
    until(lambda: list(folder.iterdir()), lambda left: not left)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": "0"}, "ASYNCCTL_WORKERS=0: must be a whole number, at least 1"),
        ({"namespaces": "team", "cluster_id": "c"}, "ASYNCCTL_NAMESPACES=team: must have demo, where --demo makes"),
    ],
)
def test_settings_that_cannot_be_used_are_told_before_anything_is_started(dev, folder, settings, said):
    process = dev("--demo", workres="3", **settings)
    assert process.wait(RUNNING) == 2
    assert said in process.text
    assert "ASYNCCTL_WORKRES is not a setting; did you mean ASYNCCTL_WORKERS?" in process.text
    assert "API server" not in process.text
    assert not list(folder.iterdir())


def test_a_catalogue_of_ones_own_is_told_to_be_of_no_use(dev):
    process = dev("--demo", "--exit", database_servers="/none.yaml", lease_namespace="default")
    assert process.wait(RUNNING) == 0
    assert "ASYNCCTL_DATABASE_SERVERS is not used: dev makes a PostgreSQL and a catalogue of its own" in process.text


def test_exit_without_demo_is_refused(dev):
    process = dev("--exit")
    assert process.wait(RUNNING) == 2
    assert "--exit goes with --demo" in process.text

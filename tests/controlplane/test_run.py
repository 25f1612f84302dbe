"""What the whole run promises (tests/conftest.py), shown on a run of its own, over tests that break the promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import asyncio
import socket

import asyncctl
import pytest

def blocker(path):
    names = {}
    exec(compile("import time\\ndef nap(): time.sleep(0.001)", path, "exec"), names)
    return names["nap"]

ours, theirs = blocker(f"{asyncctl.__path__[0]}/nap.py"), blocker("/elsewhere/nap.py")

async def test_debug():
    assert asyncio.get_running_loop().get_debug()

async def test_task_left():
    global task
    task = asyncio.create_task(asyncio.sleep(60), name="forgotten")

@pytest.fixture
async def server():
    running = []
    yield lambda: running.append(asyncio.create_task(asyncio.sleep(60)))
    running[0].cancel()

async def test_task_of_a_fixture(server):
    server()

def test_socket_left():
    socket.socket().bind(("127.0.0.1", 0))

async def test_blocking_of_ours():
    ours()

async def test_blocking_of_others():
    theirs()

def test_blocking_outside_a_loop():
    ours()

def test_backend_there(backends):
    backends.have("embedded")

def test_backend_missing(backends):
    backends.lack("kube", "there is none")

def test_skipped_for_another_reason():
    pytest.skip("not today")
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "sample"
    folder.mkdir()
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    (folder / "test_sample.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder.parent, folder]
    options = ["-v", "--color=no", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *options], cwd=folder.parent, capture_output=True, text=True, check=False, timeout=60
    )
    return run.stdout


def outcomes(output, name):
    return set(re.findall(rf"^sample/test_sample\.py::{name}(?:\[asyncio\])? ([A-Z]+)", output, re.MULTILINE))


@pytest.mark.parametrize(
    "name, outcome",
    [
        ("test_debug", {"PASSED"}),
        ("test_task_left", {"PASSED", "ERROR"}),
        ("test_task_of_a_fixture", {"PASSED"}),
        ("test_socket_left", {"FAILED"}),
        ("test_blocking_of_ours", {"FAILED"}),
        ("test_blocking_of_others", {"PASSED"}),
        ("test_blocking_outside_a_loop", {"PASSED"}),
        ("test_backend_missing", {"SKIPPED"}),
    ],
)
def test_only_what_breaks_a_promise_fails(output, name, outcome):
    assert outcomes(output, name) == outcome


def test_a_task_left_is_named(output):
    assert "the test left 1 pending: <Task" in output
    assert "name='forgotten'" in output


def test_the_line_before_the_last_says_what_the_run_had(output):
    assert output.splitlines()[-2] == (
        "backends: embedded yes, kube no, postgres not used, prometheus not used; 1 suite skipped: sample "
        "(no kube: there is none)"
    )

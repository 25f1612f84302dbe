"""`asyncctl apiserver` as a process: what it refuses, and what it leaves alone."""

import os
import signal
import subprocess
import sys

import pytest


@pytest.fixture
def start():
    """Start it; none outlives the test."""
    started = []

    def begin(*arguments):
        command = [sys.executable, "-m", "asyncctl", "apiserver", *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def refused(process):
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("port", ["70000", "-1", "http", "65536"])
def test_what_is_no_port_is_refused(start, port, tmp_path):
    error = refused(start("--kubeconfig", tmp_path / "config", f"--port={port}"))
    assert f"'{port}' is no port: 0 to 65535" in error


@pytest.mark.parametrize(
    "content",
    [
        "contexts: [{name: mine}]",
        "contexts: [{name: mine}, {name: asyncctl-apiserver}]",
        "notes, and no kubeconfig",
        "contexts: [",
        "- contexts",
    ],
)
def test_a_file_of_somebody_else_is_left_as_it_is(start, content, tmp_path):
    (tmp_path / "config").write_text(content)
    error = refused(start("--kubeconfig", tmp_path / "config"))
    assert f"{tmp_path}/config exists and was not written by this command" in error
    assert (tmp_path / "config").read_text() == content


def test_what_it_wrote_before_is_written_anew(start, tmp_path):
    path = tmp_path / "config"
    written = []
    for _ in range(2):
        process = start("--kubeconfig", path)
        assert process.stdout.readline() == f"ready {path}\n"
        written.append(path.read_text())
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
    assert written[0] != written[1]  # another port


def test_a_folder_that_is_not_there_is_told(start, tmp_path):
    error = refused(start("--kubeconfig", tmp_path / "none" / "config"))
    assert "No such file or directory" in error

"""`asyncctl run --help` as a process: what a stranger reads, in a terminal and through `grep`."""

import os
import pty
import subprocess
import sys

import pytest

from asyncctl.database.settings import DatabaseSettings

COMMAND = [sys.executable, "-m", "asyncctl", "run", "--help"]


def on_a_terminal(width, **environ):
    """What the command shows on a terminal of `width` columns."""
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb", buffering=0) as screen:
        with os.fdopen(terminal, "wb") as stream:
            environment = {"PATH": os.defpath, "COLUMNS": str(width)} | environ
            process = subprocess.Popen(COMMAND, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        shown = b""
        try:
            while part := screen.read(65536):
                shown += part
        except OSError:  # Linux says so when the other side is closed
            pass
    assert process.wait(20) == 0
    return shown.decode().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_every_setting_is_told_within_the_width_of_the_terminal(width):
    lines = on_a_terminal(width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert {row.variable for row in DatabaseSettings.rows({})} <= set(words)
    assert "exit code: 0 after SIGTERM" in " ".join(words)


def test_what_is_wrong_with_the_settings_is_told_below_the_table():
    lines = on_a_terminal(80, ASYNCCTL_LEASE_DURATION="5s", ASYNCCTL_WORKRES="3")
    assert "ASYNCCTL_WORKRES is not a setting; did you mean ASYNCCTL_WORKERS?" in lines
    assert "  ASYNCCTL_LEASE_DURATION=5s: must be longer than ASYNCCTL_RENEW_DEADLINE=10s" in lines


def test_through_a_pipe_each_setting_is_one_line():
    done = subprocess.run(
        COMMAND, env={"PATH": os.defpath, "COLUMNS": "60"}, check=True, capture_output=True, text=True
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("ASYNCCTL_")]
    assert len(rows) == len(DatabaseSettings.rows({}))
    assert done.stderr == ""

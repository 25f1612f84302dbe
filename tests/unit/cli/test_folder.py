"""Temporary folders with secrets in them are gone whatever ends their owner, at whatever moment."""

import signal
import subprocess
import sys
import time

import pytest

from asyncctl.cli.folder import temporary_folder

# The owner is killed by its own hand the moment the folder has been made, with nothing run after it.
KILLED = """
import os, pathlib, signal, sys
from asyncctl.cli.folder import temporary_folder

make = pathlib.Path.mkdir

def make_and_die(path, mode):
    make(path, mode)
    print(path.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

pathlib.Path.mkdir = make_and_die
with temporary_folder("killed-", pathlib.Path(sys.argv[1])):
    pass
"""


def test_it_is_gone_also_when_its_owner_is_killed_the_moment_it_was_made(tmp_path):
    owner = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False)
    assert owner.returncode == -signal.SIGKILL
    assert owner.stdout.startswith("killed-")
    deadline = time.monotonic() + 10
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_its_owner_enters_it_and_it_ends_with_the_block(tmp_path):
    with temporary_folder("mine-", tmp_path) as (folder, _):
        (folder / "secret").write_text("s")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


def test_where_it_cannot_be_made_nothing_is_left_to_watch(tmp_path):
    with pytest.raises(FileNotFoundError), temporary_folder("none-", tmp_path / "absent"):
        pass

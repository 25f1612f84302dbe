"""`asyncctl manifests` as a process: where it writes, and what it says where it can't."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments, stdout=subprocess.PIPE):
    """Run the command to its end; returns exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "asyncctl", "manifests", *map(str, arguments)],
        stdout=stdout, stderr=subprocess.PIPE, timeout=30, check=False, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_files_are_written_below_the_folder_and_named(tmp_path):
    code, out, error = run("--output", tmp_path / "new")
    assert (code, error) == (0, "")
    files = sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert out.splitlines() == [str(file) for file in files]
    assert [file.parent.name for file in files] == ["bases", "fence", "rbac"]
    assert run()[1] == "---\n".join(file.read_text() for file in files)


@pytest.mark.parametrize("below", [".", "folder"])
def test_a_file_where_a_folder_should_be_is_one_line(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    code, out, error = run("--output", file / below)
    assert (code, out) == (2, "")
    assert error.startswith(f"asyncctl manifests: {file}")
    assert "can't be written" in error
    assert error.endswith("; --output names a folder\n")
    assert len(error.splitlines()) == 1
    assert file.read_text() == "mine"


def test_standard_output_that_is_full_is_one_line():
    with Path("/dev/full").open("r+b", buffering=0) as full:
        code, _, error = run(stdout=full)
    assert (code, error) == (2, "asyncctl manifests: standard output can't be written: No space left on device\n")

"""`asyncctl manifests` as a process: where it writes, and what it says where it can't."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml


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
    assert [file.parent.name for file in files] == ["bases", "fence", "protection", "rbac", "rbac-external"]
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


MODULE = """
from asyncctl import Operator
from asyncctl.objects import ConfigMap

operator = Operator("mine")

@operator.controller(ConfigMap)
async def reconcile(ctx, obj): ...
"""


def test_an_author_has_rbac_and_the_fence_of_an_operator_of_his_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ASYNCCTL_LEASE_NAME", "turn")
    code, out, error = run("mine:operator", "--account", "worker", "--namespace", "team")
    assert (code, error) == (0, "")
    found = {each["kind"]: each for each in yaml.safe_load_all(out)}
    assert "CustomResourceDefinition" not in found
    assert found["ServiceAccount"]["metadata"] == found["Role"]["metadata"] == {"name": "worker", "namespace": "team"}
    assert found["Lease"]["metadata"] == {"name": "turn", "namespace": "team"}
    binding = found["ValidatingAdmissionPolicyBinding"]
    assert binding["metadata"]["name"] == "asyncctl-fence.team.worker"
    assert binding["spec"]["paramRef"] == {"name": "turn", "namespace": "team", "parameterNotFoundAction": "Allow"}
    code, _, error = run("mine:operator", "--account", "It's")
    assert code == 2
    assert "can't be the name of an object" in error


def test_standard_output_that_is_full_is_one_line():
    with Path("/dev/full").open("r+b", buffering=0) as full:
        code, _, error = run(stdout=full)
    assert (code, error) == (2, "asyncctl manifests: standard output can't be written: No space left on device\n")

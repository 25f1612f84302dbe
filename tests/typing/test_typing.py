"""What authors write passes mypy (strict) and pyright, and their mistakes do not: see the files beside this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(file for file in HERE.glob("*.py") if file != Path(__file__))


def run(*command):
    environment = os.environ | {"MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def mypy(*files):
    done = run("mypy", "--strict", "--config-file=", *files)
    assert done.stdout, done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def pyright(*files):
    done = run("pyright", "--pythonpath", sys.executable, "--outputjson", *files)
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(files), done.stdout
    return [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in found["generalDiagnostics"]]


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_authors_write_is_clean_and_their_mistakes_are_found(checker):
    assert checker(*FILES) == []


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_mistake_that_is_not_expected_is_told(checker, tmp_path):
    file = tmp_path / "mistake.py"
    file.write_text("from asyncctl.objects import ConfigMap\n\nConfigMap(nme='x')\n")
    assert len(checker(file)) == 1

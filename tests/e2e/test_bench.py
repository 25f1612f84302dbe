"""The figures can be had: `python -m bench` runs to its end and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_figures_are_had_from_one_run(postgres):
    command = [sys.executable, "-m", "bench", "--runs", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads(done.stdout)
    assert 0.1 < figures["start to Running, s"] < 60
    assert figures["idle daemon, MiB"] > figures["aiohttp imported, MiB"] > 1

"""The figures can be had: `python -m bench` runs to its end and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*arguments):
    command = [sys.executable, "-m", "bench", *arguments, "--runs", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_figures_of_a_start_are_had_from_one_run(postgres):
    figures = bench("start")
    assert 0.1 < figures["start to Running, s"] < 60
    assert figures["idle daemon, MiB"] > figures["aiohttp imported, MiB"] > 1


def test_the_figures_of_requests_are_had_from_one_run():
    figures = bench("requests", "watches", "--count", "30", "--watches", "100")
    for request in ("GET over http", "PATCH over http", "GET over https", "PATCH over https"):
        for contestant in ("asyncctl", "asyncctl, bytes", "kubernetes-asyncio", "aiohttp alone, bytes"):
            assert 1 < figures[f"{request}, {contestant}, µs of CPU"] < 1e6
        ours = f"{request}, asyncctl, µs of CPU"
        assert figures[f"{ours} | times kubernetes-asyncio"] < 1
        assert figures[f"{request}, asyncctl, bytes, µs of CPU | times kubernetes-asyncio, bytes"] > 0
        assert figures[f"{ours} | wakes of other threads"] == 0  # no hop to a thread and back
        assert f"{request}, lightkube, µs of CPU" in figures  # None where `make bench` has not installed it
    assert 0 < figures["PATCH, no watch open, p50, ms"] <= figures["PATCH, no watch open, p99, ms"]
    assert 0 < figures["PATCH, 100 watches open, p50, ms"] <= figures["PATCH, 100 watches open, p99, ms"]
    assert figures["events beside each write"] > 0

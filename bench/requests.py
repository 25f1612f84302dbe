"""What a small GET and a small PATCH cost a client in CPU, beside its peers, on connections that are kept alive.

Each contestant is a process of its own (`bench.contestants`); so is the server, which has canned answers and does not
count. The contestants take turns, so that a busy machine is as busy for all. A peer that is not installed (`make bench`
installs them, in `build/bench-venv`) is shown as missing.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import DETAIL, Figures
from bench.canned import config_map
from bench.contestants import CONTESTANTS, NAMESPACE, PEERS

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / "build" / "bench-venv" / "bin" / "python"
TIMEOUT = 600  # seconds for one contestant
GOAL = 0.5  # of what kubernetes-asyncio takes for the same


class Place(NamedTuple):
    """A server, as contestants are told of it."""

    label: str
    url: str
    ca: str = ""
    token: str = "made-up"


@contextmanager
def canned() -> Iterator[dict[str, str]]:
    """The server of canned answers; yields its two addresses and the CA's file."""
    with (
        tempfile.TemporaryDirectory(prefix="asyncctl-bench-") as folder,
        subprocess.Popen(
            [sys.executable, "-m", "bench.canned", folder],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as server,
    ):  # fmt: skip
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.communicate("", timeout=10)


@contextmanager
def _real() -> Iterator[Place]:
    """A real kube-apiserver that has the object."""
    from tests.controlplane.build import programs
    from tests.controlplane.controlplane import ControlPlane

    with ControlPlane(programs(lambda line: print(line, file=sys.stderr))) as plane:
        made = config_map()
        made["metadata"] = {"name": "bench", "labels": {"app.kubernetes.io/name": "bench"}}
        code, answer = plane.request("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", made)
        if code != 201:
            raise RuntimeError(f"the ConfigMap could not be made: {code} {answer}")
        yield Place("kube-apiserver", plane.url, str(plane.ca_file), plane.admin_token)


def _run(name: str, place: Place, count: int, at_once: int, loop: str) -> dict[str, dict[str, float]] | None:
    """One run of one contestant, or None when it is not installed."""
    python = sys.executable
    if name in PEERS and PEERS_PYTHON.exists():
        python = str(PEERS_PYTHON)
    elif name == "lightkube":
        return None
    done = subprocess.run(
        [
            python, "-m", "bench.contestants", name, "--server", place.url, "--ca", place.ca,
            "--count", str(count), "--at-once", str(at_once), "--loop", loop,
        ],
        cwd=ROOT, env=os.environ | {"BENCH_TOKEN": place.token}, stdout=subprocess.PIPE, text=True,
        check=True, timeout=TIMEOUT,
    )  # fmt: skip
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def figures(runs: int, *, count: int, at_once: int, loop: str, kube: bool = False) -> Figures:
    """Measure all contestants so many times on HTTP, on TLS, and with `kube` on a real server."""
    found: Figures = {}
    with canned() as addresses:
        places = [Place("http", addresses["http"]), Place("https", addresses["https"], addresses["ca"])]
        found |= _compare(places, runs, count, at_once, loop)
    if kube:
        with _real() as place:
            found |= _compare([place], runs, count, at_once, loop)
    return found


def _compare(places: list[Place], runs: int, count: int, at_once: int, loop: str) -> Figures:
    measured: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for _ in range(runs):
        for place in places:
            for name in CONTESTANTS:
                for verb, figure in (_run(name, place, count, at_once, loop) or {}).items():
                    measured.setdefault((place.label, verb, name), []).append(figure)
    found: Figures = {}
    for place in places:
        for verb in ("GET", "PATCH"):
            for name in CONTESTANTS:
                key = f"{verb} over {place.label}, {name}, µs of CPU"
                figure = measured.get((place.label, verb, name))
                if figure is None:
                    found[key] = None
                    continue
                judge = "kubernetes-asyncio, bytes" if name.endswith("bytes") else "kubernetes-asyncio"
                cpu = _median(figure, "cpu")
                found[key] = cpu * 1e6
                found[f"{key}{DETAIL}spread"] = (max(f["cpu"] for f in figure) - min(f["cpu"] for f in figure)) * 1e6
                found[f"{key}{DETAIL}times {judge}"] = cpu / _median(measured[place.label, verb, judge], "cpu")
                if name.startswith("asyncctl"):
                    found[f"{key}{DETAIL}goal, at most"] = GOAL
                found[f"{key}{DETAIL}wakes of other threads"] = _median(figure, "wakes")
    return found


def _median(runs: list[dict[str, float]], what: str) -> float:
    return statistics.median(run[what] for run in runs)

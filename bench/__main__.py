"""`python -m bench`: start to Running, and resident memory at rest, beside what the libraries alone take.

Absolute times hold for one machine at one moment; the ratios are what to compare. Everything listens on loopback.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASYNCCTL = [sys.executable, "-m", "asyncctl"]
LIBRARIES = {
    "aiohttp": "import aiohttp.web",
    "aiohttp and kubernetes-asyncio": "import aiohttp.web, kubernetes_asyncio",
}


def start_to_running() -> float:
    """Seconds from the start of `asyncctl dev --demo` until its Database is Running and all of it is stopped again."""
    began = time.perf_counter()
    subprocess.run([*ASYNCCTL, "dev", "--demo", "--exit"], check=True, stdout=subprocess.DEVNULL, timeout=120)
    return time.perf_counter() - began


def resident(pid: int) -> float:
    """MiB of resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no resident memory")


@contextmanager
def process(*argv: str, env: dict[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A process that ends with the block."""
    child = subprocess.Popen(argv, env=os.environ | (env or {}), stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=30)


def idle_daemon() -> float:
    """MiB of a daemon that is ready, leads and has nothing to do, with its credentials from a kubeconfig."""
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = f"{folder}/kubeconfig"
        with process(*ASYNCCTL, "apiserver", "--kubeconfig", kubeconfig) as server:
            assert server.stdout is not None
            server.stdout.readline()
            subprocess.run(
                ["kubectl", "create", "namespace", "controllers"],
                env=os.environ | {"KUBECONFIG": kubeconfig}, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            subprocess.run(
                ["kubectl", "apply", "--filename", "manifests/crd/bases"],
                env=os.environ | {"KUBECONFIG": kubeconfig}, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            settings = {
                "KUBECONFIG": kubeconfig,
                "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:18080",
                "ASYNCCTL_LOG_LEVEL": "error",
            }
            with process(*ASYNCCTL, "run", env=settings) as daemon:
                _until_ready("http://127.0.0.1:18080/readyz")
                time.sleep(3)  # at rest: allocators have settled, the Lease was renewed
                return resident(daemon.pid)


def libraries(statement: str) -> float:
    """MiB of an interpreter that has imported these and waits."""
    program = f"{statement}\nprint('ready', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        size = resident(child.pid)
        child.communicate("\n", timeout=10)
    return size


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"{url} was not ready within 30 s")


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of the start; the median counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    starts = [start_to_running() for _ in range(options.runs)]
    daemon = idle_daemon()
    figures: dict[str, float] = {
        "start to Running and stopped, s": statistics.median(starts),
        "  spread, s": max(starts) - min(starts),
        "idle daemon, MiB": daemon,
    }
    for name, statement in LIBRARIES.items():
        size = libraries(statement)
        figures[f"{name} imported, MiB"] = size
        figures[f"  the daemon is so many times {name}"] = daemon / size
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<50} {value:8.2f}")


main()

"""Start to Running, and resident memory at rest, beside what the libraries alone take."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from asyncctl.database.types import Database
from asyncctl.generate import crd
from bench import DETAIL, Figures

TIMEOUT = 60  # seconds for each process, in all
ASYNCCTL = [sys.executable, "-m", "asyncctl"]
LIBRARIES = {
    "aiohttp": "import aiohttp.web",
    "aiohttp and kubernetes-asyncio": "import aiohttp.web, kubernetes_asyncio",
}


def start_to_running() -> float:
    """Seconds from the start of `asyncctl dev --demo` until it shows that its Database is Running."""
    began = time.perf_counter()
    with process(*ASYNCCTL, "dev", "--demo") as dev:
        line_of(dev.stdout, "Running: ")
        return time.perf_counter() - began


def resident(pid: int) -> float:
    """MiB of resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no resident memory")


@contextmanager
def process(
    *argv: str, env: Mapping[str, str] | None = None, seconds: float = TIMEOUT
) -> Iterator["subprocess.Popen[str]"]:
    """A process that ends with the block; its log, on stderr, can be read from `stdout` too."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ASYNCCTL_")}
    child = subprocess.Popen(
        argv, env=environ | dict(env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watchdog = threading.Timer(seconds, child.kill)  # ends a wait for a line that does not come
    watchdog.start()
    try:
        yield child
    finally:
        child.terminate()
        child.communicate()
        watchdog.cancel()


def idle_daemon() -> float:
    """MiB of a daemon that is ready, leads and has nothing to do, with its credentials from a kubeconfig."""
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        with process(*ASYNCCTL, "apiserver", "--kubeconfig", str(kubeconfig)) as server:
            line_of(server.stdout, "ready ")
            cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
            post(f"{cluster}/api/v1/namespaces", {"metadata": {"name": "controllers"}})
            post(f"{cluster}/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd(Database))
            settings = {
                "KUBECONFIG": str(kubeconfig),
                "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
                "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
                "ASYNCCTL_LOG_FORMAT": "json",
            }
            with process(*ASYNCCTL, "run", env=settings) as daemon:
                line_of(daemon.stdout, '"working"')
                time.sleep(3)  # at rest: one more renewal of the Lease, and what only the start needed is freed
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


def line_of(lines: Iterable[str] | None, part: str) -> str:
    """Read until a line has `part` in it."""
    read = []
    for line in lines or ():
        read.append(line)
        if part in line:
            return line
    raise RuntimeError(f"the process ended, or took {TIMEOUT} s, without saying {part!r}:\n{''.join(read)}")


def post(url: str, body: Mapping[str, object]) -> None:
    content = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), content), timeout=10):
        pass


def figures(runs: int) -> Figures:
    """Measure the start so many times, and the rest once."""
    starts = [start_to_running() for _ in range(runs)]
    daemon = idle_daemon()
    found: Figures = {
        "start to Running, s": statistics.median(starts),
        f"start to Running, s{DETAIL}spread": max(starts) - min(starts),
        "idle daemon, MiB": daemon,
    }
    for name, statement in LIBRARIES.items():
        size = libraries(statement)
        found[f"{name} imported, MiB"] = size
        found[f"{name} imported, MiB{DETAIL}the daemon is so many times that"] = daemon / size
    return found

"""How long a kubelet waits for `/livez` of an operator that is busy, beside what the barest server takes there.

The operator, its API server and the one who asks are processes of their own. A probe is a connection of its own, as the
kubelet's; probes of the side server and of the bare one, which is in the same event loop, take turns.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench import DETAIL, Figures
from bench.start import ASYNCCTL, line_of, process

GOAL = 50.0  # ms, of /livez, p99
PAUSE = 0.01  # seconds between two probes
READY = 300  # seconds until the operator is busy
PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(port: int) -> float:
    """Milliseconds from the start of a connection to the end of its answer."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(PROBE)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):  # as the kubelet, which does not wait for the connection's end
            part = connection.recv(4096)
            if not part:
                raise RuntimeError(f"the probe was answered with {answer[:200]!r}")
            answer += part
        return (time.perf_counter() - began) * 1000


def figures(*, keys: int, seconds: float) -> Figures:
    """Measure for so many seconds, over so many keys."""
    took: dict[str, list[float]] = {"livez": [], "bare": []}
    with tempfile.TemporaryDirectory(prefix="asyncctl-bench-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        with process(*ASYNCCTL, "apiserver", "--kubeconfig", str(kubeconfig), seconds=READY + seconds) as server:
            line_of(server.stdout, "ready ")
            url = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
            command = [sys.executable, "-m", "bench.busy", "--server", url, "--keys", str(keys)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as busy:
                assert busy.stdout is not None
                try:
                    ports = json.loads(busy.stdout.readline())
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        for name, found in took.items():
                            found.append(ask(ports[name]))
                            time.sleep(PAUSE)
                finally:
                    told, _ = busy.communicate("", timeout=60)
    passes = json.loads(told)["passes"]
    found: Figures = {}
    for name, what in (("livez", "/livez"), ("bare", "bare server")):
        quantiles = statistics.quantiles(took[name], n=100)
        head = f"{what}, 10 busy workers, {keys} keys queued"
        found[f"{head}, p50, ms"] = quantiles[49]
        found[f"{head}, p99, ms"] = quantiles[98]
        found[f"{head}, p99, ms{DETAIL}probes"] = len(took[name])
        if name == "livez":
            found[f"{head}, p99, ms{DETAIL}goal"] = GOAL
    found["passes a second meanwhile"] = passes / seconds
    return found

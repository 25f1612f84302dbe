"""The daemon as a process: started with an environment of its own, watched from outside, gone at the end."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client.parser import text_string_to_metric_families

from tests.controlplane.process import dies_with_us
from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]
START = 20.0  # seconds; it takes one on an idle machine


class Daemon:
    """One `asyncctl run`, or another program. All it writes, on stdout and stderr, is in `log`.

    Attributes:
        told: The files with all that any daemon of this run has said: `test_secrecy` reads them.
    """

    told: ClassVar[list[Path]] = []

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        *,
        program: str = "asyncctl",
        arguments: Sequence[str] = ("run",),
    ) -> None:
        """Start it. Warnings of Python are shown, so that a socket which was not closed is told in the log."""
        self.log = log
        self.told.append(log)
        if message := environment.get("ASYNCCTL_TERMINATION_LOG"):
            self.told.append(Path(message))
        command = dies_with_us([sys.executable, "-W", "default", "-m", program, *arguments])
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=dict(environment), cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The log's lines, parsed; what is no JSON, as `{"msg": line}`."""
        lines = self.text.splitlines(keepends=True)
        return [_parsed(line) for line in lines if line.endswith("\n")]

    def said(self, message: str) -> list[dict[str, Any]]:
        """The records of this message."""
        return [record for record in self.records if record.get("msg") == message]

    def until_said(self, message: str, deadline: float = START) -> dict[str, Any]:
        """Return the first record of this message, when it is there."""

        def look() -> list[dict[str, Any]]:
            found = self.said(message)
            assert found or self.alive, f"the daemon ended with {self._process.returncode}:\n{self.text}"
            return found

        return until(look, deadline=deadline)[0]

    def until_ready(self, deadline: float = START) -> None:
        self.until_said("ready", deadline)

    def until_working(self, deadline: float = START) -> None:
        self.until_said("working", deadline)

    def until_idle(self, deadline: float = START) -> None:
        """Wait until no pass is at work and none is due now: what an object's own making wakes is over."""
        until(
            lambda: self.metric("controller_runtime_active_workers") + self.metric("workqueue_depth") == 0,
            deadline=deadline,
        )

    def get(self, path: str) -> tuple[int, str]:
        """Ask the side server."""
        address = self.until_said("the side server is up")["address"]
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def pages(self, paths: Iterable[str]) -> str:
        """What a daemon that is up shows on these paths, of whichever listener has them; "" if it shows nothing."""
        addresses = {
            record["address"] for record in self.records if "address" in record and ":" in str(record["address"])
        }
        shown = []
        for address in sorted(addresses) if self.alive else ():
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection(address, timeout=0.5)
                with contextlib.closing(connection):
                    for path in paths:
                        connection.request("GET", path)
                        response = connection.getresponse()
                        shown.append(f"{path} {response.status}\n{response.read().decode()}")
        return "\n".join(shown)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def metrics(self, name: str, label: str) -> dict[str, float]:
        """A metric's samples by one of their labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return {sample.labels[label]: sample.value for sample in samples}

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, deadline: float = 10.0) -> int:
        """Return the exit code when it has ended."""
        return self._process.wait(deadline)

    def kill(self) -> None:
        """SIGKILL, harmless if repeated; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def blemishes(self) -> list[str]:
        """What no log may have: a traceback, a warning of Python, a crash, an error that nobody foresaw."""
        marks = (
            "Traceback",
            "Warning: ",
            "never awaited",
            "was destroyed but it is pending",
            "nobody foresaw",
            "panic",
        )
        return [line for line in self.text.splitlines() if any(mark in line for mark in marks)]


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"msg": line}
    return found if isinstance(found, dict) else {"msg": line}

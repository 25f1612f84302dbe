"""A Prometheus server on a free loopback port, and what it says of its targets."""

import contextlib
import http.client
import json
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import yaml

from tests.controlplane.process import Process
from tests.e2e.waiting import until

INTERVAL = 1.0  # seconds between two scrapes, and for each


class Prometheus:
    """One server, as a context manager; its data are in `folder` and are nobody's afterwards.

    Args:
        programs: holds `prometheus` and `promtool`.
        folder: for its configuration, its data and its log.
        jobs: by name, what `scrape_configs` says of it beside the name.
    """

    def __init__(self, programs: Path, folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        self._programs = programs
        self._folder = folder
        self._config = {
            "global": {"scrape_interval": f"{INTERVAL * 1000:.0f}ms", "scrape_timeout": f"{INTERVAL * 1000:.0f}ms"},
            "scrape_configs": [{"job_name": name, **job} for name, job in jobs.items()],
        }
        self._process: Process | None = None
        self._port = 0

    def __enter__(self) -> Self:
        config = self._folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config))
        checked = subprocess.run(
            [self._programs / "promtool", "check", "config", config], check=False, capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process = Process(
            [
                self._programs / "prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._folder}/data",
                f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn",
            ],
            self._folder / "prometheus.log",
        )  # fmt: skip
        until(self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.stop()

    def targets(self) -> list[dict[str, Any]]:
        """All targets, each with `labels`, `health` and `lastError`."""
        found: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What PromQL makes of an expression now: labels and value of each series."""
        found = self._get("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def names(self, **labels: str) -> set[str]:
        """The names of all series that have these labels."""
        match = "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
        return set(self._get("label/__name__/values", **{"match[]": match}))

    def types(self) -> dict[str, str]:
        """The type of each family that was ever scraped, by its name; of counters the one without `_total` too."""
        return {name: said[0]["type"] for name, said in self._get("metadata").items()}

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.running, self._process.tail()
        with contextlib.suppress(OSError):
            return self._ask("/-/ready")[0] == 200
        return False

    def _get(self, what: str, **query: str) -> Any:
        code, body = self._ask(f"/api/v1/{what}?{urlencode(query)}")
        assert code == 200, body
        return json.loads(body)["data"]

    def _ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

"""What a look at a settled `Database` costs us, and PostgreSQL, beside the least that must be asked of it.

PostgreSQL is a real one, the API server the embedded one. The contestants, `bench.passes` and `bench.least`, are
processes of their own, and take turns over the same databases. What they ask is told by the server's own log, of one
more turn of each.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer
from asyncctl.database.types import Database
from asyncctl.generate import crd
from bench import DETAIL, Figures
from bench.requests import ROOT
from bench.start import ASYNCCTL, line_of, post, process
from bench.turns import NAMESPACE, SERVER

TIMEOUT = 600  # seconds, and one more for each database
ADMIN = "bench_admin"
QUIET = 0.1  # seconds, in which the sessions that were closed end
TICK = os.sysconf("SC_CLK_TCK")
LOGGED = {"log_statement": "all", "log_connections": "on", "log_line_prefix": "%u "}
SAID = re.compile(r"^(\S*) LOG:  (connection authorized|statement|execute)[^:]*:\s*(.*)$", re.MULTILINE)
READS = re.compile(r"(SELECT|SHOW|SET|RESET|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)
OURS, LEAST = "asyncctl", "psycopg alone"
PROGRAMS = {OURS: "bench.passes", LEAST: "bench.least"}


class Contestant:
    """One that makes turns (`bench.turns`), from its start on; `close` it."""

    def __init__(self, name: str, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAMS[name]],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._watchdog = threading.Timer(seconds, self._process.kill)
        self._watchdog.start()

    def close(self) -> None:
        """End it; harmless when repeated."""
        try:
            if self._process.poll() is None:
                self._process.communicate("", timeout=30)
        finally:
            self._process.kill()
            self._watchdog.cancel()

    def settle(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._ask(json.dumps(given))

    def turn(self) -> dict[str, float]:
        return self._ask("")

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the contestant has ended, or took too long")
        found: dict[str, Any] = json.loads(answer)
        return found


class Judge:
    """What the server tells its superuser."""

    def __init__(self, session: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self._session = session
        self._folder = Path(self._ask("SELECT current_setting('data_directory')"))
        self._pid = int((self._folder / "postmaster.pid").read_text().split()[0])

    def cpu(self) -> float:
        """Seconds of CPU of all its processes, those that have ended among them."""
        time.sleep(QUIET)
        while True:
            processes = self._children()
            used = sum(_fields(pid, 11, 12) for pid in processes) + _fields(self._pid, 11, 12, 13, 14)
            if processes == self._children():
                return used / TICK

    @contextmanager
    def listening(self) -> Iterator[Counter[str]]:
        """Count what others than the superuser do in the block: `connections`, `statements` and `writes`."""
        found: Counter[str] = Counter()
        for name, value in LOGGED.items():
            self._session.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        self._session.execute("SELECT pg_reload_conf()")
        while self._ask("SELECT current_setting('log_statement')") != LOGGED["log_statement"]:
            time.sleep(QUIET)
        time.sleep(QUIET)  # the server's first process, whose children connections are, knows it too
        log = self._folder / self._ask("SELECT pg_current_logfile()")
        before = log.stat().st_size
        yield found
        self._session.execute("SELECT 'that was all'")
        while "that was all" not in (told := log.read_bytes()[before:].decode()):
            time.sleep(QUIET)
        for user, what, text in SAID.findall(told):
            if user != self._session.info.user:
                found["connections" if what == "connection authorized" else "statements"] += 1
                found["writes"] += what != "connection authorized" and not READS.match(text.lstrip())
        self._session.execute("ALTER SYSTEM RESET ALL")
        self._session.execute("SELECT pg_reload_conf()")

    def _children(self) -> set[int]:
        return {int(pid) for pid in Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()}

    def _ask(self, query: str) -> str:
        row = self._session.execute(query.encode()).fetchone()
        assert row is not None
        return str(row[0])


def _fields(pid: int, *numbers: int) -> int:
    """The sum of some fields of /proc/PID/stat, counted from the one after the name; 0 of what is no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(fields[number]) for number in numbers)


def _prepared(api_server: "subprocess.Popen[str]", kubeconfig: Path) -> str:
    """Make what a cluster has been given beforehand; returns the API server's URL."""
    line_of(api_server.stdout, "ready ")
    url: str = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    post(f"{url}/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    post(f"{url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd(Database))
    return url


def _catalogue(folder: Path, postgres: PostgresServer) -> Path:
    secret, catalogue = folder / "password", folder / "servers.yaml"
    secret.touch(0o600)
    secret.write_text(postgres.password)
    server = {
        "name": SERVER, "host": postgres.host, "port": postgres.port, "sslMode": "disable", "adminUser": ADMIN,
        "adminPasswordFile": secret.name, "allowedNamespaces": [NAMESPACE],
    }  # fmt: skip
    catalogue.write_text(yaml.safe_dump({"servers": [server]}))
    return catalogue


def figures(runs: int, *, count: int) -> Figures:
    """Measure so many turns of each, over so many databases."""
    seconds = float(TIMEOUT + count)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncctl-bench-")))
        kubeconfig = folder / "kubeconfig"
        command = *ASYNCCTL, "apiserver", "--kubeconfig", str(kubeconfig)
        api_server = stack.enter_context(process(*command, seconds=seconds))
        contestants = {name: Contestant(name, seconds) for name in PROGRAMS}
        for each in contestants.values():  # should there be no PostgreSQL
            stack.callback(each.close)
        postgres = stack.enter_context(PostgresServer.running(logging_collector="on", log_rotation_size="0"))
        session = stack.enter_context(psycopg.connect(postgres.uri(), autocommit=True))
        for each in contestants.values():
            stack.callback(each.close)
        create = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}")
        session.execute(create.format(sql.Identifier(ADMIN), sql.Literal(postgres.password)))
        admin = {"host": postgres.host, "port": postgres.port, "user": ADMIN, "password": postgres.password}
        url, catalogue = _prepared(api_server, kubeconfig), str(_catalogue(folder, postgres))
        databases = contestants[OURS].settle({"url": url, "catalogue": catalogue, "count": count})
        contestants[LEAST].settle(admin | databases)
        return _compare(contestants, Judge(session), runs, count)


def _compare(contestants: dict[str, Contestant], judge: Judge, runs: int, count: int) -> Figures:
    counted: dict[str, dict[str, float]] = {}
    for name, contestant in contestants.items():
        contestant.turn()  # what the first one fills is full from now on
        with judge.listening() as found:
            passes = contestant.turn()["passes"]
        counted[name] = {what: found[what] / passes for what in ("connections", "statements", "writes")}
    took: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, contestant in contestants.items():
            before = judge.cpu()
            turn = contestant.turn()
            took[name].append(turn | {"server": judge.cpu() - before})
    return {key: value for name in contestants for key, value in _told(name, took, counted[name], count)}


def _told(
    name: str, took: dict[str, list[dict[str, float]]], counted: dict[str, float], count: int
) -> Iterator[tuple[str, float | None]]:
    key, turns = f"settled pass, {count} databases, {name}, ms of CPU", took[name]
    cpu, server = (_each(turns, what) for what in ("cpu", "server"))
    yield key, statistics.median(cpu)
    yield f"{key}{DETAIL}spread", max(cpu) - min(cpu)
    if name == OURS:
        yield f"{key}{DETAIL}times {LEAST}", statistics.median(cpu) / statistics.median(_each(took[LEAST], "cpu"))
    yield f"{key}{DETAIL}of PostgreSQL", statistics.median(server)
    if name == OURS:
        least = statistics.median(_each(took[LEAST], "server"))
        yield f"{key}{DETAIL}of PostgreSQL, times {LEAST}", statistics.median(server) / least if least else None
    yield f"{key}{DETAIL}ms on the clock", statistics.median(_each(turns, "seconds"))
    for what, number in counted.items():
        yield f"{key}{DETAIL}{what}", number
    if name == OURS:
        yield f"{key}{DETAIL}requests to the API server", max(turn["requests"] / turn["passes"] for turn in turns)


def _each(turns: list[dict[str, float]], what: str) -> list[float]:
    """Milliseconds for each pass, of each turn."""
    return [1e3 * turn[what] / turn["passes"] for turn in turns]

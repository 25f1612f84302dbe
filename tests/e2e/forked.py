"""A daemon as a process that is there in a moment: forked off a server that has imported all of it already.

A real process in all else, with the environment it is given and nothing else, and SIGKILL is its end.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.daemon import Daemon

IMPORTED = ["asyncctl.cli.main", "asyncctl.database.operator", "asyncctl.operator.process", "psycopg_binary", "uvloop"]


class Forked(Daemon):
    """One `asyncctl run`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.told.append(log)
        log.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self._forked = context.Process(target=_run, args=(dict(environment), str(log)), daemon=True)
        self._forked.start()

    @property
    def pid(self) -> int:
        assert self._forked.pid is not None
        return self._forked.pid

    @property
    def alive(self) -> bool:
        return self._forked.is_alive()

    def wait(self, deadline: float = 10.0) -> int:
        self._forked.join(deadline)
        assert self._forked.exitcode is not None, f"it did not end within {deadline:g} s"
        return self._forked.exitcode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._forked.kill()
        self._forked.join()


def _run(environment: dict[str, str], log: str) -> None:
    """Become the daemon: killed with who has forked us, in a session of its own, all it says in `log`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(__file__).parents[2])

    from asyncctl.cli.main import main

    main(["run"])

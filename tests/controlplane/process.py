"""A child program that can't outlive the test run.

It is stopped with SIGTERM, a deadline, then SIGKILL; when the run itself is killed, the kernel kills it (on Linux).
It sits in a session of its own, so that Ctrl-C reaches the run and not the child. What it prints goes to a file.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Becomes the program named by its arguments, after asking to be killed with its parent (prctl's PR_SET_PDEATHSIG is 1).
# Not a `preexec_fn`: Python code between fork and exec may deadlock where there are threads; newer Pythons warn of it.
_BECOME = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def dies_with_us(argv: Sequence[str | Path]) -> list[str]:
    """Return the command that runs `argv` and is killed when the thread that started it ends."""
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *map(str, argv)]


class Process:
    """One running child. The thread that starts it lives until `stop`: to the kernel that thread is the parent."""

    def __init__(self, argv: Sequence[str | Path], log: Path) -> None:
        """Start `argv`, found on PATH unless it is a path, appending its output to `log`."""
        self.name = Path(argv[0]).name
        self.log = log
        self._parent = ThreadPoolExecutor(1, thread_name_prefix=f"parent of {self.name}")
        self._popen = self._parent.submit(self._start, dies_with_us(argv)).result()

    def _start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def tail(self, lines: int = 20) -> str:
        """Return the end of what the program printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, *, kill: bool = False, deadline: float = 20) -> None:
        """End the program: SIGTERM, then SIGKILL after `deadline` seconds, or at once; harmless if repeated."""
        try:
            self._popen.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(deadline)
        finally:
            self._popen.kill()
            self._popen.wait()
            self._parent.shutdown()

"""Temporary folders that hold secrets: gone at the end, also when their owner is killed.

A watcher, a shell in a session of its own, waits for the end of a pipe that only the owner holds open. What it is told
to answer for, it stops first.
"""

import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Reads lines: a process id to answer for, an empty line for none, "done" when the owner has cleaned up by itself. End
# of file says that it died without doing so: then that process is stopped (SIGINT: PostgreSQL's fast shutdown), killed
# if that takes more than 10 s, and the folder removed, from under whatever else may still write there.
_SCRIPT = """
pid=
while read -r word; do
  [ "$word" = done ] && exit 0
  pid=$word
done
if [ -n "$pid" ]; then
  kill -INT "$pid" 2>/dev/null
  n=0
  while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null
fi
n=0
until rm -rf "$1" || [ $n -ge 50 ]; do n=$((n + 1)); sleep 0.1; done
"""


class Watcher:
    """Removes a folder when this process ends without having done so."""

    def __init__(self, folder: Path) -> None:
        with deaf_to_signals():
            self._shell = subprocess.Popen(  # noqa: S603 - our own script, above
                ["/bin/sh", "-c", _SCRIPT, "asyncctl-watcher", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # or whoever reads our output would wait for the watcher too
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def answer_for(self, pid: int | None) -> None:
        """Have it stop this process before; None when it has ended, since its id may become another's."""
        self._tell("" if pid is None else str(pid))

    def dismiss(self) -> None:
        """End it: there is nothing left to remove."""
        self._tell("done")
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        self._shell.wait()

    def _tell(self, word: str) -> None:
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody ended it
            self._shell.stdin.write(f"{word}\n".encode())
            self._shell.stdin.flush()


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[tuple[Path, Watcher]]:
    """Make a folder that only we can enter, and remove it at the end of the block, whatever ends it.

    It is watched before it is there: who is killed the moment it has been made leaves it behind no more than later.

    Args:
        prefix: How its name begins.
        parent: Where; default is the folder for temporary files.

    Raises:
        OSError: It can't be made there.
    """
    folder = (parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(8)}"
    watcher = Watcher(folder)
    try:
        folder.mkdir(0o700)
        try:
            yield folder, watcher
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        watcher.dismiss()


@contextmanager
def deaf_to_signals() -> Iterator[None]:
    """Fork a child that hears no signal until it is another program (PostgreSQL sets its own mask, a shell keeps this).

    Between fork and exec it is of our process group and has our handlers: a Ctrl-C that reached it there would come
    out of our event loop's pipe a second time, and a second one ends the process at once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Why the process has ended, left where the kubelet looks for it, and `kubectl describe pod` shows it.

The kubelet makes that file and takes what is in it when the container has ended. It is written only where it is there
already, so that a program outside of a pod leaves nothing behind; and what can't be written keeps nobody from ending.
"""

import os
import stat
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from asyncctl.observe.logs import Logger

LIMIT = 4096  # bytes; the kubelet cuts off what is longer


def leave_message(path: Path | None, code: int, reasons: Sequence[str]) -> str | None:
    """Write two lines: the exit code with what has happened, and the causes.

    Args:
        path: The file (`ASYNCCTL_TERMINATION_LOG`); None for none.
        code: The exit code.
        reasons: What has happened, then why; line ends in them become spaces.

    Returns:
        Why it could not be written, where that is so and there is a file.
    """
    if path is None:
        return None
    what, *why = (" ".join(reason.split()) for reason in reasons)
    text = f"exit code {code}: {what}\n{'; '.join(why)}".encode()[: LIMIT - 1].decode(errors="ignore").rstrip() + "\n"
    try:
        file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # nothing is made, and nobody waited for
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path}: {error.strerror}"
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return f"{path}: it is no file"
        os.ftruncate(file, 0)
        os.write(file, text.encode())
    except OSError as error:
        return f"{path}: {error.strerror}"
    finally:
        os.close(file)
    return None


class Ending:
    """How a program ends: its exit code, and what is said of it in the log and in the termination message.

    Args:
        logger: Its log.
        path: Of the termination message, if there may be one.

    Attributes:
        code: The exit code; 0 until something is told here.
    """

    def __init__(self, logger: Logger, path: Path | None) -> None:
        self.code = 0
        self._reasons: list[str] = []
        self._logger = logger
        self._path = path

    def mendable(self, code: int, what: str, errors: Iterable[BaseException]) -> None:
        """What a person can mend: one line for each, and no traceback that would hide how.

        Args:
            code: The exit code.
            what: What the log says, and the error as its cause; empty where the error says it all.
            errors: Why.
        """
        self.code = code
        for error in errors:
            self._reasons += filter(None, (what, str(error)))
            if what:
                self._logger.error(what, cause=str(error))
            else:
                self._logger.error(str(error))

    def unforeseen(self, errors: Iterable[BaseException]) -> None:
        """A defect, of this program or of what it is built from."""
        what, self.code = "ends, because of an error that nobody foresaw", 1
        for error in errors:
            self._reasons += (what, "".join(traceback.format_exception_only(error)))
            self._logger.critical(what, exc_info=error)

    def never(self, what: str, which: str = "") -> None:
        """Something does not end, and `which` that is; the caller ends the process."""
        self.code = self.code or 1
        text = f"{what}; the process ends without it"
        self._logger.critical(text, **({"cause": which} if which else {}))
        self._reasons[:0] = filter(None, (text, which))
        self.leave_message()

    def leave_message(self) -> None:
        """Write the termination message. For an end that is not 0."""
        if problem := leave_message(self._path, self.code, self._reasons):
            self._logger.warning("the termination message can't be written", cause=problem)

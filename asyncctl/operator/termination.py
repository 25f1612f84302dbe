"""Why the process has ended, left where the kubelet looks for it: `kubectl describe pod` shows it, `kubectl logs` need not.

The kubelet makes that file and takes what is in it when the container has ended. It is written only where it is there
already, so that a program outside of a pod leaves nothing behind; and what can't be written keeps nobody from ending.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

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

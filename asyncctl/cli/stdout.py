"""Standard output, as commands write to it: a reader that has gone is no trouble, a full disk is one clear line."""

import os
import sys


def write(text: str, command: str) -> bool:
    """Print `text` as it is.

    Args:
        text: What to print, with its last newline.
        command: Who says it when it can't be printed: `asyncctl check`.

    Returns:
        False where it can't be printed, which standard error has been told. A reader who has seen enough (`| head`)
        does not count.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed again at the end
        if isinstance(error, BrokenPipeError):
            return True
        print(f"{command}: standard output can't be written: {error.strerror}", file=sys.stderr)
        return False
    return True

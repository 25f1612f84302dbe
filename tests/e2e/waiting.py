"""Waiting for what must come to be, with a deadline: the only way these tests wait."""

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import TypeVar

T = TypeVar("T")
POLL = 0.03  # seconds


def until(
    look: Callable[[], T], holds: Callable[[T], object] = bool, *, deadline: float = 10.0, every: float = POLL
) -> T:
    """Look until what is seen `holds`, and return it; fail after `deadline` seconds with what was seen last.

    A connection that can't be made counts as something that was seen, and does not hold. `every` is in seconds.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            seen: object = look()
            if holds(seen):  # type: ignore[arg-type]
                return seen  # type: ignore[return-value]
        except (OSError, HTTPException) as error:
            seen = error
        if time.monotonic() > end:
            raise AssertionError(f"it did not come to be within {deadline:g} s; last seen: {seen!r}")
        time.sleep(every)

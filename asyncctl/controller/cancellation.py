"""Whose cancellation it is: an author's code may cancel the task that it runs in, but only its owner may end it."""

import asyncio
import contextlib
from collections.abc import Callable

GIVE_UP = 5.0  # seconds for what its owner has cancelled to clean up after itself


async def take_back(task: "asyncio.Task[None]", ending: Callable[[], bool]) -> None:
    """Undo the cancellations of `task`, the current one, that were not its owner's, delivered or not.

    Args:
        task: The task that this runs in.
        ending: Whether its owner is ending it.

    Raises:
        CancelledError: It is.
    """
    while task.cancelling() and not ending():
        task.uncancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # where what was not delivered yet is
    if ending():
        raise asyncio.CancelledError

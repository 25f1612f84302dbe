"""Time, as a thing that is passed in.

Three clocks that answer three questions: how long has it been (`monotonic`), how long has it been even while the
machine slept (`boot`), and what does the API want to read (`now`). Nothing in the package asks the `time` module
itself, so that a test can hold time still. A clock starts no task; a timer it gives belongs to who asked for it.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> None:
        """Let it not happen. Harmless after it has happened, or a second time."""


class Clock(Protocol):
    """What the runtime knows of time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back, stands still while the machine is suspended."""
        ...

    def boot(self) -> float:
        """Seconds like `monotonic`, but a suspended machine's time counts where the system can tell it."""
        ...

    def now(self) -> datetime:
        """The wall's time in UTC, for what is sent to others; it may jump, so nothing is measured by it."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the running loop once `monotonic` has reached `when`; perhaps a millisecond early."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; with zero or less, after other tasks had their turn."""


class SystemClock:
    """The machine's own clocks, and timers of whichever event loop is running when they are asked for."""

    __slots__ = ()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def boot(self) -> float:
        """See `Clock.boot`: CLOCK_BOOTTIME on Linux, elsewhere the monotonic clock."""
        return _boot()

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """See `Clock.call_at`. Raises RuntimeError where no loop runs."""
        # Not loop.call_at: a loop's own time (uvloop's, say) need not be time.monotonic().
        return asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)


def _boot() -> float:
    clock_id: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock_id is None else time.clock_gettime(clock_id)

"""What ends a pass that takes too long: `asyncio.timeout` for one task that has thousands of short passes.

A timer for each pass would cost more than many a pass. Here a worker has one, which is left alone when a pass ends and
looks, when it rings, whether the pass of that moment is over its time.
"""

import asyncio
from types import TracebackType
from typing import Self


class Alarm:
    """Cancels its task when a block takes too long, which then ends with `TimeoutError`; one block at a time.

    Cancellation is counted as `asyncio.timeout` counts it: one that came from elsewhere meanwhile is not swallowed.

    Args:
        task: Whose blocks these are.
    """

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.expired = False
        """Whether the last block took too long."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._when: float | None = None  # None: no block is running
        self._cancelling = 0

    def set(self, seconds: float) -> Self:
        """Say how many seconds the block that follows may take: `with alarm.set(300.0):`."""
        self.expired = False
        self._when = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._when:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._when, self._ring)
        return self

    def __enter__(self) -> None:
        self._cancelling = self.task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._when = None
        if self.expired and self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Take the timer away: there is no further block."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._when is None:
            return
        if self._loop.time() < self._when:  # it was set for a block that is over
            self._timer = self._loop.call_at(self._when, self._ring)
            return
        self.expired = True
        self._when = None
        self.task.cancel()

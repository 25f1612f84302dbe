"""A clock that moves only when it is told to.

`FakeClock` is an `asyncctl.clock.Clock` for tests: `advance` lets time pass and fires what is due, in order; `elapse`
does the same and lets the event loop run between two timers, as it would have. It never waits in real time.
"""

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

__all__ = ["FakeClock"]

_TURNS = 20  # of the loop, in `settle`: longer than any chain of callbacks that a single timer sets off in our code


class _FakeTimer:
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def pending(self) -> bool:
        return self._callback is not None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class FakeClock:
    """Time in the hands of a test.

    Args:
        monotonic: where the monotonic and the boot clock start, in seconds.
        now: where the wall clock starts; by default a fixed moment, so that a test's output is the same each day.
    """

    def __init__(self, monotonic: float = 1000.0, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._monotonic = monotonic
        self._boot = monotonic
        self._wall = now
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._made = 0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._monotonic

    def boot(self) -> float:
        """See `Clock.boot`."""
        return self._boot

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._wall

    def call_at(self, when: float, callback: Callable[[], object]) -> _FakeTimer:
        """See `Clock.call_at`. Fires in `advance` or `elapse` only, even when `when` is past."""
        timer = _FakeTimer(callback)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_at(self._monotonic + seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    @property
    def timers(self) -> list[float]:
        """When each timer that was neither cancelled nor fired is due, earliest first."""
        return sorted(when for when, _, timer in self._timers if timer.pending)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once; what is due is called in order, each at its own time."""
        until = self._monotonic + seconds
        while self._fire_next(until):
            pass
        self._move_to(until)

    async def elapse(self, seconds: float) -> None:
        """Let `seconds` pass, and the loop run before the first timer, after each and at the end."""
        await self.settle()
        until = self._monotonic + seconds
        while self._fire_next(until):
            await self.settle()
        self._move_to(until)
        await self.settle()

    async def settle(self) -> None:
        """Let the loop run what is ready, without time passing."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: the boot and the wall clock go on, the monotonic one does not."""
        self._boot += seconds
        self._wall += timedelta(seconds=seconds)

    def set_wall(self, now: datetime) -> None:
        """Let the wall clock jump, as when somebody sets it."""
        self._wall = now

    def _fire_next(self, until: float) -> bool:
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        if not self._timers or self._timers[0][0] > until:
            return False
        when, _, timer = heapq.heappop(self._timers)
        self._move_to(when)
        timer.fire()
        return True

    def _move_to(self, when: float) -> None:
        passed = when - self._monotonic
        if passed > 0:
            self._monotonic = when
            self._boot += passed
            self._wall += timedelta(seconds=passed)

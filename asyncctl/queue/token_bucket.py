"""A limit on how often something may happen: so many a second in the long run, so many at once in a burst.

Who must wait waits in the order of asking, and a waiter that is cancelled neither takes a token with it nor holds up
those behind it. There is one timer for all who wait, none when nobody does. It sets no deadline: that is the caller's
`asyncio.timeout`.
"""

import asyncio
from collections import deque

from asyncctl.clock import Clock, Timer

__all__ = ["TokenBucket"]

_WHOLE = 1.0 - 1e-9  # a token that a sum of floats has put together


class TokenBucket:
    """Tokens that come at a steady rate and gather up to a burst; each `acquire` takes one.

    Args:
        qps: tokens a second; 0 turns the limit off.
        burst: how many tokens the bucket holds, and begins with; at least 1.
        clock: where time comes from.

    Raises:
        ValueError: `qps` is negative, or `burst` is less than 1 while there is a limit.
    """

    def __init__(self, qps: float, burst: int, clock: Clock) -> None:
        if qps < 0 or (qps > 0 and burst < 1):
            raise ValueError(f"a token bucket needs qps >= 0 and burst >= 1, not qps={qps} and burst={burst}")
        self._qps = qps
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock.monotonic()
        # Invariant: when a waiter is here that was not cancelled, less than one token is there and the timer runs.
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: Timer | None = None

    async def acquire(self) -> float:
        """Take a token, after those who asked before. Return the seconds it took."""
        if self._qps == 0:
            return 0.0
        asked = self._clock.monotonic()
        if not self._waiters:
            self._fill(asked)
            if self._tokens >= _WHOLE:
                self._tokens -= 1.0
                return 0.0
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._hand_out()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it had its token already
                self._tokens += 1.0
                self._hand_out()
            raise
        return self._clock.monotonic() - asked

    def take(self) -> bool:
        """Take a token if there is one and nobody waits for it; without a limit there always is."""
        if self._qps == 0:
            return True
        if self.waiting:
            return False
        self._fill(self._clock.monotonic())
        if self._tokens < _WHOLE:
            return False
        self._tokens -= 1.0
        return True

    def wait(self) -> float:
        """Return the seconds until `take` would have a token, if nobody else takes it."""
        if self._qps == 0:
            return 0.0
        self._fill(self._clock.monotonic())
        return max(0.0, 1.0 - self._tokens) / self._qps

    @property
    def waiting(self) -> int:
        """How many wait for a token."""
        return sum(not waiter.done() for waiter in self._waiters)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._qps)
        self._filled_at = now

    def _hand_out(self) -> None:
        now = self._clock.monotonic()
        self._fill(now)
        waiters = self._waiters
        while waiters and (waiters[0].done() or self._tokens >= _WHOLE):
            waiter = waiters.popleft()
            if not waiter.done():
                self._tokens -= 1.0
                waiter.set_result(None)
        if waiters and self._timer is None:
            self._timer = self._clock.call_at(now + (1.0 - self._tokens) / self._qps, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._hand_out()

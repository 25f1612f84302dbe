"""How long to wait before trying again.

`Backoff` says the delay of the n-th retry and keeps no state; `Restarts` counts for one thing that is restarted again
and again, and forgets after a quiet time; `jittered` and `spread` keep many waiters from waking at the same moment.
All take randomness as an argument: a function that returns a float in [0, 1). None of them waits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ldexp

from asyncctl.clock import Clock

__all__ = ["Backoff", "Random", "Restarts", "jittered", "spread"]

Random = Callable[[], float]


def jittered(seconds: float, factor: float, random: Random) -> float:
    """Return `seconds` plus up to `factor` times as much: never sooner. Source: client-go `wait.Jitter`."""
    return seconds * (1.0 + factor * random())


def spread(seconds: float, fraction: float, random: Random) -> float:
    """Return `seconds` give or take `fraction` of it: `spread(600, 0.2, random)` lies in [480, 720)."""
    return seconds * (1.0 + fraction * (2.0 * random() - 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """`min(maximum, base · 2^n)`, and jitter.

    Attributes:
        base: seconds before the first retry.
        maximum: seconds that no delay exceeds before jitter is added.
        jitter: up to this fraction of the delay is added, so that no retry comes sooner than promised.
        full: draw from the whole of [0, delay) instead, which spreads a crowd best but may retry at once (AWS
            Architecture Blog, "Exponential Backoff and Jitter").
    """

    base: float
    maximum: float
    jitter: float = 0.25
    full: bool = False

    def delay(self, retries: int, random: Random) -> float:
        """Return the seconds to wait when `retries` retries have been made already."""
        # 2^64 times any base is past any maximum, and the exponent must not overflow a float.
        seconds = min(self.maximum, ldexp(self.base, min(retries, 64)))
        return seconds * random() if self.full else jittered(seconds, self.jitter, random)


class Restarts:
    """The backoff of one thing that starts again after each end, and that deserves a fresh start after a quiet time.

    Source: client-go `wait.NewExponentialBackoffManager`, as its reflector uses it.

    Args:
        backoff: the delays.
        quiet: seconds after the last delay was over; when none was asked for in that time, the count begins anew.
    """

    __slots__ = ("_backoff", "_clock", "_count", "_quiet", "_quiet_since", "_random")

    def __init__(self, backoff: Backoff, *, quiet: float, clock: Clock, random: Random) -> None:
        self._backoff = backoff
        self._quiet = quiet
        self._clock = clock
        self._random = random
        self._count = 0
        self._quiet_since = clock.monotonic()

    @property
    def count(self) -> int:
        """How many delays were asked for since the last fresh start."""
        return self._count

    def next(self) -> float:
        """Return the seconds to wait before the next start."""
        now = self._clock.monotonic()
        if now - self._quiet_since >= self._quiet:
            self._count = 0
        delay = self._backoff.delay(self._count, self._random)
        self._count += 1
        self._quiet_since = now + delay
        return delay

    def reset(self) -> None:
        """Begin anew: it is known to be well."""
        self._count = 0

"""May this process write? Asked for each write in the step that hands it to the socket, answered by a comparison.

The elector, in a thread of its own, moves the end of validity forward; every other thread only reads it. Time is
`Clock.boot`, which goes on while the machine sleeps. Once revoked, it stays revoked.
"""

from asyncctl.client.errors import Fenced
from asyncctl.clock import Clock


class Fence:
    """Call it, or its `check`, for the seconds that are left; it raises `Fenced` when there are none.

    Invariant: `_until` is the send time of a renewal that was answered, plus the renew deadline; or -inf.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._revoked: str | None = None

    def __call__(self) -> float:
        """Seconds for which this process may still write; raises `Fenced`."""
        if self._revoked is not None:
            raise Fenced(f"this process may not write any more: {self._revoked}")
        left = self._until - self._clock.boot()
        if left <= 0:
            raise Fenced("this process may not write: it does not hold the Lease, or could not renew it in time")
        return left

    check = __call__  # as authors know it: `ctx.fence.check()`

    def extend(self, until: float) -> None:
        """A renewal was answered: writing is allowed until `until` (`Clock.boot` seconds)."""
        self._until = max(self._until, until)

    def revoke(self, reason: str) -> None:
        """The Lease is lost, or given up; there is no way back."""
        self._revoked = reason


class NoFence:
    """Where there is no Lease nobody else writes, and nothing ends."""

    def __call__(self) -> float:
        """For ever."""
        return float("inf")

    check = __call__

"""What a queue tells of itself: what it holds, to who asks, and what it does, to who counts."""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["NullQueueMetrics", "QueueContents", "QueueMetrics", "QueueStatistics"]


K = TypeVar("K")


class QueueContents(NamedTuple, Generic[K]):
    """Which keys a queue holds at this moment, or the first of them."""

    queued: list[tuple[K, float, int]]
    """In the order in which they are handed out; for how many seconds they wait, and at which priority."""
    processing: list[tuple[K, float, bool]]
    """The oldest first; for how many seconds they are held, and whether they were added again meanwhile."""
    delayed: list[tuple[K, float, int]]
    """The next first; in how many seconds they are due, and at which priority."""


class QueueStatistics(NamedTuple):
    """What a queue holds at this moment."""

    queued: int
    """Keys that a worker could take now."""
    delayed: int
    """Keys whose time is still to come."""
    processing: int
    """Keys that a worker holds."""
    dirty: int
    """Keys that a worker holds and that were added again meanwhile."""
    retrying: int
    """Keys that failed and were not forgotten since."""
    depths: dict[int, int]
    """Queued keys by priority."""
    working: tuple[float, ...]
    """For how many seconds each key in `processing` has been held."""


class QueueMetrics(Protocol):
    """Who counts what a queue does. Its methods are called for each key: they bind their handles beforehand."""

    def attach(self, read: Callable[[], QueueStatistics]) -> None:
        """Called once by the queue: `read` gives what it holds, and may be called from another thread."""

    def added(self) -> None:
        """A key was added that was not waiting to be worked on already."""

    def started(self, waited: float) -> None:
        """A worker took a key that had been ready for `waited` seconds."""

    def finished(self, worked: float) -> None:
        """A worker is done with a key that it held for `worked` seconds."""

    def delayed(self) -> None:
        """A key was added for later: a retry, most often."""


class NullQueueMetrics:
    """Counts nothing."""

    def attach(self, read: Callable[[], QueueStatistics]) -> None:
        """See `QueueMetrics`."""

    def added(self) -> None:
        """See `QueueMetrics`."""

    def started(self, waited: float) -> None:
        """See `QueueMetrics`."""

    def finished(self, worked: float) -> None:
        """See `QueueMetrics`."""

    def delayed(self) -> None:
        """See `QueueMetrics`."""

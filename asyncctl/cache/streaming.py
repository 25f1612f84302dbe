"""Whether a server streams its lists (KEP-3157), as far as it is known."""

from asyncctl.clock import Clock

UNASKED = 3600.0  # seconds for which a server that has refused is not asked again: it may be upgraded meanwhile


class StreamingSupport:
    """One answer for all namespaces of an informer, which ask the same server for the same kind.

    Args:
        clock: By which an hour is measured.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ask_at = clock.monotonic()

    @property
    def likely(self) -> bool:
        """Whether it makes sense to ask for a stream: nobody was refused within the last hour."""
        return self._clock.monotonic() >= self._ask_at

    def refused(self) -> None:
        """The server does not stream, or not in time."""
        self._ask_at = self._clock.monotonic() + UNASKED

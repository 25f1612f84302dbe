"""The keys that have used up their tries, or can't be helped by one: they wait for a change, and are tried slowly."""

from asyncctl.cache.header import Key
from asyncctl.observe.metrics import Count


class Parking:
    """Which keys are parked now, as the metric shows it."""

    def __init__(self, metric: Count) -> None:
        self._keys: set[Key] = set()
        self._metric = metric

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def enter(self, key: Key) -> bool:
        """Park `key`; False when it was parked already."""
        if key in self._keys:
            return False
        self._keys.add(key)
        self._metric.set(len(self._keys))
        return True

    def leave(self, key: Key) -> None:
        """Park `key` no more. Harmless when it was not."""
        if key in self._keys:
            self._keys.discard(key)
            self._metric.set(len(self._keys))

"""The keys that are set aside: they are not tried again soon. A metric shows how many there are."""

from asyncctl.cache.header import Key
from asyncctl.observe.metrics import Count


class Parking:
    """Keys that are set aside for one reason."""

    def __init__(self, metric: Count) -> None:
        self._keys: set[Key] = set()
        self._metric = metric

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> set[Key]:
        """Those that are set aside now, as a set of the caller's own; may be called from another thread."""
        return self._keys.copy()

    def enter(self, key: Key) -> bool:
        """Set `key` aside; False when it was already."""
        if key in self._keys:
            return False
        self._keys.add(key)
        self._metric.set(len(self._keys))
        return True

    def leave(self, key: Key) -> None:
        """Set `key` aside no more. Harmless when it was not."""
        if key in self._keys:
            self._keys.discard(key)
            self._metric.set(len(self._keys))

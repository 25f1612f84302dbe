"""One's own writes, laid over what the watch has shown so far.

A write's answer is seen by the next read at once, and makes way when the informer's progress has reached its
resourceVersion. A deletion lays a tombstone for that uid alone, so that a namesake created later is seen.
"""

import heapq

from asyncctl.cache.header import Entry, Key


class Overlay:
    """Entries and tombstones, by key.

    Invariant: no entry laid here has a version at or below `progress`.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._by_version: list[tuple[int, Key]] = []
        self._tombstones: dict[Key, str] = {}

    def lay(self, entry: Entry, progress: int) -> None:
        """Lay the answer of a write over the cache; nothing happens when the watch is already past it."""
        header = entry.header
        if header.version <= progress:
            return
        self._entries[header.key] = entry
        heapq.heappush(self._by_version, (header.version, header.key))

    def bury(self, key: Key, uid: str) -> None:
        """The object of this uid has been deleted."""
        laid = self._entries.get(key)
        if laid is not None and laid.header.uid == uid:
            del self._entries[key]
        self._tombstones[key] = uid

    def advance(self, progress: int) -> None:
        """The watch has come so far: what is at or below it makes way."""
        while self._by_version and self._by_version[0][0] <= progress:
            _, key = heapq.heappop(self._by_version)
            laid = self._entries.get(key)
            if laid is not None and laid.header.version <= progress:
                del self._entries[key]

    def forget(self, key: Key, uid: str) -> None:
        """The watch has shown that this uid is gone."""
        if self._tombstones.get(key) == uid:
            del self._tombstones[key]

    def over(self, key: Key, below: Entry | None) -> Entry | None:
        """What a reader sees of `key` when the cache has `below`."""
        laid = self._entries.get(key)
        if laid is not None and (below is None or laid.header.version > below.header.version):
            below = laid
        if below is not None and self._tombstones.get(key) == below.header.uid:
            return None
        return below

    def keep_tombstones(self, uids: set[str]) -> None:
        """After a list: a tombstone is only needed for what the list still showed."""
        self._tombstones = {key: uid for key, uid in self._tombstones.items() if uid in uids}

    def keys(self) -> list[Key]:
        """The keys for which there may be an entry that the cache lacks."""
        return list(self._entries)

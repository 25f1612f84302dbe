"""One's own writes, laid over what the watch has shown so far.

A write's answer is seen by the next read at once, and makes way when the informer's progress has reached its
resourceVersion. A deletion lays a tombstone for that uid alone, so that a namesake created later is seen.
"""

import heapq
from collections.abc import Mapping

from asyncctl.cache.header import Entry, Key


class Overlay:
    """Entries by key and tombstones by uid, over what `below` has.

    Invariants: no entry laid here has a version at or below the progress. A tombstone is here only while its object
    is below, or while the watch has not come as far as the object had when it was buried.
    """

    def __init__(self, below: Mapping[Key, Entry]) -> None:
        self._below = below
        self._entries: dict[Key, Entry] = {}
        self._tombstones: dict[str, int] = {}  # uid -> the version that was known of it
        self._by_version: list[tuple[int, Key, str]] = []

    def lay(self, entry: Entry, progress: int) -> None:
        """Lay the answer of a write over the cache; nothing happens when the watch or another write is past it."""
        header = entry.header
        laid = self._entries.get(header.key)
        if header.version <= progress or (laid is not None and laid.header.version >= header.version):
            return
        self._entries[header.key] = entry
        heapq.heappush(self._by_version, (header.version, header.key, header.uid))

    def bury(self, key: Key, uid: str) -> None:
        """The object of this uid has been deleted; nothing happens when the watch has shown that already."""
        for found in (self._entries.get(key), self._below.get(key)):
            if found is not None and found.header.uid == uid:
                self._tombstones[uid] = found.header.version
                heapq.heappush(self._by_version, (found.header.version, key, uid))
                break
        laid = self._entries.get(key)
        if laid is not None and laid.header.uid == uid:
            del self._entries[key]

    def advance(self, progress: int) -> None:
        """The watch has come so far: what is at or below it makes way."""
        while self._by_version and self._by_version[0][0] <= progress:
            _, key, uid = heapq.heappop(self._by_version)
            laid, below = self._entries.get(key), self._below.get(key)
            if laid is not None and laid.header.version <= progress:
                del self._entries[key]
            if self._tombstones.get(uid, progress + 1) <= progress and (below is None or below.header.uid != uid):
                del self._tombstones[uid]

    def forget(self, uid: str) -> None:
        """The watch has shown that this uid is gone."""
        self._tombstones.pop(uid, None)

    def over(self, key: Key) -> Entry | None:
        """What a reader sees of `key`."""
        found, laid = self._below.get(key), self._entries.get(key)
        if laid is not None and (found is None or laid.header.version > found.header.version):
            found = laid
        return None if found is None or found.header.uid in self._tombstones else found

    def clear(self) -> None:
        """The server has gone back in time: nothing of what was written to it counts."""
        self._entries.clear()
        self._tombstones.clear()
        self._by_version.clear()

    def keys(self) -> list[Key]:
        """The keys for which there may be an entry that the cache lacks."""
        return list(self._entries)

"""One's own writes, laid over what the watch has shown so far.

A write's answer is seen by the next read at once, and makes way when the informer's progress has reached its
resourceVersion. A deletion leaves a grave for that uid, so that a namesake created later is seen. Versions are compared
within one resource of one server only, where they are one order (KEP-5504).
"""

import heapq
from collections.abc import Callable, Iterator, Mapping

import msgspec

from asyncctl.cache.header import Entry, Key


class Grave(msgspec.Struct, frozen=True, gc=False):
    """A deletion of ours was answered: the object of this uid is gone, which lived at `version` still."""

    uid: str
    version: int


class Overlay:
    """At most one thing for each key, over what `below` has: the answer of a write, or a grave.

    Invariants: an answer that is here has a version above the progress. A grave is here only while its object is below,
    or while the progress has not come to the version that the object had. What is here is newer than any other thing
    of that name whose version is lower: a lower one is never seen through it.

    Args:
        below: What the watch has shown.
        changed: Told of each answer that comes, goes or makes way for another: key, before, after.
    """

    def __init__(
        self,
        below: Mapping[Key, Entry],
        changed: Callable[[Key, Entry | None, Entry | None], None] = lambda _key, _before, _after: None,
    ) -> None:
        self._below = below
        self._changed = changed
        self._laid: dict[Key, Entry | Grave] = {}
        self._by_version: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        """How many answers and graves there are."""
        return len(self._laid)

    def lay(self, entry: Entry, progress: int) -> None:
        """Lay the answer of a write over the cache; nothing happens when the watch or another write is past it."""
        header = entry.header
        key = header.key
        if header.version <= progress:
            return
        laid = self._laid.get(key)
        if laid is not None and _version(laid) >= header.version:
            return
        if isinstance(laid, Grave) and laid.uid == header.uid:  # late: it has been deleted since
            self._set(key, Grave(header.uid, header.version))
        else:
            self._set(key, entry)

    def bury(self, key: Key, uid: str, version: int, progress: int) -> None:
        """The object of this uid has been deleted; nothing happens when the watch has shown that already.

        Args:
            key: Its namespace and name.
            uid: Which of those that had this name.
            version: One that it had, 0 if that is not known; what is known here counts too.
            progress: Of the watch.
        """
        laid, below = self._laid.get(key), self._below.get(key)
        shown = below is not None and below.header.uid == uid
        if below is not None and shown:
            version = max(version, below.header.version)
        if isinstance(laid, Entry) and laid.header.uid == uid:
            version = max(version, laid.header.version)
        elif laid is not None and _version(laid) >= version:  # of a namesake that came after it, or its own grave
            return
        if version > progress or shown:
            self._set(key, Grave(uid, version))

    def advance(self, progress: int) -> None:
        """The watch has come so far: what is at or below it makes way."""
        waiting = self._by_version
        while waiting and waiting[0][0] <= progress:
            key = heapq.heappop(waiting)[1]
            laid = self._laid.get(key)
            if laid is None or _version(laid) > progress:
                continue
            below = self._below.get(key)
            if isinstance(laid, Grave) and below is not None and below.header.uid == laid.uid:
                continue  # until `forget`
            self._set(key, None)

    def forget(self, key: Key, uid: str, progress: int) -> None:
        """What is below has lost the object of this uid."""
        laid = self._laid.get(key)
        if isinstance(laid, Grave) and laid.uid == uid and laid.version <= progress:
            self._set(key, None)

    def over(self, key: Key) -> Entry | None:
        """What a reader sees of `key`."""
        found = self._below.get(key)
        if not self._laid:
            return found
        laid = self._laid.get(key)
        if laid is None:
            return found
        if isinstance(laid, Entry):
            return laid if found is None or laid.header.version > found.header.version else found
        if found is None or found.header.uid == laid.uid or found.header.version <= laid.version:
            return None
        return found

    def clear(self) -> None:
        """The server has gone back in time: nothing of what was written to it counts."""
        for key in list(self._laid):
            self._set(key, None)
        self._by_version.clear()

    def adopt(self, other: "Overlay", namespace: str | None) -> None:
        """Begin with what `other` has of `namespace` (None: of all)."""
        for key, laid in other._laid.items():  # noqa: SLF001 - of its own kind
            if namespace in {None, key[0]}:
                self._set(key, laid)

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """The answers that are laid, which need not be what is seen."""
        return ((key, laid) for key, laid in list(self._laid.items()) if isinstance(laid, Entry))

    def _set(self, key: Key, laid: Entry | Grave | None) -> None:
        before = self._laid.pop(key, None)
        if laid is not None:
            self._laid[key] = laid
            heapq.heappush(self._by_version, (_version(laid), key))
            if len(self._by_version) > 2 * len(self._laid) + 64:  # mostly of answers that made way for later ones
                self._by_version[:] = [(_version(each), key) for key, each in self._laid.items()]
                heapq.heapify(self._by_version)
        if isinstance(before, Entry) or isinstance(laid, Entry):
            self._changed(key, before if isinstance(before, Entry) else None, laid if isinstance(laid, Entry) else None)


def _version(laid: Entry | Grave) -> int:
    return laid.header.version if isinstance(laid, Entry) else laid.version

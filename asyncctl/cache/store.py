"""The objects of one kind in one scope, and who hears when they change.

Readers see their own writes (`Overlay`). What is handed out is immutable: nobody's change reaches the cache. A handler
hears of each change exactly once, in order, and never of a version that is older than what it has heard of.
"""

from collections.abc import Callable, Iterable, Iterator

from asyncctl.cache.header import Entry, Header, Key
from asyncctl.cache.overlay import Overlay

Handler = Callable[[Header | None, Header | None, bool], None]
"""Hears (old, new, initial): None as old is an addition, as new a deletion; `initial`: it came with a list."""


class Store:
    """Entries by key, fed by one reflector.

    Invariants: `progress` is never below the version of an entry, and goes back only by `replace`.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._overlay = Overlay(self._entries)
        self._handlers: list[Handler] = []
        self.progress = 0
        self.size = 0
        """Bytes of all objects."""

    def __len__(self) -> int:
        return len(self._entries)

    def subscribe(self, handler: Handler) -> None:
        """From now on tell `handler` of each change; of what is there already, at once."""
        self._handlers.append(handler)
        for entry in self._entries.values():
            handler(None, entry.header, True)

    def get(self, key: Key) -> Entry | None:
        """What is known of `key`, one's own writes included."""
        return self._overlay.over(key)

    def shown(self, key: Key) -> Entry | None:
        """What the server has shown of `key`, without one's own writes."""
        return self._entries.get(key)

    def entries(self) -> Iterator[Entry]:
        """All entries as of now, one's own writes included; safe while the store changes."""
        for key in dict.fromkeys((*self._entries, *self._overlay.keys())):
            entry = self.get(key)
            if entry is not None:
                yield entry

    def upsert(self, entry: Entry) -> None:
        """The watch has shown an object; what it has shown before, or is past, is old news."""
        header = entry.header
        if header.version <= self.progress:
            return
        self._put(header.key, self._entries.get(header.key), entry, initial=False)
        self.advance(header.version)

    def remove(self, entry: Entry) -> None:
        """The watch has shown that an object is gone."""
        header = entry.header
        old = self._entries.get(header.key)
        if old is not None and old.header.uid == header.uid:
            self._drop(old, initial=False)
        self._overlay.forget(header.uid)
        self.advance(header.version)

    def replace(self, entries: Iterable[Entry], version: int) -> None:
        """A list has shown all there is: what it does not have is gone. Only here may the progress go back."""
        if version < self.progress:
            self._overlay.clear()
        listed = {entry.header.key: entry for entry in entries}
        for key in [key for key in self._entries if key not in listed]:
            self._drop(self._entries[key], initial=True)
        for key, entry in listed.items():
            old = self._entries.get(key)
            if old is None or old.header.uid != entry.header.uid or old.header.version != entry.header.version:
                self._put(key, old, entry, initial=True)
        self.progress = version
        self._overlay.advance(version)

    def advance(self, version: int) -> None:
        """The watch has come so far (an event, or a bookmark)."""
        if version > self.progress:
            self.progress = version
            self._overlay.advance(version)

    def wrote(self, entry: Entry) -> None:
        """A write of ours was answered with this object."""
        self._overlay.lay(entry, self.progress)

    def deleted(self, key: Key, uid: str) -> None:
        """A deletion of ours was answered: the object of this uid is gone."""
        self._overlay.bury(key, uid)

    def _put(self, key: Key, old: Entry | None, entry: Entry, *, initial: bool) -> None:
        if old is not None and old.header.uid != entry.header.uid:  # deleted and made anew in a gap
            self._drop(old, initial=initial)
            old = None
        self._entries[key] = entry
        self.size += len(entry.data) - (len(old.data) if old else 0)
        self._tell(old.header if old else None, entry.header, initial=initial)

    def _drop(self, old: Entry, *, initial: bool) -> None:
        header = old.header
        del self._entries[header.key]
        self.size -= len(old.data)
        self._overlay.forget(header.uid)
        self._tell(header, None, initial=initial)

    def _tell(self, old: Header | None, new: Header | None, *, initial: bool) -> None:
        for handler in self._handlers:
            handler(old, new, initial)

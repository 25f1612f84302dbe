"""The objects of one kind in one scope, and who hears when they change.

Readers see their own writes (`Overlay`), also through indexes. What is handed out is immutable: nobody's change reaches
the cache. A handler hears of each change exactly once, in order, and never of a version that is older than what it has
heard of.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from asyncctl.cache.header import Entry, Header, Key
from asyncctl.cache.index import NAMESPACE, OWNER, RAISED, Blame, Functions, Indexes, Name
from asyncctl.cache.overlay import Overlay

Handler = Callable[[Header | None, Header | None, bool], None]
"""Hears (old, new, initial): None as old is an addition, as new a deletion; `initial`: it came with a list."""


class Store:
    """Entries by key, fed by one reflector.

    Invariants: `progress` is never below the version of an entry, but of one that was adopted, until the first list;
    and goes back only by `replace`.

    Args:
        functions: The named indexes there may be; default: none.
        blame: Told of each handler that raises, so that the others hear all the same; without it, that is raised.
    """

    def __init__(self, functions: Functions | None = None, blame: Blame | None = None) -> None:
        self._entries: dict[Key, Entry] = {}
        self._overlay = Overlay(self._entries, self._laid_changed)
        self._indexes = Indexes(functions or Functions(), self._entries, self._overlay.entries)
        self._handlers: tuple[Handler, ...] = ()
        self._blame = blame
        self.progress = 0
        self.size = 0
        """Bytes of all objects."""

    def __len__(self) -> int:
        return len(self._entries)

    def subscribe(self, handler: Handler) -> None:
        """From now on tell `handler` of each change; of what is there already, at once."""
        self._handlers = (*self._handlers, handler)
        for entry in list(self._entries.values()):
            try:
                handler(None, entry.header, True)
            except RAISED as error:
                self._failed(entry.header, error)

    def unsubscribe(self, handler: Handler) -> None:
        """Tell `handler` no more, as often as it was subscribed once; harmless if it is not."""
        at = next((at for at, each in enumerate(self._handlers) if each is handler), None)
        if at is not None:
            self._handlers = self._handlers[:at] + self._handlers[at + 1 :]

    def get(self, key: Key) -> Entry | None:
        """What is known of `key`, one's own writes included."""
        return self._overlay.over(key)

    def shown(self, key: Key) -> Entry | None:
        """What the server has shown of `key`, without one's own writes."""
        return self._entries.get(key)

    def entries(self, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Iterator[Entry]:
        """Entries as of now, one's own writes included; safe while the store changes.

        Args:
            namespace: Of this one only; None: of all.
            labels: Only those that have all these; found by an index of each label that is asked for, up to `LABELS`.
        """
        if namespace is None and not labels:
            yield from self._seen(self._all_keys())
            return
        pairs = (labels or {}).items()
        wanted: list[tuple[Name, str]] = [(("label", label), value) for label, value in pairs]
        if namespace is not None:
            wanted.append((NAMESPACE, namespace))
        counts = {each: self._indexes.get(each[0]).count(each[1]) for each in wanted if self._indexes.affords(each[0])}
        found = self._under(*min(counts, key=counts.__getitem__)) if counts else self._seen(self._all_keys())
        for entry in found:
            header = entry.header
            if (namespace is None or header.namespace == namespace) and (not pairs or pairs <= header.labels.items()):
                yield entry

    def by_owner(self, uid: str) -> Iterator[Entry]:
        """Those that have an owner reference to `uid`, one's own writes included."""
        return self._under(OWNER, uid)

    def by_annotation(self, name: str, value: str) -> Iterator[Entry]:
        """Those that have this annotation with this value, one's own writes included."""
        return self._under(("annotation", name), value)

    def by_index(self, name: str, value: str) -> Iterator[Entry]:
        """Those for which the index function of that name returns `value`, one's own writes included.

        Raises:
            LookupError: There is no such function.
        """
        self._indexes.get(("function", name))  # now, and not when it is walked: who asks wrongly hears it at once
        return self._under(("function", name), value)

    def drop_index(self, name: str) -> None:
        """Keep the index of that function no longer; it is built anew if it is asked again."""
        self._indexes.built.pop(("function", name), None)

    def upsert(self, entry: Entry) -> None:
        """The watch has shown an object; what it has shown before, or is past, is old news."""
        header = entry.header
        if header.version <= self.progress:
            return
        self._put(header.key, self._entries.get(header.key), entry, initial=False)
        self.advance(header.version)

    def remove(self, entry: Entry) -> None:
        """The watch has shown that an object is gone; not one that has been shown since."""
        header = entry.header
        old = self._entries.get(header.key)
        if old is not None and old.header.uid == header.uid and old.header.version <= header.version:
            self._drop(header.key, old, initial=False)
        self.advance(header.version)

    def replace(self, entries: Iterable[Entry], version: int) -> None:
        """A list has shown all there is: what it does not have is gone. Only here may the progress go back."""
        if version < self.progress:
            self._overlay.clear()
        listed = {entry.header.key: entry for entry in entries}
        for key, gone in [each for each in self._entries.items() if each[0] not in listed]:
            if key in self._entries:  # a handler may have had us `retire` by now
                self._drop(key, gone, initial=True)
        for key, entry in listed.items():
            old = self._entries.get(key)
            # A server that went back in time may use a version again, for something else.
            if old is None or old.header.version != entry.header.version or not _same(old.data, entry.data):
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

    def deleted(self, key: Key, uid: str, version: int = 0) -> None:
        """A deletion of ours was answered: the object of this uid is gone.

        Args:
            key: Its namespace and name.
            uid: Which of those that had this name.
            version: A resourceVersion that it had, which hides it also where the watch has not shown it yet; 0 where
                that is not known.
        """
        self._overlay.bury(key, uid, version, self.progress)

    def adopt(self, others: Sequence["Store"], namespace: str | None) -> None:
        """Begin with what other stores know of `namespace` (None: of all); the handlers were told of it by them."""
        for other in others:
            shown, indexes = other._entries, other._indexes  # noqa: SLF001 - of its own kind, as below
            keys: Iterable[Key] = shown
            if namespace is not None:
                keys = indexes.get(NAMESPACE).below.keys(namespace)
            for key in keys:
                self._entries[key] = entry = shown[key]
                self.size += len(entry.data)
            self._overlay.adopt(other._overlay, namespace)  # noqa: SLF001
        self.progress = min((other.progress for other in others), default=0)  # a list is yet to come

    def retire(self, elsewhere: Callable[[Key], bool] = lambda _key: False) -> None:
        """Nobody watches here any more: what was here is told as gone, with its last state, and nothing after.

        Args:
            elsewhere: Whether another store has it now, so that it is not gone.
        """
        gone = [entry for key, entry in self._entries.items() if not elsewhere(key)]
        self._overlay.clear()
        self._indexes.built.clear()
        self._entries.clear()
        self.size = 0
        for entry in gone:
            self._tell(entry.header, None, initial=True)
        self._handlers = ()

    def _under(self, name: Name, value: str) -> Iterator[Entry]:
        index = self._indexes.get(name)
        for key in index.keys(value):
            entry = self.get(key)
            if entry is None:
                continue
            layer = index.below if entry is self._entries.get(key) else index.laid
            if layer.has(value, key):
                yield entry

    def _all_keys(self) -> Iterable[Key]:
        if not self._overlay:
            return list(self._entries)
        return dict.fromkeys((*self._entries, *(key for key, _ in self._overlay.entries())))

    def _seen(self, keys: Iterable[Key]) -> Iterator[Entry]:
        for key in keys:
            entry = self.get(key)
            if entry is not None:
                yield entry

    def _put(self, key: Key, old: Entry | None, entry: Entry, *, initial: bool) -> None:
        if old is not None and old.header.uid != entry.header.uid:  # deleted and made anew in a gap
            self._drop(key, old, initial=initial)
            old = None
        self._entries[key] = entry
        self.size += len(entry.data) - (len(old.data) if old else 0)
        if self._indexes.built:
            self._indexes.changed(key, old, entry)
        self._tell(old.header if old else None, entry.header, initial=initial)

    def _drop(self, key: Key, old: Entry, *, initial: bool) -> None:
        header = old.header
        del self._entries[key]
        self.size -= len(old.data)
        if self._indexes.built:
            self._indexes.changed(key, old, None)
        self._overlay.forget(key, header.uid, self.progress)
        self._tell(header, None, initial=initial)

    def _laid_changed(self, key: Key, before: Entry | None, after: Entry | None) -> None:
        self._indexes.laid_changed(key, before, after)

    def _tell(self, old: Header | None, new: Header | None, *, initial: bool) -> None:
        for handler in self._handlers:
            try:
                handler(old, new, initial)
            except RAISED as error:
                self._failed(old or new, error)

    def _failed(self, header: Header | None, error: BaseException) -> None:
        """A handler has raised, which must not cost the others what they are told."""
        if self._blame is None or header is None:
            raise error
        self._blame("a handler", header, error)


def _same(one: bytes, other: bytes) -> bool:
    """Whether two are one object: of a built-in kind an event says what it is, and an item of a list does not."""
    item, event = sorted((one, other), key=len)
    return item == event or (item.startswith(b'{"metadata":') and event.endswith(item[1:]))

"""The objects and their history: one resourceVersion over everything, a window of changes for each resource.

A write gives the next resourceVersion to an object and appends one change to its resource's history; watchers read that
shared history by position, so a slow one costs nothing but its own place. An object in a record is never changed after
it was stored. All of it lives on one event loop and in memory; nothing waits, so a read followed by a write without an
`await` between them is atomic.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Self

import orjson

from asyncctl.apiserver import errors
from asyncctl.apiserver.wire import JsonObject

_LARGEST = 3 * 2**19 - 120
"""Bytes of an object as JSON: etcd takes requests of 1.5 MiB, and its key and what frames it take the rest."""

_UNCACHED = "events"
"""Which the real server watches in etcd itself, and so says in other words what it has forgotten."""


class Record:
    """One version of one object: its key (`namespace/name`, or the name), resourceVersion, and the object itself."""

    __slots__ = ("json", "key", "object", "version")

    def __init__(self, key: str, version: int, obj: JsonObject) -> None:
        self.key = key
        self.version = version
        self.object = obj
        self.json = orjson.dumps(obj)

    def copy(self) -> JsonObject:
        """Return the object as a dict of the caller's own."""
        copied: JsonObject = orjson.loads(self.json)
        return copied


class Change:
    """One entry of the history. `record` carries the change's own resourceVersion, also when it is a deletion."""

    __slots__ = ("lines", "previous", "record", "type", "version")

    def __init__(self, type_: str, record: Record, previous: Record | None) -> None:
        self.type = type_
        self.record = record
        self.previous = previous
        self.version = record.version
        self.lines: dict[object, bytes] = {}
        """The change as watchers were sent it, by the form they asked for: written once, shared by all."""


class Collection:
    """The objects of one resource and the changes to them that are still known.

    Invariants: `history` is sorted by version; every change with a version greater than `forgotten` is in it;
    `history[i]` has the position `dropped + i`, and positions never change their meaning. No watch begins before
    `listed`, also where `history` reaches further back, as it may for lists.
    """

    def __init__(self, name: str, forgotten: int, window: int) -> None:
        self.name = name
        self.records: dict[str, Record] = {}
        self.history: list[Change] = []
        self.dropped = 0
        self.forgotten = forgotten
        self.listed = forgotten
        self.window = window
        self.watchers: set[Callable[[], None]] = set()
        self._keys: list[str] | None = None

    def keys(self) -> list[str]:
        """Return all keys in order."""
        if self._keys is None:
            self._keys = sorted(self.records)
        return self._keys

    def scan(self, prefix: str = "", start: str = "") -> Iterator[Record]:
        """Yield the records whose key begins with `prefix`, from the key `start` on, in order of their keys."""
        keys = self.keys()
        for index in range(bisect_left(keys, max(prefix, start)), len(keys)):
            if not keys[index].startswith(prefix):
                return
            yield self.records[keys[index]]

    def at(self, version: int) -> dict[str, Record]:
        """Return the records as they were at `version`; raise `Expired` when that is forgotten."""
        if version < self.forgotten:
            raise errors.expired(errors.TOO_OLD_LIST)
        records = dict(self.records)
        for change in reversed(self.history):
            if change.version <= version:
                break
            if change.previous is None:
                records.pop(change.record.key, None)
            else:
                records[change.record.key] = change.previous
        return records

    def position(self, version: int) -> int:
        """Return the position of the first change after `version`; raise 410 when that is forgotten."""
        oldest = max(self.forgotten, self.listed)
        if version < oldest:
            raise errors.expired(errors.TOO_OLD_WATCH) if self.name == _UNCACHED else errors.too_old(version, oldest)
        return self.dropped + bisect_right(self.history, version, key=lambda change: change.version)

    def append(self, change: Change) -> None:
        """Take a change up: the record, the history, and a word to every watcher."""
        key = change.record.key
        if change.type == "DELETED":
            del self.records[key]
            self._keys = None
        else:
            if change.previous is None:
                self._keys = None
            self.records[key] = change.record
        self.history.append(change)
        # Twice the window before it is cut to the window: a cut costs as much as it drops, so each change pays once.
        if len(self.history) > 2 * self.window:
            self.forget(len(self.history) - self.window)
        for wake in self.watchers:
            wake()

    def forget(self, count: int) -> None:
        """Drop the oldest `count` changes."""
        if count:
            self.forgotten = self.history[count - 1].version
            del self.history[:count]
            self.dropped += count


class Store:
    """All collections, and the one counter they share. `window`: how many changes each collection keeps at least."""

    def __init__(self, window: int = 10_000) -> None:
        self.version = 1
        self.window = window
        self._collections: dict[str, Collection] = {}

    def collection(self, name: str) -> Collection:
        """Return the collection of this name (a resource such as `widgets.example.com`), made when it is new."""
        found = self._collections.get(name)
        if found is None:
            # A collection born later has no past: a watch from before it is told to list again, as by the real cache.
            found = self._collections[name] = Collection(name, self.version, self.window)
        return found

    def drop(self, name: str) -> None:
        """Forget a collection whose resource is no longer served; its watchers are woken to see it."""
        collection = self._collections.pop(name, None)
        if collection is not None:
            for wake in collection.watchers:
                wake()

    def renew(self, name: str) -> None:
        """End a collection's watches and let none begin before now, as a new watch cache does; no object is lost."""
        old = self.collection(name)
        new = self._collections[name] = Collection(name, old.forgotten, old.window)
        new.records, new.history, new.dropped, new.listed = old.records, list(old.history), old.dropped, self.version
        for wake in old.watchers:
            wake()

    def holds(self, collection: Collection) -> bool:
        """Tell whether this very collection is still in use."""
        return self._collections.get(collection.name) is collection

    def put(self, collection: Collection, key: str, obj: JsonObject) -> Record:
        """Store `obj`, which belongs to the store from now on, under `key`, with the next resourceVersion.

        Raise 500, as etcd has it, for what is too large.
        """
        obj["metadata"]["resourceVersion"] = str(self.version + 1)
        previous = collection.records.get(key)
        record = Record(key, self.version + 1, obj)
        if len(record.json) > _LARGEST:
            raise errors.unclassified("etcdserver: request is too large")
        self.version += 1
        collection.append(Change("ADDED" if previous is None else "MODIFIED", record, previous))
        return record

    def delete(self, collection: Collection, key: str, last: JsonObject) -> Record:
        """Remove `key`; watchers see `last`, with a resourceVersion of its own."""
        self.version += 1
        last["metadata"]["resourceVersion"] = str(self.version)
        record = Record(key, self.version, last)
        collection.append(Change("DELETED", record, collection.records[key]))
        return record

    def compact(self) -> None:
        """Forget all history: whoever resumes from an older resourceVersion gets 410."""
        for collection in self._collections.values():
            collection.forget(len(collection.history))
            collection.forgotten = self.version


class Cursor:
    """A watcher's place in a collection's history. As a context manager it hears of changes while it is open."""

    def __init__(self, store: Store, collection: Collection, version: int) -> None:
        self._store = store
        self._collection = collection
        self._position = collection.position(version)
        self._woken = asyncio.Event()

    def __enter__(self) -> Self:
        self._collection.watchers.add(self.wake)
        return self

    def __exit__(self, *_: object) -> None:
        self._collection.watchers.discard(self.wake)

    def wake(self) -> None:
        """End a wait at once."""
        self._woken.set()

    async def wait(self) -> None:
        """Wait for a change, or for `wake`."""
        await self._woken.wait()

    def take(self, limit: int) -> list[Change]:
        """Return up to `limit` changes and move past them."""
        self._woken.clear()
        index = self._position - self._collection.dropped
        if index < 0:
            return []
        changes = self._collection.history[index : index + limit]
        self._position += len(changes)
        if len(changes) == limit:
            self._woken.set()
        return changes

    @property
    def lost(self) -> bool:
        """Whether the history no longer reaches back to this place, or the collection is gone."""
        return self._position < self._collection.dropped or not self._store.holds(self._collection)

    @property
    def version(self) -> int:
        """The resourceVersion a watcher that has taken everything may resume from."""
        return self._store.version

"""Which objects have a value: their owner, a label, an annotation, or what an author's function says of them.

An index is built when it is first asked, and kept up from then on; one that nobody asks costs nothing. A function that
raises costs its object its place in that index, and nothing else: it is told to whom keeps the log, and the object is
read as ever in all other ways. What own writes have laid over the cache is indexed too.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asyncctl.cache.header import Entry, Header, Key, annotations_of
from asyncctl.objects.codec import decode
from asyncctl.objects.resource import Kind

Name = tuple[str, str]
"""What sort of index, and which of them: `("label", "app")`."""
Values = Callable[[Entry], tuple[str, ...]]
Part = Callable[[Header], object]
"""What of a header an entry's values follow from: while it is the same, so are they, and nothing has to be done."""
Blame = Callable[[str, Header, BaseException], None]
"""Hears that a function (what it is) has failed on the object of that header."""
RAISED = (Exception, asyncio.CancelledError)
"""What a function may raise. It is called and not awaited: a cancellation that comes out of it is none of its caller's,
and would end the watch without a word."""

OWNER: Name = ("owner", "")
NAMESPACE: Name = ("namespace", "")
LABELS = 32
"""For how many labels a store keeps an index. By others it is walked: there may be no end of them, and each costs room
and, at each event, time."""


class of_header:  # noqa: N801 - reads as the function it is used as
    """Mark an index function that asks for an object's `Header`: nothing is decoded for it.

    Args:
        function: Takes a `Header`, returns strings.
    """

    def __init__(self, function: Callable[[Header], Iterable[str]]) -> None:
        self.function = function

    def __call__(self, header: Header) -> Iterable[str]:
        """What the function says."""
        return self.function(header)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, of_header) and self.function == other.function

    def __hash__(self) -> int:
        return hash(self.function)


IndexFunction = of_header | Callable[[Any], Iterable[str]]
"""A function of the decoded object, or, marked by `of_header`, of its header; returns strings."""


class Index:
    """The keys that have a value.

    Invariant: `_buckets` has a key under each of its values, bare while it is the only one there, and no empty bucket.

    Args:
        values: What values an entry has.
        part: From what they follow; None where that can't be told, so that what `values` has said is remembered.
    """

    def __init__(self, values: Values, part: Part | None) -> None:
        self._values = values
        self._part = part
        self._buckets: dict[str, Key | dict[Key, None]] = {}
        self._said: dict[Key, tuple[str, ...]] | None = {} if part is None else None

    def change(self, key: Key, before: Entry | None, after: Entry | None) -> None:
        """The entry of `key` was `before` and is `after`."""
        if self._part is not None and before is not None and after is not None:
            was, now = self._part(before.header), self._part(after.header)
            if was is now or was == now:
                return
        new = () if after is None else self._values(after)
        if self._said is None:
            old = () if before is None else self._values(before)
        else:
            old = self._said.pop(key, ())
            if new:
                self._said[key] = new
        if old == new:
            return
        for value in old:
            self._take(value, key)
        for value in new:
            self._give(value, key)

    def keys(self, value: str) -> list[Key]:
        """Those that have `value`."""
        found = self._buckets.get(value)
        if found is None:
            return []
        return [found] if isinstance(found, tuple) else list(found)

    def count(self, value: str) -> int:
        """How many have `value`."""
        found = self._buckets.get(value)
        return 0 if found is None else 1 if isinstance(found, tuple) else len(found)

    def has(self, value: str, key: Key) -> bool:
        """Whether `key` has `value`."""
        found = self._buckets.get(value)
        return found == key if found is None or isinstance(found, tuple) else key in found

    def _give(self, value: str, key: Key) -> None:
        found = self._buckets.get(value)
        if found is None:
            self._buckets[value] = key
        elif isinstance(found, dict):
            found[key] = None
        elif found != key:
            self._buckets[value] = {found: None, key: None}

    def _take(self, value: str, key: Key) -> None:
        found = self._buckets.get(value)
        if isinstance(found, dict):
            found.pop(key, None)
            if found:
                return
        elif found != key:
            return
        del self._buckets[value]


class Layered:
    """One index over both layers of a store: what the watch has shown, and what own writes have laid over it."""

    def __init__(
        self, values: Values, part: Part | None, below: Mapping[Key, Entry], laid: Iterable[tuple[Key, Entry]]
    ) -> None:
        self.below = Index(values, part)
        self.laid = Index(values, part)
        for key, entry in below.items():
            self.below.change(key, None, entry)
        for key, entry in laid:
            self.laid.change(key, None, entry)

    def count(self, value: str) -> int:
        """How many may be seen under `value`, at most."""
        return self.below.count(value) + self.laid.count(value)

    def keys(self, value: str) -> Iterable[Key]:
        """Those of which one layer or the other has `value`."""
        below, laid = self.below.keys(value), self.laid.keys(value)
        return dict.fromkeys((*below, *laid)) if laid else below


@dataclass(slots=True)
class _Named:
    function: IndexFunction
    kind: Kind | None
    users: int = 0


class Functions:
    """The named functions of a kind: what its indexes are made of, the same in each of its namespaces.

    Args:
        blame: Told of each function that raises, which else raises through the store.
    """

    def __init__(self, blame: Blame | None = None) -> None:
        self._blame = blame
        self._named: dict[str, _Named] = {}

    def add(self, name: str, function: IndexFunction, kind: Kind | None = None) -> None:
        """Name a function, until `remove`; the same one may be named by many.

        Args:
            name: What to ask the index by.
            function: See `IndexFunction`.
            kind: As what an object is decoded for it.

        Raises:
            ValueError: The name has another function now, or there is no `kind` to decode.
        """
        if kind is None and not isinstance(function, of_header):
            raise ValueError(f"index {name!r} is of the decoded object: say of which kind, or wrap it in of_header()")
        named = self._named.setdefault(name, _Named(function, kind))
        if (named.function, named.kind) != (function, kind):
            raise ValueError(
                f"there is an index {name!r} by another function on this kind already: caches are shared, give this "
                "one a name of its own, or declare the same function"
            )
        named.users += 1

    def remove(self, name: str) -> bool:
        """One who has named it needs it no more; whether that was the last."""
        named = self._named[name]
        named.users -= 1
        if named.users == 0:
            del self._named[name]
        return named.users == 0

    def values(self, name: Name) -> tuple[Values, Part | None]:
        """How to tell an entry's values in the index of that name, and from what they follow.

        Raises:
            LookupError: Nobody has named such a function.
        """
        sort, which = name
        if name == OWNER:
            return _owners, lambda header: header.owners
        if name == NAMESPACE:
            return _namespace, lambda header: header.namespace
        if sort == "label":
            return _label(which), lambda header: header.labels
        if sort == "annotation":
            return _annotation(which), lambda header: header.annotations
        if which not in self._named:
            known = ", ".join(map(repr, sorted(self._named))) or "none"
            raise LookupError(f"there is no index {which!r}: declare it with Watch(indexes=…); declared: {known}")
        named = self._named[which]
        return self._guarded(which, named.function, named.kind), None

    def _guarded(self, name: str, function: IndexFunction, kind: Kind | None) -> Values:
        def values(entry: Entry) -> tuple[str, ...]:
            try:
                if kind is None or isinstance(function, of_header):
                    return _strings(function(entry.header))
                return _strings(function(decode(kind, entry.data)))
            except RAISED as error:  # an author's function must not cost an object
                if self._blame is None:
                    raise
                self._blame(f"index {name!r}", entry.header, error)
                return ()

        return values


def _owners(entry: Entry) -> tuple[str, ...]:
    owners = entry.header.owners
    return (owners[0].uid,) if len(owners) == 1 else tuple(dict.fromkeys(owner.uid for owner in owners))


def _namespace(entry: Entry) -> tuple[str, ...]:
    return (entry.header.namespace,)


def _label(name: str) -> Values:
    return lambda entry: () if (value := entry.header.labels.get(name)) is None else (value,)


def _annotation(name: str) -> Values:
    mark = f'"{name}":'.encode()  # most objects do not have it: only those that may are decoded

    def values(entry: Entry) -> tuple[str, ...]:
        value = annotations_of(entry).get(name) if mark in entry.data else None
        return () if value is None else (value,)

    return values


def _strings(said: Any) -> tuple[str, ...]:  # noqa: ANN401 - an author's function may return what it likes
    """What an index function has returned, each once.

    Raises:
        TypeError: It is not what such a function may return.
    """
    if said is None:
        return ()
    if isinstance(said, str):
        return (said,)
    values: tuple[Any, ...] = tuple(dict.fromkeys(said)) if isinstance(said, Iterable) else (said,)
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"an index function returns strings, this one {type(value).__name__}: {value!r}")
    return values


class Indexes:
    """The indexes of one store that somebody has asked.

    Args:
        functions: What they are made of.
        below: What the watch has shown.
        laid: What own writes have laid over it.
    """

    def __init__(
        self, functions: Functions, below: Mapping[Key, Entry], laid: Callable[[], Iterator[tuple[Key, Entry]]]
    ) -> None:
        self._functions = functions
        self._below = below
        self._laid = laid
        self.built: dict[Name, Layered] = {}

    def get(self, name: Name) -> Layered:
        """The index of that name, built when it is first asked. Raises LookupError, see `Functions.values`."""
        found = self.built.get(name)
        if found is None:
            values, part = self._functions.values(name)
            found = self.built[name] = Layered(values, part, self._below, self._laid())
        return found

    def affords(self, name: Name) -> bool:
        """Whether there is an index of that name, or room for it."""
        return name in self.built or name[0] != "label" or sum(sort == "label" for sort, _ in self.built) < LABELS

    def changed(self, key: Key, before: Entry | None, after: Entry | None) -> None:
        """The watch has shown a change."""
        for index in self.built.values():
            index.below.change(key, before, after)

    def laid_changed(self, key: Key, before: Entry | None, after: Entry | None) -> None:
        """An own write was laid over the cache, or has made way."""
        for index in self.built.values():
            index.laid.change(key, before, after)

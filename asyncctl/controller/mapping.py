"""Whom a change of a watched object wakes: what an author declared (`sources`) over the caches of one controller.

Each mapping is a function of (old header, new header). It is asked for each change, decodes only where the author
wants the object, and then once: whom an object named before is remembered, not decoded again. Where an author's
function fails on one of the two, whom the other names is found all the same, and then the error is raised.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asyncctl.cache.header import Header, Key
from asyncctl.cache.index import RAISED
from asyncctl.cache.informer import Informer
from asyncctl.controller.sources import ChangeMapper, EveryMapper, IndexMapper, Mapper, ObjectMapper, OwnerMapper, Watch
from asyncctl.objects.codec import decode
from asyncctl.objects.resource import Kind

Mapping = Callable[[Header | None, Header | None], Iterable[Key]]


def mapping(watch: Watch[Any], watched: Informer, primary: Informer) -> Mapping | None:
    """What finds the keys to wake; None for a watch that wakes nobody, or everybody, who need not be found.

    Args:
        watch: As it was declared.
        watched: The cache of its kind.
        primary: The cache of the kind that is reconciled.
    """
    match watch.to:
        case None | EveryMapper():
            return None
        case ChangeMapper(function):
            return function
        case ObjectMapper(function):
            return _OfObjects(watch.kind, function, watched)
        case IndexMapper(index, value):
            return _indexed(index, value, primary)
        case OwnerMapper() as mapper:
            return _of_owners(mapper)
        case mapper:
            return _of_headers(mapper)


def _of_headers(mapper: Mapper) -> Mapping:
    def keys(old: Header | None, new: Header | None) -> Iterator[Key]:
        failed: BaseException | None = None
        for header in (old, new):
            if header is not None:
                try:
                    yield from mapper(header)
                except RAISED as error:  # it is raised when the other half has been asked
                    failed = failed or error
        if failed is not None:
            raise failed

    return keys


def _of_owners(mapper: OwnerMapper) -> Mapping:
    both = _of_headers(mapper)

    def keys(old: Header | None, new: Header | None) -> Iterable[Key]:
        if old is not None and new is not None and old.owners == new.owners:  # as it nearly always is
            return mapper(new)
        return both(old, new)

    return keys


def _indexed(index: str, value: Callable[[Header], str] | None, primary: Informer) -> Mapping:
    def named(header: Header) -> Iterable[Key]:
        found = (entry.header.key for entry in primary.by_index(index, value(header) if value else header.name))
        if value is not None or not header.namespace:
            return found
        return (key for key in found if key[0] in {header.namespace, ""})

    return _of_headers(named)


class _OfObjects:
    """Remembers whom each object named last: its bytes of then are gone when it changes."""

    def __init__(self, kind: Kind, function: Callable[[Any], Iterable[Key]], watched: Informer) -> None:
        self._kind = kind
        self._function = function
        self._watched = watched
        self._named: dict[Key, frozenset[Key]] = {}

    def __call__(self, old: Header | None, new: Header | None) -> Iterator[Key]:
        header = new or old
        assert header is not None
        if new is None:
            yield from self._named.pop(header.key, ())
            return
        yield from self._named.get(header.key, ())
        entry = self._watched.get(header.key)
        if entry is None:  # we have deleted it ourselves; the watch has yet to tell
            return
        now = frozenset(self._function(decode(self._kind, entry.data)))
        self._named[header.key] = now
        yield from now

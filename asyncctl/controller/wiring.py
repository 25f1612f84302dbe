"""From a change in a cache to keys in the queue: predicates say whether it matters, mappers say to whom.

What an author's function raises costs no event. An object on which its predicate fails is enqueued; where a mapper
fails, whom it named before that is enqueued, and since nobody knows whom else it meant, a sweep over all objects is
asked for.
"""

import asyncio
from typing import Any

from asyncctl.cache.header import Header, Key
from asyncctl.cache.index import RAISED
from asyncctl.cache.store import Handler
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.environment import Environment
from asyncctl.controller.faults import Faults
from asyncctl.controller.mapping import Mapping, mapping
from asyncctl.controller.parking import Parking
from asyncctl.controller.sources import EveryMapper, Predicate, Watch, default_predicate, kind_of
from asyncctl.controller.sweep import LOW, Sweep
from asyncctl.objects.resource import ResourceType
from asyncctl.queue.work_queue import WorkQueue


class Wiring:
    """What a controller's caches tell, and to whom. `connect` once, before they fill.

    `aside` are the keys that are parked, and those whose objects are paused.
    """

    def __init__(
        self, declaration: Declaration[Any], environment: Environment, queue: WorkQueue[Key],
        aside: tuple[Parking, Parking], sweep: Sweep, faults: Faults,
    ) -> None:  # fmt: skip
        self._declaration = declaration
        self._environment = environment
        self._queue = queue
        self._parking, self._paused = aside
        self._sweep = sweep
        self._faults = faults
        self._kind = environment.resource
        self._primary = environment.informer(self._kind)
        self._everyone_waits = False
        when = declaration.primary.when
        self._when = default_predicate(self._kind, declaration.finalizers) if when is None else when

    def connect(self) -> None:
        """Have the caches tell what changes, and what is there."""
        self._primary.subscribe(self._on_primary)
        for watch in self._declaration.watches:
            informer = self._environment.informer(kind_of(watch))
            informer.subscribe(self._on_watched(watch, mapping(watch, informer, self._primary)))

    def _on_primary(self, old: Header | None, new: Header | None, initial: bool) -> None:  # noqa: FBT001 - a Handler
        header = new or old
        assert header is not None
        key = header.key
        if new is None:
            self._queue.discard(key)
            self._parking.leave(key)
            self._paused.leave(key)
            return
        try:
            matters = self._when(old, new)
        except RAISED as error:  # an author's predicate must not cost an event
            self._faults.function("a predicate: the object is reconciled", error, self._kind, new)
            matters = True
        if old is not None:
            matters = matters or (old.deleting, old.paused, old.asked) != (new.deleting, new.paused, new.asked)
        if not matters:
            return
        if old is not None and key in self._parking:  # it has changed: it deserves all its tries again
            self._queue.forget(key)
            self._parking.leave(key)
        self._queue.add(key, priority=LOW if initial else 0)

    def _matters(self, when: Predicate, kind: ResourceType, old: Header | None, new: Header | None) -> bool:
        try:
            return when(old, new)
        except RAISED as error:  # an author's predicate must not cost an event
            header = new or old
            assert header is not None
            self._faults.function("a predicate: it is taken for a change that matters", error, kind, header)
            return True

    def _on_watched(self, watch: Watch[Any], whom: Mapping | None) -> Handler:
        applied, queue, kind, when = self._environment.applied, self._queue, kind_of(watch), watch.when
        everyone = isinstance(watch.to, EveryMapper)

        def handler(old: Header | None, new: Header | None, initial: bool) -> None:  # noqa: FBT001 - a Handler
            if new is None:
                assert old is not None
                applied.forget(kind, old.key)
            if whom is None and not everyone:
                return
            if when is not None and not self._matters(when, kind, old, new):
                return
            if whom is None:
                self._wake_everyone_soon()
                return
            keys: set[Key] = set()
            try:
                for key in whom(old, new):
                    keys.add(_checked(key))
            except RAISED as error:  # an author's mapper must not end the watch
                header = new or old
                assert header is not None
                self._faults.function("a mapper: all objects are looked at again", error, kind, header)
                self._sweep.ask()
            for key in keys:
                queue.add(key, priority=LOW if initial else 0)

        return handler

    def _wake_everyone_soon(self) -> None:
        """Once for all the events that one turn of the loop brings: a first list may bring thousands."""
        if not self._everyone_waits:
            self._everyone_waits = True
            asyncio.get_running_loop().call_soon(self._wake_everyone)

    def _wake_everyone(self) -> None:
        self._everyone_waits = False
        for entry in self._primary.entries():
            self._queue.add(entry.header.key, priority=LOW)  # what has changed itself comes first


def _checked(key: object) -> Key:
    """`key`, if it is one: what is none would be looked for in vain, and nobody would know."""
    if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str) and isinstance(key[1], str)):
        raise TypeError(f"a mapper returns (namespace, name) pairs, not {key!r}")
    return key

"""One cache of one kind, shared by all who read it: a reflector and a store for each namespace that is watched.

Namespaces come and go while it runs. One that goes takes its objects with it: each is told as gone once, with its last
state. One that comes is empty until its first list has come; the others are as current as before.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup

from asyncctl.cache.barrier import Barrier
from asyncctl.cache.header import Entry, Header, Key
from asyncctl.cache.index import Functions, IndexFunction
from asyncctl.cache.lister import Lister
from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Handler, Store
from asyncctl.cache.streaming import StreamingSupport
from asyncctl.client.client import Client
from asyncctl.client.requests import Selection
from asyncctl.clock import Clock
from asyncctl.objects.resource import Kind, ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.queue.backoff import Random

Scope = str | None
"""A namespace, or None: everywhere."""


@dataclass(slots=True)
class _Watched:
    """One scope: what is kept of it, and what keeps it current."""

    store: Store
    reflector: Reflector
    barrier: Barrier
    cancel: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    waiters: list[anyio.CancelScope] = field(default_factory=list)

    def release(self) -> None:
        """Nothing comes any more: let go who waits for something."""
        self.reflector.synced.set()
        for waiter in self.waiters:
            waiter.cancel()


class ScopeReport(NamedTuple):
    """How it stands with what is kept of one scope."""

    namespace: Scope
    objects: int
    bytes: int
    state: str
    progress: int
    """The resourceVersion up to which it is current."""
    synced: bool
    problem: str | None


class Informer:
    """Reads go to `get`, `entries` and `by_…`; changes are told to `subscribe`rs; `run` keeps it current.

    Args:
        client: Whom to ask.
        kind: What is kept.
        namespaces: Which are watched; empty means all, with one watch.
        labels: A label selector; others are neither watched nor kept.
        fields: A field selector, the same way.
        metadata_only: Whether of each object only the metadata are asked for and kept.
        manager: The field manager whose Apply entries are kept, for kinds that this program applies.
    """

    def __init__(
        self,
        client: Client,
        kind: ResourceType,
        *,
        clock: Clock,
        random: Random,
        logger: Logger,
        metrics: Metrics,
        namespaces: Iterable[str] = (),
        labels: str | None = None,
        fields: str | None = None,
        metadata_only: bool = False,
        manager: str | None = None,
    ) -> None:
        self.kind = kind
        self.selector = ",".join(filter(None, (labels, fields, "metadata only" if metadata_only else None)))
        self._client = client
        self._clock = clock
        self._random = random
        self._logger = logger
        self._labels = labels
        self._fields = fields
        self._metadata_only = metadata_only
        self._manager = manager
        self._streaming = StreamingSupport(clock)
        self._functions = Functions(self._blame)
        self._failures = metrics.cache_failures(kind.resource)
        self._told: set[tuple[str, int]] = set()
        self._handlers: list[Handler] = []
        self._watched: dict[Scope, _Watched] = {}
        self._metrics = metrics.informer(
            kind.resource,
            objects=lambda: sum(map(len, self._stores.values())),
            size=lambda: sum(store.size for store in self._stores.values()),
        )
        self._tasks: TaskGroup | None = None
        self._was_synced = False
        self._ended = False
        self.set_namespaces(namespaces)

    async def run(self) -> None:
        """Keep the cache current until cancelled. Once only."""
        try:
            async with anyio.create_task_group() as self._tasks:
                for watched in self._watched.values():
                    self._start(watched)
                await anyio.sleep_forever()  # while there is no namespace to watch, one may come
        finally:
            self._tasks = None
            self._ended = True
            self._metrics.close()
            for watched in self._watched.values():
                watched.release()  # `wait_synced` looks at why

    @property
    def namespaces(self) -> tuple[str, ...] | None:
        """Which are watched; None: all."""
        return None if None in self._watched else tuple(scope for scope in self._watched if scope is not None)

    def set_namespaces(self, namespaces: Iterable[str]) -> None:
        """Watch these from now on; empty means all. What is watched already goes on as it was.

        From all to some, or from some to all, what is known of those that are still watched stays known, and is not
        told anew: the first list of the new watches tells what has changed meanwhile.
        """
        wanted: tuple[Scope, ...] = tuple(dict.fromkeys(namespaces)) if self.kind.namespaced else ()
        wanted = wanted or (None,)
        leaving = [scope for scope in self._watched if scope not in wanted]
        known = [self._watched[scope].store for scope in leaving]
        for scope in wanted:
            if scope not in self._watched:
                self._add(scope, known if scope is None or None in leaving else ())
        for scope in leaving:
            self._remove(scope)

    def add_namespace(self, namespace: str) -> None:
        """Watch one more namespace. Nothing happens when it, or every one, is watched already."""
        if None not in self._watched and namespace not in self._watched:
            self._add(namespace)

    def remove_namespace(self, namespace: str) -> None:
        """Watch one namespace less: its objects are told as gone. The last one may go; all is not watched then.

        Raises:
            ValueError: All namespaces are watched, by one watch.
        """
        if None in self._watched and self.kind.namespaced:
            raise ValueError(
                f"{self.kind}: all namespaces are watched, so that {namespace!r} can't be taken out: set_namespaces() "
                "says which are to be watched instead"
            )
        if namespace in self._watched:
            self._remove(namespace)

    async def wait_synced(self) -> None:
        """Return when the first list has come, of each namespace that is watched by then.

        Raises:
            RuntimeError: The informer has ended: nothing comes any more.
        """
        while not self._ended and (waiting := self._not_synced()) is not None:
            await waiting.reflector.synced.wait()
        if self._ended:
            raise RuntimeError(f"the cache of {self.kind.resource} has ended: nothing is kept current any more")

    async def catch_up(self) -> None:
        """Return when the cache has all that the server had at the call, in each namespace that is watched by then.

        For who has won the Lease: what the one before it has written last. Tries until cancelled, or until nothing is
        kept current any more. See `barrier`.
        """
        async with anyio.create_task_group() as tasks:
            for watched in self._watched.values():
                tasks.start_soon(self._catch_up, watched, name=f"barrier {self.kind.resource}")

    async def _catch_up(self, watched: _Watched) -> None:
        with anyio.CancelScope() as scope:
            watched.waiters.append(scope)
            await watched.barrier.wait()
        watched.waiters.remove(scope)

    @property
    def behind(self) -> str | None:
        """What keeps the cache from catching up with the server, where somebody waits for it; else None."""
        return next((each.barrier.problem for each in self._watched.values() if each.barrier.problem), None)

    @property
    def synced(self) -> bool:
        """Whether the first lists have come, of each namespace that is watched now."""
        return not self._ended and self._not_synced() is None

    @property
    def was_synced(self) -> bool:
        """Whether there was a moment at which it was `synced`: a namespace that is added later changes nothing."""
        self._was_synced = self._was_synced or self.synced
        return self._was_synced

    def filling(self, namespace: str) -> bool:
        """Whether what is in `namespace` is watched, and its first list has not come yet."""
        watched = self._of(namespace)
        return watched is not None and not watched.reflector.synced.is_set()

    @property
    def problem(self) -> str | None:
        """Why the cache is not current, or None."""
        return next((each.reflector.problem for each in self._watched.values() if each.reflector.problem), None)

    def report(self) -> Iterator[ScopeReport]:
        """Say how it stands with each scope; may be called from another thread."""
        for scope, watched in self._watched.copy().items():
            store, reflector = watched.store, watched.reflector
            yield ScopeReport(
                scope, len(store), store.size, reflector.state.label, store.progress, reflector.synced.is_set(),
                reflector.problem,
            )  # fmt: skip

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Tell `handler` of what is there, and of each change.

        Returns:
            What ends that: nothing is told any more from the next change on. Harmless a second time.
        """
        self._handlers.append(handler)
        for watched in list(self._watched.values()):
            watched.store.subscribe(handler)
        return _once(lambda: self._unsubscribe(handler))

    def _unsubscribe(self, handler: Handler) -> None:
        del self._handlers[next(at for at, each in enumerate(self._handlers) if each is handler)]
        for store in self._stores.values():
            store.unsubscribe(handler)

    def add_index(self, name: str, function: IndexFunction, kind: Kind | None = None) -> Callable[[], None]:
        """Let `by_index(name, …)` find objects; nothing is computed before it is first asked.

        Args:
            name: What to ask by.
            function: Of the decoded object, or of the header if wrapped in `of_header`; returns strings.
            kind: As what an object is decoded for it: a class, or `Unstructured`.

        Returns:
            What takes it back: with the last who has added it, it goes. Harmless a second time.

        Raises:
            ValueError: The name has another function now, or there is no `kind` to decode.
        """
        self._functions.add(name, function, kind)
        return _once(lambda: self._remove_index(name))

    def _remove_index(self, name: str) -> None:
        if self._functions.remove(name):
            for store in self._stores.values():
                store.drop_index(name)

    def get(self, key: Key) -> Entry | None:
        """What is known of `key`, one's own writes included."""
        watched = self._of(key[0])
        return None if watched is None else watched.store.get(key)

    def entries(self, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Iterator[Entry]:
        """Objects as of now, one's own writes included; safe while the cache changes.

        Args:
            namespace: Of this one only; None: of all that are watched.
            labels: Only those that have all these.
        """
        if namespace is not None:
            watched = self._of(namespace)
            if watched is not None:
                everywhere = None in self._watched
                yield from watched.store.entries(namespace if everywhere else None, labels)
            return
        for store in self._stores.values():
            yield from store.entries(labels=labels)

    def by_owner(self, uid: str) -> Iterator[Entry]:
        """Those that have an owner reference to `uid`, one's own writes included."""
        for store in self._stores.values():
            yield from store.by_owner(uid)

    def by_annotation(self, name: str, value: str) -> Iterator[Entry]:
        """Those that have this annotation with this value, one's own writes included."""
        for store in self._stores.values():
            yield from store.by_annotation(name, value)

    def by_index(self, name: str, value: str) -> Iterator[Entry]:
        """Those for which the index function of that name returns `value`, one's own writes included.

        Raises:
            LookupError: No such function was given to `add_index`.
        """
        self._functions.values(("function", name))
        return (entry for store in self._stores.values() for entry in store.by_index(name, value))

    def wrote(self, entry: Entry) -> None:
        """A write of ours was answered with this object."""
        watched = self._of(entry.header.namespace)
        if watched is not None:
            watched.store.wrote(entry)

    def deleted(self, key: Key, uid: str, version: int = 0) -> None:
        """A deletion of ours was answered; see `Store.deleted`."""
        watched = self._of(key[0])
        if watched is not None:
            watched.store.deleted(key, uid, version)

    def _of(self, namespace: str) -> _Watched | None:
        return self._watched.get(None) or self._watched.get(namespace)

    @property
    def _stores(self) -> dict[Scope, Store]:
        # A copy is one step for the interpreter (a list of pairs is not: making one may run the garbage collector, and
        # that other threads): a scrape's thread comes here too, while namespaces come and go.
        return {scope: watched.store for scope, watched in self._watched.copy().items()}

    def _not_synced(self) -> _Watched | None:
        return next((each for each in self._watched.values() if not each.reflector.synced.is_set()), None)

    def _add(self, scope: Scope, known: Sequence[Store] = ()) -> None:
        self._was_synced = self._was_synced or (bool(self._watched) and self.synced)
        store = Store(self._functions, self._blame)
        logger = self._logger if scope is None else self._logger.bind(namespace=scope)
        reflector = Reflector(
            self._client, self.kind, store, namespace=scope, labels=self._labels, fields=self._fields,
            metadata_only=self._metadata_only, manager=self._manager, streaming=self._streaming,
            clock=self._clock, random=self._random, logger=logger, metrics=self._metrics,
        )  # fmt: skip
        for handler in self._handlers:
            store.subscribe(handler)
        store.adopt(known, scope)
        which: Selection = {"namespace": scope, "labels": self._labels, "fields": self._fields}
        barrier = Barrier(
            reflector, store, Lister(self._client, self.kind, which, metadata_only=True), self.kind.resource,
            clock=self._clock, random=self._random, logger=logger,
        )  # fmt: skip
        watched = self._watched[scope] = _Watched(store, reflector, barrier)
        if self._tasks is not None:
            self._start(watched)

    def _remove(self, scope: Scope) -> None:
        watched = self._watched.pop(scope)
        watched.cancel.cancel()  # its task is awaited by `run`; what it still reads goes to a store that nobody sees
        watched.release()
        watched.store.retire(lambda key: (now := self._of(key[0])) is not None and now.store.shown(key) is not None)

    def _start(self, watched: _Watched) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(self._reflect, watched, name=f"reflector {self.kind.resource}")

    async def _reflect(self, watched: _Watched) -> None:
        with watched.cancel:
            await watched.reflector.run()

    def _blame(self, what: str, header: Header, error: BaseException) -> None:
        """Count what a function of somebody's has raised; log it once for each place that it was raised at."""
        self._failures.inc()
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        place = frame.f_code.co_filename, line
        if place in self._told or len(self._told) > 1000:
            return
        self._told.add(place)
        self._logger.error(
            "a function of the cache's user has failed; logged once, counted each time",
            function=what, resource=self.kind.resource, namespace=header.namespace, name=header.name,
            error="".join(traceback.format_exception_only(error)).strip(), exc_info=error,
        )  # fmt: skip


def _once(step: Callable[[], None]) -> Callable[[], None]:
    """`step`, but only the first time."""
    steps = [step]
    return lambda: steps.pop()() if steps else None

"""One cache of one kind, shared by all who read it: a reflector and a store for each namespace that is watched."""

from collections.abc import Iterator

import anyio

from asyncctl.cache.header import Entry, Key
from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Handler, Store
from asyncctl.client.client import Client
from asyncctl.clock import Clock
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.queue.backoff import Random


class Informer:
    """Reads go to `get` and `entries`; changes are told to `subscribe`rs; `run` keeps it current.

    Args:
        client: Whom to ask.
        kind: What is kept.
        namespaces: Which are watched; empty means all, with one watch.
        labels: A label selector; others are neither watched nor kept.
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
        namespaces: tuple[str, ...] = (),
        labels: str | None = None,
        manager: str | None = None,
    ) -> None:
        self.kind = kind
        scopes: tuple[str | None, ...] = namespaces if kind.namespaced and namespaces else (None,)
        self._stores = {scope: Store() for scope in scopes}
        self._metrics = metrics.informer(
            kind.resource,
            objects=lambda: sum(map(len, self._stores.values())),
            size=lambda: sum(store.size for store in self._stores.values()),
        )
        self._reflectors = [
            Reflector(
                client, kind, store, namespace=scope, labels=labels, manager=manager,
                clock=clock, random=random, logger=logger, metrics=self._metrics,
            )
            for scope, store in self._stores.items()
        ]  # fmt: skip

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                for reflector in self._reflectors:
                    tasks.start_soon(reflector.run, name=f"reflector {self.kind.resource}")
        finally:
            self._metrics.close()

    async def wait_synced(self) -> None:
        """Return when the first list has come, of each namespace."""
        for reflector in self._reflectors:
            await reflector.synced.wait()

    @property
    def synced(self) -> bool:
        """Whether the first lists have come."""
        return all(reflector.synced.is_set() for reflector in self._reflectors)

    @property
    def problem(self) -> str | None:
        """Why the cache is not current, or None."""
        return next((reflector.problem for reflector in self._reflectors if reflector.problem), None)

    def subscribe(self, handler: Handler) -> None:
        """Tell `handler` of what is there, and of each change."""
        for store in self._stores.values():
            store.subscribe(handler)

    def get(self, key: Key) -> Entry | None:
        """What is known of `key`, one's own writes included."""
        store = self._store(key)
        return None if store is None else store.get(key)

    def entries(self, namespace: str | None = None) -> Iterator[Entry]:
        """All objects, or those of one namespace."""
        for scope, store in self._stores.items():
            if namespace is None or scope == namespace:
                yield from store.entries()
            elif scope is None:
                yield from (entry for entry in store.entries() if entry.header.namespace == namespace)

    def wrote(self, entry: Entry) -> None:
        """A write of ours was answered with this object."""
        store = self._store(entry.header.key)
        if store is not None:
            store.wrote(entry)

    def deleted(self, key: Key, uid: str) -> None:
        """A deletion of ours was answered."""
        store = self._store(key)
        if store is not None:
            store.deleted(key, uid)

    def _store(self, key: Key) -> Store | None:
        return self._stores[None] if None in self._stores else self._stores.get(key[0])

"""The parts of the API server put together: the store, who writes to it, what follows from a write, the kinds served.

It knows no HTTP. Nothing in it waits but a read of a resourceVersion that is not there yet.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from asyncctl.apiserver import behaviour
from asyncctl.apiserver.collector import Collector
from asyncctl.apiserver.crd import Definitions
from asyncctl.apiserver.registry import DeleteOptions, Registry, Write
from asyncctl.apiserver.request import WriteOptions
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.rest import Rest
from asyncctl.apiserver.store import Record, Store
from asyncctl.apiserver.wire import JsonObject

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class Cluster:
    """An empty cluster with the namespaces that every cluster has.

    Args:
        builtins: the kinds that are no custom resources.
        now: gives the time as an aware UTC datetime.
        history: how many changes of each resource are kept, at least.
        bookmark_interval: seconds between two bookmarks of a watch.
        rng: what uids and generated names are drawn from.

    Attributes:
        rest: answers requests for objects.
        store: holds them.
    """

    def __init__(
        self,
        builtins: Iterable[ResourceKind],
        now: Callable[[], datetime],
        history: int,
        bookmark_interval: float,
        rng: random.Random,
    ) -> None:
        self.store = Store(history)
        self._builtins = {(kind.group, kind.version, kind.plural): kind for kind in builtins}
        self._registry = Registry(self.store, now, rng)
        self._registry.stored = self._stored
        self._registry.removed = self._removed
        crds = self._builtins["apiextensions.k8s.io", "v1", "customresourcedefinitions"]
        self._definitions = Definitions(crds, self.store, now, self._delete_all)
        self._collector = Collector(self._registry, self._storage_kinds)
        self.rest = Rest(
            self.store,
            self._registry,
            self._kind_at,
            self._built_in,
            self._definitions.terminating,
            now,
            bookmark_interval,
        )
        for kind in self._builtins.values():
            self._registry.collection(kind)
        for name in _NAMESPACES:
            self._create_namespace(name)

    def kinds(self) -> list[ResourceKind]:
        """Return all kinds that are served now, in all their versions."""
        custom = [kind for kinds in self._definitions.served.values() for kind in kinds]
        return [*self._builtins.values(), *custom]

    def _create_namespace(self, name: str) -> None:
        kind = self._builtins["", "v1", "namespaces"]
        obj: JsonObject = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
        behaviour.default(kind, obj)
        self._registry.create(Write(kind, "", "", WriteOptions("kube-apiserver")), obj)

    def _storage_kinds(self) -> Iterator[ResourceKind]:
        seen: set[str] = set()
        for kind in self.kinds():
            storage = behaviour.of(kind).storage
            if storage not in seen:
                seen.add(storage)
                yield kind

    def _kind_at(self, group: str, version: str, plural: str) -> ResourceKind | None:
        if kind := self._builtins.get((group, version, plural)):
            return kind
        served = self._definitions.served.get(f"{plural}.{group}", ())
        return next((kind for kind in served if kind.version == version), None)

    def _built_in(self, group: str, version: str) -> bool:
        return any(kind.group == group and kind.version == version for kind in self._builtins.values())

    def _stored(self, kind: ResourceKind, record: Record) -> None:
        if kind.resource == behaviour.CRD:
            self._definitions.changed(record.key)
        self._collector.stored(kind, record)

    def _removed(self, kind: ResourceKind, record: Record) -> None:
        self._collector.removed(kind, record)
        if kind.resource == behaviour.CRD:
            self._definitions.changed(record.key)
        elif kind.custom:
            self._definitions.touched(kind)

    def _delete_all(self, kind: ResourceKind) -> None:
        for record in list(self._registry.collection(kind).records.values()):
            self.rest.delete_record(kind, record, DeleteOptions())

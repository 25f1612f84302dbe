"""The caches of an operator: what a `Watch` asks for, told in `/readyz`, and as they are read outside of a pass."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar, cast

from asyncctl.cache.header import Entry, Header
from asyncctl.cache.informer import Informer
from asyncctl.cache.informers import Informers
from asyncctl.client.client import Client
from asyncctl.client.errors import Target
from asyncctl.controller.sources import Watch, kind_of
from asyncctl.http import Probes
from asyncctl.objects.codec import decode
from asyncctl.objects.resource import Kind, resource_type_of

T = TypeVar("T")


@asynccontextmanager
async def use(informers: Informers, watch: Watch[Any], caller: str | None = None) -> AsyncIterator[Informer]:
    """The cache that `watch` asks for, with its indexes, while inside; its first list may not have come.

    See `Informers.use`.
    """
    with ExitStack() as indexes:
        async with informers.use(
            kind_of(watch), namespaces=watch.namespaces, labels=watch.labels, fields=watch.fields,
            metadata_only=watch.metadata_only, caller=caller,
        ) as informer:  # fmt: skip
            for name, function in watch.indexes.items():
                indexes.callback(informer.add_index(name, function, watch.kind))
            yield informer


def announce(probes: Probes, watch: Watch[Any], informer: Informer) -> None:
    """Have `/readyz` wait for the first list, and show afterwards whether the cache is current.

    What comes later, an outage or one more namespace, makes nobody unready. A cache that is shared is shown once.
    """
    narrowed = (watch.labels, watch.fields, ",".join(watch.namespaces or ()), "metadata" if watch.metadata_only else "")
    name = "-".join(("cache", kind_of(watch).resource, *filter(None, narrowed)))
    if not probes.has(name):
        probes.ready(name, lambda: None if informer.was_synced else informer.problem)
        probes.inform(f"{name}-current", lambda: informer.problem)


class Cached(Generic[T]):
    """What `Running.informer` gives. Each object is decoded when it is reached, and is the reader's own.

    Attributes:
        informer: The cache itself, of headers and bytes.
    """

    def __init__(self, kind: Kind, informer: Informer, client: Client) -> None:
        self.informer = informer
        self._kind = kind
        self._resource = resource_type_of(kind)
        self._client = client

    def get(self, name: str, *, namespace: str = "") -> T | None:
        """Read one object; None when there is none.

        Raises:
            NamespaceBoundaryExceeded: The namespace is outside of those that may be touched.
            ValueError: It is in a namespace, and which is not said.
        """
        if self._resource.namespaced and not namespace:
            raise ValueError(f"{self._resource} {name!r} is namespaced: say in which namespace")
        self._check("get", namespace, name)
        entry = self.informer.get((namespace, name))
        return None if entry is None else self._decoded(entry)

    def list(
        self,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        index: tuple[str, str] | None = None,
    ) -> Iterator[T]:
        """Read objects: of one namespace or of all, with these labels, or of whom an index says so.

        Raises:
            LookupError: The index is not declared.
            NamespaceBoundaryExceeded: The namespace is outside of those that may be touched.
        """
        return map(self._decoded, self._entries(namespace, labels, index))

    def headers(
        self,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        index: tuple[str, str] | None = None,
    ) -> Iterator[Header]:
        """The same as `list`, without decoding anything; all there is of a `metadata_only` watch."""
        return (entry.header for entry in self._entries(namespace, labels, index))

    def _entries(
        self, namespace: str | None, labels: Mapping[str, str] | None, index: tuple[str, str] | None
    ) -> Iterator[Entry]:
        if namespace is not None:
            self._check("list", namespace)
        if index is None:
            return self.informer.entries(namespace, labels)
        pairs = (labels or {}).items()
        return (
            entry
            for entry in self.informer.by_index(*index)
            if namespace in {None, entry.header.namespace} and (not pairs or pairs <= entry.header.labels.items())
        )

    def _check(self, verb: str, namespace: str, name: str | None = None) -> None:
        self._client.check_boundary(Target(verb, self._resource.resource, namespace or None, name), self._resource)

    def _decoded(self, entry: Entry) -> T:
        return cast("T", decode(self._kind, entry.data))

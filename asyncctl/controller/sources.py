"""Which changes wake a controller (predicates), and which objects a change is about (mappers).

Both see headers only; nothing is decoded to find out that nobody cares. Level-triggered: what comes out is a key, not
an event.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from asyncctl.cache.header import Header, Key
from asyncctl.objects.resource import Kind, ResourceType, resource_type_of

Mapper = Callable[[Header], Iterable[Key]]
"""From a changed object to the keys of the primary objects that are to be reconciled."""


class Predicate:
    """Whether a change matters; composed with `|`, `&` and `~`. Additions and deletions always matter."""

    def __init__(self, differs: Callable[[Header, Header], bool]) -> None:
        self._differs = differs

    def __call__(self, old: Header | None, new: Header | None) -> bool:
        """Whether the step from `old` to `new` is to be acted on."""
        return old is None or new is None or self._differs(old, new)

    def __or__(self, other: "Predicate") -> "Predicate":
        return Predicate(lambda old, new: self._differs(old, new) or other._differs(old, new))  # noqa: SLF001 - the same class

    def __and__(self, other: "Predicate") -> "Predicate":
        return Predicate(lambda old, new: self._differs(old, new) and other._differs(old, new))  # noqa: SLF001 - the same class

    def __invert__(self) -> "Predicate":
        return Predicate(lambda old, new: not self._differs(old, new))


generation_changed = Predicate(lambda old, new: old.generation != new.generation)
labels_changed = Predicate(lambda old, new: old.labels != new.labels)
annotations_changed = Predicate(lambda old, new: old.annotations != new.annotations)
any_change = Predicate(lambda old, new: old.version != new.version)


def finalizers_changed(own: Collection[str] = ()) -> Predicate:
    """Deletion began, or a finalizer came or went; that one of our `own` was put on is our own doing."""

    def differs(old: Header, new: Header) -> bool:
        before, after = set(old.finalizers), set(new.finalizers)
        return old.deleting != new.deleting or bool(before - after) or not after - before <= set(own)

    return Predicate(differs)


def default_predicate(kind: ResourceType, own_finalizers: Collection[str] = ()) -> Predicate:
    """For the primary kind: all but what a controller writes there itself: the status, and its own finalizers.

    A kind that has no generation (ConfigMap, Secret) has nothing to tell a status by: any change.
    """
    if not kind.has_generation:
        return any_change
    return generation_changed | finalizers_changed(own_finalizers) | labels_changed | annotations_changed


@dataclass(frozen=True, slots=True)
class Watch:
    """A kind that is watched beside the primary one.

    Args:
        kind: A class, or `Unstructured`.
        to: Whom a change wakes; None: nobody, the kind is only read.
        labels: A label selector that narrows what is watched and cached.
    """

    kind: Kind
    to: Mapper | None = None
    labels: str | None = None


def to_controller_of(primary: ResourceType) -> Mapper:
    """The mapper of `owns`: the primary object that is the changed one's controller."""

    def mapper(header: Header) -> Iterable[Key]:
        owner = header.controller
        if owner is None or owner.kind != primary.kind or owner.api_version.rpartition("/")[0] != primary.group:
            return ()
        return ((header.namespace if primary.namespaced else "", owner.name),)

    return mapper


def as_watch(source: Kind | Watch, to: Mapper | None) -> Watch:
    """`source` as a `Watch`; a plain kind gets the mapper `to`."""
    return source if isinstance(source, Watch) else Watch(source, to)


def kind_of(watch: Watch) -> ResourceType:
    """What is watched."""
    return resource_type_of(watch.kind)

"""What wakes a controller: which kinds (`Watch`), which changes (predicates), and whom a change is about (mappers).

Predicates see headers only, and so do mappers unless one says `of_object`: nothing is decoded to find out that nobody
cares. Level-triggered: what comes out is a key, not an event.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from asyncctl.cache.header import Header, Key
from asyncctl.cache.index import of_header
from asyncctl.client.selectors import Selector, fields as field_selector, labels as label_selector, narrow
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

Mapper = Callable[[Header], Iterable[Key]]
"""From a changed object to the keys of the primary objects that are to be reconciled."""


class Predicate:
    """Whether a change matters; composed with `|`, `&` and `~`. Additions and deletions always matter."""

    def __init__(self, differs: Callable[[Header, Header], bool]) -> None:
        self._differs = differs

    def __call__(self, old: Header | None, new: Header | None) -> bool:
        """Whether the step from `old` to `new` is to be acted on."""
        return old is None or new is None or self._differs(old, new)

    def __bool__(self) -> bool:
        """Raises `TypeError`: `a or b` would be `a`, and nobody would know."""
        raise TypeError("predicates are composed with |, & and ~, not with `or`, `and` and `not`")

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
class ObjectMapper(Generic[T]):
    """A mapper that is given the object, decoded; made by `of_object`."""

    function: Callable[[T], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class ChangeMapper:
    """A mapper that is given both versions; made by `of_change`."""

    function: Callable[[Header | None, Header | None], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class IndexMapper:
    """Wakes those whose index has the changed object's name; made by `to_indexed`."""

    index: str
    value: Callable[[Header], str] | None


@dataclass(frozen=True, slots=True)
class EveryMapper:
    """Wakes every primary object; its one instance is `to_every`."""


def of_object(function: Callable[[T], Iterable[Key]]) -> ObjectMapper[T]:
    """Make a mapper of a function of the object itself, as its class or, for an `Unstructured` kind, as a dict.

    It is decoded for each change of it; a mapper that can do with the header costs a tenth of that. Asked about the
    object as it was and as it is; who is named by either is woken.
    """
    return ObjectMapper(function)


def of_change(function: Callable[[Header | None, Header | None], Iterable[Key]]) -> ChangeMapper:
    """Make a mapper of a function of (old, new): None as old is an addition, as new a deletion."""
    return ChangeMapper(function)


def to_indexed(index: str, value: Callable[[Header], str] | None = None) -> IndexMapper:
    """Make a mapper that wakes the primary objects of whose index `index` one value names the changed object::

        @operator.controller(
            Watch(Widget, indexes={"secret": lambda widget: [widget.spec.secret]}),
            watches=[Watch(Secret, to=to_indexed("secret"))],
        )

    Args:
        index: Declared by the primary kind's `Watch`.
        value: What to look for; default: the changed object's name, among the primary objects of its namespace.
    """
    return IndexMapper(index, value)


to_every = EveryMapper()
"""The mapper for what concerns every primary object: all are looked at anew, after what has changed itself."""


@dataclass(frozen=True, slots=True)
class OwnerMapper:
    """Wakes the primary object that is the changed one's controller; made by `to_controller_of`."""

    group: str
    kind: str
    namespaced: bool

    def __call__(self, header: Header) -> Iterable[Key]:
        """The mapper itself."""
        owner = header.controller
        if owner is None or owner.kind != self.kind or owner.api_version.rpartition("/")[0] != self.group:
            return ()
        return ((header.namespace if self.namespaced else "", owner.name),)


def to_controller_of(primary: ResourceType) -> OwnerMapper:
    """The mapper of `owns`: the primary object that is the changed one's controller."""
    return OwnerMapper(primary.group, primary.kind, primary.namespaced)


AnyMapper: TypeAlias = Mapper | ObjectMapper[T] | ChangeMapper | IndexMapper | EveryMapper
Indexes: TypeAlias = Mapping[str, Callable[[T], Iterable[str]] | of_header]
"""Name -> the values by which an object is found: a function of the object, or `of_header`."""


@dataclass(frozen=True, slots=True, init=False)
class Watch(Generic[T]):
    """A kind that is watched and cached, and what of it.

    Args:
        kind: A class, or `Unstructured`.
        to: Whom a change wakes, as `(namespace, name)` pairs: a function of the header, or what `of_object`,
            `of_change`, `to_indexed` and `to_every` are. In `owns` default: the owner. In `watches` needed. None in
            `reads`, whose changes wake nobody, and for the primary kind, whose changes wake the object itself.
        labels: A label selector, as text or as a map: what does not match is neither watched nor cached.
        fields: A field selector, such as `spec.nodeName=a`; which fields there are depends on the kind.
        namespaces: Only these; default: those of the operator, `ASYNCCTL_NAMESPACES`.
        metadata_only: Cache the metadata alone (`PartialObjectMetadata`). All else of such an object reads as its
            class's default; where that has none, read it as an `Unstructured`.
        indexes: By which values objects are found: `ctx.list(Kind, index=(name, value))`.
        when: Which changes matter; default: any, and of the primary kind all but those of its status alone.
        wanted: Given the settings: whether a controller has this source with them. Where not, it is neither watched nor
            cached, and takes no RBAC rule. Default: always; the primary kind always is.

    Raises:
        ValueError: It can't be meant: a selector or a list of namespaces that is empty, namespaces of a kind that is in
            none, or a function of the object where only its metadata are there.
        TypeError: A function is none.
    """

    kind: Kind
    to: AnyMapper[T] | None
    labels: str | None
    fields: str | None
    namespaces: tuple[str, ...] | None
    metadata_only: bool
    indexes: Indexes[T]
    when: Predicate | None
    wanted: Callable[[Any], bool] | None

    @overload
    def __init__(
        self: "Watch[R]", kind: type[R], to: AnyMapper[R] | None = None, *, labels: Selector | None = None,
        fields: Selector | None = None, namespaces: Collection[str] | None = None, metadata_only: bool = False,
        indexes: Indexes[R] | None = None, when: Predicate | None = None, wanted: Callable[[Any], bool] | None = None,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: "Watch[JsonObject]", kind: Unstructured, to: AnyMapper[JsonObject] | None = None, *,
        labels: Selector | None = None, fields: Selector | None = None, namespaces: Collection[str] | None = None,
        metadata_only: bool = False, indexes: Indexes[JsonObject] | None = None, when: Predicate | None = None,
        wanted: Callable[[Any], bool] | None = None,
    ) -> None: ...  # fmt: skip
    def __init__(
        self,
        kind: Kind,
        to: AnyMapper[Any] | None = None,
        *,
        labels: Selector | None = None,
        fields: Selector | None = None,
        namespaces: Collection[str] | None = None,
        metadata_only: bool = False,
        indexes: Indexes[Any] | None = None,
        when: Predicate | None = None,
        wanted: Callable[[Any], bool] | None = None,
    ) -> None:
        values = {
            "kind": kind, "to": to, "labels": label_selector(labels), "fields": field_selector(fields),
            "namespaces": _names(namespaces), "metadata_only": metadata_only, "indexes": dict(indexes or {}),
            "when": when, "wanted": wanted,
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        kind = resource_type_of(self.kind)
        if not isinstance(self.kind, type | Unstructured):
            raise TypeError(f"Watch of {kind}: an object of it was given; give its class, {type(self.kind).__name__}")
        for what, selector in {"labels": self.labels, "fields": self.fields}.items():
            try:
                narrow(selector)
            except ValueError as error:
                raise ValueError(f"Watch of {kind}: {what}={selector!r}: {error}") from None
        if self.namespaces is not None and not kind.namespaced:
            raise ValueError(f"Watch of {kind}: it is in no namespace; leave out namespaces={self.namespaces!r}")
        if self.namespaces == ():
            raise ValueError(f"Watch of {kind}: namespaces is empty, so that nothing would be watched; leave it out")
        wanting = [name for name, index in self.indexes.items() if not isinstance(index, of_header)]
        wanting += ["to"] if isinstance(self.to, ObjectMapper) else []
        if self.metadata_only and wanting:
            raise ValueError(
                f"Watch of {kind}: {', '.join(wanting)} reads the object, and metadata_only leaves nothing of it but "
                "its header: use of_header, or a mapper of the header"
            )
        for what, each in {"to": self.to, "wanted": self.wanted, **self.indexes}.items():
            if not (each is None or callable(each) or isinstance(each, _MADE)):
                raise TypeError(f"Watch of {kind}: {what} is {each!r}, and no function")
            function = getattr(each, "function", each)
            if isinstance(function, type):
                raise TypeError(f"Watch of {kind}: {what} is the class {function.__name__}, and no function")
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"Watch of {kind}: {what} is asked in passing and can't wait; write a plain `def`")
        if self.when is not None and not isinstance(self.when, Predicate):
            raise TypeError(
                f"Watch of {kind}: when={self.when!r} is no Predicate; wrap a function of (old, new) in one"
            )

    @property
    def narrowing(self) -> tuple[object, ...]:
        """What of the kind is cached: equal for those that can share a cache."""
        return self.namespaces, self.labels, self.fields, self.metadata_only


_MADE = (ObjectMapper, ChangeMapper, IndexMapper, EveryMapper, of_header)
_EVERYTHING = (None, None, None, False)


def is_narrowed(watch: Watch[Any]) -> bool:
    """Whether less than the whole kind is cached."""
    return watch.narrowing != _EVERYTHING


def _names(namespaces: Collection[str] | None) -> tuple[str, ...] | None:
    if isinstance(namespaces, str):
        raise TypeError(f"namespaces={namespaces!r} is a text, and each of its letters would be taken: write a tuple")
    return None if namespaces is None else tuple(dict.fromkeys(namespaces))


def as_watch(source: "Kind | Watch[Any]", to: Mapper | None) -> Watch[Any]:
    """`source` as a `Watch`, with the mapper `to` where it has none."""
    if not isinstance(source, Watch):
        made: Watch[Any] = Watch(cast("type[Resource]", source), to)
        return made
    return source if source.to is not None or to is None else with_mapper(source, to)


def with_mapper(watch: Watch[Any], to: AnyMapper[Any] | None, *, when: Predicate | None = None) -> Watch[Any]:
    """The same, with another mapper, and another predicate if there is one."""
    made: Watch[Any] = Watch(
        cast("type[Resource]", watch.kind), to, labels=watch.labels, fields=watch.fields, namespaces=watch.namespaces,
        metadata_only=watch.metadata_only, indexes=watch.indexes, when=watch.when if when is None else when,
        wanted=watch.wanted,
    )  # fmt: skip
    return made


def kind_of(watch: Watch[Any]) -> ResourceType:
    """What is watched."""
    return resource_type_of(watch.kind)

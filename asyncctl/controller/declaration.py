"""What an author declares of one controller; nothing runs here."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from asyncctl.controller.context import Context
from asyncctl.controller.finalizer import check_name
from asyncctl.controller.outcome import Requeue
from asyncctl.controller.sources import (
    IndexMapper,
    Predicate,
    Watch,
    as_watch,
    is_narrowed,
    kind_of,
    to_controller_of,
    with_mapper,
)
from asyncctl.objects.resource import Kind, ResourceType, Unstructured

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Reconcile = Callable[[Context, T], Awaitable[Requeue | None]]
CleanUp = Callable[[Context, T], Awaitable[None]]
"""Takes the object, and, where that can't be decoded, a dict: see `Declaration.finalizer`."""


def is_coroutine_function(function: Callable[..., object]) -> bool:
    """Whether calling `function` gives something to await; also an object may be called like that."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def check_coroutine(function: Callable[..., object], whose: str, *takes: str) -> None:
    """Raise `TypeError` unless `function` is a coroutine function, or an object called like one, of so many arguments.

    Args:
        function: What an author gave.
        whose: What it was given for, for the error's text.
        takes: What it is called with.
    """
    name = getattr(function, "__qualname__", repr(function))
    if inspect.isclass(function):
        raise TypeError(f"{whose}: {name} is a class; give an object of it: {name}(…)")
    if not callable(function):
        raise TypeError(f"{whose}: {name} is no coroutine function")
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"{whose}: {name} yields, and is called once and awaited; leave out `yield`")
    if not is_coroutine_function(function):
        raise TypeError(f"{whose}: {name} is a plain function; write `async def`, so that it is awaited and can wait")
    try:
        inspect.signature(function).bind(*takes)
    except TypeError as error:
        raise TypeError(f"{whose}: {name} is called with ({', '.join(takes)}): {error}") from None
    except ValueError:  # it does not tell its arguments
        return


@runtime_checkable
class Reconciler(Protocol[T_contra]):
    """A class with a `reconcile` method, where state or dependencies are wanted."""

    async def reconcile(self, ctx: Context, obj: T_contra, /) -> Requeue | None:
        """Make the world match `obj`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration(Generic[T]):
    """One controller, as declared by `Operator.controller`. Calling it calls the coroutine that was decorated."""

    name: str
    primary: Watch[Any]
    """The kind that is reconciled, and what of it."""
    reconcile: Reconcile[T]
    watches: tuple[Watch[Any], ...] = ()
    """Every kind beside the primary one, with whom its changes wake."""
    owns: frozenset[ResourceType] = frozenset()
    """Those of them that it makes, changes and deletes."""
    workers: int | None = None
    resync: timedelta | None = None
    timeout: timedelta | None = None
    interval: timedelta | None = None
    """At least so long between the starts of two passes over one object."""
    rate: float | None = None
    """Passes that begin in a second, over all objects."""
    finalizers: dict[str, CleanUp[Any]] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The kind that is reconciled."""
        return self.primary.kind

    def under(self, settings: object) -> Self:
        """The same without the watches that are not wanted with these settings."""
        kept = tuple(watch for watch in self.watches if watch.wanted is None or watch.wanted(settings))
        return replace(self, watches=kept, owns=self.owns & frozenset(map(kind_of, kept)))

    async def __call__(self, ctx: Context, obj: T) -> Requeue | None:
        """Run the pass."""
        return await self.reconcile(ctx, obj)

    def finalizer(self, name: str) -> Callable[[CleanUp[T]], CleanUp[T]]:
        """Decorate the clean-up that has to return before an object may vanish.

        An object that can't be decoded comes as a plain dict, so that it is not stuck for ever. A clean-up that is
        ready for it takes `Widget | JsonObject`; one that is not fails on it, and is tried again until the object
        can be read.

        Args:
            name: The finalizer, such as `example.com/widgets`. It is put on before the first pass.

        Raises:
            ValueError: The name is no finalizer's, or was declared before.
            TypeError: What is decorated is no coroutine function of (ctx, object), or there is no name.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"controller {self.name!r}: a finalizer has a name: write @reconcile.finalizer('example.com/widgets')"
            )
        check_name(name)
        if name in self.finalizers:
            raise ValueError(f"controller {self.name!r}: finalizer {name!r} is declared twice")

        def declare(clean_up: CleanUp[T]) -> CleanUp[T]:
            check_coroutine(clean_up, f"controller {self.name!r}, finalizer {name!r}", "ctx", "object")
            self.finalizers[name] = clean_up
            return clean_up

        return declare


@dataclass(frozen=True, slots=True)
class Sources:
    """What one controller watches: the primary kind, the others, and which of those it makes."""

    primary: Watch[Any]
    watches: tuple[Watch[Any], ...]
    owns: frozenset[ResourceType]


def sources_of(
    name: str,
    kind: Kind | Watch[Any],
    *,
    owns: Sequence[Kind | Watch[Any]] = (),
    watches: Sequence[Watch[Any]] = (),
    reads: Sequence[Kind | Watch[Any]] = (),
    when: Predicate | None = None,
) -> Sources:
    """What a controller called `name` watches, with the mappers that its lists imply.

    Raises:
        ValueError: It does not go together; the text says what to change.
        TypeError: What has to be a list is none.
    """
    primary, whose = as_watch(kind, None), f"controller {name!r}"
    for what, given in {"owns": owns, "watches": watches, "reads": reads}.items():
        _check_list(whose, what, given)
    resource = kind_of(primary)
    _check_primary(whose, primary, when)
    if when is not None:
        primary = with_mapper(primary, None, when=when)
    owned = [as_watch(each, to_controller_of(resource)) for each in owns]
    for watch in owned:
        if watch.metadata_only:
            raise ValueError(f"{whose} can't own {kind_of(watch)} by its metadata alone: apply compares all of it")
    waking = [as_watch(each, None) for each in watches]  # a plain kind too: what a hurried author writes
    for watch in waking:
        if watch.to is None:
            one = kind_of(watch)
            raise ValueError(
                f"{whose} watches {one}, and whom to wake is not said: Watch(…, to=…), or put it in reads="
            )
    read = [as_watch(each, None) for each in reads]
    for watch in read:
        if watch.to is not None or watch.when is not None:
            raise ValueError(
                f"{whose} reads {kind_of(watch)}, which wakes nobody; with to= and when= put it in watches="
            )
    everything = (*owned, *waking, *read)
    _check_together(whose, primary, everything)
    return Sources(primary, everything, frozenset(map(kind_of, owned)))


def _check_list(whose: str, what: str, given: object) -> None:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{whose}: {what}= takes a list of kinds; write {what}=[…]")


def _check_primary(whose: str, primary: Watch[Any], when: Predicate | None) -> None:
    resource = kind_of(primary)
    if primary.to is not None:
        raise ValueError(f"{whose}: a change of {resource} wakes the object itself; leave out to=")
    if primary.wanted is not None:
        raise ValueError(f"{whose} is always there, and so is what it reconciles, {resource}; leave out wanted=")
    if primary.metadata_only:
        raise ValueError(f"{whose} reconciles {resource}, and is given the whole object; leave out metadata_only")
    if primary.when is not None and when is not None:
        raise ValueError(f"{whose}: when= is said twice, by the Watch too; say it once")
    unnoticed = isinstance(primary.kind, Unstructured) and resource.has_generation and not resource.has_status
    if unnoticed and primary.when is None and when is None:
        raise ValueError(
            f"{whose}: without a status subresource a status that is written to {resource} counts as a new generation, "
            "and wakes its own writer for ever. Declare `subresources: {status: {}}` in its CRD and leave out "
            "has_status=False; or give when=generation_changed if the controller writes no status"
        )


def _check_together(whose: str, primary: Watch[Any], watches: Sequence[Watch[Any]]) -> None:
    resource, kinds = kind_of(primary), [kind_of(watch) for watch in watches]
    twice = {kind for kind in kinds if kinds.count(kind) > 1}
    if twice:
        raise ValueError(f"{whose} declares {', '.join(map(str, twice))} twice; one Watch will do")
    for watch in watches:
        if kind_of(watch) == resource and (is_narrowed(watch) or watch.indexes):
            raise ValueError(
                f"{whose} can't narrow or index its own kind {resource} by the way; do that where it is declared: "
                f"operator.controller(Watch({resource.kind}, …))"
            )
        if isinstance(watch.to, IndexMapper) and watch.to.index not in primary.indexes:
            raise ValueError(
                f"{whose}: to_indexed({watch.to.index!r}) needs an index of that name: "
                f"operator.controller(Watch({resource.kind}, indexes={{{watch.to.index!r}: …}}))"
            )

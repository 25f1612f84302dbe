"""What an author declares of one controller; nothing runs here."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from asyncctl.controller.context import Context
from asyncctl.controller.finalizer import check_name
from asyncctl.controller.outcome import Requeue
from asyncctl.controller.sources import Predicate, Watch
from asyncctl.objects.resource import Kind, ResourceType

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Reconcile = Callable[[Context, T], Awaitable[Requeue | None]]
CleanUp = Callable[[Context, T], Awaitable[None]]
"""Takes the object, and, where that can't be decoded, a dict: see `Declaration.finalizer`."""


def check_coroutine(function: Callable[..., object], whose: str) -> None:
    """Raise `TypeError` unless `function` is a coroutine function, or an object that is called like one."""
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{whose}: {name} is a plain function; write `async def`, so that it is awaited and can wait")


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
    kind: Kind
    reconcile: Reconcile[T]
    watches: tuple[Watch, ...] = ()
    """Every kind beside the primary one, with whom its changes wake."""
    owns: frozenset[ResourceType] = frozenset()
    """Those of them that it makes, changes and deletes."""
    workers: int | None = None
    when: Predicate | None = None
    resync: timedelta | None = None
    timeout: timedelta | None = None
    interval: timedelta | None = None
    """Least time between the starts of two passes over one object."""
    rate: float | None = None
    """Passes that may start in a second, in the long run."""
    finalizers: dict[str, CleanUp[Any]] = field(default_factory=dict)

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
            TypeError: What is decorated is no coroutine function.
        """
        check_name(name)
        if name in self.finalizers:
            raise ValueError(f"controller {self.name!r}: finalizer {name!r} is declared twice")

        def declare(clean_up: CleanUp[T]) -> CleanUp[T]:
            check_coroutine(clean_up, f"controller {self.name!r}, finalizer {name!r}")
            self.finalizers[name] = clean_up
            return clean_up

        return declare

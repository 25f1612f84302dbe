"""What a program declares: its controllers and hooks. Declaring runs nothing and opens nothing; `run` and `running` do.

Operators share nothing: several may run in one process.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import Clock, SystemClock
from asyncctl.controller.declaration import Declaration, Reconcile, Reconciler, check_coroutine
from asyncctl.controller.sources import Predicate, Watch, as_watch, to_controller_of
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of
from asyncctl.observe.logs import Logger
from asyncctl.operator.checking import Check
from asyncctl.operator.needs import Need
from asyncctl.operator.running import Hook, Running
from asyncctl.settings import Settings

T = TypeVar("T")
R = TypeVar("R", bound=Resource)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _Decorator(Generic[T]):
    """Takes a coroutine function, or an object with a `reconcile` method."""

    def __init__(self, declare: Callable[[Reconcile[Any]], Declaration[Any]]) -> None:
        self._declare = declare

    def __call__(self, reconcile: Reconcile[T] | Reconciler[T]) -> Declaration[T]:
        if isinstance(reconcile, Reconciler):
            return self._declare(reconcile.reconcile)
        return self._declare(reconcile)


class Operator:
    """A program of one or more controllers.

    Args:
        name: Lower-case; part of the field manager (`asyncctl-<name>`), of events and of the logs.
        settings: The class of its settings, for a program that has its own.
    """

    def __init__(self, name: str, *, settings: type[Settings] = Settings) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"operator {name!r}: a name of lower-case letters, digits and dashes is needed")
        self.name = name
        self.settings = settings
        self.declarations: list[Declaration[Any]] = []
        self.startup: list[Hook] = []
        self.shutdown: list[Hook] = []
        self.needed: list[Need] = []
        self.checks: list[tuple[str, Check]] = []

    @overload
    def controller(
        self, kind: type[R], *, name: str | None = ..., owns: Sequence[Kind | Watch] = ...,
        watches: Sequence[Watch] = ..., reads: Sequence[Kind | Watch] = ..., workers: int | None = ...,
        when: Predicate | None = ..., resync: timedelta | None = ..., timeout: timedelta | None = ...,
    ) -> _Decorator[R]: ...  # fmt: skip
    @overload
    def controller(
        self, kind: Unstructured, *, name: str | None = ..., owns: Sequence[Kind | Watch] = ...,
        watches: Sequence[Watch] = ..., reads: Sequence[Kind | Watch] = ..., workers: int | None = ...,
        when: Predicate | None = ..., resync: timedelta | None = ..., timeout: timedelta | None = ...,
    ) -> _Decorator[JsonObject]: ...  # fmt: skip
    def controller(
        self,
        kind: Kind,
        *,
        name: str | None = None,
        owns: Sequence[Kind | Watch] = (),
        watches: Sequence[Watch] = (),
        reads: Sequence[Kind | Watch] = (),
        workers: int | None = None,
        when: Predicate | None = None,
        resync: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> _Decorator[Any]:
        """Declare a controller: decorate `async def reconcile(ctx, obj)`, or pass an object that has that method.

        What is declared is what may be read from the cache, and what RBAC is generated for.

        Args:
            kind: The primary kind, a class or `Unstructured`.
            name: Default: the kind's plural. Unique within the operator.
            owns: Kinds it makes; a change of one wakes the object that controls it.
            watches: Kinds whose changes wake whom their `to` says.
            reads: Kinds that are cached and wake nobody.
            workers: Passes at once; default `ASYNCCTL_WORKERS`.
            when: Which changes of the primary matter; default: all but those of its status alone.
            resync: How often each object is looked at anew; default `ASYNCCTL_RESYNC`.
            timeout: How long a pass may take; default `ASYNCCTL_RECONCILE_TIMEOUT`.

        Raises:
            ValueError: The name is taken, a kind is declared twice or has a controller in this operator already, or a
                number or time is none to work with.
            TypeError: What is decorated is no coroutine function.
        """
        resource = resource_type_of(kind)
        chosen = name or resource.plural
        self._check_free(chosen, resource)
        if workers is not None and workers < 1:
            raise ValueError(f"controller {chosen!r}: workers={workers}, but it takes at least 1 to do anything")
        for what, time in {"timeout": timeout, "resync": resync}.items():
            if time is not None and time <= timedelta():
                raise ValueError(f"controller {chosen!r}: {what}={time} is no time; leave it out for the setting's")
        sources = (
            *(as_watch(each, to_controller_of(resource)) for each in owns),
            *watches,
            *(as_watch(each, None) for each in reads),
        )
        made = frozenset(resource_type_of(each.kind if isinstance(each, Watch) else each) for each in owns)
        kinds = [resource_type_of(watch.kind) for watch in sources]
        twice = {kind for kind in kinds if kinds.count(kind) > 1}
        if twice:
            raise ValueError(f"controller {chosen!r} declares {', '.join(map(str, twice))} twice; one Watch will do")
        if any(watch.labels and resource_type_of(watch.kind) == resource for watch in sources):
            raise ValueError(f"controller {chosen!r} can't narrow its own kind {resource} by labels: it reconciles all")

        def declare(reconcile: Reconcile[Any]) -> Declaration[Any]:
            check_coroutine(reconcile, f"controller {chosen!r}")
            self._check_free(chosen, resource)  # once more: another may have been declared since
            declaration: Declaration[Any] = Declaration(
                name=chosen, kind=kind, reconcile=reconcile, watches=sources, owns=made,
                workers=workers, when=when, resync=resync, timeout=timeout,
            )  # fmt: skip
            self.declarations.append(declaration)
            return declaration

        return _Decorator(declare)

    def _check_free(self, name: str, kind: ResourceType) -> None:
        if any(declared.name == name for declared in self.declarations):
            raise ValueError(f"operator {self.name!r} has a controller {name!r} already; give this one a name=")
        if any(resource_type_of(declared.kind) == kind for declared in self.declarations):
            raise ValueError(
                f"not yet: operator {self.name!r} has a controller of {kind} already, and two would undo each other's "
                "applies and conditions; do both in one reconcile, or in two operators"
            )

    def needs(
        self,
        kind: Kind,
        *verbs: str,
        names: Sequence[str] = (),
        subresource: str = "",
        optional: bool = False,
        when: Callable[[Any], bool] = lambda _: True,
        why: str = "",
    ) -> None:
        """Say what passes and hooks do by `ctx.client`, so that RBAC is generated for it and `asyncctl check` asks.

        What follows from the declarations of controllers is not said again.

        Args:
            kind: What it is done to.
            verbs: What is done: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` …
            names: Only these objects; RBAC can't narrow `create` and `list` so.
            subresource: Such as `scale`.
            optional: The program does its work without it, if less well.
            when: Given the settings: whether it is needed with them.
            why: For whoever reads the rule.

        Raises:
            ValueError: There is no verb.
        """
        if not verbs:
            raise ValueError(f"operator {self.name!r} needs something of {resource_type_of(kind)}: say which verbs")
        self.needed.append(
            Need(resource_type_of(kind), verbs, tuple(names), subresource, optional=optional, when=when, why=why)
        )

    def check(self, name: str) -> Callable[[Check], Check]:
        """Decorate `async def look(checking)`: one more of what `asyncctl check` looks at; see `Checking`.

        Args:
            name: What it is about, such as `mail server`; unique within the operator.

        Raises:
            ValueError: The name is taken.
            TypeError: What is decorated is no coroutine function.
        """

        def declare(check: Check) -> Check:
            if any(name == taken for taken, _ in self.checks):
                raise ValueError(f"operator {self.name!r} has a check {name!r} already")
            check_coroutine(check, f"operator {self.name!r}, check {name!r}")
            self.checks.append((name, check))
            return check

        return declare

    def on_startup(self, hook: Hook) -> Hook:
        """Run `hook` before the caches fill; what it raises ends the start."""
        self.startup.append(hook)
        return hook

    def on_shutdown(self, hook: Hook) -> Hook:
        """Run `hook` after the last pass."""
        self.shutdown.append(hook)
        return hook

    def running(
        self,
        *,
        settings: Settings,
        logger: Logger,
        config: ClusterConfig | None = None,
        clock: Clock | None = None,
    ) -> AbstractAsyncContextManager[Running]:
        """The operator at work, as an async context manager; leaving it drains, gives the Lease back and stops.

        Args:
            settings: What to do; of the operator's settings class.
            logger: Where to say it.
            config: Which cluster; None searches as `runtime` says.
            clock: Time.

        Raises:
            ConfigError: No cluster was found.
            BadCertificateFile: A CA, certificate or key of the configuration can't be used.
            CredentialsError: A startup hook needs a credential, and there is none. So is each other error of a hook.
            ListenError: The side server can't listen on its address.
            LeaseLost: In an exception group: somebody else leads now.
        """
        return Running(
            self.name, self.declarations, settings=settings, logger=logger, clock=clock or SystemClock(),
            startup=self.startup, shutdown=self.shutdown,
        ).live(config)  # fmt: skip

    def run(self) -> None:
        """Run as a program until SIGTERM or SIGINT, and exit with the code that the end deserves."""
        from asyncctl.operator.process import run

        run(self)

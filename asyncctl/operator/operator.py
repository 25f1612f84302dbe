"""What a program declares: its controllers and hooks. Declaring runs nothing and opens nothing; `run` and `running` do.

Operators share nothing: several may run in one process.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import Clock, SystemClock
from asyncctl.controller.declaration import Declaration, Reconcile, Reconciler, check_coroutine, sources_of
from asyncctl.controller.sources import Predicate, Watch
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of
from asyncctl.observe.logs import Logger, make_logger
from asyncctl.operator.checking import Check
from asyncctl.operator.hooks import name_of
from asyncctl.operator.needs import Need
from asyncctl.operator.readiness import RESERVED, ReadyCheck
from asyncctl.operator.running import Hook, Running
from asyncctl.settings import Settings

T = TypeVar("T")
R = TypeVar("R", bound=Resource)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _is_class_of_settings(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Settings)


class _Decorator(Generic[T]):
    """Takes a coroutine function, or an object with a `reconcile` method."""

    def __init__(self, declare: Callable[[Reconcile[Any]], Declaration[Any]]) -> None:
        self._declare = declare

    def __call__(self, reconcile: Reconcile[T] | Reconciler[T]) -> Declaration[T]:
        if isinstance(reconcile, Reconciler) and not isinstance(reconcile, type):
            return self._declare(reconcile.reconcile)
        return self._declare(reconcile)


class Operator:
    """A program of one or more controllers.

    Args:
        name: Lower-case; part of the field manager (`asyncctl-<name>`), of events and of the logs.
        settings: The class of its settings, for a program that has its own.

    Raises:
        ValueError: The name is none.
        TypeError: `settings` is no class of settings.
    """

    def __init__(self, name: str, *, settings: type[Settings] = Settings) -> None:
        if not _NAME.fullmatch(str(name)):
            raise ValueError(f"operator {name!r}: a name of lower-case letters, digits and dashes is needed")
        if not _is_class_of_settings(settings):
            raise TypeError(f"operator {name!r}: settings= takes a class of settings; give their values to running()")
        self.name = name
        self.settings = settings
        self.declarations: list[Declaration[Any]] = []
        self.startup: list[Hook] = []
        self.shutdown: list[Hook] = []
        self.backgrounds: dict[str, Hook] = {}
        self.ready_checks: dict[str, ReadyCheck] = {}
        self.needed: list[Need] = []
        self.checks: list[tuple[str, Check]] = []

    @overload
    def controller(
        self, kind: type[R] | Watch[R], *, name: str | None = ..., owns: Sequence[Kind | Watch[Any]] = ...,
        watches: Sequence[Watch[Any]] = ..., reads: Sequence[Kind | Watch[Any]] = ..., workers: int | None = ...,
        when: Predicate | None = ..., resync: timedelta | None = ..., timeout: timedelta | None = ...,
        interval: timedelta | None = ..., rate: float | None = ...,
    ) -> _Decorator[R]: ...  # fmt: skip
    @overload
    def controller(
        self, kind: Unstructured | Watch[JsonObject], *, name: str | None = ...,
        owns: Sequence[Kind | Watch[Any]] = ..., watches: Sequence[Watch[Any]] = ...,
        reads: Sequence[Kind | Watch[Any]] = ..., workers: int | None = ..., when: Predicate | None = ...,
        resync: timedelta | None = ..., timeout: timedelta | None = ..., interval: timedelta | None = ...,
        rate: float | None = ...,
    ) -> _Decorator[JsonObject]: ...  # fmt: skip
    def controller(
        self,
        kind: Kind | Watch[Any],
        *,
        name: str | None = None,
        owns: Sequence[Kind | Watch[Any]] = (),
        watches: Sequence[Watch[Any]] = (),
        reads: Sequence[Kind | Watch[Any]] = (),
        workers: int | None = None,
        when: Predicate | None = None,
        resync: timedelta | None = None,
        timeout: timedelta | None = None,
        interval: timedelta | None = None,
        rate: float | None = None,
    ) -> _Decorator[Any]:
        """Declare a controller: decorate `async def reconcile(ctx, obj)`, or pass an object that has that method.

        What is declared is what may be read from the cache, and what RBAC is generated for.

        Args:
            kind: The primary kind, a class or `Unstructured`; as a `Watch`, those of it that are meant.
            name: Default: the kind's plural. Unique within the operator.
            owns: Kinds it makes; a change of one wakes the object that controls it.
            watches: Kinds whose changes wake whom their `to` says.
            reads: Kinds that are cached and wake nobody.
            workers: Passes at once; default `ASYNCCTL_WORKERS`.
            when: Which changes of the primary matter; default: all but those of its status alone.
            resync: How often each object is looked at anew; default `ASYNCCTL_RESYNC`.
            timeout: How long a pass may take; default `ASYNCCTL_RECONCILE_TIMEOUT`.
            interval: At least so long between the starts of two passes over one object; default: no limit.
            rate: Passes that may begin in a second, over all objects; default: no limit.

        Raises:
            ValueError: The name is taken, a kind is declared twice or has a controller in this operator already, a
                number or time is none to work with, or the sources don't go together.
            TypeError: What is decorated is no coroutine function of (ctx, object), or an option is of the wrong type.
        """
        primary = kind.kind if isinstance(kind, Watch) else kind
        resource = resource_type_of(primary)
        chosen = name or resource.plural
        self._check_free(chosen, resource)
        for what, number, types in (("workers", workers, int), ("rate", rate, int | float)):
            if number is not None and not isinstance(number, types):
                raise TypeError(f"controller {chosen!r}: {what}={number!r} is no number to work with")
        if workers is not None and workers < 1:
            raise ValueError(f"controller {chosen!r}: workers={workers}, but it takes at least 1 to do anything")
        if rate is not None and not 0 < rate < float("inf"):
            raise ValueError(f"controller {chosen!r}: rate={rate} passes a second is no limit; leave it out for none")
        for what, time in {"timeout": timeout, "resync": resync, "interval": interval}.items():
            if time is not None and not isinstance(time, timedelta):
                raise TypeError(f"controller {chosen!r}: {what}={time!r} is no timedelta; write timedelta(seconds=…)")
            if time is not None and time <= timedelta():
                raise ValueError(f"controller {chosen!r}: {what}={time} is no time; leave it out for the default")
        sources = sources_of(chosen, kind, owns=owns, watches=watches, reads=reads, when=when)

        def declare(reconcile: Reconcile[Any]) -> Declaration[Any]:
            if not callable(reconcile):
                raise TypeError(
                    f"controller {chosen!r}: {type(reconcile).__name__} has no coroutine method `reconcile`"
                )
            check_coroutine(reconcile, f"controller {chosen!r}", "ctx", "object")
            self._check_free(chosen, resource)  # once more: another may have been declared since
            declaration: Declaration[Any] = Declaration(
                name=chosen, primary=sources.primary, reconcile=reconcile, watches=sources.watches, owns=sources.owns,
                workers=workers, resync=resync, timeout=timeout, interval=interval, rate=rate,
            )  # fmt: skip
            self.declarations.append(declaration)
            return declaration

        return _Decorator(declare)

    def declared(self, settings: Settings) -> list[Declaration[Any]]:
        """The controllers, each with those of its watches that are wanted with `settings`."""
        return [each.under(settings) for each in self.declarations]

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
            TypeError: A verb is no text.
        """
        for verb in verbs:
            if not isinstance(verb, str):
                raise TypeError(f"operator {self.name!r}: {verb!r} is no verb; write needs(Kind, 'get', 'create')")
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
            TypeError: There is no name, or what is decorated is no coroutine function.
        """
        if not isinstance(name, str):
            raise TypeError(f"operator {self.name!r}: a check has a name: write @operator.check('mail server')")

        def declare(check: Check) -> Check:
            if any(name == taken for taken, _ in self.checks):
                raise ValueError(f"operator {self.name!r} has a check {name!r} already")
            check_coroutine(check, f"operator {self.name!r}, check {name!r}", "checking")
            self.checks.append((name, check))
            return check

        return declare

    def on_startup(self, hook: Hook) -> Hook:
        """Decorate `async def start(running)`: it runs before the caches fill, in every replica, and may only read.

        What it writes by `running.client` is `Fenced`, unless there is no Lease; see `background` for that.
        In the order of declaration, each awaited. What one raises ends the start. There is no deadline: the program
        lives and is not ready meanwhile.

        Raises:
            TypeError: It is no coroutine function.
        """
        check_coroutine(hook, f"operator {self.name!r}, on_startup", "running")
        self.startup.append(hook)
        return hook

    def on_shutdown(self, hook: Hook) -> Hook:
        """Decorate `async def stop(running)`: it runs after the last pass and the last background task.

        In the reverse order of declaration, each within 5 seconds; what one raises is logged. Also where the start has
        ended half way, so that what one startup hook has opened is closed when the next one fails. The Lease is given
        back after it.

        Raises:
            TypeError: It is no coroutine function.
        """
        check_coroutine(hook, f"operator {self.name!r}, on_shutdown", "running")
        self.shutdown.append(hook)
        return hook

    def background(self, task: Hook) -> Hook:
        """Decorate `async def task(running)`: it runs beside the passes, and only while this process leads.

        Begun once the Lease is held; cancelled, and awaited for 5 seconds, before it is given back. What it raises is
        logged, counted (`asyncctl_background_failures_total`) and followed by a new start, after 1 s, doubling to a
        minute. One that returns has ended.

        Raises:
            ValueError: There is a background task of that name already.
            TypeError: It is no coroutine function.
        """
        check_coroutine(task, f"operator {self.name!r}, background", "running")
        name = name_of(task)
        if name in self.backgrounds:
            raise ValueError(f"operator {self.name!r} has a background task {name!r} already; give it another name")
        self.backgrounds[name] = task
        return task

    def ready_check(self, name: str, check: ReadyCheck) -> None:
        """Have `/readyz` fail while `check` returns a reason, and show it there by name.

        Args:
            name: What it is about, such as `mail-server`.
            check: Returns None when all is well, else the reason in one line. A plain function is asked for each
                probe, and must not wait. A coroutine function is asked every 5 seconds, and may take as long; `/readyz`
                tells what it said last.

        Raises:
            ValueError: The name is taken, or the runtime's.
            TypeError: It is no function.
        """
        if not callable(check):
            raise TypeError(f"operator {self.name!r}, ready check {name!r}: {check!r} is no function")
        if not name.strip() or name in RESERVED or name.startswith("cache-"):
            raise ValueError(f"operator {self.name!r}: a ready check can't be called {name!r}; choose another name")
        if name in self.ready_checks:
            raise ValueError(f"operator {self.name!r} has a ready check {name!r} already")
        self.ready_checks[name] = check

    def running(
        self,
        *,
        settings: Settings | None = None,
        logger: Logger | None = None,
        client: Client | None = None,
        config: ClusterConfig | None = None,
        clock: Clock | None = None,
    ) -> AbstractAsyncContextManager[Running]:
        """The operator at work, as an async context manager; leaving it drains, gives the Lease back and stops.

        Args:
            settings: What to do; of the operator's settings class. Default: the environment's.
            logger: Where to say it. Default: stderr, as the settings say.
            client: Works in the cluster of this client, as the same user. Its own requests have their own connections,
                limits, and fence.
            config: Which cluster; without it and `client`, one is searched for as `runtime` says.
            clock: Time.

        Raises:
            SettingsError: The environment's settings can't be used.
            ConfigError: No cluster was found.
            BadCertificateFile: A CA, certificate or key of the configuration can't be used.
            CredentialsError: A startup hook needs a credential, and there is none. So is each other error of a hook.
            ListenError: The side server can't listen on its address.
            Fenced: A startup hook wants to write, before the Lease is held.
            LeaseLost: In an exception group: somebody else leads now.
            ValueError: Both `client` and `config` are given.
            TypeError: The settings are not of the operator's class.
        """
        if client is not None and config is not None:
            raise ValueError(f"operator {self.name!r}: client= and config= both say which cluster; give one")
        if settings is None:
            settings = self.settings.from_environment(os.environ)
        if not isinstance(settings, self.settings):
            raise TypeError(
                f"operator {self.name!r} wants its settings as {self.settings.__name__}, and was given a "
                f"{type(settings).__name__}"
            )
        clock = clock or SystemClock()
        running = Running(
            self.name, self.declared(settings), settings=settings, clock=clock,
            logger=logger or make_logger(settings.log_level, settings.log_format, sys.stderr, clock),
            startup=self.startup, shutdown=self.shutdown, backgrounds=self.backgrounds, ready_checks=self.ready_checks,
        )  # fmt: skip
        return running.live(client.config if client is not None else config)

    def run(self) -> None:
        """Run as a program until SIGTERM or SIGINT, and exit with the code that the end deserves.

        Called with `--help` alone, the program prints its settings and what is in force.
        """
        from asyncctl.operator.process import run

        run(self)

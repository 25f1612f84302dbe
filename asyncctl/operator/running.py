"""The supervised life of an operator: what starts in which order, who owns which task, what stops in which order.

Start: side server (live, not ready), credentials, transport, hooks, caches, ready, Lease, background tasks and workers.
Stop: not ready, workers drain, background tasks, hooks, what is left to say is said, Lease released, caches, transport,
side server last. No task outlives `live`.
"""

import asyncio
import os
import random as system_random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar, overload

import anyio
from anyio.abc import TaskGroup

from asyncctl.cache.informer import Informer
from asyncctl.cache.informers import Informers
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig, find_config
from asyncctl.client.errors import Fenced
from asyncctl.client.transport.transport import Fence as WriteFence, Transport
from asyncctl.clock import Clock
from asyncctl.controller.controller import Controller
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.events import EventRecorder
from asyncctl.controller.sources import Watch, as_watch, kind_of
from asyncctl.ha.elector import HEARTBEAT, Elector
from asyncctl.http import Probes
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.operator.background import Backgrounds
from asyncctl.operator.cached import Cached, announce, use
from asyncctl.operator.debug import Debug
from asyncctl.operator.parts import Parts
from asyncctl.operator.readiness import Ready, ReadyCheck, cancellations
from asyncctl.operator.side import serving
from asyncctl.operator.stuck import Stuck
from asyncctl.operator.watchdog import Watchdog
from asyncctl.settings import Settings

R = TypeVar("R", bound=Resource)
Hook = Callable[["Running"], Awaitable[None]]
_EVENTS = 0.5  # seconds for events that still wait: the next leader waits for the Lease meanwhile
_LAST_WORDS = 5.0  # seconds for each shutdown hook, and for the Lease


class LeaseLost(Exception):
    """The Lease is held by somebody else, or could not be renewed: this process must end."""


class Running:
    """An operator at work; made by `Operator.running`.

    Attributes:
        settings: What it was told.
        logger: Its log.
        metrics: Its metrics, on a registry of its own; a program may register more there.
        clock: Its time.
        client: The live client; there from the startup hooks on.
        fence: Seconds for which this process may still write; raises `Fenced`. For effects outside of the cluster.
        port: The port of the side server.
        probes: What `/livez` and `/readyz` ask; a program may add its own.
        ready: Set when every cache has had its first list.
    """

    client: Client
    probes: Probes
    fence: WriteFence
    port: int

    def __init__(
        self,
        name: str,
        declarations: Sequence[Declaration[Any]],
        *,
        settings: Settings,
        logger: Logger,
        clock: Clock,
        startup: Sequence[Hook] = (),
        shutdown: Sequence[Hook] = (),
        backgrounds: Mapping[str, Hook] = MappingProxyType({}),
        ready_checks: Mapping[str, ReadyCheck] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.settings = settings
        self.logger = logger
        self.clock = clock
        self.metrics = Metrics(clock=clock)
        self.ready = anyio.Event()
        self._declarations = declarations
        self._startup = startup
        self._shutdown: Sequence[Hook] | None = shutdown  # None when they have run
        self._starting: str | None = "the program is starting"
        self._random = system_random.Random().random  # for jitter: seeded by the system, and no call into it each time
        self._parts = Parts(name, settings, clock=clock, random=self._random, logger=logger, metrics=self.metrics)
        self._backgrounds = Backgrounds(
            backgrounds, self, clock=clock, random=self._random, logger=logger, metrics=self.metrics
        )
        self._checks = {name: Ready(check, clock=clock) for name, check in ready_checks.items()}
        self._informers: Informers | None = None
        self._serving = False
        self._controllers: list[Controller] = []
        self._stuck = Stuck(self._controllers, logger)
        self._elector: Elector | None = None
        self._debug = Debug(settings, self._controllers, lambda: self._informers)
        self._workers = anyio.CancelScope()
        self._idle = anyio.Event()
        self._stopping = False

    @property
    def ended(self) -> bool:
        """Whether every pass and background task has ended; one that swallows its cancellation can't be made to."""
        passes = [task for controller in self._controllers for task in controller.left if not task.done()]
        return not passes and not self._backgrounds.left

    @property
    def leading(self) -> bool:
        """Whether this process may work now."""
        return self._elector is None or self._elector.leading

    def _why_not_leading(self) -> str | None:
        problem = self._elector.problem if self._elector is not None else None
        if self.leading:
            return problem
        return f"not leading: {problem}" if problem else "not leading"

    @asynccontextmanager
    async def live(self, config: ClusterConfig | None = None) -> AsyncIterator["Running"]:
        """Run while inside; see the module's first lines for the order. Raises `LeaseLost` into the body."""
        probes = self.probes = Probes()
        probes.live("workers", self._stuck.problem)
        probes.ready("shutdown", lambda: "the process is stopping" if self._stopping else None)
        probes.ready("startup", lambda: self._starting)
        for name, check in self._checks.items():
            probes.ready(name, check)
        probes.inform("leader", self._why_not_leading)
        async with serving(
            self.settings, probes, self.metrics, self._debug.looks(), clock=self.clock, logger=self.logger
        ) as side:
            self.port = side.port
            config = config or await find_config(
                os.environ, kubeconfig=self.settings.kubeconfig, context=self.settings.context
            )
            self.logger.info("the cluster", **config.describe())
            for warning in config.warnings:
                self.logger.warning(warning)
            self._elector, self.fence = self._parts.elector(config)
            self._debug.campaign(self._parts.lease(config), self._elector, self.fence)
            async with self._parts.transport(config, self.fence) as transport:
                side.connect(transport)
                self.client = Client(
                    transport,
                    field_manager=f"asyncctl-{self.name}",
                    namespaces=self.settings.namespaces,
                    cluster_kinds=frozenset(self._cluster_kinds()),
                    lease=self._parts.lease(config),
                    clock=self.clock,
                    random=self._random,
                )
                try:
                    await self._run_startup_hooks()
                    async with self._tasks(transport, probes):
                        yield self
                finally:  # of a start that went half way; else it is done
                    with anyio.CancelScope(shield=True):
                        await self._run_shutdown_hooks()

    def set_namespaces(self, namespaces: Collection[str]) -> None:
        """From now on touch these namespaces only: the client's boundary and all caches follow.

        Caches whose `Watch` names its own namespaces keep those. What was cached of a namespace that goes is gone, and
        its keys leave the queues; a pass that is at work in it ends as its next request fails. One that comes is listed
        first, and the others are as current as before.

        Raises:
            ValueError: There is none: empty would mean all of them.
            RuntimeError: The caches are not there yet, or no longer.
        """
        wanted = tuple(dict.fromkeys(namespaces))
        if isinstance(namespaces, str) or not wanted:
            raise ValueError(f"{namespaces!r} is no list of namespaces; give at least one, none would stand for all")
        informers = self._caches()
        self.client.set_namespaces(wanted)
        informers.set_namespaces(wanted)
        self.logger.info("namespaces", namespaces=list(wanted))

    @overload
    def informer(self, watch: type[R] | Watch[R]) -> AbstractAsyncContextManager[Cached[R]]: ...
    @overload
    def informer(self, watch: Unstructured | Watch[JsonObject]) -> AbstractAsyncContextManager[Cached[JsonObject]]: ...
    @asynccontextmanager
    async def informer(self, watch: Kind | Watch[Any]) -> AsyncIterator[Cached[Any]]:
        """A cache while inside, for a background task or the application: filled, and then kept up::

            async with running.informer(Watch(Node, labels="zone=a")) as nodes:
                names = [node.name for node in nodes.list()]

        It is the one that controllers use, where they declare the same. RBAC for it is said by `operator.needs`.

        Raises:
            ValueError: It says whom to wake: only what a controller declares wakes somebody.
            RuntimeError: The caches are not there yet, or no longer.
        """
        wanted, informers = as_watch(watch, None), self._caches()
        if wanted.to is not None or wanted.when is not None:
            raise ValueError(f"an informer of {kind_of(wanted)} wakes nobody: leave out to= and when=; see `wake`")
        async with use(informers, wanted) as informer:
            await informer.wait_synced()
            yield Cached(wanted.kind, informer, self.client)

    def wake(self, kind: Kind, name: str, *, namespace: str = "") -> None:
        """Have an object reconciled as if it had changed: for what is heard from outside of the cluster.

        Raises:
            LookupError: This operator has no controller of that kind.
            ValueError: It is in a namespace, and which is not said.
        """
        resource = resource_type_of(kind)
        if resource.namespaced and not namespace:
            raise ValueError(f"{resource} {name!r} is namespaced: say in which namespace")
        for controller in self._controllers:
            if resource_type_of(controller.declaration.kind) == resource:
                controller.queue.add((namespace if resource.namespaced else "", name))
                return
        raise LookupError(f"operator {self.name!r} has no controller of {resource} to wake")

    def _caches(self) -> Informers:
        if self._informers is None or not self._serving:
            raise RuntimeError(f"operator {self.name!r} has its caches only after its startup hooks, and until it ends")
        return self._informers

    @asynccontextmanager
    async def _tasks(self, transport: Transport, probes: Probes) -> AsyncIterator[None]:
        events = EventRecorder(
            self.client, controller=f"asyncctl-{self.name}", instance=self.settings.pod_name,
            clock=self.clock, random=self._random, logger=self.logger,
        )  # fmt: skip
        informers = Informers(
            self.client, clock=self.clock, random=self._random, logger=self.logger, metrics=self.metrics,
            namespaces=self.client.namespaces, manager=self.client.field_manager,
        )  # fmt: skip
        failed: Exception | None = None
        async with informers, AsyncExitStack() as users:
            self._informers, self._serving = informers, True
            for declaration in self._declarations:
                used = await self._use(declaration, users, probes)
                self._controllers.append(self._parts.controller(
                    declaration, used, client=self.client, events=events, fence=self.fence
                ))  # fmt: skip
            self._starting = None
            async with anyio.create_task_group() as tasks:
                self._start(tasks, transport, events)
                try:
                    yield
                except Exception as error:  # noqa: BLE001 - raised below
                    failed = error
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._stop(events)
                    self._serving = False
                    tasks.cancel_scope.cancel()
        if failed is not None:  # the body's own, as it is: only what our tasks raise comes in a group
            raise failed

    def _start(self, tasks: TaskGroup, transport: Transport, events: EventRecorder) -> None:
        tasks.start_soon(self._heartbeat, name="heartbeat")
        tasks.start_soon(self.metrics.watch_loop, name="event-loop lag")
        watchdog = Watchdog(self._controllers, logger=self.logger, clock=self.clock)
        tasks.start_soon(watchdog.run, name="watchdog")
        tasks.start_soon(events.run, name="events")
        for name, check in self._checks.items():
            tasks.start_soon(check.run, name=f"ready check {name}")
        tasks.start_soon(self._announce_ready, name="readiness")
        if self._elector is not None:
            self._elector.start()
            tasks.start_soon(self._watch_lease, self._elector, transport, name="lease")
        tasks.start_soon(self._work, name="workers")

    async def _stop(self, events: EventRecorder) -> None:
        began = self.clock.monotonic()
        self._stopping = True
        lost = self._elector is not None and self._elector.lost is not None
        if lost:  # at once: somebody else works by now
            self._cancel_workers()
            self._backgrounds.cancel()
        with anyio.move_on_after(0 if lost else self.settings.drain_timeout) as drain:
            async with anyio.create_task_group() as drains:
                for controller in self._controllers:
                    drains.start_soon(controller.queue.drain, name=f"drain {controller.declaration.name}")
        if drain.cancelled_caught and not lost:
            self.logger.warning("passes were still running after ASYNCCTL_DRAIN_TIMEOUT, and are cancelled")
        self._cancel_workers()
        await self._idle.wait()
        await self._backgrounds.stop()
        await self._run_shutdown_hooks()
        if not lost:
            with anyio.move_on_after(_EVENTS):
                await events.flush()
        if self._elector is not None:
            with anyio.move_on_after(_LAST_WORDS):
                await self._elector.release()
        self.logger.info("stopped", seconds=round(self.clock.monotonic() - began, 3))

    async def _run_startup_hooks(self) -> None:
        for hook in self._startup:
            self._starting = f"the startup hook {name_of(hook)} is running"
            try:
                await hook(self)
            except Fenced as error:
                raise Fenced(
                    f"the startup hook {name_of(hook)} wants to write: it runs in every replica, before the Lease is "
                    "held, and may only read. Write in a background task, which runs while this process leads"
                ) from error
            except asyncio.CancelledError as error:
                if cancellations():
                    raise
                raise RuntimeError(f"the startup hook {name_of(hook)} has awaited what was cancelled") from error

    async def _run_shutdown_hooks(self) -> None:
        """Once; the last that was declared first, as what was opened is closed."""
        hooks, self._shutdown = self._shutdown or (), None
        for hook in reversed(hooks):
            before = cancellations()
            try:
                with anyio.fail_after(_LAST_WORDS):
                    await hook(self)
            except asyncio.CancelledError:  # as a hook raises it that awaits a task which it has cancelled
                if cancellations() > before:
                    raise
                self.logger.exception("a shutdown hook has failed", hook=name_of(hook))
            except Exception:
                self.logger.exception("a shutdown hook has failed", hook=name_of(hook))

    def _cluster_kinds(self) -> Iterator[ResourceType]:
        """What was declared and is in no namespace: no namespace's boundary holds it."""
        for declaration in self._declarations:
            for kind in (declaration.kind, *(watch.kind for watch in declaration.watches)):
                if not resource_type_of(kind).namespaced:
                    yield resource_type_of(kind)

    def _cancel_workers(self) -> None:
        for controller in self._controllers:
            controller.queue.close()
        self._workers.cancel()

    async def _use(
        self, declaration: Declaration[Any], users: AsyncExitStack, probes: Probes
    ) -> dict[ResourceType, Informer]:
        """The caches of a controller; one that several share asks in the name of the first of them."""
        used: dict[ResourceType, Informer] = {}
        for watch in (declaration.primary, *declaration.watches):
            kind = kind_of(watch)
            if kind not in used:  # a watch of the primary kind beside it listens to the same cache
                used[kind] = await users.enter_async_context(use(self._caches(), watch, declaration.name))
                announce(probes, watch, used[kind])
        return used

    async def _announce_ready(self) -> None:
        began = self.clock.monotonic()
        for controller in self._controllers:
            for informer in controller.informers:
                await informer.wait_synced()
        self.ready.set()
        self.logger.info("ready", seconds=round(self.clock.monotonic() - began, 3))

    async def _work(self) -> None:
        try:
            with self._workers:
                if self._elector is not None:
                    await self._elector.elected.wait()
                self._backgrounds.start()
                async with anyio.create_task_group() as controllers:
                    for controller in self._controllers:
                        controllers.start_soon(self._control, controller, name=controller.declaration.name)
        finally:
            self._idle.set()

    async def _control(self, controller: Controller) -> None:
        """A controller begins when its own caches are filled, whatever the others wait for."""
        for informer in controller.informers:
            await informer.wait_synced()
        self.logger.info("working", controller=controller.declaration.name, workers=controller.workers)
        await controller.work()

    async def _watch_lease(self, elector: Elector, transport: Transport) -> None:
        await elector.over.wait()
        if elector.lost is not None:
            transport.seal(elector.lost)
            raise LeaseLost(elector.lost)

    async def _heartbeat(self) -> None:
        """Tell the elector that the loop lives and no worker is stuck."""
        while True:
            await self.clock.sleep(HEARTBEAT)
            stuck = self._stuck.problem()  # without an elector, too: it is logged
            if self._elector is not None and stuck is None:
                self._elector.heartbeat()


def name_of(function: Callable[..., object]) -> str:
    """What to call an author's function in the log."""
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.rpartition("<locals>.")[2]

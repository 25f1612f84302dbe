"""The supervised life of an operator: what starts in which order, who owns which task, what stops in which order.

Start: side server (live, not ready), credentials, transport, hooks, caches, Lease (when a controller's are
filled; ready, when all are), caches caught up, workers and background tasks. Stop: as `stopping` has it, then caches,
transport, side server last. Lost Lease: transport sealed, workers cancelled, and then as every stop. No task outlives
`live`.
"""

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
from asyncctl.client.transport.transport import Transport
from asyncctl.clock import Clock
from asyncctl.controller.controller import Controller
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.environment import Fence
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
from asyncctl.operator.hooks import Hooks
from asyncctl.operator.parts import Parts
from asyncctl.operator.readiness import Ready, ReadyCheck
from asyncctl.operator.server_fence import ServerFence
from asyncctl.operator.side import Side, serving
from asyncctl.operator.steps import Steps
from asyncctl.operator.stopping import Stopping, longest
from asyncctl.operator.stuck import Stuck
from asyncctl.operator.takeover import Takeover
from asyncctl.operator.watchdog import Watchdog
from asyncctl.settings import Settings

R = TypeVar("R", bound=Resource)
Hook = Callable[["Running"], Awaitable[None]]


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
        fence: Says whether this process may act now: `fence.check()` before each effect outside of the cluster.
        port: The port of the side server.
        probes: What `/livez` and `/readyz` ask; a program may add its own.
        ready: Set when every cache has had its first list.
        stopping: Set when it has begun to stop.
    """

    client: Client
    probes: Probes
    fence: Fence
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
        self._hooks: Hooks[Running] = Hooks(startup, shutdown, self, logger=logger)
        self._steps = Steps(clock=clock, logger=logger)
        self._takeover = Takeover(clock=clock, logger=logger)
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
        self._server_fence: ServerFence | None = None
        self._transport: Transport | None = None
        self._debug = Debug(settings, self._controllers, lambda: self._informers)
        self._workers = anyio.CancelScope()
        self._idle = anyio.Event()
        self.stopping = anyio.Event()

    @property
    def left(self) -> list[str]:
        """What has not ended though it was cancelled: passes by controller and object, and background tasks."""
        passes = [
            f"pass of {controller.declaration.name} over {'/'.join(filter(None, controller.at_work(task) or ()))}"
            for controller in self._controllers
            for task in controller.left
            if not task.done()
        ]
        return sorted(passes) + sorted(task.get_name() for task in self._backgrounds.left)

    @property
    def leading(self) -> bool:
        """Whether this process may work now."""
        return self._elector is None or self._elector.leading

    @property
    def longest_stop(self) -> float:
        """Seconds that its stop takes at most."""
        return longest(self.settings.drain_timeout, self._hooks.patience)

    def _why_it_can_never_lead(self) -> str | None:
        blocked = self._elector.blocked if self._elector is not None else None
        return blocked or (self._server_fence.refuses if self._server_fence is not None else None)

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
        probes.ready("shutdown", lambda: "the process is stopping" if self.stopping.is_set() else None)
        probes.ready("startup", lambda: self._hooks.now or self._starting)
        probes.ready("leader-election", self._why_it_can_never_lead)
        for name, check in self._checks.items():
            probes.ready(name, check)
        probes.inform("leader", self._why_not_leading)
        probes.inform("caught-up", lambda: self._takeover.problem)
        side = serving(self.settings, probes, self.metrics, self._debug.looks(), clock=self.clock, logger=self.logger)
        try:
            async with self._steps.leaving("side server", side) as servers:
                self.port = servers.port
                config = config or await find_config(
                    os.environ, kubeconfig=self.settings.kubeconfig, context=self.settings.context
                )
                self.logger.info("the cluster", **config.describe())
                for warning in config.warnings:
                    self.logger.warning(warning)
                async with self._connected(config, servers):
                    try:
                        await self._hooks.start()
                        async with self._tasks(probes):
                            yield self
                    finally:  # of a start that went half way; else it is done
                        with anyio.CancelScope(shield=True):
                            await self._hooks.stop()
        finally:
            self._steps.end()

    @asynccontextmanager
    async def _connected(self, config: ClusterConfig, side: Side) -> AsyncIterator[None]:
        """What it has of the cluster while inside: the Lease's campaign, yet to begin, the transport and the client."""
        self._elector, fence = self._parts.elector(config, self._led)
        self.fence = fence
        self._debug.campaign(self._parts.lease(config), self._elector, fence)
        async with self._steps.leaving("transport", self._parts.transport(config, fence)) as transport:
            self._transport = transport
            side.connect(transport)
            self._server_fence = server_fence = self._parts.server_fence(config, transport)
            self.probes.inform("fence-at-the-server", lambda: server_fence.problem)
            self.client = Client(
                transport,
                field_manager=f"asyncctl-{self.name}",
                namespaces=self.settings.namespaces,
                cluster_kinds=frozenset(self._cluster_kinds()),
                lease=self._parts.lease(config),
                clock=self.clock,
                random=self._random,
            )
            yield

    def _led(self, leads: bool) -> None:  # noqa: FBT001 - as the elector calls it
        """Called by the elector. Where the Lease is lost, nothing of this loop comes before this."""
        lost = self._elector.lost if self._elector is not None and not leads else None
        if lost is not None and self._transport is not None:
            self._transport.seal(lost)
            self._cancel_workers()
            self._backgrounds.cancel()

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
            await self._takeover.wait([informer])
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
    async def _tasks(self, probes: Probes) -> AsyncIterator[None]:
        events = EventRecorder(
            self.client, controller=f"asyncctl-{self.name}", instance=self.settings.pod_name,
            clock=self.clock, random=self._random, logger=self.logger, dropped=self.metrics.events_dropped,
        )  # fmt: skip
        informers = Informers(
            self.client, clock=self.clock, random=self._random, logger=self.logger, metrics=self.metrics,
            namespaces=self.client.namespaces, manager=self.client.field_manager,
        )  # fmt: skip
        stopping = Stopping(
            self._steps, controllers=self._controllers, cancel=self._cancel_workers, idle=self._idle,
            backgrounds=self._backgrounds, hooks=self._hooks, events=events, elector=self._elector,
            doubt=lambda: self._parts.doubt(self._transport), drain=self.settings.drain_timeout,
        )  # fmt: skip
        failed: Exception | None = None
        async with self._steps.leaving("caches", AsyncExitStack()) as users:
            self._informers, self._serving = await users.enter_async_context(informers), True
            for declaration in self._declarations:
                used = await self._use(declaration, users, probes)
                self._controllers.append(self._parts.controller(
                    declaration, used, client=self.client, events=events, fence=self.fence
                ))  # fmt: skip
            self._starting = None
            async with anyio.create_task_group() as tasks:
                self._start(tasks, events)
                try:
                    yield
                except Exception as error:  # noqa: BLE001 - raised below
                    failed = error
                finally:
                    self.stopping.set()
                    self._steps.begin()
                    try:
                        with anyio.CancelScope(shield=True):
                            await stopping.run()
                    finally:
                        self._serving = False
                        tasks.cancel_scope.cancel()
        if failed is not None:  # the body's own, as it is: only what our tasks raise comes in a group
            raise failed

    def _start(self, tasks: TaskGroup, events: EventRecorder) -> None:
        tasks.start_soon(self._heartbeat, name="heartbeat")
        tasks.start_soon(self.metrics.watch_loop, name="event-loop lag")
        watchdog = Watchdog(self._controllers, logger=self.logger, clock=self.clock)
        tasks.start_soon(watchdog.run, name="watchdog")
        tasks.start_soon(events.run, name="events")
        for name, check in self._checks.items():
            tasks.start_soon(check.run, name=f"ready check {name}")
        tasks.start_soon(self._announce_ready, name="readiness")
        if self._elector is not None:
            if self._server_fence is not None:
                tasks.start_soon(self._server_fence.run, name="fence at the API server")
            tasks.start_soon(self._campaign, self._elector, name="lease")
        tasks.start_soon(self._work, name="workers")

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
                async with anyio.create_task_group() as tasks:
                    # Without a Lease there is no barrier: who was at work before has ended before the first list here
                    # was asked for, which therefore has all that it has written.
                    if self._elector is not None:
                        await self._elector.elected.wait()
                        await tasks.start(self._takeover.run, tuple(self._caches()), name="catch up")
                    for controller in self._controllers:
                        tasks.start_soon(self._control, controller, name=controller.declaration.name)
                    if self._elector is not None:
                        await self._takeover.caught_up.wait()
                    self._backgrounds.start()
        finally:
            self._idle.set()

    async def _control(self, controller: Controller) -> None:
        """A controller begins when its own caches are filled and caught up, whatever the others wait for."""
        for informer in controller.informers:
            await informer.wait_synced()
        await self._takeover.wait(controller.informers)
        self.logger.info("working", controller=controller.declaration.name, workers=controller.workers)
        await controller.work()

    async def _campaign(self, elector: Elector) -> None:
        """Ask for the Lease once a controller's caches are filled: who can do nothing leaves it to who can."""
        able = anyio.Event()
        async with anyio.create_task_group() as waits:
            for controller in self._controllers:
                waits.start_soon(_when_filled, controller, able, name=f"caches of {controller.declaration.name}")
            if self._controllers:
                await able.wait()
            waits.cancel_scope.cancel()
        elector.start()
        await elector.over.wait()
        if elector.lost is not None:
            self._led(False)
            raise LeaseLost(elector.lost)

    async def _heartbeat(self) -> None:
        """Tell the elector that the loop lives and no worker is stuck."""
        while True:
            await self.clock.sleep(HEARTBEAT)
            stuck = self._stuck.problem()  # without an elector, too: it is logged
            if self._elector is not None and stuck is None:
                self._elector.heartbeat()


async def _when_filled(controller: Controller, then: anyio.Event) -> None:
    for informer in controller.informers:
        await informer.wait_synced()
    then.set()

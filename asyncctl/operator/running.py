"""The supervised life of an operator: what starts in which order, who owns which task, what stops in which order.

Start: side server (live, not ready), credentials, transport, hooks, caches, ready, Lease, background tasks and workers.
Stop: not ready, workers drain, background tasks, hooks, what is left to say is said, Lease released, caches, transport,
side server last. No task outlives `live`.
"""

import os
import random as system_random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anyio

from asyncctl.cache.header import Key
from asyncctl.cache.informer import Informer
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig, find_config
from asyncctl.client.transport.transport import Fence as WriteFence, Transport
from asyncctl.clock import Clock
from asyncctl.controller.controller import Controller
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.environment import Environment
from asyncctl.controller.events import EventRecorder
from asyncctl.controller.sources import Watch, kind_of
from asyncctl.ha.elector import HEARTBEAT, Elector, LeaseSettings
from asyncctl.ha.fence import Fence
from asyncctl.http import Probes, SideServer
from asyncctl.objects.resource import ResourceType, resource_type_of
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.operator.background import Backgrounds
from asyncctl.operator.readiness import Ready, ReadyCheck
from asyncctl.operator.stuck import Stuck
from asyncctl.operator.watchdog import Watchdog
from asyncctl.queue.backoff import Backoff
from asyncctl.queue.work_queue import WorkQueue
from asyncctl.settings import Settings

Hook = Callable[["Running"], Awaitable[None]]
_EVENTS = 0.5  # seconds for events that still wait: the next leader waits for the Lease meanwhile
_LAST_WORDS = 5.0  # seconds for each shutdown hook, and for the Lease
OUTSIDE_A_POD = "controllers"


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
        self._backgrounds = Backgrounds(
            backgrounds, self, clock=clock, random=self._random, logger=logger, metrics=self.metrics
        )
        self._checks = {name: Ready(check, clock=clock) for name, check in ready_checks.items()}
        self._informers: dict[tuple[ResourceType, str | None], Informer] = {}
        self._controllers: list[Controller] = []
        self._stuck = Stuck(self._controllers, logger)
        self._elector: Elector | None = None
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
        async with SideServer(self.settings.http_address, probes, self.metrics) as server:
            self.port = server.port
            self.logger.info("the side server is up", address=f"{self.settings.http_address.host}:{server.port}")
            config = config or await find_config(
                os.environ, kubeconfig=self.settings.kubeconfig, context=self.settings.context
            )
            self.logger.info("the cluster", **config.describe())
            for warning in config.warnings:
                self.logger.warning(warning)
            async with self._transport(config) as transport:
                self.client = Client(
                    transport,
                    field_manager=f"asyncctl-{self.name}",
                    namespaces=self.settings.namespaces,
                    cluster_kinds=frozenset(self._cluster_kinds()),
                    lease=self._lease_key(config),
                    clock=self.clock,
                    random=self._random,
                )
                try:
                    for hook in self._startup:
                        self._starting = f"the startup hook {name_of(hook)} is running"
                        await hook(self)
                    async with self._tasks(transport, probes):
                        yield self
                finally:  # of a start that went half way; else it is done
                    with anyio.CancelScope(shield=True):
                        await self._run_shutdown_hooks()

    @asynccontextmanager
    async def _tasks(self, transport: Transport, probes: Probes) -> AsyncIterator[None]:
        events = EventRecorder(
            self.client, controller=f"asyncctl-{self.name}", instance=self.settings.pod_name,
            clock=self.clock, random=self._random, logger=self.logger,
        )  # fmt: skip
        self._make_controllers(events, probes)
        self._starting = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._heartbeat, name="heartbeat")
            tasks.start_soon(self.metrics.watch_loop, name="event-loop lag")
            watchdog = Watchdog(self._controllers, logger=self.logger, clock=self.clock)
            tasks.start_soon(watchdog.run, name="watchdog")
            tasks.start_soon(events.run, name="events")
            for informer in self._informers.values():
                tasks.start_soon(informer.run, name=f"informer {informer.kind.resource}")
            for name, check in self._checks.items():
                tasks.start_soon(check.run, name=f"ready check {name}")
            tasks.start_soon(self._announce_ready, name="readiness")
            if self._elector is not None:
                self._elector.start()
                tasks.start_soon(self._watch_lease, self._elector, transport, name="lease")
            tasks.start_soon(self._work, name="workers")
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self._stop(events)
                tasks.cancel_scope.cancel()

    async def _stop(self, events: EventRecorder) -> None:
        began = self.clock.monotonic()
        self._stopping = True
        lost = self._elector is not None and self._elector.lost is not None
        if lost:
            self._cancel_workers()
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

    async def _run_shutdown_hooks(self) -> None:
        """Once; the last that was declared first, as what was opened is closed."""
        hooks, self._shutdown = self._shutdown or (), None
        for hook in reversed(hooks):
            try:
                with anyio.fail_after(_LAST_WORDS):
                    await hook(self)
            except Exception:
                self.logger.exception("a shutdown hook has failed", hook=name_of(hook))

    def _cluster_kinds(self) -> Iterator[ResourceType]:
        """What was declared and is in no namespace: no namespace's boundary holds it."""
        for declaration in self._declarations:
            for kind in (declaration.kind, *(watch.kind for watch in declaration.watches)):
                if not resource_type_of(kind).namespaced:
                    yield resource_type_of(kind)

    def _lease_key(self, config: ClusterConfig) -> tuple[str, str] | None:
        settings = self.settings
        if not settings.leader_election:
            return None
        return settings.lease_namespace or own_namespace(config), settings.lease_name

    def _cancel_workers(self) -> None:
        for controller in self._controllers:
            controller.queue.close()
        self._workers.cancel()

    def _transport(self, config: ClusterConfig) -> Transport:
        settings, host = self.settings, urlsplit(config.server).netloc
        fence: WriteFence = lambda: float("inf")  # noqa: E731 - without leader election nobody else writes
        if settings.leader_election:
            lease_fence = Fence(self.clock)
            lease = LeaseSettings(
                name=settings.lease_name,
                namespace=settings.lease_namespace or own_namespace(config),
                duration=settings.lease_duration,
                renew_deadline=settings.renew_deadline,
                retry_period=settings.retry_period,
            )
            status = self.metrics.leader(lease.name)
            status.set(0)
            self._elector = Elector(
                config, lease, lease_fence, pod_name=settings.pod_name, clock=self.clock, random=self._random,
                logger=self.logger, metrics=self.metrics.requests(host), on_change=status.set,
            )  # fmt: skip
            fence = lease_fence
        self.fence = fence
        return Transport(
            config, clock=self.clock, random=self._random, logger=self.logger, metrics=self.metrics.requests(host),
            fence=fence, on_fenced=self.metrics.fenced_writes.inc,
            timeout=settings.request_timeout, qps=settings.qps, burst=settings.burst,
        )  # fmt: skip

    def _make_controllers(self, events: EventRecorder, probes: Probes) -> None:
        settings = self.settings
        for declaration in self._declarations:
            primary = resource_type_of(declaration.kind)
            client = self.client.with_caller(declaration.name)
            informers = {primary: self._informer(declaration.primary, probes, client)}
            for watch in declaration.watches:
                if kind_of(watch) != primary:
                    informers[kind_of(watch)] = self._informer(watch, probes, client)
            environment = Environment(
                controller=declaration.name, kind=declaration.kind, client=client, informers=informers,
                owns=declaration.owns, events=events, clock=self.clock, logger=self.logger, fence=self.fence,
            )  # fmt: skip
            workers = declaration.workers or settings.workers
            retry = Backoff(base=settings.retry_base, maximum=settings.retry_max)
            queue: WorkQueue[Key] = WorkQueue(
                clock=self.clock, random=self._random, retry=retry, metrics=self.metrics.queue(declaration.name),
                interval=declaration.interval.total_seconds() if declaration.interval else 0.0,
                rate=declaration.rate or 0.0, burst=workers,
            )  # fmt: skip
            controller = Controller(
                declaration, environment, queue, workers=workers, timeout=settings.reconcile_timeout,
                resync=settings.resync, retry_base=settings.retry_base, retry_limit=settings.retry_limit,
                random=self._random, metrics=self.metrics.controller(declaration.name, workers=workers),
            )  # fmt: skip
            controller.wire()
            self._controllers.append(controller)

    def _informer(self, watch: Watch[Any], probes: Probes, client: Client) -> Informer:
        """The cache of a kind; one that controllers share asks in the name of the first of them."""
        kind, labels = kind_of(watch), watch.labels
        if watch.fields or watch.namespaces or watch.metadata_only or watch.indexes:
            raise NotImplementedError(f"Watch of {kind}: fields, namespaces, metadata_only, indexes are not there yet")
        found = self._informers.get((kind, labels))
        if found is None:
            found = self._informers[kind, labels] = Informer(
                client, kind, clock=self.clock, random=self._random, logger=self.logger, metrics=self.metrics,
                namespaces=self.settings.namespaces, labels=labels, manager=self.client.field_manager,
            )  # fmt: skip
            informer = found
            name = f"cache-{kind.resource}" + (f"-{labels}" if labels else "")
            probes.ready(name, lambda: None if informer.synced else informer.problem)
            probes.inform(f"{name}-current", lambda: informer.problem)
        return found

    async def _announce_ready(self) -> None:
        began = self.clock.monotonic()
        for informer in self._informers.values():
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


def own_namespace(config: ClusterConfig) -> str:
    """Where the Lease is, unless a setting says otherwise: the pod's own namespace."""
    return config.namespace if config.source == "in-cluster" else OUTSIDE_A_POD


def name_of(function: Callable[..., object]) -> str:
    """What to call an author's function in the log."""
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.rpartition("<locals>.")[2]

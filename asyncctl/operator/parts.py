"""The parts of a running operator, each made of its settings: the Lease's campaign, the transport, the controllers."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from asyncctl.cache.header import Key
from asyncctl.cache.informer import Informer
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.transport.transport import Transport
from asyncctl.clock import Clock
from asyncctl.controller.controller import Controller
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.environment import Environment, Fence as Acting
from asyncctl.controller.events import EventRecorder
from asyncctl.ha.elector import Elector, LeaseSettings
from asyncctl.ha.fence import Fence, NoFence
from asyncctl.ha.refusal import BEHIND, Refusals
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.operator.server_fence import ServerFence
from asyncctl.queue.backoff import Backoff, Random
from asyncctl.queue.work_queue import WorkQueue
from asyncctl.settings import Settings

OUTSIDE_A_POD = "controllers"


def own_namespace(config: ClusterConfig) -> str:
    """Where the Lease is, unless a setting says otherwise: the pod's own namespace."""
    return config.namespace if config.source == "in-cluster" else OUTSIDE_A_POD


def lease_name(program: str, settings: Settings) -> str:
    """The name of an operator's Lease; by default its own, so that two programs do not wait for each other."""
    return settings.lease_name or f"{program}-leader"


class Parts:
    """What all parts of one operator are made with.

    Args:
        program: The operator's name.
        settings: What it was told.
        clock: Its time.
        random: Its jitter.
        logger: Its log.
        metrics: Its metrics.
    """

    def __init__(
        self, program: str, settings: Settings, *, clock: Clock, random: Random, logger: Logger, metrics: Metrics
    ) -> None:
        self._program = program
        self._settings = settings
        self._clock = clock
        self._random = random
        self._logger = logger
        self._metrics = metrics
        self._refusals = self._refused(None, lambda _: None)

    def lease(self, config: ClusterConfig) -> tuple[str, str] | None:
        """Namespace and name of the Lease, if there is one."""
        if not self._settings.leader_election:
            return None
        return self._settings.lease_namespace or own_namespace(config), lease_name(self._program, self._settings)

    def elector(
        self, config: ClusterConfig, on_change: Callable[[bool], object]
    ) -> tuple[Elector | None, Fence | NoFence]:
        """Who campaigns for the Lease, and what says whether this process may write.

        Args:
            config: Which cluster.
            on_change: Called on the main loop, before anybody there hears of it: with True when this process leads,
                with False when it no longer does.
        """
        settings, lease = self._settings, self.lease(config)
        if lease is None:
            return None, NoFence()
        fence = Fence(self._clock)
        status = self._metrics.leader(lease[1])
        status.set(0)

        def changed(leads: bool) -> None:  # noqa: FBT001 - as the elector calls it
            if leads:
                self._refusals.won()
            on_change(leads)
            status.set(leads)

        elector = Elector(
            config,
            LeaseSettings(
                name=lease[1], namespace=lease[0], duration=settings.lease_duration,
                renew_deadline=settings.renew_deadline, retry_period=settings.retry_period,
            ),
            fence, pod_name=settings.pod_name, clock=self._clock, random=self._random, logger=self._logger,
            metrics=self._metrics.requests(urlsplit(config.server).netloc), on_change=changed,
        )  # fmt: skip
        self._refusals = self._refused(elector.identity, elector.lose)
        return elector, fence

    def _refused(self, identity: str | None, lose: Callable[[str], object]) -> Refusals:
        """What is done when the API server's fence refuses a write."""
        patience = min(BEHIND, self._settings.renew_deadline)
        return Refusals(identity, lose, patience=patience, clock=self._clock, logger=self._logger)

    def server_fence(self, config: ClusterConfig, transport: Transport) -> ServerFence:
        """What tells whether the API server refuses writes as well."""
        return ServerFence(
            transport, self.lease(config), self._settings.pod_name, clock=self._clock, logger=self._logger
        )

    def transport(self, config: ClusterConfig, fence: Fence | NoFence) -> Transport:
        """What sends the operator's requests."""
        settings = self._settings
        return Transport(
            config, clock=self._clock, random=self._random, logger=self._logger,
            metrics=self._metrics.requests(urlsplit(config.server).netloc),
            fence=fence, on_fenced=self._metrics.fenced_writes.inc, on_refused=self._refusals,
            timeout=settings.request_timeout, qps=settings.qps, burst=settings.burst,
        )  # fmt: skip

    def doubt(self, transport: Transport | None) -> float:
        """Seconds until a write that got no answer has taken effect, by the bound of `asyncctl.ha.campaign`."""
        bound = self._settings.lease_duration - self._settings.renew_deadline
        return bound - transport.in_doubt_for if transport is not None else 0.0

    def controller(
        self, declaration: Declaration[Any], informers: dict[ResourceType, Informer], *,
        client: Client, events: EventRecorder, fence: Acting,
    ) -> Controller:  # fmt: skip
        """A controller over its caches, which tell it from now on what changes."""
        settings = self._settings
        environment = Environment(
            controller=declaration.name, kind=declaration.kind, client=client.with_caller(declaration.name),
            informers=informers, owns=declaration.owns, events=events, clock=self._clock, logger=self._logger,
            fence=fence,
        )  # fmt: skip
        workers = declaration.workers or settings.workers
        queue: WorkQueue[Key] = WorkQueue(
            clock=self._clock, random=self._random, metrics=self._metrics.queue(declaration.name),
            retry=Backoff(base=settings.retry_base, maximum=settings.retry_max),
            interval=declaration.interval.total_seconds() if declaration.interval else 0.0,
            rate=declaration.rate or 0.0,
        )  # fmt: skip
        made = Controller(
            declaration, environment, queue, workers=workers, timeout=settings.reconcile_timeout,
            resync=settings.resync, retry_base=settings.retry_base, retry_limit=settings.retry_limit,
            random=self._random, metrics=self._metrics.controller(declaration.name, workers=workers),
        )  # fmt: skip
        made.wire()
        return made

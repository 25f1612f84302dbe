"""Gets the Lease, keeps it, gives it back; and says at once when it is lost.

Runs in a thread of its own, with its own event loop, connection and credentials, so that a blocked main loop can
neither delay a renewal nor hide that it is dead: it renews only while the main loop's heartbeat is young. Another's
Lease is judged by the local monotonic time since its record last changed and by the duration in the record; clocks
are never compared (client-go's `tools/leaderelection`, whose records these are).
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import orjson

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import AlreadyExists, Conflict, Forbidden, KubernetesError, NotFound, Target, not_an_object
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.clock import Clock
from asyncctl.ha import lease as record
from asyncctl.ha.fence import Fence
from asyncctl.objects.json import JsonObject
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import RequestMetrics
from asyncctl.queue.backoff import Random, spread

HEARTBEAT = 0.5  # seconds between two beats of the main loop
DEAF = 5.0  # seconds without a beat, after which the Lease is no longer renewed
_SPREAD = 0.1  # of the retry period, either way, so that candidates do not run in step


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Which Lease, and its times in seconds; lease > renew > 1.2 x retry."""

    name: str
    namespace: str
    duration: float
    renew_deadline: float
    retry_period: float


class Elector:
    """A candidate for one Lease. All methods but the constructor are called on the main loop."""

    def __init__(
        self,
        config: ClusterConfig,
        settings: LeaseSettings,
        fence: Fence,
        *,
        pod_name: str,
        clock: Clock,
        random: Random,
        logger: Logger,
        metrics: RequestMetrics,
        on_change: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.identity = f"{pod_name}_{uuid4()}"
        self._config = config
        self._settings = settings
        self._fence = fence
        self._clock = clock
        self._random = random
        self._logger = logger.bind(lease=f"{settings.namespace}/{settings.name}")
        self._metrics = metrics
        self._on_change = on_change
        self._beat = clock.monotonic()
        self._main: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._called_off = False
        self.elected = asyncio.Event()
        self.over = asyncio.Event()
        """The campaign has ended: the Lease is lost, or was given back."""
        self.lost: str | None = None
        """Why the Lease was lost, when it was."""
        self.problem: str | None = None
        """What keeps it from leading, or its Lease from being renewed; None when nothing does."""

    @property
    def leading(self) -> bool:
        """Whether this process holds the Lease, as far as it knows."""
        return self.elected.is_set() and not self.over.is_set()

    def heartbeat(self) -> None:
        """The main loop lives and no worker is stuck. To be called each `HEARTBEAT` seconds."""
        self._beat = self._clock.monotonic()

    def start(self) -> None:
        """Begin the campaign, in its own thread."""
        self._main = asyncio.get_running_loop()
        self.heartbeat()
        threading.Thread(target=self._run, name="elector", daemon=True).start()

    def lose(self, reason: str) -> None:
        """The Lease counts as lost from this moment, because of what somebody else has seen; `over` follows.

        It is not given back: a write may still be on its way. Harmless when this process does not lead.
        """
        if self.leading and self.lost is None:
            self._lose(reason)
            if self._own is not None and self._stop is not None:
                self._own.call_soon_threadsafe(self._stop.set)

    async def release(self) -> None:
        """Give the Lease back, if it is ours, and end the campaign. Call it after the last write was answered."""
        self._called_off = True  # for a thread that has not come as far as its event
        own, stop = self._own, self._stop
        if own is not None and stop is not None and not self.over.is_set():
            with suppress(RuntimeError):  # its loop has ended at this moment
                own.call_soon_threadsafe(stop.set)
        if self._main is not None:
            await self.over.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._campaign(), debug=False)
        except Exception as error:
            self._logger.exception("the elector has failed")
            self._lose(f"the elector has failed: {error!r}")
        finally:
            self._on_main(self.over.set)

    async def _campaign(self) -> None:
        self._stop = asyncio.Event()
        self._own = asyncio.get_running_loop()
        if self._called_off:
            self._stop.set()
        transport = Transport(
            self._config, clock=self._clock, random=self._random, logger=self._logger, metrics=self._metrics,
            timeout=max(1.0, self._settings.renew_deadline / 2), tries=1,
        )  # fmt: skip
        async with transport:
            lease = await self._acquire(transport)
            if lease is not None:
                await self._hold(transport, lease)

    async def _acquire(self, transport: Transport) -> JsonObject | None:
        """Wait for the Lease and take it; None when the campaign was called off."""
        seen: JsonObject | None = None
        seen_at = self._clock.monotonic()
        while not await self._pause(
            0.0 if seen is None else spread(self._settings.retry_period, _SPREAD, self._random)
        ):
            try:
                lease = await self._read(transport)
                if seen is None or lease.get("spec") != seen["spec"]:
                    seen, seen_at = {"spec": lease.get("spec")}, self._clock.monotonic()
                silent = self._clock.monotonic() - seen_at
                theirs = record.holder(lease)
                if theirs not in {"", self.identity} and silent < record.duration(lease, self._settings.duration):
                    self._wait_for(theirs)
                    continue
                lease = await self._take(transport, lease)
            except (Conflict, AlreadyExists):  # another candidate was faster
                seen = seen or {"spec": None}
            except KubernetesError as error:
                seen = seen or {"spec": None}
                self._warn("not leading", self._advice(error))
            else:
                self.problem = None
                self._logger.info("became the leader", identity=self.identity)
                self._on_main(self._won)
                return lease
        return None

    async def _hold(self, transport: Transport, lease: JsonObject) -> None:
        """Renew until it is called off or fails for too long."""
        while not await self._pause(self._settings.retry_period):
            silent = self._clock.monotonic() - self._beat
            if silent > DEAF:
                return self._lose(f"the event loop, or a worker, has been stuck for {silent:.0f} s")
            try:
                left = self._fence()
                lease = await asyncio.wait_for(self._renew(transport, lease), left)
            except Conflict:
                return self._lose("somebody else has changed the Lease")
            except NotFound:
                return self._lose("the Lease was deleted")
            except (KubernetesError, TimeoutError) as error:
                try:
                    self._fence()
                except KubernetesError:
                    return self._lose(f"it could not be renewed within {self._settings.renew_deadline:g} s: {error}")
                self._warn("leading, with trouble", f"could not renew: {error}")
            else:
                self.problem = None
        if self.lost is not None:
            return None
        self._fence.revoke("the Lease was given back")
        self._on_main(lambda: self._on_change(False))
        await self._give_back(transport, lease)
        return None

    async def _renew(self, transport: Transport, lease: JsonObject) -> JsonObject:
        try:
            return await self._take(transport, lease)
        except Conflict:
            live = await self._read(transport)
            if record.holder(live) != self.identity:
                raise
            return await self._take(transport, live)  # only its metadata was touched, or our own answer was lost

    async def _take(self, transport: Transport, lease: JsonObject) -> JsonObject:
        sent = self._clock.boot()
        taken = record.held_by(lease, self.identity, self._clock.now(), int(self._settings.duration))
        answer = await self._write(transport, taken)
        self._fence.extend(sent + self._settings.renew_deadline)
        return answer

    async def _give_back(self, transport: Transport, lease: JsonObject) -> None:
        try:
            try:
                await self._write(transport, record.released(lease, self._clock.now()))
            except Conflict:  # its metadata was touched, or the answer of our last renewal was lost
                live = await self._read(transport)
                if record.holder(live) != self.identity:
                    raise
                await self._write(transport, record.released(live, self._clock.now()))
            self._logger.info("gave the Lease back")
        except KubernetesError as error:
            self._logger.warning("the Lease could not be given back; the next leader has to wait", error=str(error))

    async def _read(self, transport: Transport) -> JsonObject:
        try:
            return await self._send(transport, "get", "GET", self._settings.name, None)
        except NotFound:
            return record.new(self._settings.namespace, self._settings.name)

    async def _write(self, transport: Transport, lease: JsonObject) -> JsonObject:
        body = orjson.dumps(lease)
        if "resourceVersion" not in lease["metadata"]:
            return await self._send(transport, "create", "POST", None, body)
        return await self._send(transport, "update", "PUT", self._settings.name, body)

    async def _send(
        self, transport: Transport, verb: str, method: str, name: str | None, body: bytes | None
    ) -> JsonObject:
        kind, namespace = record.LEASE, self._settings.namespace
        request = Request(
            target=Target(verb, kind.resource, namespace, self._settings.name),
            method=method, path=kind.path(namespace, name), lane=Lane.LEASE, body=body,
        )  # fmt: skip
        reply = await transport.request(request)
        try:
            found = orjson.loads(reply.body)
        except orjson.JSONDecodeError as error:
            raise not_an_object(request.target, reply.body) from error
        if not record.is_lease(found):
            raise not_an_object(request.target, reply.body)
        lease: JsonObject = found
        return lease

    async def _pause(self, seconds: float) -> bool:
        """Wait; True when the campaign was called off meanwhile."""
        assert self._stop is not None
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _advice(self, error: KubernetesError) -> str:
        namespace = self._settings.namespace
        if isinstance(error, NotFound) and error.details.get("kind") == "namespaces":  # it says to create it
            return f"{error}, or set ASYNCCTL_LEASE_NAMESPACE to one that is there"
        if isinstance(error, Forbidden):
            return (
                f"{error}; the operator needs a Role in namespace {namespace!r} with get, create and update on "
                "leases.coordination.k8s.io"
            )
        return str(error)

    def _wait_for(self, holder: str) -> None:
        """That another one leads is how a standby should be, and no more than news."""
        if self.problem != (problem := f"{holder} leads"):
            self.problem = problem
            self._logger.info("not leading", cause=problem)

    def _warn(self, what: str, problem: str) -> None:
        if self.problem != problem:
            self.problem = problem
            self._logger.warning(what, cause=problem)

    def _won(self) -> None:
        self.elected.set()
        self._on_change(True)

    def _lose(self, reason: str) -> None:
        self._fence.revoke(reason)
        self.lost = self.problem = reason
        self._logger.error("the Lease is lost", cause=reason)
        self._on_main(lambda: self._on_change(False))

    def _on_main(self, call: Callable[[], None]) -> None:
        assert self._main is not None
        with suppress(RuntimeError):  # the main loop was closed under a campaign that did not end in time
            self._main.call_soon_threadsafe(call)

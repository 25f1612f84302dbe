"""The thread that campaigns for the Lease, and what the main loop sees of it.

The campaign has a thread of its own, with its own event loop, connection and credentials, so that a blocked main loop
can neither delay a renewal nor hide that it is dead: the Lease is renewed only while the main loop's heartbeat is
young.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Target
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.clock import Clock
from asyncctl.ha.campaign import Campaign
from asyncctl.ha.fence import Fence
from asyncctl.ha.lease import LEASE, LeaseSettings
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import RequestMetrics
from asyncctl.queue.backoff import Random

__all__ = ["DEAF", "HEARTBEAT", "Elector", "LeaseSettings"]

HEARTBEAT = 0.5  # seconds between two beats of the main loop
DEAF = 5.0  # seconds without a beat, after which the Lease is not renewed
_DIAL = 0.25  # of the renew deadline, but a second at least, for a connection: one that hangs leaves time for another
_METHODS = {"get": "GET", "create": "POST", "update": "PUT"}


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
        self._transport: Transport | None = None
        self._campaign = Campaign(
            self.identity, settings, fence, self._ask, clock=clock, random=random, logger=self._logger,
            stuck=self._stuck, on_won=self._won, on_end=self._ended_leading,
        )  # fmt: skip
        self._called_off = False
        self._ended = asyncio.Event()
        self.elected = asyncio.Event()
        self.over = asyncio.Event()
        """The campaign has ended: the Lease is lost, or was given back."""

    @property
    def lost(self) -> str | None:
        """Why the Lease was lost, when it was."""
        return self._campaign.lost

    @property
    def problem(self) -> str | None:
        """What keeps it from leading, or its Lease from being renewed; None when nothing does."""
        return self._campaign.problem

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last seen; empty for nobody."""
        return self._campaign.holder

    @property
    def blocked(self) -> str | None:
        """Why it can't even campaign: a right or the namespace is missing. None while merely another one leads."""
        return self._campaign.blocked

    @property
    def leading(self) -> bool:
        """Whether this process holds the Lease, as far as it knows."""
        return self.elected.is_set() and not self.over.is_set() and self.lost is None

    def heartbeat(self) -> None:
        """The main loop lives and no worker is stuck. To be called each `HEARTBEAT` seconds."""
        self._beat = self._clock.monotonic()

    def start(self) -> None:
        """Begin the campaign, in its own thread; one that was called off does not begin."""
        if self._called_off:
            return
        self._main = asyncio.get_running_loop()
        self.heartbeat()
        threading.Thread(target=self._run, name="elector", daemon=True).start()

    def lose(self, reason: str) -> None:
        """The Lease counts as lost from this moment, because of what somebody else has seen; `over` follows.

        It is not given back: a write may still be on its way. Harmless when this process does not lead.
        """
        if self.leading and not self._called_off:
            self._campaign.lose(reason)
            self._in_thread(self._campaign.wake)

    async def release(self) -> None:
        """Give the Lease back, if it is ours, and end the campaign. Call it after the last write was answered."""
        self._called_off = True  # for a thread that has not come as far as its loop
        self._in_thread(self._campaign.call_off)
        if self._main is None:
            self.over.set()
        else:
            await self._ended.wait()

    async def leave(self) -> None:
        """End the campaign and let the Lease lapse, if it is ours: a write may still be on its way."""
        self._fence.revoke("the process ends")
        await self.release()

    def _run(self) -> None:
        try:
            asyncio.run(self._live(), debug=False)
        except Exception as error:
            self._logger.exception("the elector has failed")
            self._campaign.lose(f"the elector has failed: {error!r}")
        finally:
            self._on_main(self.over.set)
            self._on_main(self._ended.set)

    async def _live(self) -> None:
        self._own = asyncio.get_running_loop()
        if self._called_off:
            return
        self._transport = Transport(
            self._config, clock=self._clock, random=self._random, logger=self._logger, metrics=self._metrics, tries=1,
            connect_timeout=max(1.0, _DIAL * self._settings.renew_deadline),
        )  # fmt: skip
        async with self._transport:
            await self._campaign.run()

    async def _ask(self, target: Target, body: bytes | None, seconds: float) -> bytes:
        assert self._transport is not None
        request = Request(
            target=target, method=_METHODS[target.verb], lane=Lane.LEASE, body=body,
            path=LEASE.path(target.namespace, None if target.verb == "create" else target.name),
            timeout=seconds * 0.95,  # it can tell what the trouble is; whoever cancels it can't
        )  # fmt: skip
        return (await self._transport.request(request)).body

    def _stuck(self) -> str | None:
        silent = self._clock.monotonic() - self._beat
        return f"the event loop, or a worker, has been stuck for {silent:.0f} s" if silent > DEAF else None

    def _won(self) -> None:
        self._on_main(self._begin)

    def _begin(self) -> None:
        """In one step: whoever sees that it is elected may say at once that it is lost."""
        self.elected.set()
        self._on_change(True)

    def _ended_leading(self) -> None:
        self._on_main(lambda: self._on_change(False))
        if self.lost is not None:  # who waits for that need not wait until the thread has tidied up
            self._on_main(self.over.set)

    def _in_thread(self, call: Callable[[], object]) -> None:
        if self._own is not None:
            with suppress(RuntimeError):  # its loop has ended
                self._own.call_soon_threadsafe(call)

    def _on_main(self, call: Callable[[], object]) -> None:
        assert self._main is not None
        with suppress(RuntimeError):  # the main loop was closed under a campaign that did not end in time
            self._main.call_soon_threadsafe(call)

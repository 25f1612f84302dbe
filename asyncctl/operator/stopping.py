"""How an operator stops: in which order, and how long each step may take.

Not ready, workers drain, background tasks, shutdown hooks, writes without an answer have taken effect, what is left to
say is said, Lease released; who does not hold it ceases to wait for it before all else. The caches, the transport and
the side server go after it, as the blocks end that they were opened by (`Running.live`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from asyncctl.controller.cancellation import GIVE_UP
from asyncctl.controller.controller import Controller
from asyncctl.controller.events import EventRecorder
from asyncctl.ha.elector import Elector
from asyncctl.operator.background import Backgrounds
from asyncctl.operator.hooks import Hooks
from asyncctl.operator.steps import Steps

EVENTS = 0.5  # seconds for events that still wait: the next leader waits for the Lease meanwhile
DOUBT = 6.0  # seconds at most for writes that got no answer; else the Lease is left to lapse
LEASE = 5.0  # seconds to give the Lease back
REST = 5.0  # seconds in which the caches, the transport and the side server have gone: they wait for nobody


def longest(drain: float, hooks: float) -> float:
    """Seconds that a stop takes at most, where code swallows its cancellation and the API server does not answer.

    Args:
        drain: `ASYNCCTL_DRAIN_TIMEOUT`.
        hooks: Seconds for all shutdown hooks.
    """
    return drain + 2 * (GIVE_UP + 1) + hooks + DOUBT + EVENTS + LEASE + REST


class Stopping:
    """Stops one operator.

    Args:
        steps: Says how it goes.
        controllers: Whose passes run.
        cancel: Cancels all passes, and has none begin.
        idle: Set when no pass runs.
        backgrounds: The tasks beside them.
        hooks: The shutdown hooks.
        events: What there may be left to say.
        elector: Who holds the Lease, if there is one.
        doubt: Seconds until what this process has sent has taken effect, or never will; not above 0: it has.
        drain: Seconds for passes to end by themselves.
    """

    def __init__(
        self, steps: Steps, *, controllers: Sequence[Controller], cancel: Callable[[], object], idle: anyio.Event,
        backgrounds: Backgrounds[Any], hooks: Hooks[Any], events: EventRecorder, elector: Elector | None,
        doubt: Callable[[], float], drain: float,
    ) -> None:  # fmt: skip
        self._steps = steps
        self._controllers = controllers
        self._cancel = cancel
        self._idle = idle
        self._backgrounds = backgrounds
        self._hooks = hooks
        self._events = events
        self._elector = elector
        self._doubt = doubt
        self._drain_timeout = drain

    async def run(self) -> None:
        """Take all steps, also where the task that waits for them is cancelled meanwhile; that is raised after them."""
        stop = asyncio.create_task(self._run(), name="stop")
        cancelled: asyncio.CancelledError | None = None
        while not stop.done():
            try:
                await asyncio.wait([stop])
            except asyncio.CancelledError as error:
                cancelled = error
        stop.result()
        if cancelled is not None:
            raise cancelled

    async def _run(self) -> None:
        take, lost = self._steps.take, self._elector is not None and self._elector.lost is not None
        waits = self._elector is not None and not lost and not self._elector.leading
        if waits:  # first: a Lease that is won by a process which ends keeps all others from it, for nothing
            self._cancel()
            await self._release(settled=True)
        if lost:  # at once: somebody else works by now
            self._backgrounds.cancel()
        else:
            await take("workers", self._drain, within=self._drain_timeout, late=(
                "passes were still running after ASYNCCTL_DRAIN_TIMEOUT, and are cancelled"
            ))  # fmt: skip
        self._cancel()
        if not self._idle.is_set():
            await take("cancelled passes", self._idle.wait, within=GIVE_UP + 1, late=(
                "goes on without passes that do not end, though they are cancelled"
            ))  # fmt: skip
        if self._backgrounds.there:
            await take("background tasks", self._backgrounds.stop, within=GIVE_UP + 1, late=(
                "goes on without background tasks that do not end, though they are cancelled"
            ))  # fmt: skip
        if self._hooks.patience:
            await take("hooks", self._hooks.stop, within=self._hooks.patience + 1, late=(
                "goes on without a shutdown hook that does not end, though it is cancelled"
            ))  # fmt: skip
        settled = True
        if not lost and not waits and self._elector is not None and (seconds := self._doubt()) > 0:
            within = DOUBT if seconds < DOUBT else 0.0
            settled = await take("writes in doubt", lambda: anyio.sleep(seconds), within=within, late=(
                "a write that got no answer may take effect yet: the Lease is not given back, and the next leader has "
                "to wait for ASYNCCTL_LEASE_DURATION"
            ))  # fmt: skip
        if not lost:
            await take("events", self._events.flush, within=EVENTS, late=(
                "the last events were not taken in time, and are lost"
            ))  # fmt: skip
        if not waits:
            await self._release(settled=settled)

    async def _release(self, *, settled: bool) -> None:
        if self._elector is not None:
            end = self._elector.release if settled else self._elector.leave
            await self._steps.take("lease", end, within=LEASE, late=(
                "the Lease could not be given back in time; the next leader waits for ASYNCCTL_LEASE_DURATION"
            ))  # fmt: skip

    async def _drain(self) -> None:
        async with anyio.create_task_group() as drains:
            for controller in self._controllers:
                drains.start_soon(controller.queue.drain, name=f"drain {controller.declaration.name}")
        self._cancel()  # what is between two passes, or has none yet
        await self._idle.wait()

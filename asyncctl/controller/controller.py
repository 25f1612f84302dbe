"""The loop: from a change to a pass, from a pass to the queue's next step.

Workers are long-lived coroutines; a key is worked on by one of them at a time. A pass decodes its object when it
begins, runs the author's coroutine under the timeout, sends the status patch, and tells the queue what to do
(`outcome`). Nothing an author raises ends a worker.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import closing
from datetime import timedelta
from typing import Any, TypeVar

import anyio

from asyncctl.cache.header import Entry, Header, Key
from asyncctl.cache.informer import Informer
from asyncctl.client.bridge.errors import as_ours
from asyncctl.client.errors import KubernetesError, NotFound
from asyncctl.controller import finalizer
from asyncctl.controller.aftermath import Aftermath, stalled_reason, told
from asyncctl.controller.alarm import Alarm
from asyncctl.controller.cancellation import GIVE_UP, take_back
from asyncctl.controller.context import Context
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.environment import Environment
from asyncctl.controller.faults import Faults
from asyncctl.controller.outcome import Failure, Requeue, TerminalError, TookTooLong, classify
from asyncctl.controller.parking import Parking
from asyncctl.controller.stalled import stalled
from asyncctl.controller.sweep import Sweep
from asyncctl.controller.wiring import Wiring
from asyncctl.objects.codec import DecodeError, decode
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource, Unstructured
from asyncctl.observe.metrics import ControllerMetrics, Result
from asyncctl.queue.backoff import Random
from asyncctl.queue.work_queue import QueueClosed, WorkQueue

T = TypeVar("T")
_ORDINARY = {Failure.FAST, Failure.UNCOUNTED}  # failures to write a status that need no line beside the pass's own
_FILLING = 1.0  # seconds until it is looked again whether the caches of a new namespace have had their first list
_TURN = 32  # passes that never wait, after which the other tasks have their turn
_UNTYPED = Unstructured("v1", "Object")  # what can't be decoded, as a dict


class Controller:
    """One declared controller at work. Call `wire` once, then `work`, which ends when the queue is closed."""

    def __init__(
        self,
        declaration: Declaration[Any],
        environment: Environment,
        queue: WorkQueue[Key],
        *,
        workers: int,
        timeout: float,
        resync: float,
        retry_base: float,
        retry_limit: int,
        random: Random,
        metrics: ControllerMetrics,
    ) -> None:
        self.declaration = declaration
        self.queue = queue
        self.workers = declaration.workers or workers
        self.timeout = _seconds(declaration.timeout, timeout)
        self._environment = environment
        self._metrics = metrics
        self._kind = environment.resource
        self._informer = environment.informer(self._kind)
        self._beside = tuple(each for each in environment.informers.values() if each is not self._informer)
        self.parking = Parking(metrics.parked)
        """The keys that have used up their tries, or can't be helped by one."""
        self.paused = Parking(metrics.paused)
        faults = Faults(declaration.name, logger=environment.logger, metrics=metrics, clock=environment.clock)
        self._sweep = Sweep(
            self._informer.entries, queue, period=_seconds(declaration.resync, resync), delay=retry_base,
            clock=environment.clock, random=random, logger=environment.logger.bind(controller=declaration.name),
        )  # fmt: skip
        self._wiring = Wiring(declaration, environment, queue, (self.parking, self.paused), self._sweep, faults)
        self._aftermath = Aftermath(
            declaration, environment, queue, self.parking, faults,
            retry_limit=retry_limit, random=random, metrics=metrics,
        )  # fmt: skip
        self._passes: dict[Key, float] = {}
        self._working: dict[asyncio.Task[Any], Key] = {}
        self._ending = False
        self.left: set[asyncio.Task[None]] = set()
        """Workers that did not end when they were cancelled."""

    @property
    def informers(self) -> list[Informer]:
        """The caches that have to be filled before the first pass."""
        return list(self._environment.informers.values())

    def wire(self) -> None:
        """Have the caches tell what changes."""
        self._wiring.connect()

    async def work(self) -> None:
        """Run the workers until the queue is closed and what they hold is done."""
        self._metrics.active.set(1)
        try:
            async with anyio.create_task_group() as sweeps:
                sweeps.start_soon(self._sweep.each_period, name=f"{self.declaration.name} resync")
                sweeps.start_soon(self._sweep.when_asked, name=f"{self.declaration.name} sweep")
                try:
                    await self._run_workers()
                finally:
                    sweeps.cancel_scope.cancel()
        finally:
            self._metrics.active.set(0)

    async def _run_workers(self) -> None:
        # Plain tasks: an anyio scope would cancel a pass again at each await of its clean-up.
        names = [f"{self.declaration.name} worker {number}" for number in range(self.workers)]
        workers = [asyncio.create_task(self._worker(), name=name) for name in names]
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
        finally:
            self._ending = True
            for worker in workers:
                worker.cancel()
            with anyio.CancelScope(shield=True):
                _, self.left = await asyncio.wait(workers, timeout=GIVE_UP)
            for key in self._passes:
                self._environment.logger.error(
                    "a pass does not end, though it was cancelled",
                    controller=self.declaration.name, namespace=key[0], name=key[1],
                )  # fmt: skip

    def overdue(self, grace: float) -> list[Key]:
        """The objects whose passes are longer past their timeout than `grace` seconds."""
        limit = self._environment.clock.monotonic() - self.timeout - grace
        return [key for key, since in self._passes.items() if since < limit]

    def at_work(self, task: "asyncio.Task[Any]") -> Key | None:
        """The key that this task holds, if it is a worker; may be asked from another thread."""
        return self._working.get(task)

    def worker_of(self, key: Key) -> "asyncio.Task[None] | None":
        """The task that holds `key`."""
        return next((task for task, held in self._working.items() if held == key), None)

    @property
    def held(self) -> list[Key]:
        """The keys that have a pass now; may be asked from another thread."""
        return list(self._passes)

    async def _worker(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        with closing(Alarm(task)) as alarm:
            await self._take(alarm)

    async def _take(self, alarm: Alarm) -> None:
        """Take keys from the queue until it is closed."""
        passes = 0
        while True:
            try:
                key = await self.queue.get()
            except QueueClosed:
                return
            except asyncio.CancelledError:
                await take_back(alarm.task, self._is_ending)
                continue
            self._working[alarm.task] = key
            try:
                await self._process(key, alarm)
            except asyncio.CancelledError:
                await take_back(alarm.task, self._is_ending)
                self.queue.add(key)  # it came while the runtime wrote what the pass had said
            finally:
                del self._working[alarm.task]
                self.queue.done(key)
            passes += 1
            if passes % _TURN == 0:
                await asyncio.sleep(0)

    def _is_ending(self) -> bool:
        return self._ending

    async def _process(self, key: Key, alarm: Alarm) -> None:
        entry = self._informer.get(key)
        if entry is None or entry.header.paused or self._is_none_of_ours(entry.header):
            if entry is not None and entry.header.paused:
                self.paused.enter(key)
            self._aftermath.no_pass(key)
            return
        self.paused.leave(key)
        for informer in self._beside:
            if informer.filling(key[0]):  # the namespace is new: a pass would take for absent what is there
                self.queue.add(key, after=_FILLING)
                return
        started = time.perf_counter()
        self._passes[key] = self._environment.clock.monotonic()
        self._metrics.active_workers.inc()
        result: Result = "error"
        try:
            result = await self._pass(key, entry, alarm)
        except Exception as error:  # noqa: BLE001 - nothing an author does ends a worker
            result = self._aftermath.failure(key, None, error, parks=self._aftermath.parks(key, error))
        finally:
            del self._passes[key]
            self._metrics.active_workers.dec()
            self._metrics.finished(result, time.perf_counter() - started)

    def _is_none_of_ours(self, header: Header) -> bool:
        """Terminating, and not waiting for us: whatever we did to it would be too late."""
        return header.deleting and self.declaration.finalizers.keys().isdisjoint(header.finalizers)

    async def _pass(self, key: Key, entry: Entry, alarm: Alarm) -> Result:
        requeue: Requeue | None = None
        error: Exception | None = None
        gone = False
        obj: Resource | JsonObject
        try:
            obj = decode(self.declaration.kind, entry.data)
        except DecodeError as undecodable:
            error, obj = undecodable, decode(_UNTYPED, entry.data)
        ctx = Context(
            self._environment, entry, obj, attempt=self.queue.attempts(key) + 1,
            deadline=self._passes[key] + self.timeout,
        )  # fmt: skip
        before = stalled(obj)
        try:
            if entry.header.deleting:  # also what can't be decoded: as a dict, or it could never go
                gone, error = await self._finalize(ctx, obj, alarm), None
            elif error is None:
                requeue = await self._reconcile(ctx, obj, alarm)
        except Exception as caught:  # noqa: BLE001 - nothing an author raises ends a worker
            if (
                error is None or classify(caught) is Failure.TERMINAL
            ):  # else it is that a dict is no object of the class
                error = as_ours(caught)
        except BaseException as caught:
            if isinstance(caught, GeneratorExit):
                raise
            if self._ending:
                await ctx.close()
                raise
            error = RuntimeError(f"the pass has raised {caught!r}, which would have ended its worker")
            error.__cause__ = caught
        if self._ending or alarm.task.cancelling():
            await take_back(alarm.task, self._is_ending)
        await ctx.close()
        parks = error is not None and self._aftermath.parks(key, error)
        if not gone:
            news = self._aftermath.mark(key, obj, before, error, parks=parks)
            unsaved = await self._save(ctx)
            if unsaved is not None and error is None:  # it counts only where the pass itself has not failed
                error, parks = unsaved, self._aftermath.parks(key, unsaved)
                news = parks and key not in self.parking
            elif unsaved is not None and classify(unsaved) not in _ORDINARY:
                ctx.log.warning("the status could not be written either", error=told(unsaved))
            if news and error is not None:
                ctx.warning(stalled_reason(error), told(error))
        if error is not None:
            return self._aftermath.failure(key, ctx, error, parks=parks)
        return self._aftermath.success(key, requeue, gone=gone)

    async def _reconcile(self, ctx: Context, obj: Resource | JsonObject, alarm: Alarm) -> Requeue | None:
        missing = tuple(name for name in self.declaration.finalizers if name not in ctx.header.finalizers)
        if missing:
            ctx.took(await finalizer.add(ctx.client, self._kind, ctx.header, missing))
        requeue = await self._timed(ctx, self.declaration.reconcile(ctx, obj), alarm)
        if not isinstance(requeue, Requeue | None):
            raise TypeError(f"reconcile must return None or a Requeue, not {requeue!r}")
        return requeue

    async def _finalize(self, ctx: Context, obj: Resource | JsonObject, alarm: Alarm) -> bool:
        """Run the clean-ups in the order of their declaration; True when the object is gone after it."""
        for name, clean_up in self.declaration.finalizers.items():
            if name in ctx.header.finalizers:
                returned: object = await self._timed(ctx, clean_up(ctx, obj), alarm)
                if returned is not None:  # somebody who wants to be called again: taking it off would be too early
                    raise TypeError(
                        f"the clean-up of finalizer {name!r} must return None when all is done, not {returned!r}; to "
                        "be called again it raises, TransientError where it has to wait for something"
                    )
                header = ctx.header
                left = await finalizer.remove(ctx.client, self._kind, header, name)
                if left is not None:
                    ctx.took(left)
                if left is None or finalizer.was_last(left):
                    self._informer.deleted(header.key, header.uid, header.version)
                    return True
        return False

    async def _timed(self, ctx: Context, step: Awaitable[T], alarm: Alarm) -> T:
        """Await `step` until the pass's deadline; what swallows its cancellation, and returns, was not over in time."""
        cause: Exception | None = None
        try:
            with alarm.set(ctx.deadline - self._environment.clock.monotonic()):
                returned = await step
            if not alarm.expired:
                return returned
        except TimeoutError as error:
            if not alarm.expired:
                raise
            cause = error
        finally:
            if alarm.expired:
                self._metrics.timeouts.inc()
        said_by = "ASYNCCTL_RECONCILE_TIMEOUT" if self.declaration.timeout is None else "its controller's timeout="
        raise TookTooLong(f"the pass took longer than {self.timeout:g} s ({said_by}) and was cancelled") from cause

    async def _save(self, ctx: Context) -> Exception | None:
        """Send the status; returns why that failed."""
        try:
            await ctx.finish()
        except NotFound as error:
            return await self._why_no_status(ctx, error)
        except Exception as caught:  # noqa: BLE001 - a status may hold what an author put there and JSON can't
            return caught
        return None

    async def _why_no_status(self, ctx: Context, error: NotFound) -> Exception | None:
        """None where the object was deleted meanwhile, so that there is nobody to tell."""
        header = ctx.header
        try:
            await ctx.client.get(self._kind, header.name, namespace=header.namespace or None)
        except NotFound:
            return None
        except KubernetesError as caught:
            return caught
        return TerminalError(
            f"{error}: {self._kind} is there, its status is not; declare `subresources: {{status: {{}}}}` in its CRD",
            reason="NoStatusSubresource",
        )


def _seconds(given: timedelta | None, default: float) -> float:
    return default if given is None else given.total_seconds()

"""The loop: from a change to a pass, from a pass to the queue's next step.

Workers are long-lived coroutines; a key is worked on by one of them at a time. A pass decodes its object when it
begins, runs the author's coroutine under the timeout, sends the status patch, and tells the queue what to do
(`outcome`). Nothing an author raises ends a worker.
"""

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import anyio

from asyncctl.cache.header import Entry, Header, Key
from asyncctl.cache.informer import Informer
from asyncctl.cache.store import Handler
from asyncctl.client.bridge.errors import as_ours
from asyncctl.client.errors import KubernetesError, NotFound
from asyncctl.controller import finalizer
from asyncctl.controller.context import Context, Environment
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.mapping import Mapping, check_keys, mapping
from asyncctl.controller.outcome import (
    Failure,
    NotOwned,
    Requeue,
    TerminalError,
    TransientError,
    classify,
    retry_after,
)
from asyncctl.controller.sources import Predicate, Watch, default_predicate, kind_of
from asyncctl.objects.codec import DecodeError, decode
from asyncctl.objects.conditions import Condition, Status
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource, Unstructured
from asyncctl.observe.metrics import ControllerMetrics, Result
from asyncctl.queue.backoff import Random, spread
from asyncctl.queue.work_queue import QueueClosed, WorkQueue

T = TypeVar("T")
LOW = -100  # the priority of first lists and resyncs, controller-runtime's LowPriority
GIVE_UP = 5.0  # seconds for a cancelled pass to clean up after itself
PARKED = 600.0  # seconds, ±20 %, between the slow retries of a parked key
_TURN = 32  # passes that never wait, after which the other tasks have their turn
_STALLED = "Stalled"
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
        retry_limit: int,
        random: Random,
        metrics: ControllerMetrics,
    ) -> None:
        self.declaration = declaration
        self.queue = queue
        self.workers = declaration.workers or workers
        self.timeout = _seconds(declaration.timeout, timeout)
        self._environment = environment
        self._resync = _seconds(declaration.resync, resync)
        self._retry_limit = retry_limit
        self._random = random
        self._metrics = metrics
        self._kind = environment.resource
        self._informer = environment.informer(self._kind)
        self._when = declaration.primary.when or default_predicate(self._kind, declaration.finalizers)
        self._parked: set[Key] = set()
        self._passes: dict[Key, float] = {}
        self._ending = False
        self.left: set[asyncio.Task[None]] = set()
        """Workers that did not end when they were cancelled."""
        self._told: set[tuple[str, int]] = set()

    @property
    def informers(self) -> list[Informer]:
        """The caches that have to be filled before the first pass."""
        return list(self._environment.informers.values())

    def wire(self) -> None:
        """Have the caches tell what changes."""
        self._informer.subscribe(self._on_primary)
        for watch in self.declaration.watches:
            informer = self._environment.informer(kind_of(watch))
            informer.subscribe(self._on_watched(watch, informer, mapping(watch, informer, self._informer)))

    async def work(self) -> None:
        """Run the workers until the queue is closed and what they hold is done."""
        self._metrics.active.set(1)
        names = [f"{self.declaration.name} worker {number}" for number in range(self.workers)]
        # Plain tasks: an anyio scope would cancel a pass again at each await of its clean-up.
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
                self._environment.logger.error("a pass does not end, though it was cancelled", name="/".join(key))
            self._metrics.active.set(0)

    def overdue(self, grace: float) -> str | None:
        """An object whose pass is longer past its timeout than `grace` seconds, or None. For the watchdog."""
        limit = self._environment.clock.monotonic() - self.timeout - grace
        return next(("/".join(key) for key, since in self._passes.items() if since < limit), None)

    def _on_primary(self, old: Header | None, new: Header | None, initial: bool) -> None:  # noqa: FBT001 - a Handler
        header = new or old
        assert header is not None
        if new is None:
            self.queue.discard(header.key)
            self._unpark(header.key)
            return
        matters = self._matters(self._when, old, new)
        if old is not None:
            matters = matters or (old.deleting, old.paused, old.asked) != (new.deleting, new.paused, new.asked)
        if not matters:
            return
        if header.key in self._parked and old is not None:  # it has changed: it deserves all its tries again
            self.queue.forget(header.key)
            self._unpark(header.key)
        self.queue.add(header.key, priority=LOW if initial else 0)

    def _on_watched(self, watch: Watch[Any], informer: Informer, whom: Mapping | None) -> Handler:
        applied, kind, when = self._environment.applied, informer.kind, watch.when

        def handler(old: Header | None, new: Header | None, initial: bool) -> None:  # noqa: FBT001 - a Handler
            header = new or old
            assert header is not None
            if new is None:
                applied.pop((kind, header.key), None)
            if whom is None or (when is not None and not self._matters(when, old, new)):
                return
            try:
                keys = list(whom(old, new))
                check_keys(keys)
            except Exception as error:  # noqa: BLE001 - an author's mapper must not end the watch
                self._blame("a mapper", error)
                return
            for key in keys:
                self.queue.add(key, priority=LOW if initial else 0)

        return handler

    def _matters(self, when: Predicate, old: Header | None, new: Header | None) -> bool:
        try:
            return when(old, new)
        except Exception as error:  # noqa: BLE001 - an author's predicate must not cost an event
            self._blame("a predicate", error)
            return True

    def _blame(self, what: str, error: Exception) -> None:
        self._metrics.panics.inc()
        self._environment.logger.error(
            "an author's function has failed",
            function=what,
            controller=self.declaration.name,
            error=repr(error),
            exc_info=self._first_time(error),
        )

    async def _worker(self) -> None:
        passes = 0
        while True:
            try:
                key = await self.queue.get()
            except QueueClosed:
                return
            except asyncio.CancelledError:
                await self._own_cancellation_taken_back()
                continue
            try:
                await self._process(key)
            except asyncio.CancelledError:
                await self._own_cancellation_taken_back()
                self.queue.add(key)  # it came while the runtime wrote what the pass had said
            finally:
                self.queue.done(key)
            passes += 1
            if passes % _TURN == 0:
                await asyncio.sleep(0)

    async def _own_cancellation_taken_back(self) -> None:
        """A pass may have cancelled the task that it ran in, now or by a timer; only `work` may end a worker."""
        task = asyncio.current_task()
        while task is not None and task.cancelling() and not self._ending:
            task.uncancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # where what was not delivered yet is
        if self._ending:
            raise asyncio.CancelledError

    async def _process(self, key: Key) -> None:
        entry = self._informer.get(key)
        if entry is None or entry.header.paused or self._is_none_of_ours(entry.header):
            self.queue.forget(key)
            self._unpark(key)
            return
        started = time.perf_counter()
        self._passes[key] = self._environment.clock.monotonic()
        self._metrics.active_workers.inc()
        result: Result = "error"
        try:
            result = await self._pass(key, entry)
        except Exception as error:  # noqa: BLE001 - nothing an author does ends a worker
            result = self._after_failure(key, None, error, parks=self._parks(key, error))
        finally:
            del self._passes[key]
            self._metrics.active_workers.dec()
            self._metrics.finished(result, time.perf_counter() - started)

    def _is_none_of_ours(self, header: Header) -> bool:
        """Terminating, and not waiting for us: whatever we did to it would be too late."""
        return header.deleting and self.declaration.finalizers.keys().isdisjoint(header.finalizers)

    async def _pass(self, key: Key, entry: Entry) -> Result:
        requeue: Requeue | None = None
        error: Exception | None = None
        gone = False
        obj: Resource | JsonObject
        try:
            obj = decode(self.declaration.kind, entry.data)
        except DecodeError as undecodable:
            error, obj = undecodable, decode(_UNTYPED, entry.data)
        ctx = Context(
            self._environment, entry, obj, attempt=self.queue.attempts(key) + 1, reconcile_id=str(uuid4()),
            deadline=self._passes[key] + self.timeout,
        )  # fmt: skip
        before = _stalled(obj)
        try:
            if entry.header.deleting:  # also what can't be decoded: as a dict, or it could never go
                gone, error = await self._finalize(ctx, obj), None
            elif error is None:
                requeue = await self._reconcile(ctx, obj)
        except Exception as caught:  # noqa: BLE001 - nothing an author raises ends a worker
            if error is None or isinstance(caught, TerminalError):  # else it is that a dict is no object of the class
                error = as_ours(caught)
        except BaseException as caught:
            if isinstance(caught, GeneratorExit):
                raise
            if self._ending:
                await ctx.close()
                raise
            error = RuntimeError(f"the pass has raised {caught!r}, which would have ended its worker")
            error.__cause__ = caught
        await self._own_cancellation_taken_back()
        await ctx.close()
        parks = error is not None and self._parks(key, error)
        if not gone:
            news = self._mark_stalled(key, obj, before, error, parks=parks)
            unsaved = await self._save(ctx)
            if unsaved is not None and error is None:  # it counts only where the pass itself has not failed
                error, parks = unsaved, self._parks(key, unsaved)
                news = parks and key not in self._parked
            if news:
                ctx.warning(_stalled_reason(error), str(error))
        if error is not None:
            return self._after_failure(key, ctx, error, parks=parks)
        return self._after_success(key, requeue, gone=gone)

    async def _reconcile(self, ctx: Context, obj: Resource | JsonObject) -> Requeue | None:
        missing = tuple(name for name in self.declaration.finalizers if name not in ctx.header.finalizers)
        if missing:
            ctx.took(await finalizer.add(ctx.client, self._kind, ctx.header, missing))
        requeue = await self._timed(ctx, self.declaration.reconcile(ctx, obj))
        if not isinstance(requeue, Requeue | None):
            raise TypeError(f"reconcile must return None or a Requeue, not {requeue!r}")
        return requeue

    async def _finalize(self, ctx: Context, obj: Resource | JsonObject) -> bool:
        """Run the clean-ups in the order of their declaration; True when the object is gone after it."""
        for name, clean_up in self.declaration.finalizers.items():
            if name in ctx.header.finalizers:
                await self._timed(ctx, clean_up(ctx, obj))
                header = ctx.header
                try:
                    ctx.took(await finalizer.remove(ctx.client, self._kind, header, name))
                except NotFound:
                    return True
                if header.finalizers == (name,):
                    self._informer.deleted(header.key, header.uid)
                    return True
        return False

    async def _timed(self, ctx: Context, step: Awaitable[T]) -> T:
        scope = asyncio.timeout(ctx.deadline - self._environment.clock.monotonic())
        try:
            async with scope:
                return await step
        except TimeoutError as error:
            if not scope.expired():
                raise
            self._metrics.timeouts.inc()
            raise TimeoutError(
                f"the pass took longer than {self.timeout:g} s (ASYNCCTL_RECONCILE_TIMEOUT) and was cancelled"
            ) from error

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

    def _after_success(self, key: Key, requeue: Requeue | None, *, gone: bool) -> Result:
        self.queue.forget(key)
        self._unpark(key)
        if gone:
            return "success"
        if requeue is not None:
            self.queue.add(key, after=spread(requeue.seconds, 0.1, self._random))
            return "requeue_after"
        self.queue.add(key, after=spread(self._resync, 0.1, self._random), priority=LOW)
        return "success"

    def _after_failure(self, key: Key, ctx: Context | None, error: Exception, *, parks: bool) -> Result:
        failure = classify(error)
        log = ctx.log if ctx is not None else self._environment.logger.bind(
            controller=self.declaration.name, namespace=key[0], name=key[1]
        )  # fmt: skip
        known = isinstance(
            error, KubernetesError | TerminalError | TransientError | NotOwned | DecodeError | TimeoutError
        )
        if failure is Failure.TERMINAL:
            self._metrics.terminal_errors.inc()
        if not known:
            self._metrics.panics.inc()
        trace = not known and self._first_time(error)
        if failure is Failure.FAST and not parks:
            failures = self.queue.failures(key)
            delay = self.queue.retry_fast(key)
            tell = log.debug if self.queue.failures(key) == failures else log.warning
            tell("somebody else wrote the object first", error=str(error), retry_in=round(delay, 3))
            return "requeue"
        counted = failure is not Failure.UNCOUNTED
        at_least = spread(PARKED, 0.2, self._random) if parks else retry_after(error)
        delay = self.queue.retry(key, counted=counted, at_least=at_least)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        if not parks:
            log.warning("the pass has failed", error=text, retry_in=round(delay, 3), exc_info=trace)
            return "error"
        self._park(key, ctx, text, trace=trace)
        return "error"

    def _park(self, key: Key, ctx: Context | None, text: str, *, trace: bool) -> None:
        log = ctx.log if ctx is not None else self._environment.logger
        if key not in self._parked:
            self._parked.add(key)
            self._metrics.parked.set(len(self._parked))
            log.error("parked until the object changes", error=text, namespace=key[0], name=key[1], exc_info=trace)

    def _unpark(self, key: Key) -> None:
        if key in self._parked:
            self._parked.discard(key)
            self._metrics.parked.set(len(self._parked))

    def _parks(self, key: Key, error: Exception) -> bool:
        failure = classify(error)
        counts = failure is Failure.COUNTED or (failure is Failure.FAST and self.queue.conflicts_count(key))
        return failure is Failure.TERMINAL or (counts and self.queue.failures(key) + 1 >= self._retry_limit)

    def _mark_stalled(
        self, key: Key, obj: Resource | JsonObject, before: Condition | None, error: Exception | None, *, parks: bool
    ) -> bool:
        """Keep the condition `Stalled`; True when it is news that the object is parked, for this reason."""
        status = getattr(obj, "status", None)
        if not isinstance(status, Status):
            return parks and key not in self._parked
        if parks:
            reason = _stalled_reason(error)
            status.conditions.set(_STALLED, True, reason, str(error))
            return before is None or (before.status, before.reason) != ("True", reason)
        if error is None and before and before.status == "True" and status.conditions.get(_STALLED) is before:
            status.conditions.set(_STALLED, False, "Reconciled")
        return False

    def _first_time(self, error: Exception) -> bool:
        """Whether a traceback from this place has not been logged yet: once is enough to find it."""
        frames = traceback.extract_tb(error.__traceback__)
        place = (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)
        if place in self._told or len(self._told) > 1000:
            return False
        self._told.add(place)
        return True


def _stalled(obj: Resource | JsonObject) -> Condition | None:
    status = getattr(obj, "status", None)
    return status.conditions.get(_STALLED) if isinstance(status, Status) else None


def _stalled_reason(error: Exception | None) -> str:
    return error.reason if isinstance(error, TerminalError) else "RetryLimitExceeded"


def _seconds(given: timedelta | None, default: float) -> float:
    return default if given is None else given.total_seconds()

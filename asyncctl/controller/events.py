"""Events (events.k8s.io/v1) about objects: said in passing, written by one task of their own.

Saying something never blocks or fails a pass. What is said again within six minutes is one Event with a series, whose
count is written when it is said the second time, each half hour after that, and when it has ended. Who says ever new
things about one object is cut off after 25 of them. What the API server refuses is logged; what can't be sent waits
its turn, and what does not fit into the waiting line is counted and dropped.

Series, intervals and retries are those of client-go's `tools/events/event_broadcaster.go`, the cut is the
`EventSourceObjectSpamFilter` of its `tools/record/events_cache.go`. Other than there, a series is of one note, so that
no note is lost; and what only raises the count of a series costs no token of the object's, as it costs no request.
"""

import asyncio
import re
from collections import OrderedDict
from datetime import datetime
from typing import Any
from uuid import uuid4

import anyio
import msgspec

from asyncctl.client.client import Client
from asyncctl.client.errors import AlreadyExists, Fenced, NotFound
from asyncctl.client.patch import Patch
from asyncctl.clock import Clock
from asyncctl.controller.outcome import Failure, classify, retry_after
from asyncctl.objects.builtin import Event, EventSeries, ObjectReference, micro_time
from asyncctl.objects.codec import to_dict
from asyncctl.objects.meta import ObjectMeta
from asyncctl.observe.instruments import Count
from asyncctl.observe.logs import Logger
from asyncctl.queue.backoff import Random

LIMIT = 1000  # events that wait; more are dropped (maxQueuedEvents)
NOTE = 1024  # bytes: the API server refuses longer ones
TRIES = 12  # to write one, while the server can't be reached (maxTriesPerEvent)
RETRY = 10.0  # seconds between two of them, and up to a quarter more (defaultSleepDuration)
FINISHED = 360.0  # seconds after which what is said again is a new event (finishTime)
REFRESH = 1800.0  # seconds between two writes of a series that goes on (refreshTime)
SWEEP = 60.0  # seconds between two looks for series that have ended
BURST = 25  # different events about one object (defaultSpamBurst)
REFILL = 300.0  # seconds until one more may be said (defaultSpamQPS)
REMEMBERED = 4096  # series, and objects that were spoken of (maxLruCacheEntries)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_About = tuple[Any, ...]


class _Series:
    """One event, and how often it was said. `written`: how often as far as the server knows; 0: nothing at all."""

    __slots__ = ("count", "event", "last", "seen", "sent", "waits", "written")

    def __init__(self, event: Event, now: float, wall: datetime) -> None:
        self.event = event
        self.count = 1
        self.written = 0
        self.waits = False
        self.seen = now
        self.sent = now
        self.last = wall


class EventRecorder:
    """Takes events from any pass and writes them in order. `run` writes until cancelled, `flush` what is left.

    Args:
        client: Who writes.
        controller: The `reportingController`, such as `asyncctl-widgets`.
        instance: The `reportingInstance`, such as the name of the pod.
        clock: Time.
        random: For the jitter between tries.
        logger: Where it is told what could not be written.
        dropped: Counts the events that were neither written nor counted in a series.
    """

    def __init__(
        self, client: Client, *, controller: str, instance: str, clock: Clock, random: Random, logger: Logger,
        dropped: Count | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._controller = controller
        self._instance = instance[:128]
        self._clock = clock
        self._random = random
        self._logger = logger
        self._waiting: asyncio.Queue[_Series] = asyncio.Queue(LIMIT)
        self._series: OrderedDict[tuple[_About, str, str, str, str], _Series] = OrderedDict()
        self._tokens: OrderedDict[_About, tuple[float, float]] = OrderedDict()  # how many there are, and since when
        self._quiet: dict[str, float] = {}  # what was told of it, and until when it is not told again
        self._dropped = dropped or Count()

    def say(self, regarding: ObjectReference, kind: str, reason: str, note: str, action: str = "Reconcile") -> None:
        """Say `reason` and `note` (kind `Normal` or `Warning`) about the object reference `regarding`."""
        note = str(note).encode(errors="replace")[:NOTE].decode(errors="ignore")  # an author may give an exception
        about = msgspec.structs.astuple(regarding)
        key = about, kind, str(reason), note, action
        now = self._clock.monotonic()
        series = self._series.get(key)
        if series is not None and now - series.seen < FINISHED:
            series.count += 1
            series.seen, series.last = now, self._clock.now()
            self._series.move_to_end(key)
            if series.written < 2:
                self._wait(series)
            return
        if series is not None:
            self._finish(key, series)
        if not self._may_speak_of(about, now):
            self._drop(
                "too much is said about one object; some of it is dropped", now,
                kind=regarding.kind, namespace=regarding.namespace, name=regarding.name,
            )  # fmt: skip
            return
        series = _Series(self._event(regarding, kind, str(reason), note, action), now, self._clock.now())
        if not self._wait(series):
            self._drop("events are said faster than the API server takes them; some are dropped", now)
            return
        self._series[key] = series
        if len(self._series) > REMEMBERED:
            self._finish(*next(iter(self._series.items())))

    async def run(self) -> None:
        """Write what is said, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweep, name="event series")
            while True:
                series = await self._waiting.get()
                try:
                    await self._write(series)
                finally:
                    self._waiting.task_done()

    @property
    def dropped(self) -> int:
        """Events that were neither written nor counted in a series."""
        return int(self._dropped.value)

    async def flush(self) -> None:
        """Return when `run` has written what still waits, and how often each was said."""
        for series in self._series.values():
            self._wait_if_behind(series)
        await self._waiting.join()

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP)
            now = self._clock.monotonic()
            for key, series in list(self._series.items()):
                if now - series.seen >= FINISHED:
                    self._finish(key, series)
                elif now - series.sent >= REFRESH:
                    self._wait_if_behind(series)

    def _finish(self, key: tuple[_About, str, str, str, str], series: _Series) -> None:
        del self._series[key]
        self._wait_if_behind(series)

    def _wait_if_behind(self, series: _Series) -> None:
        if series.written < series.count:
            self._wait(series)

    def _wait(self, series: _Series) -> bool:
        """Put it into the waiting line, unless it is there; False when that is full."""
        if not series.waits:
            try:
                self._waiting.put_nowait(series)
            except asyncio.QueueFull:
                return False
            series.waits = True
        return True

    def _may_speak_of(self, about: _About, now: float) -> bool:
        tokens, since = self._tokens.pop(about, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL)
        allowed = tokens >= 1.0
        self._tokens[about] = (tokens - 1.0 if allowed else tokens), now
        if len(self._tokens) > REMEMBERED:
            self._tokens.popitem(last=False)
        return allowed

    def _drop(self, why: str, now: float, **names: str | None) -> None:
        self._dropped.inc()
        if now >= self._quiet.get(why, now):
            self._quiet[why] = now + FINISHED
            self._logger.warning(why, dropped=self.dropped, **names)

    def _event(self, regarding: ObjectReference, kind: str, reason: str, note: str, action: str) -> Event:
        stem = regarding.name[:200].rstrip("-.")
        if not _NAME.fullmatch(stem):  # such as a ClusterRole's `system:node`
            stem = regarding.kind.lower()
        return Event(
            metadata=ObjectMeta(name=f"{stem}.{uuid4().hex[:16]}", namespace=regarding.namespace or "default"),
            event_time=micro_time(self._clock.now()),
            reporting_controller=self._controller,
            reporting_instance=self._instance,
            action=action,
            reason=reason,
            regarding=regarding,
            note=note,
            type=kind,
        )

    async def _write(self, series: _Series) -> None:
        series.waits = False
        for attempt in range(1, TRIES + 1):
            try:
                await self._send(series)
            except Exception as error:  # noqa: BLE001 - whatever an author says, it must not end the program
                lasting = classify(error) is not Failure.UNCOUNTED or isinstance(error, Fenced)
                if lasting or attempt == TRIES:
                    self._logger.warning("an event could not be written", reason=series.event.reason, error=str(error))
                    return
                delay = RETRY * (1.0 + self._random() / 4.0)
                await self._clock.sleep(max(delay, retry_after(error)))
            else:
                return

    async def _send(self, series: _Series) -> None:
        """Tell the server of it, or how often by now: one request, or two where the server has forgotten it."""
        count, series.sent = series.count, self._clock.monotonic()
        if count <= series.written:
            return
        event = series.event
        event.series = EventSeries(count=count, last_observed_time=micro_time(series.last)) if count > 1 else None
        if series.written and await self._raise(event):
            series.written = count
            return
        try:
            await self._client.create(event)
        except AlreadyExists:  # it is ours: the answer was lost
            await self._raise(event)
        series.written = count

    async def _raise(self, event: Event) -> bool:
        """Write the count of a series; False when the server does not have it: it forgets events, within an hour."""
        if event.series is None:
            return True
        meta, change = event.metadata, {"series": to_dict(event.series)}
        kind = Event.resource_type
        try:
            await self._client.patch(kind, meta.name, change, patch=Patch.MERGE, namespace=meta.namespace)
        except NotFound:
            return False
        return True

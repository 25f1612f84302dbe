"""The queue between what happened and who works on it.

It promises: a key is handed to one worker at a time; a key that was added is handed out after that add, once, however
often it was added; of two times to come the earlier counts; of two priorities the higher. It holds keys, not events,
and knows nothing of what they mean. It belongs to one event loop and is called from there only; `statistics` alone may
be asked from another thread. Sources: client-go `util/workqueue` (the three sets), controller-runtime
`pkg/controller/priorityqueue` (priorities).
"""

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Hashable
from contextlib import suppress
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from asyncctl.clock import Clock, Timer
from asyncctl.queue.backoff import Backoff, Random
from asyncctl.queue.statistics import NullQueueMetrics, QueueContents, QueueMetrics, QueueStatistics
from asyncctl.queue.token_bucket import TokenBucket

__all__ = ["QueueClosed", "WorkQueue"]

K = TypeVar("K", bound=Hashable)

RETRY = Backoff(base=5.0, maximum=60.0)
CONFLICT = Backoff(base=0.01, maximum=1.0)
CONFLICTS = 5  # that are retried fast, then they count like any failure


class QueueClosed(Exception):
    """No more keys: the queue is draining or closed."""


class _Failures:
    """What is remembered of a key between its first failure and `forget`."""

    __slots__ = ("conflicts", "counted", "retries")

    def __init__(self) -> None:
        self.retries = 0
        self.counted = 0
        self.conflicts = 0


class _Held(NamedTuple):
    """A key in a worker's hands."""

    since: float
    priority: int


class WorkQueue(Generic[K]):
    """Keys to work on: at most once each, never the same twice at a time, retried with patience.

    Args:
        clock: where time and the timers come from: one for the delays, one for the rate.
        random: jitter; returns a float in [0, 1).
        retry: delays of `retry`.
        interval: least seconds between two times that one key is handed out; 0 is no limit. A key that comes too early
            is delayed, whatever it comes for.
        rate: keys a second that are handed out in the long run, over all; 0 is no limit. Which key is next is decided
            when its turn has come, so that priorities hold.
        burst: how many may be handed out at once after a quiet time.
        metrics: who counts.

    Raises:
        ValueError: the interval or the rate is negative, or `burst` is less than 1 while there is a rate.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Random,
        retry: Backoff = RETRY,
        interval: float = 0.0,
        rate: float = 0.0,
        burst: int = 1,
        metrics: QueueMetrics | None = None,
    ) -> None:
        if interval < 0:
            raise ValueError(f"a queue needs an interval of at least 0 seconds, not {interval}")
        self._clock = clock
        self._random = random
        self._retry = retry
        self._metrics: QueueMetrics = metrics or NullQueueMetrics()

        # queued: ready to be taken -> its priority. Each is in exactly one level, that of its priority.
        self._queued: dict[K, int] = {}
        # processing: in a worker's hands. Disjoint from queued.
        self._processing: dict[K, _Held] = {}
        # dirty: added while processing; goes to queued at `done`. A subset of processing. -> (since when, priority)
        self._dirty: dict[K, _Held] = {}
        # delayed: its time is to come -> (when, serial, priority). Disjoint from queued and from dirty.
        self._delayed: dict[K, tuple[float, int, int]] = {}

        # Ordered dictionaries, not dictionaries: taking the first out of a plain one walks over all holes before it.
        # key -> when it became ready. A level may be empty until it comes to the top of the heap.
        self._levels: dict[int, OrderedDict[K, float]] = {}
        self._priorities: list[int] = []  # a heap of the negated priorities in _levels
        # A heap of (when, serial, key). An entry whose serial is not that in _delayed is void.
        self._times: list[tuple[float, int, K]] = []
        self._serial = 0
        self._timer: Timer | None = None  # runs for the earliest time, or for an earlier one that is void by now
        self._timer_at = 0.0

        self._interval = interval
        # Whose last start is less than `interval` ago, and when that was, earliest first; empty without an interval.
        # What is added too early is delayed until then, also while it is processed: `add` alone has to look here.
        self._starts: OrderedDict[K, float] = OrderedDict()
        self._limit = TokenBucket(rate, burst, clock) if rate else None
        # Invariant: where a key is queued and a getter waits for nothing but a token, this timer runs.
        self._limit_timer: Timer | None = None

        self._failures: dict[K, _Failures] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._idle = asyncio.Event()  # set when closed and nothing is processed any more
        self._metrics.attach(self.statistics)

    def __len__(self) -> int:
        """How many keys a worker could take now."""
        return len(self._queued)

    def add(self, key: K, *, priority: int = 0, after: float = 0.0) -> None:
        """Have `key` worked on, `after` seconds from now; ignored once the queue drains.

        A second add keeps the higher priority and the earlier time. A key that is being processed is handed out again
        after `done`.
        """
        if self._closed:
            return
        if after > 0.0:
            self._metrics.delayed()
        now = self._clock.monotonic()
        if (known := self._queued.get(key)) is not None:
            if priority > known:
                self._level(priority)[key] = self._levels[known].pop(key)
                self._queued[key] = priority
            return
        if (held := self._dirty.get(key)) is not None:
            if priority > held.priority:
                self._dirty[key] = _Held(held.since, priority)
            return
        if (delayed := self._delayed.get(key)) is not None:
            priority = max(priority, delayed[2])
        when = now + after
        if self._starts and (last := self._starts.get(key)) is not None:
            when = max(when, last + self._interval)
        if when > now:
            if delayed is not None and delayed[0] <= when:
                if priority > delayed[2]:
                    self._delayed[key] = (delayed[0], delayed[1], priority)
            else:
                self._delay(key, when, priority)
            return
        if delayed is not None:
            del self._delayed[key]
        self._make_ready(key, priority, now)

    async def get(self) -> K:
        """Wait for a key and take it; the caller calls `done` with it. Of several callers each gets another key.

        Cancelling is safe: no key is lost.

        Raises:
            QueueClosed: the queue is draining or closed.
        """
        while not self._closed and not (self._queued and (self._limit is None or self._limit.take())):
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            if self._queued:
                self._await_token()
            try:
                await getter
            except asyncio.CancelledError:
                if getter.cancelled():
                    with suppress(ValueError):  # `_wake` may have dropped it already
                        self._getters.remove(getter)
                elif self._queued:  # it was woken for a key; somebody else must come for it
                    self._wake()
                raise
        if self._closed:
            raise QueueClosed
        level = self._levels[-self._priorities[0]]
        while not level:
            del self._levels[-heapq.heappop(self._priorities)]
            level = self._levels[-self._priorities[0]]
        key, since = level.popitem(last=False)
        priority = self._queued.pop(key)
        now = self._clock.monotonic()
        self._processing[key] = _Held(now, priority)
        if self._interval:
            self._remember(key, now)
        if self._limit is not None and self._queued and self._getters:
            self._await_token()
        self._metrics.started(now - since)
        return key

    def done(self, key: K) -> None:
        """Give back a key that `get` gave; if it was added meanwhile, it is ready again.

        Raises:
            ValueError: the key is not being processed.
        """
        held = self._processing.pop(key, None)
        if held is None:
            raise ValueError(f"done({key!r}): this key is not being processed; done is called once for each get")
        self._metrics.finished(self._clock.monotonic() - held.since)
        again = self._dirty.pop(key, None)
        if self._closed:
            if not self._processing:
                self._idle.set()
        elif again is not None:
            self._queue(key, again.priority, again.since)

    def retry(self, key: K, *, counted: bool = True, at_least: float = 0.0) -> float:
        """Add `key` after `min(max, base · 2^n)` seconds plus jitter, with the priority that it is processed at.

        Args:
            key: what failed.
            counted: whether the failure says something of the object; one that does not still waits longer each
                time, but is not in `failures`.
            at_least: seconds that somebody asked us to wait (a Retry-After).

        Returns:
            The delay in seconds.
        """
        record = self._failures.setdefault(key, _Failures())
        delay = max(at_least, self._retry.delay(record.retries, self._random))
        record.retries += 1
        record.counted += counted
        return self._again(key, delay)

    def retry_fast(self, key: K) -> float:
        """Add `key` soon: somebody else wrote the object first. The sixth time in a row counts like any failure.

        Returns:
            The delay in seconds: 10 ms doubling to 1 s, plus jitter.
        """
        record = self._failures.setdefault(key, _Failures())
        if record.conflicts >= CONFLICTS:
            return self.retry(key)
        delay = CONFLICT.delay(record.conflicts, self._random)
        record.conflicts += 1
        return self._again(key, delay)

    def conflicts_count(self, key: K) -> bool:
        """Whether the next `retry_fast` counts like any failure."""
        record = self._failures.get(key)
        return record is not None and record.conflicts >= CONFLICTS

    def attempts(self, key: K) -> int:
        """How often `key` was retried, for whatever reason, since it was last forgotten."""
        record = self._failures.get(key)
        return 0 if record is None else record.retries + record.conflicts

    def failures(self, key: K) -> int:
        """How many of the failures of `key` since it was last forgotten count towards a limit."""
        record = self._failures.get(key)
        return 0 if record is None else record.counted

    def forget(self, key: K) -> None:
        """Forget that `key` ever failed. A retry that is on its way stays."""
        self._failures.pop(key, None)

    def discard(self, key: K) -> None:
        """The thing that `key` stands for is gone: forget it, and what was to come of it. What is processed goes on."""
        self._failures.pop(key, None)
        self._delayed.pop(key, None)  # its time in the heap is void by that
        self._dirty.pop(key, None)
        priority = self._queued.pop(key, None)
        if priority is not None:
            del self._levels[priority][key]

    async def drain(self) -> None:
        """Hand out nothing more, drop what waits, return when nothing is processed; the deadline is the caller's."""
        self.close()
        if self._processing:
            await self._idle.wait()

    def close(self) -> None:
        """Hand out nothing more and drop what waits; callers of `get` get `QueueClosed`. Harmless a second time."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._limit_timer is not None:
            self._limit_timer.cancel()
            self._limit_timer = None
        self._queued.clear()
        self._levels.clear()
        self._priorities.clear()
        self._dirty.clear()
        self._delayed.clear()
        self._times.clear()
        self._starts.clear()
        while self._getters:
            self._wake()

    def statistics(self) -> QueueStatistics:
        """Return what the queue holds; may be called from another thread."""
        now = self._clock.monotonic()
        # Copying, and listing values, is one step for the interpreter: the loop's thread can't change it meanwhile.
        return QueueStatistics(
            queued=len(self._queued),
            delayed=len(self._delayed),
            processing=len(self._processing),
            dirty=len(self._dirty),
            retrying=len(self._failures),
            depths={priority: len(level) for priority, level in self._levels.copy().items() if level},
            working=tuple(max(0.0, now - held.since) for held in list(self._processing.values())),
        )

    def contents(self, most: int) -> QueueContents[K]:
        """Return the keys of each set, `most` of each at the most; may be called from another thread, as above."""
        now = self._clock.monotonic()
        levels = sorted(self._levels.copy().items(), reverse=True)
        queued = ((key, now - since, priority) for priority, level in levels for key, since in level.copy().items())
        held, dirty = self._processing.copy(), self._dirty.copy()
        delayed = heapq.nsmallest(most, self._delayed.copy().items(), key=lambda item: item[1])
        return QueueContents(
            queued=list(islice(queued, most)),
            processing=[(key, max(0.0, now - each.since), key in dirty) for key, each in islice(held.items(), most)],
            delayed=[(key, when - now, priority) for key, (when, _, priority) in delayed],
        )

    def _again(self, key: K, delay: float) -> float:
        held = self._processing.get(key)
        self.add(key, priority=0 if held is None else held.priority, after=delay)
        return delay

    def _make_ready(self, key: K, priority: int, now: float) -> None:
        self._metrics.added()
        if key in self._processing:
            self._dirty[key] = _Held(now, priority)
        else:
            self._queue(key, priority, now)

    def _queue(self, key: K, priority: int, since: float) -> None:
        self._queued[key] = priority
        self._level(priority)[key] = since
        self._wake()

    def _level(self, priority: int) -> OrderedDict[K, float]:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = OrderedDict()
            heapq.heappush(self._priorities, -priority)
        return level

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _remember(self, key: K, now: float) -> None:
        starts = self._starts
        starts[key] = now
        starts.move_to_end(key)
        while now - next(iter(starts.values())) >= self._interval:
            starts.popitem(last=False)

    def _await_token(self) -> None:
        """Have a waiting worker come again as soon as there is a token; which key it takes is decided then."""
        assert self._limit is not None
        seconds = self._limit.wait()
        if seconds == 0.0:
            self._wake()
        elif self._limit_timer is None:
            self._limit_timer = self._clock.call_at(self._clock.monotonic() + seconds, self._on_token)

    def _on_token(self) -> None:
        self._limit_timer = None
        if self._queued:
            self._wake()

    def _delay(self, key: K, when: float, priority: int) -> None:
        self._serial += 1
        self._delayed[key] = (when, self._serial, priority)
        heapq.heappush(self._times, (when, self._serial, key))
        if len(self._times) > 2 * len(self._delayed) + 64:  # mostly void: keys that were promoted or put forward
            self._times = [(when, serial, key) for key, (when, serial, _) in self._delayed.items()]
            heapq.heapify(self._times)
        self._arm()

    def _arm(self) -> None:
        if not self._times:
            return
        when = self._times[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._clock.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._times and self._times[0][0] <= now:
            _, serial, key = heapq.heappop(self._times)
            delayed = self._delayed.get(key)
            if delayed is not None and delayed[1] == serial:
                del self._delayed[key]
                self._make_ready(key, delayed[2], now)
        self._arm()

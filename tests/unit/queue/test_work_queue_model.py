"""Any sequence of calls, against a model that is too simple to be wrong: never twice at once, never lost, the earliest
time wins, higher priorities first, no key and no queue faster than allowed, and a drain that ends."""

import asyncio

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncctl.queue import QueueClosed, WorkQueue
from asyncctl.testing.clock import FakeClock

KEYS = st.sampled_from("abcdef")
PRIORITIES = st.sampled_from([0, 0, 0, -1, 5])
DELAYS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 10.0])


class Model:
    """Lists and searches instead of sets and heaps."""

    def __init__(self, interval, rate, burst):
        self.interval, self.rate, self.burst = interval, rate, burst
        self.now = 0.0
        self.tokens = burst
        self.starts = []  # (when, key), all there ever were
        self.failed = {}  # key -> [retries, counted, conflicts]
        self.ready = []  # [key, priority], in order of becoming so
        self.processing = {}  # key -> priority
        self.dirty = {}  # key -> priority
        self.delayed = []  # [when, key, priority], in order of becoming so

    def add(self, key, priority, after):
        for entry in self.ready:
            if entry[0] == key:
                if priority > entry[1]:
                    self.ready.remove(entry)
                    self.ready.append([key, priority])
                return
        if key in self.dirty:
            self.dirty[key] = max(priority, self.dirty[key])
            return
        when = max([self.now + after, *(start + self.interval for start, other in self.starts if other == key)])
        for entry in [entry for entry in self.delayed if entry[1] == key]:
            priority = max(priority, entry[2])
            if entry[0] <= when:
                entry[2] = priority
                return
            self.delayed.remove(entry)
        if when > self.now:
            self.delayed.append([when, key, priority])
        else:
            self._make_ready(key, priority)

    def _make_ready(self, key, priority):
        if key in self.processing:
            self.dirty[key] = priority
        else:
            self.ready.append([key, priority])

    def retry(self, key, *, counted=True, at_least=0.0):
        failed = self.failed.setdefault(key, [0, 0, 0])
        delay = max(min(5.0 * 2 ** failed[0], 60.0), at_least)
        failed[0] += 1
        failed[1] += counted
        self.add(key, self.processing.get(key, 0), delay)

    def retry_fast(self, key):
        failed = self.failed.setdefault(key, [0, 0, 0])
        if failed[2] == 5:
            self.retry(key)
            return
        failed[2] += 1
        self.add(key, self.processing.get(key, 0), min(0.01 * 2 ** (failed[2] - 1), 1.0))

    def advance(self, seconds):
        self.now += seconds
        self.tokens = min(self.burst, self.tokens + seconds * self.rate)
        for entry in sorted(self.delayed, key=lambda entry: entry[0]):
            if entry[0] <= self.now:
                self.delayed.remove(entry)
                self._make_ready(entry[1], entry[2])

    @property
    def may_start(self):
        return bool(self.ready) and (self.rate == 0 or self.tokens >= 1)

    def take(self):
        assert self.may_start
        self.tokens -= 1
        entry = max(self.ready, key=lambda entry: entry[1])  # the first of the highest
        self.ready.remove(entry)
        self.processing[entry[0]] = entry[1]
        self.starts.append((self.now, entry[0]))
        return entry[0]

    def discard(self, key):
        self.ready = [entry for entry in self.ready if entry[0] != key]
        self.delayed = [entry for entry in self.delayed if entry[1] != key]
        self.dirty.pop(key, None)
        self.failed.pop(key, None)

    def done(self, key):
        del self.processing[key]
        if key in self.dirty:
            self.ready.append([key, self.dirty.pop(key)])


class QueueMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock(monotonic=0.0)
        self.workers = []  # tasks that wait in get
        self.taken = []  # keys as they were handed out, until compared with the model

    # Sums and products of these are exact: a token is there at the same moment for both.
    @initialize(
        interval=st.sampled_from([0.0, 0.0, 0.5, 8.0]),
        rate=st.sampled_from([0.0, 0.0, 0.25, 2.0]),
        burst=st.sampled_from([1, 3]),
        abrupt=st.booleans(),
    )
    def begin(self, interval, rate, burst, abrupt):
        self.abrupt = abrupt  # whether the drain comes while keys wait
        self.queue = WorkQueue(clock=self.clock, random=lambda: 0.0, interval=interval, rate=rate, burst=burst)
        self.model = Model(interval, rate, burst)

    def settle(self):
        self.runner.run(self.clock.settle())
        self.workers = [worker for worker in self.workers if not worker.done()]
        for key in self.taken:
            assert key not in self.model.processing, "handed out twice at once"
            assert key == self.model.take()
        self.taken.clear()
        assert not (self.workers and self.model.may_start), "a worker waits though a key is ready"

    async def work(self):
        try:
            self.taken.append(await self.queue.get())
        except QueueClosed:
            self.taken.append(QueueClosed)

    def start_worker(self):
        self.workers.append(self.runner.get_loop().create_task(self.work()))

    @rule(key=KEYS, priority=PRIORITIES, after=DELAYS)
    def add(self, key, priority, after):
        self.queue.add(key, priority=priority, after=after)
        self.model.add(key, priority, after)
        self.settle()

    @rule(keys=st.lists(KEYS, min_size=2))
    def add_many(self, keys):
        for key in keys:
            self.queue.add(key)
            self.model.add(key, 0, 0)
        self.settle()

    @rule(key=KEYS)
    def discard(self, key):
        self.queue.discard(key)
        self.model.discard(key)
        self.settle()

    @rule(count=st.sampled_from([1, 1, 4]))
    def workers_ask(self, count):
        for _ in range(count):
            self.start_worker()
        self.settle()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), key=KEYS, first=st.booleans())
    def worker_is_cancelled_as_a_key_comes(self, data, key, first):
        worker = data.draw(st.sampled_from([self.workers[0], *self.workers]))  # the first is the one that is woken
        if first:
            worker.cancel()
        self.queue.add(key)
        self.model.add(key, 0, 0)
        worker.cancel()
        self.settle()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_is_cancelled(self, data):
        data.draw(st.sampled_from(self.workers)).cancel()
        self.settle()

    @precondition(lambda self: self.model.processing)
    @rule(data=st.data())
    def worker_is_done(self, data):
        key = data.draw(st.sampled_from(sorted(self.model.processing)))
        self.queue.forget(key)
        self.model.failed.pop(key, None)
        self.queue.done(key)
        self.model.done(key)
        self.settle()

    @precondition(lambda self: self.model.processing)
    @rule(
        data=st.data(),
        how=st.sampled_from(["fails", "fails", "conflicts", "conflicts six times", "is held up by an outage", "parks"]),
    )
    def worker_fails(self, data, how):
        key = data.draw(st.sampled_from(sorted(self.model.processing)))
        for queue in (self.queue, self.model):
            match how:
                case "conflicts":
                    queue.retry_fast(key)
                case "conflicts six times":
                    for _ in range(6):
                        queue.retry_fast(key)
                case "parks":
                    queue.retry(key, at_least=600.0)
                case _:
                    queue.retry(key, counted=how == "fails")
            queue.done(key)
        self.settle()

    @rule(key=KEYS)
    def forget(self, key):
        self.queue.forget(key)
        self.model.failed.pop(key, None)

    @rule(seconds=st.sampled_from([1 / 64, 0.5, 1.0, 4.0, 64.0, 1024.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)
        self.model.advance(seconds)
        self.settle()

    @invariant()
    def every_key_is_where_the_model_has_it(self):
        statistics = self.queue.statistics()
        assert statistics.queued == len(self.model.ready) == len(self.queue)
        assert statistics.delayed == len(self.model.delayed)
        assert statistics.processing == len(self.model.processing)
        assert statistics.dirty == len(self.model.dirty)
        assert statistics.retrying == len(self.model.failed)
        assert len(self.clock.timers) <= 2

    @invariant()
    def every_failure_is_remembered(self):
        for key, (retries, counted, conflicts) in self.model.failed.items():
            assert self.queue.attempts(key) == retries + conflicts
            assert self.queue.failures(key) == counted
            assert self.queue.conflicts_count(key) == (conflicts == 5)

    @invariant()
    def no_key_starts_sooner_than_its_interval_after_its_last_start(self):
        by_key = {}
        for when, key in self.model.starts:
            assert when - by_key.get(key, float("-inf")) >= self.model.interval
            by_key[key] = when
        last = self.model.starts[-1][0] if self.model.starts else 0.0
        recent = {key for when, key in self.model.starts if last - when < self.model.interval}
        assert self.queue._starts.keys() == recent  # what no longer matters is not remembered

    @invariant()
    def no_more_start_than_the_rate_allows(self):
        model = self.model
        for index, (first, _) in enumerate(model.starts if model.rate else ()):
            for count, (last, _) in enumerate(model.starts[index:], start=1):
                assert count <= model.burst + (last - first) * model.rate

    @invariant()
    def the_sets_keep_their_promises(self):
        queue = self.queue
        assert not queue._queued.keys() & queue._processing.keys()
        assert queue._dirty.keys() <= queue._processing.keys()
        assert not queue._delayed.keys() & (queue._queued.keys() | queue._dirty.keys())
        assert sorted(key for level in queue._levels.values() for key in level) == sorted(queue._queued)
        assert all(key in queue._levels[priority] for key, priority in queue._queued.items())
        assert not queue._delayed or min(queue._delayed.values())[0] >= queue._timer_at

    def teardown(self):
        """Whatever has happened before: keys that wait for time come, and a drain ends."""
        while not self.abrupt and (self.model.ready or self.model.delayed):
            for _ in range(len(self.model.ready) - len(self.workers)):
                self.start_worker()
            self.clock.advance(256)
            self.model.advance(256)
            self.settle()
        drain = self.runner.get_loop().create_task(self.queue.drain())
        self.start_worker()
        self.runner.run(self.clock.settle())
        assert {QueueClosed} == set(self.taken)
        for key in list(self.model.processing):
            assert not drain.done()
            self.queue.retry(key)
            self.queue.done(key)
            self.runner.run(self.clock.settle())
        assert drain.done()
        assert self.clock.timers == []
        self.runner.close()


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueueAgainstModel = QueueMachine.TestCase

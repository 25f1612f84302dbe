"""Any sequence of calls, against a model that is too simple to be wrong: never twice at once, never lost, the earliest
time wins, higher priorities first, and a drain that ends."""

import asyncio

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncctl.queue import QueueClosed, WorkQueue
from asyncctl.testing.clock import FakeClock

KEYS = st.sampled_from("abcdef")
PRIORITIES = st.sampled_from([0, 0, 0, -1, 5])
DELAYS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 10.0])


class Model:
    """Lists and searches instead of sets and heaps."""

    def __init__(self):
        self.now = 0.0
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
        when = self.now + after
        for entry in [entry for entry in self.delayed if entry[1] == key]:
            priority = max(priority, entry[2])
            if entry[0] <= when:
                entry[2] = priority
                return
            self.delayed.remove(entry)
        if after > 0:
            self.delayed.append([when, key, priority])
        else:
            self._make_ready(key, priority)

    def _make_ready(self, key, priority):
        if key in self.processing:
            self.dirty[key] = priority
        else:
            self.ready.append([key, priority])

    def advance(self, seconds):
        self.now += seconds
        for entry in sorted(self.delayed, key=lambda entry: entry[0]):
            if entry[0] <= self.now:
                self.delayed.remove(entry)
                self._make_ready(entry[1], entry[2])

    def take(self):
        entry = max(self.ready, key=lambda entry: entry[1])  # the first of the highest
        self.ready.remove(entry)
        self.processing[entry[0]] = entry[1]
        return entry[0]

    def discard(self, key):
        self.ready = [entry for entry in self.ready if entry[0] != key]
        self.delayed = [entry for entry in self.delayed if entry[1] != key]
        self.dirty.pop(key, None)

    def done(self, key):
        del self.processing[key]
        if key in self.dirty:
            self.ready.append([key, self.dirty.pop(key)])


class QueueMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock(monotonic=0.0)
        self.queue = WorkQueue(clock=self.clock, random=lambda: 0.0)
        self.model = Model()
        self.workers = []  # tasks that wait in get
        self.taken = []  # keys as they were handed out, until compared with the model

    def settle(self):
        self.runner.run(self.clock.settle())
        self.workers = [worker for worker in self.workers if not worker.done()]
        for key in self.taken:
            assert key not in self.model.processing, "handed out twice at once"
            assert key == self.model.take()
        self.taken.clear()
        assert not (self.workers and self.model.ready), "a worker waits though a key is ready"

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

    @rule()
    def worker_asks(self):
        self.start_worker()
        self.settle()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), key=KEYS, first=st.booleans())
    def worker_is_cancelled_as_a_key_comes(self, data, key, first):
        worker = data.draw(st.sampled_from(self.workers))
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
        self.queue.done(key)
        self.model.done(key)
        self.settle()

    @precondition(lambda self: self.model.processing)
    @rule(data=st.data(), fast=st.booleans())
    def worker_fails(self, data, fast):
        key = data.draw(st.sampled_from(sorted(self.model.processing)))
        delay = self.queue.retry_fast(key) if fast else self.queue.retry(key)
        self.model.add(key, self.model.processing[key], delay)
        self.queue.done(key)
        self.model.done(key)
        self.settle()

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 5.0, 60.0]))
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
        assert len(self.clock.timers) <= 1

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
        self.clock.advance(1000)
        self.model.advance(1000)
        self.settle()
        for _ in range(len(self.model.ready) - len(self.workers)):
            self.start_worker()
        self.settle()
        assert not self.model.ready
        assert not self.model.delayed
        self.start_worker()
        drain = self.runner.get_loop().create_task(self.queue.drain())
        self.runner.run(self.clock.settle())
        assert set(self.taken) <= {QueueClosed}
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

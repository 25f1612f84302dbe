"""Every object is looked at again, in a flat stream: once a period, and soon after a mapper has failed."""

import asyncio
import itertools
from collections import Counter, defaultdict
from contextlib import asynccontextmanager

import pytest

from asyncctl.cache.header import read_entry
from asyncctl.controller.sweep import LOW, Sweep
from asyncctl.queue import WorkQueue
from asyncctl.testing.clock import FakeClock
from tests.unit.support import Log

PERIOD = 36000.0


class Swept:
    """A sweep over a thousand objects, whose keys are taken at once."""

    def __init__(self):
        self.clock = FakeClock(monotonic=0.0)
        self.log = Log()
        self.objects = [self.make(number) for number in range(1000)]
        self.dice = 0.5
        self.queue = WorkQueue(clock=self.clock, random=lambda: 0.0)
        self.sweep = Sweep(
            lambda: iter(list(self.objects)), self.queue, period=PERIOD, delay=5.0,
            clock=self.clock, random=lambda: self.dice, logger=self.log.logger,
        )  # fmt: skip
        self.seen = []  # (when, name)
        self.priorities = set()

    def make(self, number):
        return read_entry(b'{"metadata":{"name":"w-%d","namespace":"team"}}' % number)

    async def take(self):
        while True:
            key = await self.queue.get()
            self.priorities.add(self.queue._processing[key].priority)
            self.seen.append((self.clock.monotonic(), key[1]))
            self.queue.done(key)

    @asynccontextmanager
    async def running(self, step):
        tasks = [asyncio.create_task(each, name="sweep") for each in (step(), self.take())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            self.queue.close()
            assert self.clock.timers == []


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio", {"debug": False}  # thousands of timers


@pytest.fixture
def swept():
    return Swept()


def is_flat(times, first, last):
    """Whether of a thousand moments about as many lie in each tenth; what it allows is seen once in ten million."""
    bins = Counter(int((when - first) / (last - first) * 10) for when in times)
    return set(bins) <= set(range(10)) and all(50 <= bins[each] <= 150 for each in range(10))


async def test_the_first_resync_is_spread_over_the_whole_period(swept):
    async with swept.running(swept.sweep.each_period):
        await swept.clock.elapse(PERIOD - 1)
        assert sorted(Counter(name for _, name in swept.seen).values()) == [1] * 1000
        assert is_flat([when for when, _ in swept.seen], 0.0, PERIOD)
        assert max(Counter(when // 60 for when, _ in swept.seen).values()) <= 15  # in a minute; on the average 1.7
        assert swept.priorities == {LOW}


async def test_each_object_has_one_turn_in_each_period_give_or_take_a_tenth(swept):
    swept.objects = swept.objects[:20]
    async with swept.running(swept.sweep.each_period):
        await swept.clock.settle()
        swept.dice = 1.0  # is drawn for the second round: it takes 11 h
        await swept.clock.elapse(PERIOD)
        swept.dice = 0.0
        await swept.clock.elapse(PERIOD * 2 - 10)
    turns = defaultdict(list)
    for when, name in swept.seen:
        turns[name].append(when)
    gaps = [after - before for each in turns.values() for before, after in itertools.pairwise(each)]
    assert len(gaps) == 40
    assert all(PERIOD * 0.89 <= gap <= PERIOD * 1.11 for gap in gaps)
    assert max(gaps) > PERIOD > min(gaps)


async def test_an_object_that_came_meanwhile_waits_no_longer_than_a_period(swept):
    swept.objects = swept.objects[:10]
    async with swept.running(swept.sweep.each_period):
        await swept.clock.elapse(PERIOD / 3)
        swept.objects += [swept.make(number) for number in range(5000, 5100)]
        await swept.clock.elapse(PERIOD * 17 / 16)
    assert len({name for when, name in swept.seen if when > PERIOD / 3}) == 110


async def test_what_has_failed_is_left_to_its_retry(swept):
    swept.queue.retry(("team", "w-1"), at_least=10 * PERIOD)
    swept.objects = swept.objects[:10]
    async with swept.running(swept.sweep.each_period):
        await swept.clock.elapse(PERIOD - 1)
        assert len(swept.seen) == 9


async def test_a_short_period_wakes_a_thousand_times_and_no_more(swept):
    swept.sweep._period = 60.0
    async with swept.running(swept.sweep.each_period):
        made = swept.clock._made
        await swept.clock.elapse(6.0)
        assert swept.clock._made - made <= 105
        assert len(swept.seen) >= 50


async def test_a_sweep_that_is_asked_for_comes_after_its_delay_and_takes_as_long(swept):
    swept.objects = swept.objects[:200]
    swept.queue.retry(("team", "w-1"), at_least=1000.0)  # perhaps it is what the mapper meant
    async with swept.running(swept.sweep.when_asked):
        await swept.clock.elapse(100.0)
        assert not swept.seen
        for _ in range(3):
            swept.sweep.ask()
            await swept.clock.settle()
        await swept.clock.elapse(4.9)
        assert not swept.seen
        await swept.clock.elapse(5.2)
        assert sorted(Counter(name for _, name in swept.seen).values()) == [1] * 200
        assert swept.seen[0][0] < 106.0
        assert swept.seen[-1][0] > 109.0
        await swept.clock.elapse(1000.0)
        assert len(swept.seen) == 200
        assert len(swept.log.said("a mapper has failed", "warning")) == 1


async def test_a_mapper_that_fails_during_the_sweep_has_another_one(swept):
    async with swept.running(swept.sweep.when_asked):
        swept.objects = swept.objects[:10]
        swept.sweep.ask()
        await swept.clock.elapse(7.0)
        swept.sweep.ask()
        await swept.clock.elapse(3.1)
        assert len(swept.seen) == 10
        await swept.clock.elapse(20.0)
        assert len(swept.seen) == 20


async def test_a_mapper_that_always_fails_is_no_storm(swept):
    swept.objects = swept.objects[:5]
    async with swept.running(swept.sweep.when_asked):
        for _ in range(90):
            swept.sweep.ask()
            await swept.clock.elapse(20.0)
        assert len(swept.seen) <= 7 * 5  # in half an hour: after 5 s, 10 s … 320 s
        await swept.clock.elapse(1200.0)  # of a later one, the wait and the sweep take ten minutes each
        assert len(swept.seen) == 8 * 5

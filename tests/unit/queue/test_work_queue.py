"""What the queue does with keys, one behaviour at a time."""

import asyncio

import pytest

from asyncctl.queue import Backoff, QueueClosed, WorkQueue
from asyncctl.testing.clock import FakeClock


class Recorder:
    """A `QueueMetrics` that remembers."""

    def __init__(self):
        self.seen = []
        self.read = None

    def attach(self, read):
        self.read = read

    def added(self):
        self.seen.append("added")

    def delayed(self):
        self.seen.append("delayed")

    def started(self, waited):
        self.seen.append(("started", waited))

    def finished(self, worked):
        self.seen.append(("finished", worked))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def metrics():
    return Recorder()


@pytest.fixture
def queue(clock, metrics):
    queue = WorkQueue(clock=clock, random=lambda: 0.0, metrics=metrics)
    yield queue
    queue.close()
    assert clock.timers == []


async def take_all(queue):
    """Take what is ready, in order, without waiting for more."""
    return [await queue.get() for _ in range(len(queue))]


async def getting(queue, clock):
    task = asyncio.create_task(queue.get())
    await clock.settle()
    return task


# The three sets


async def test_keys_come_out_in_the_order_of_adding(queue):
    for key in "cab":
        queue.add(key)
    assert await take_all(queue) == ["c", "a", "b"]


async def test_a_key_added_twice_is_handed_out_once(queue):
    queue.add("a")
    queue.add("b")
    queue.add("a")
    assert await take_all(queue) == ["a", "b"]


async def test_add_while_processing_runs_once_more(queue):
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert await take_all(queue) == ["a"]
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_is_not_processed_twice_at_once(queue, clock):
    queue.add("a")
    await queue.get()
    queue.add("a")
    second = await getting(queue, clock)
    assert not second.done()
    queue.done("a")
    assert await second == "a"


async def test_get_waits_for_a_key(queue, clock):
    waiting = await getting(queue, clock)
    assert not waiting.done()
    queue.add("a")
    assert await waiting == "a"


async def test_each_of_several_waiting_gets_a_key(queue, clock):
    waiting = [await getting(queue, clock) for _ in range(3)]
    for key in "abc":
        queue.add(key)
    assert await asyncio.gather(*waiting) == ["a", "b", "c"]


async def test_done_without_get_is_told(queue):
    with pytest.raises(ValueError, match=r"'a'.*not being processed"):
        queue.done("a")


# Priorities


async def test_higher_priority_comes_first_and_first_in_first_out_inside(queue):
    for key, priority in (("low", -10), ("a", 0), ("high", 10), ("b", 0), ("high2", 10)):
        queue.add(key, priority=priority)
    assert await take_all(queue) == ["high", "high2", "a", "b", "low"]


async def test_a_second_add_raises_the_priority(queue):
    queue.add("a")
    queue.add("b")
    queue.add("b", priority=1)
    assert await take_all(queue) == ["b", "a"]


async def test_a_second_add_does_not_lower_the_priority(queue):
    queue.add("a", priority=1)
    queue.add("b")
    queue.add("a")
    assert await take_all(queue) == ["a", "b"]


async def test_add_while_processing_keeps_the_higher_priority(queue):
    queue.add("a")
    await queue.get()
    queue.add("a", priority=-1)
    queue.add("a", priority=5)
    queue.add("a", priority=0)
    queue.add("b")
    queue.done("a")
    assert await take_all(queue) == ["a", "b"]


# Time


async def test_a_delayed_key_comes_when_its_time_has_come(queue, clock):
    queue.add("a", after=10)
    clock.advance(9.9)
    assert len(queue) == 0
    clock.advance(0.1)
    assert await take_all(queue) == ["a"]


@pytest.mark.parametrize("delays", [(10, 2), (2, 10)])
async def test_of_two_delays_the_shorter_counts(queue, clock, delays):
    for delay in delays:
        queue.add("a", after=delay)
    clock.advance(2)
    assert await take_all(queue) == ["a"]
    queue.done("a")
    clock.advance(20)
    assert len(queue) == 0


async def test_an_immediate_add_promotes_a_delayed_key(queue, clock):
    queue.add("a", after=10)
    queue.add("a")
    assert await take_all(queue) == ["a"]
    queue.done("a")
    clock.advance(20)
    assert len(queue) == 0


async def test_a_promoted_key_keeps_the_priority_of_its_delayed_add(queue):
    queue.add("a", after=10, priority=5)
    queue.add("b")
    queue.add("a")
    assert await take_all(queue) == ["a", "b"]


async def test_a_later_add_of_higher_priority_keeps_the_earlier_time(queue, clock):
    queue.add("a", after=2)
    queue.add("a", after=10, priority=5)
    queue.add("b", after=2)
    clock.advance(2)
    assert await take_all(queue) == ["a", "b"]


async def test_a_delayed_add_of_a_queued_key_changes_nothing(queue, clock):
    queue.add("a")
    queue.add("a", after=10)
    await queue.get()
    queue.done("a")
    clock.advance(20)
    assert len(queue) == 0


async def test_a_delay_that_ends_while_processing_runs_once_more(queue, clock):
    queue.add("a")
    await queue.get()
    queue.add("a", after=5)
    clock.advance(5)
    assert len(queue) == 0
    queue.done("a")
    assert await take_all(queue) == ["a"]


async def test_a_delay_that_outlasts_the_processing_is_kept(queue, clock):
    queue.add("a")
    await queue.get()
    queue.add("a", after=5)
    queue.done("a")
    assert len(queue) == 0
    clock.advance(5)
    assert await take_all(queue) == ["a"]


async def test_waiting_workers_are_woken_by_time(queue, clock):
    waiting = [await getting(queue, clock) for _ in range(2)]
    queue.add("a", after=1)
    queue.add("b", after=1)
    await clock.elapse(1)
    assert [task.result() for task in waiting] == ["a", "b"]


async def test_one_timer_serves_all_delays(queue, clock):
    for number in range(100):
        queue.add(number, after=100 - number)
        assert len(clock.timers) == 1
    clock.advance(50)
    assert len(clock.timers) == 1
    assert len(queue) == 50
    clock.advance(50)
    assert clock.timers == []
    assert await take_all(queue) == list(reversed(range(100)))


async def test_a_later_delay_leaves_the_timer_alone(queue, clock, monkeypatch):
    queue.add("a", after=1)
    monkeypatch.setattr(clock, "call_at", lambda *_: pytest.fail("a timer was set"))
    for number in range(10):
        queue.add(number, after=2)


class EarlyClock(FakeClock):
    """Calls a millisecond before the time, as event loops do that count in whole ones."""

    def call_at(self, when, callback):
        return super().call_at(when - 0.001 if when - self.monotonic() > 0.001 else when, callback)


async def test_a_timer_that_fires_early_is_set_again():
    clock = EarlyClock()
    queue = WorkQueue(clock=clock, random=lambda: 0.0)
    queue.add("a", after=1)
    clock.advance(0.999)
    assert len(queue) == 0
    clock.advance(0.001)
    assert await take_all(queue) == ["a"]


async def test_delays_that_were_promoted_do_not_pile_up(queue):
    for _ in range(10_000):
        queue.add("a", after=36_000)
        queue.add("a")
        queue.done(await queue.get())
    assert len(queue._times) < 200


# Retries


async def test_retries_wait_twice_as_long_each_time(queue):
    queue.add("a")
    await queue.get()
    assert [queue.retry("a") for _ in range(6)] == [5, 10, 20, 40, 60, 60]


async def test_the_first_retry_never_comes_before_the_base(queue, clock):
    queue.add("a")
    await queue.get()
    queue.retry("a")
    queue.done("a")
    clock.advance(4.999)
    assert len(queue) == 0
    clock.advance(0.001)
    assert len(queue) == 1


def test_jitter_is_added_to_a_retry(clock):
    queue = WorkQueue(clock=clock, random=lambda: 0.999999, retry=Backoff(base=1, maximum=2))
    assert [round(queue.retry("a"), 3) for _ in range(3)] == [1.25, 2.5, 2.5]
    queue.close()


async def test_a_retry_waits_as_long_as_it_was_told(queue):
    assert queue.retry("a", at_least=30) == 30
    assert queue.retry("a", at_least=1) == 10


async def test_what_is_discarded_never_comes_and_leaves_nothing(queue, clock):
    queue.add("ready")
    queue.add("later", after=36_000)
    queue.add("held")
    assert [await queue.get(), await queue.get()] == ["ready", "held"]
    queue.retry("ready")
    queue.done("ready")
    for key in ("ready", "later", "held"):
        queue.discard(key)
    queue.done("held")
    clock.advance(40_000)
    found = queue.statistics()
    assert (found.queued, found.delayed, found.processing, found.dirty, found.retrying) == (0, 0, 0, 0, 0)


async def test_forget_begins_anew(queue):
    queue.retry("a")
    queue.retry_fast("a")
    queue.forget("a")
    assert (queue.attempts("a"), queue.failures("a")) == (0, 0)
    assert queue.retry("a") == 5
    queue.forget("never failed")


async def test_what_does_not_count_waits_as_long_and_is_not_counted(queue):
    assert [queue.retry("a", counted=False) for _ in range(3)] == [5, 10, 20]
    assert queue.failures("a") == 0
    assert queue.attempts("a") == 3
    assert queue.retry("a") == 40
    assert queue.failures("a") == 1


async def test_a_conflict_is_retried_fast_five_times_and_then_counts(queue):
    assert [queue.retry_fast("a") for _ in range(5)] == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert queue.failures("a") == 0
    assert queue.retry_fast("a") == 5
    assert queue.failures("a") == 1
    assert queue.attempts("a") == 6


async def test_a_retry_keeps_the_priority_of_the_key(queue, clock):
    queue.add("a", priority=5)
    await queue.get()
    queue.retry("a")
    queue.done("a")
    queue.add("b", after=5)
    clock.advance(5)
    assert await take_all(queue) == ["a", "b"]


async def test_a_change_overtakes_a_retry(queue):
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.retry("a")
    queue.done("a")
    assert await take_all(queue) == ["a"]


# Limits


def limited(clock, **limits):
    return WorkQueue(clock=clock, random=lambda: 0.0, **limits)


async def test_a_key_that_comes_too_early_waits_for_its_interval_and_no_other_does(clock):
    queue = limited(clock, interval=3.0)
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    clock.advance(1.0)
    queue.add("a")
    queue.add("a", priority=5)
    queue.add("c")
    assert await take_all(queue) == ["c"]
    clock.advance(1.9)
    assert len(queue) == 0
    clock.advance(0.1)
    assert await take_all(queue) == ["a"]
    queue.close()


async def test_an_interval_counts_from_the_start_also_of_a_long_pass(clock):
    queue = limited(clock, interval=3.0)
    queue.add("a")
    await queue.get()
    queue.add("a")
    clock.advance(10.0)
    assert queue.statistics().dirty == 1
    queue.done("a")
    assert await take_all(queue) == ["a"]
    queue.close()


@pytest.mark.parametrize("after, due", [(0.0, 3.0), (1.0, 3.0), (5.0, 5.0)])
async def test_of_the_interval_and_the_delay_the_longer_counts(clock, after, due):
    queue = limited(clock, interval=3.0)
    queue.add("a")
    await queue.get()
    queue.done("a")
    queue.add("a", after=after)
    assert clock.timers == [clock.monotonic() + due]
    queue.close()


async def test_a_key_that_waits_for_its_interval_is_counted_once_and_is_no_retry(clock, metrics):
    queue = limited(clock, interval=3.0, metrics=metrics)
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.done("a")
    clock.advance(3.0)
    assert metrics.seen == ["added", ("started", 0.0), ("finished", 0.0), "added"]
    queue.close()


async def test_starts_are_remembered_no_longer_than_they_matter(clock):
    queue = limited(clock, interval=3.0)
    for number in range(100):
        queue.add(str(number))
        queue.done(await queue.get())
        clock.advance(1.0)
    assert len(queue._starts) == 3
    queue.close()
    assert len(queue._starts) == 0


async def test_no_more_keys_are_handed_out_than_the_rate_allows(clock):
    queue = limited(clock, rate=2.0, burst=3)
    for key in "abcdef":
        queue.add(key)
    workers = [asyncio.create_task(queue.get()) for _ in range(6)]
    done = []
    for _ in range(4):
        await clock.settle()
        done.append(sum(worker.done() for worker in workers))
        clock.advance(0.5)
    assert done == [3, 4, 5, 6]
    assert [worker.result() for worker in workers] == [*"abcdef"]
    queue.close()


async def test_what_came_last_and_is_more_urgent_overtakes_what_waits_for_the_rate(clock):
    queue = limited(clock, rate=1.0)
    for key in "abc":
        queue.add(key, priority=-100)
    assert await queue.get() == "a"
    waiting = await getting(queue, clock)
    queue.add("live")
    await clock.elapse(1.0)
    assert waiting.result() == "live"
    queue.close()


async def test_workers_that_were_all_late_are_served_at_once_when_there_are_tokens_for_them(clock):
    queue = limited(clock, rate=1.0, burst=3)
    for key in "abcdef":
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == [*"abc"]
    workers = [await getting(queue, clock) for _ in range(3)]
    clock.advance(60.0)  # the loop was blocked: one timer has fired
    await clock.settle()
    assert [worker.done() for worker in workers] == [True] * 3
    queue.close()


async def test_a_worker_that_is_cancelled_as_its_turn_comes_takes_no_turn_with_it(clock):
    queue = limited(clock, rate=1.0)
    queue.add("a")
    queue.add("b")
    await queue.get()
    first, second = await getting(queue, clock), await getting(queue, clock)
    clock.advance(1.0)
    first.cancel()
    await clock.settle()
    assert first.cancelled()
    assert second.result() == "b"
    queue.close()


async def test_a_key_that_is_discarded_while_it_waits_for_the_rate_costs_no_turn(clock):
    queue = limited(clock, rate=1.0)
    queue.add("a")
    queue.add("b")
    await queue.get()
    waiting = await getting(queue, clock)
    queue.discard("b")
    await clock.elapse(1.0)
    assert not waiting.done()
    queue.add("c")
    await clock.settle()
    assert waiting.result() == "c"
    queue.close()


async def test_no_limit_holds_up_a_drain(clock):
    queue = limited(clock, interval=1000.0, rate=0.001)
    for key in "ab":
        queue.add(key)
    queue.add(await queue.get())
    waiting = await getting(queue, clock)
    drain = asyncio.create_task(queue.drain())
    await clock.settle()
    assert isinstance(waiting.exception(), QueueClosed)
    queue.done("a")
    await clock.settle()
    assert drain.done()
    assert clock.timers == []


@pytest.mark.parametrize("limits", [{"interval": -1.0}, {"rate": -1.0}, {"rate": 1.0, "burst": 0}])
def test_a_limit_that_is_none_is_refused(clock, limits):
    with pytest.raises(ValueError, match="needs"):
        limited(clock, **limits)


# Cancelling


async def test_a_cancelled_wait_takes_no_key(queue, clock):
    first, second = await getting(queue, clock), await getting(queue, clock)
    first.cancel()
    await clock.settle()
    queue.add("a")
    assert await second == "a"


async def test_a_wait_cancelled_as_its_key_comes_passes_the_key_on(queue, clock):
    first, second = await getting(queue, clock), await getting(queue, clock)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    assert first.cancelled()


async def test_a_key_that_comes_as_a_wait_is_cancelled_goes_to_the_next(queue, clock):
    first, second = await getting(queue, clock), await getting(queue, clock)
    first.cancel()
    queue.add("a")
    assert await second == "a"
    assert first.cancelled()


async def test_a_key_passed_on_to_nobody_stays(queue, clock):
    only = await getting(queue, clock)
    queue.add("a")
    only.cancel()
    await clock.settle()
    assert await take_all(queue) == ["a"]


async def test_cancelled_waits_leave_nothing_behind(queue, clock):
    for _ in range(10):
        task = await getting(queue, clock)
        task.cancel()
        await clock.settle()
    assert len(queue._getters) == 0


# The end


async def test_drain_waits_for_what_is_processed_and_drops_the_rest(queue, clock):
    for key in "abc":
        queue.add(key)
    queue.add("d", after=1)
    await queue.get()
    await queue.get()
    draining = asyncio.create_task(queue.drain())
    await clock.settle()
    assert not draining.done()
    assert queue.statistics()[:4] == (0, 0, 2, 0)
    queue.add("e")
    queue.add("a")
    queue.retry("a")
    queue.done("a")
    await clock.settle()
    assert not draining.done()
    queue.done("b")
    await draining
    with pytest.raises(QueueClosed):
        await queue.get()


async def test_drain_of_an_idle_queue_returns_at_once(queue):
    queue.add("a", after=10)
    async with asyncio.timeout(0.001):
        await queue.drain()


async def test_drain_tells_those_who_wait(queue, clock):
    waiting = [await getting(queue, clock) for _ in range(3)]
    await queue.drain()
    assert [type(result) for result in await asyncio.gather(*waiting, return_exceptions=True)] == [QueueClosed] * 3


async def test_a_drain_that_is_given_up_may_be_asked_again(queue, clock):
    queue.add("a")
    await queue.get()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await queue.drain()
    second = asyncio.create_task(queue.drain())
    await clock.settle()
    queue.done("a")
    await second


async def test_after_close_no_timer_runs(queue, clock):
    queue.add("a", after=10)
    queue.close()
    queue.close()
    queue.add("b", after=1)
    assert clock.timers == []


# What is counted


async def test_statistics_tell_where_keys_are(queue, clock):
    queue.add("working")
    await queue.get()
    queue.add("working", after=50)
    queue.add("dirty", priority=9)
    await queue.get()
    queue.add("dirty")
    queue.add("queued")
    queue.add("low", priority=-1)
    queue.retry("queued")
    clock.advance(3)
    statistics = queue.statistics()
    assert statistics == (2, 1, 2, 1, 1, {0: 1, -1: 1}, (3.0, 3.0))
    assert (statistics.queued, statistics.retrying, statistics.depths) == (2, 1, {0: 1, -1: 1})


async def test_metrics_count_keys_not_events(queue, clock, metrics):
    queue.add("a")
    queue.add("a")
    clock.advance(2)
    await queue.get()
    queue.add("a")
    queue.add("a")
    clock.advance(3)
    queue.done("a")
    clock.advance(4)
    await queue.get()
    assert metrics.seen == ["added", ("started", 2.0), "added", ("finished", 3.0), ("started", 7.0)]
    assert metrics.read().processing == 1


async def test_a_retry_is_counted_as_delayed_and_as_added_when_due(queue, clock, metrics):
    queue.retry("a")
    assert metrics.seen == ["delayed"]
    clock.advance(5)
    assert metrics.seen == ["delayed", "added"]

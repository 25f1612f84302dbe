"""The rate limit: how many, in which order, and what a cancelled waiter leaves behind."""

import asyncio

import pytest

from asyncctl.queue import TokenBucket
from asyncctl.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


class Asking:
    """Tasks that each ask for one token, in order, and note when they had it."""

    def __init__(self, bucket, clock):
        self._bucket, self._clock, self._start = bucket, clock, clock.monotonic()
        self.tasks = []
        self.got = []

    async def ask(self, count):
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._one(len(self.tasks)), name=f"asks {len(self.tasks)}"))
        await self._clock.settle()

    async def _one(self, number):
        await self._bucket.acquire()
        self.got.append((number, self._clock.monotonic() - self._start))


@pytest.fixture
async def asking(clock):
    made = []

    def make(qps, burst):
        made.append(Asking(TokenBucket(qps, burst, clock), clock))
        return made[0]

    yield make
    for task in made[0].tasks:
        task.cancel()
    await asyncio.gather(*made[0].tasks, return_exceptions=True)


async def test_a_burst_goes_through_at_once(asking):
    asked = asking(10, 3)
    await asked.ask(3)
    assert asked.got == [(0, 0), (1, 0), (2, 0)]


async def test_past_the_burst_they_go_at_the_rate_in_the_order_of_asking(asking, clock):
    asked = asking(10, 2)
    await asked.ask(5)
    await clock.elapse(1)
    assert asked.got == [(0, 0), (1, 0), (2, pytest.approx(0.1)), (3, pytest.approx(0.2)), (4, pytest.approx(0.3))]


async def test_waiting_time_is_returned(clock):
    bucket = TokenBucket(2, 1, clock)
    assert await bucket.acquire() == 0
    second = asyncio.create_task(bucket.acquire())
    await clock.elapse(1)
    assert await second == pytest.approx(0.5)


async def test_tokens_gather_up_to_the_burst_and_no_further(asking, clock):
    asked = asking(10, 2)
    await clock.elapse(3600)
    await asked.ask(3)
    assert len(asked.got) == 2


async def test_who_comes_later_does_not_overtake(asking, clock):
    asked = asking(1, 1)
    await asked.ask(2)
    await clock.elapse(0.9)
    await asked.ask(1)
    await clock.elapse(0.2)
    assert [number for number, _ in asked.got] == [0, 1]
    await clock.elapse(1)
    assert [number for number, _ in asked.got] == [0, 1, 2]


async def test_nobody_overtakes_while_the_timer_is_late(asking, clock):
    asked = asking(1, 1)
    await asked.ask(2)
    clock._monotonic += 1  # a busy loop: the token is there, and its timer was not called yet
    await asked.ask(1)
    assert [number for number, _ in asked.got] == [0, 1]


async def test_a_cancelled_waiter_takes_no_token(asking, clock):
    asked = asking(1, 1)
    await asked.ask(3)
    asked.tasks[1].cancel()
    await clock.elapse(1)
    assert asked.got == [(0, 0), (2, 1)]


async def test_a_waiter_cancelled_with_its_token_in_hand_passes_it_on(asking, clock):
    asked = asking(1, 1)
    await asked.ask(3)
    clock.advance(1)  # the token is given, and its taker has not run yet
    asked.tasks[1].cancel()
    await clock.settle()
    assert asked.got == [(0, 0), (2, 1)]


async def test_a_token_passed_on_to_nobody_is_kept(asking, clock):
    asked = asking(1, 1)
    await asked.ask(2)
    clock.advance(1)
    asked.tasks[1].cancel()
    await clock.settle()
    await asked.ask(1)
    assert asked.got == [(0, 0), (2, 1)]


async def test_a_caller_may_give_up(clock):
    bucket = TokenBucket(0.001, 1, clock)
    await bucket.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await bucket.acquire()
    assert bucket.waiting == 0


async def test_one_timer_serves_all_who_wait_and_none_runs_when_nobody_does(asking, clock):
    asked = asking(10, 1)
    await asked.ask(1)
    assert clock.timers == []
    await asked.ask(50)
    assert len(clock.timers) == 1
    await clock.elapse(10)
    assert len(asked.got) == 51
    assert clock.timers == []


async def test_zero_is_no_limit(asking, clock):
    asked = asking(0, 0)
    await asked.ask(1000)
    assert len(asked.got) == 1000


@pytest.mark.parametrize(("qps", "burst"), [(-1, 5), (5, 0)])
def test_a_limit_that_lets_nothing_through_is_refused(qps, burst, clock):
    with pytest.raises(ValueError, match=f"qps={qps} and burst={burst}"):
        TokenBucket(qps, burst, clock)

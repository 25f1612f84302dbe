"""The system's clock, and the fake one that the other tests stand on."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from asyncctl.clock import Clock, SystemClock
from asyncctl.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


def test_the_system_clock_agrees_with_the_system():
    clock: Clock = SystemClock()
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=30)
    assert abs(datetime.now(UTC) - clock.now()) < timedelta(seconds=30)
    assert clock.now().tzinfo is UTC


def test_boot_time_counts_at_least_what_monotonic_counts():
    clock = SystemClock()
    assert clock.boot() >= clock.monotonic() - 0.001


async def test_a_system_timer_fires_when_due():
    clock, fired = SystemClock(), asyncio.Event()
    due = clock.monotonic() + 0.01
    clock.call_at(due, fired.set)
    async with asyncio.timeout(5):
        await fired.wait()
    assert clock.monotonic() >= due - 0.002


async def test_a_system_timer_for_the_past_fires_soon_and_not_at_once():
    clock, fired = SystemClock(), asyncio.Event()
    clock.call_at(clock.monotonic() - 10, fired.set)
    assert not fired.is_set()
    async with asyncio.timeout(5):
        await fired.wait()


async def test_a_cancelled_system_timer_stays_silent():
    clock, fired = SystemClock(), []
    clock.call_at(0.0, lambda: fired.append("cancelled")).cancel()
    clock.call_at(0.0, lambda: fired.append("kept"))
    async with asyncio.timeout(5):
        while not fired:
            await clock.sleep(0)
    assert fired == ["kept"]


def test_fake_time_stands_still(clock):
    assert clock.monotonic() == clock.monotonic()
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC)


def test_advance_moves_all_three_clocks(clock):
    monotonic, boot, now = clock.monotonic(), clock.boot(), clock.now()
    clock.advance(1.5)
    assert clock.monotonic() == monotonic + 1.5
    assert clock.boot() == boot + 1.5
    assert clock.now() == now + timedelta(seconds=1.5)


def test_a_suspended_machine_moves_all_but_monotonic(clock):
    monotonic, boot, now = clock.monotonic(), clock.boot(), clock.now()
    clock.suspend(60)
    assert clock.monotonic() == monotonic
    assert clock.boot() == boot + 60
    assert clock.now() == now + timedelta(seconds=60)


def test_the_wall_clock_can_jump_alone(clock):
    clock.set_wall(datetime(2020, 1, 1, tzinfo=UTC))
    clock.advance(1)
    assert clock.now() == datetime(2020, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_due_timers_fire_in_order_each_at_its_time(clock):
    start, seen = clock.monotonic(), []
    for after in (3, 1, 2, 5):
        clock.call_at(start + after, lambda after=after: seen.append((after, clock.monotonic() - start)))
    clock.advance(3)
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert clock.timers == [start + 5]


def test_a_timer_set_by_a_timer_fires_in_the_same_advance(clock):
    start, seen = clock.monotonic(), []
    clock.call_at(start + 1, lambda: clock.call_at(start + 2, lambda: seen.append(clock.monotonic() - start)))
    clock.advance(5)
    assert seen == [2]


def test_a_cancelled_fake_timer_does_not_fire(clock):
    seen = []
    timer = clock.call_at(clock.monotonic() + 1, lambda: seen.append(1))
    timer.cancel()
    timer.cancel()
    clock.advance(2)
    assert seen == []
    assert clock.timers == []


async def test_elapse_lets_sleepers_run_at_their_time(clock):
    start, seen = clock.monotonic(), []

    async def sleeper():
        for _ in range(3):
            await clock.sleep(1)
            seen.append(clock.monotonic() - start)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper())
        await clock.elapse(2.5)
        assert seen == [1, 2]
        await clock.elapse(0.5)
        assert seen == [1, 2, 3]


async def test_a_cancelled_sleep_leaves_no_timer(clock):
    task = asyncio.create_task(clock.sleep(10))
    await clock.settle()
    assert len(clock.timers) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.timers == []


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
async def test_sleeping_for_nothing_lets_others_run(clock):
    ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    await clock.sleep(0)
    assert ran.is_set()

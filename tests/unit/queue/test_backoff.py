"""How long to wait before trying again."""

import random

import pytest
from hypothesis import given, strategies as st

from asyncctl.queue import Backoff, Restarts, jittered, spread
from asyncctl.testing.clock import FakeClock

LOW, HIGH = (lambda: 0.0), (lambda: 0.999999)


def test_delays_double_up_to_the_maximum():
    backoff = Backoff(base=5, maximum=60)
    assert [backoff.delay(n, LOW) for n in range(6)] == [5, 10, 20, 40, 60, 60]


def test_jitter_only_adds_and_at_most_its_share():
    backoff = Backoff(base=5, maximum=60)
    assert [round(backoff.delay(n, HIGH), 3) for n in range(5)] == [6.25, 12.5, 25, 50, 75]


def test_full_jitter_draws_from_the_whole_delay():
    backoff = Backoff(base=0.8, maximum=30, full=True)
    assert backoff.delay(0, LOW) == 0
    assert backoff.delay(1, lambda: 0.5) == 0.8
    assert backoff.delay(99, HIGH) == pytest.approx(30, abs=0.001)


@given(
    base=st.floats(1e-3, 1e3), maximum=st.floats(1e-3, 1e6), retries=st.integers(0, 10**9), seed=st.integers(0, 2**32)
)
def test_no_number_of_retries_leaves_the_bounds(base, maximum, retries, seed):
    delay = Backoff(base=base, maximum=maximum).delay(retries, random.Random(seed).random)
    assert min(base, maximum) <= delay <= 1.25 * maximum


def test_jittered_never_shortens():
    assert jittered(10, 1.2, LOW) == 10
    assert jittered(10, 1.2, HIGH) == pytest.approx(22, abs=0.001)


def test_spread_goes_both_ways():
    assert spread(600, 0.2, LOW) == 480
    assert spread(600, 0.2, lambda: 0.5) == 600
    assert spread(600, 0.2, HIGH) == pytest.approx(720, abs=0.001)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def restarts(clock):
    return Restarts(Backoff(base=1, maximum=8, jitter=0), quiet=120, clock=clock, random=LOW)


def test_restarts_wait_longer_each_time(restarts):
    assert [restarts.next() for _ in range(5)] == [1, 2, 4, 8, 8]
    assert restarts.count == 5


def test_a_quiet_time_after_the_delay_begins_anew(restarts, clock):
    restarts.next()
    restarts.next()
    clock.advance(2 + 120)
    assert restarts.next() == 1


def test_the_delay_itself_is_no_quiet_time(restarts, clock):
    restarts.next()
    restarts.next()
    clock.advance(120 + 1.9)
    assert restarts.next() == 4


def test_reset_begins_anew(restarts):
    restarts.next()
    restarts.next()
    restarts.reset()
    assert restarts.next() == 1

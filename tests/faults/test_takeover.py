"""How long it takes until another leads: after SIGTERM of the leader, and after SIGKILL."""

import os
import random
import signal
from datetime import UTC, datetime
from statistics import median

import pytest

from tests.faults.rival import ASYNCCTL, QUICK, Times, instant, pause

SOAK = "ASYNCCTL_TEST_SOAK" in os.environ
SEED = int(os.environ.get("ASYNCCTL_TEST_SEED", random.SystemRandom().randrange(10**6)))
DEFAULT = Times()


def rounds(quick, soak, soak_default):
    """How often with short times, and with the default ones where there is time for that."""
    cases = [pytest.param(QUICK, soak if SOAK else quick, id="quick")]
    return [*cases, pytest.param(DEFAULT, soak_default, id="default")] if SOAK else cases


def take_over(contend, times, count, number):
    """End the leader so often; return for each time the seconds until another had the Lease, and until it worked."""
    print(f"seed {SEED}; set ASYNCCTL_TEST_SEED to repeat it")
    moments = random.Random(SEED)
    leader = contend(ASYNCCTL, times=times)
    leader.until_started()
    took = []
    for _ in range(count):
        standby = contend(ASYNCCTL, times=times)
        standby.until_said("not leading")
        pause(moments.uniform(0, 1.2 * times.retry))
        since = datetime.now(UTC)
        leader.signal(number)
        held = instant(standby.until_said("became the leader", deadline=2 * times.duration + 10))
        works = standby.until_started()
        took.append(tuple((moment - since).total_seconds() for moment in (held, works)))
        assert leader.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        leader.kill()
        leader = standby
    return took


def tell(what, times, took):
    """Print the figures; return the 99th percentile, and the longest, of the seconds until another had the Lease."""
    held, works = (sorted(each) for each in zip(*took, strict=True))
    p99 = held[max(0, -(-len(held) * 99 // 100) - 1)]
    print(
        f"figure: {what}, lease {times.duration} s, retry {times.retry:g} s: {len(held)} takeovers, "
        f"median {median(held):.2f} s, p99 {p99:.2f} s, longest {held[-1]:.2f} s; at work {works[-1]:.2f} s at most"
    )
    return p99, held[-1]


@pytest.mark.parametrize(("times", "count"), rounds(3, 100, 10))
def test_after_sigterm_the_next_leads_within_a_retry_period_and_a_second(contend, times, count):
    p99, _ = tell("given back", times, take_over(contend, times, count, signal.SIGTERM))
    assert p99 < times.retry + 1


@pytest.mark.parametrize(("times", "count"), rounds(2, 20, 3))
def test_after_sigkill_the_next_leads_within_the_lease_and_two_retry_periods(contend, times, count):
    _, longest = tell("killed", times, take_over(contend, times, count, signal.SIGKILL))
    assert longest < times.duration + 2 * times.retry

"""What a deposed leader's writes can do, judged over thousands of runs in virtual time.

Under the bounds nothing of it takes effect; beyond them nothing is overwritten; and wherever a bound is broken on
purpose, the simulator sees it. `ASYNCCTL_TEST_SOAK` makes it twenty times as many runs.
"""

import os

import pytest

from tests.unit.ha.simulator import Setup, broken, run, trace

MORE = 20 if os.environ.get("ASYNCCTL_TEST_SOAK") else 1
STATED = Setup()
GAP = broken(gap=12.0)  # longer than any Lease


def seeds(count, part=0):
    return range(part * count * MORE, (part + 1) * count * MORE)


def told(seed, setup, why):
    return f"seed {seed}: {why}\n{setup}\n{trace(seed, setup)}"


@pytest.mark.parametrize("part", range(4))
def test_under_the_bounds_no_write_of_a_deposed_leader_takes_effect_and_somebody_leads_again(part):
    """The bounds: see `asyncctl.ha.campaign`; here with messages as slow, and clocks as wrong, as they bear."""
    writes = terms = 0
    for seed in seeds(400, part):
        found = run(seed, STATED)
        assert not found.late, told(seed, STATED, "a deposed leader's write took effect")
        assert not found.overwritten, told(seed, STATED, "a later leader's work was overwritten")
        assert found.leads_after is not None, told(seed, STATED, "nobody leads")
        assert found.leads_after <= STATED.leads_within, told(seed, STATED, "it took too long until somebody led")
        writes += found.writes
        terms += found.terms
    assert terms > 2 * len(seeds(400))  # the Lease did change hands
    assert writes > 10 * len(seeds(400))


def test_with_the_times_that_are_the_default():
    setup = Setup(lease=15.0, renew=10.0, retry=2.0)
    assert setup.margin == pytest.approx(3.76, abs=0.01)
    for seed in seeds(50):
        found = run(seed, setup)
        assert not found.late, told(seed, setup, "a deposed leader's write took effect")
        assert found.leads_after is not None, told(seed, setup, "nobody leads")


def test_who_is_stopped_between_check_and_send_writes_late_but_overwrites_nothing():
    late = 0
    for seed in seeds(200):
        found = run(seed, GAP)
        assert not found.overwritten, told(seed, GAP, "a later leader's work was overwritten")
        assert found.leads_after is not None, told(seed, GAP, "nobody leads")
        late += len(found.late)
    assert late > 20


def test_with_the_policy_a_late_write_slips_only_while_the_server_does_not_know_of_the_takeover():
    setup = broken(GAP, policy=0.5)
    late = refused = without = 0
    for seed in seeds(200):
        found = run(seed, setup)
        assert not found.overwritten, told(seed, setup, "a later leader's work was overwritten")
        for _, after, who in found.late:
            assert after <= 0.5, told(seed, setup, f"a write of {who} slipped after {after:.3f} s")
        late += len(found.late)
        refused += found.refused
        without += len(run(seed, GAP).late)
    assert refused > 20
    assert late < without / 2


@pytest.mark.parametrize(
    "bound, setup",
    [
        ("the renew deadline is as long as the Lease", broken(renew=9.0, slow=2.2)),
        ("nobody asks the fence", broken(fenced=False)),
        ("a clock goes wrong by more than is allowed for", broken(drift=0.25, slow=2.2)),
        ("a write is on its way for longer than the bound", broken(slow=5.0)),
        ("the fence does not count the time for which the machine slept", broken(booted=False)),
        ("the Lease is given back while a write is on its way", broken(drained=False)),
        ("the Lease is given back while a write that was given up is on its way", broken(settled=False)),
        ("a process is stopped between check and send", GAP),
    ],
)
def test_a_bound_that_is_broken_on_purpose_is_seen(bound, setup):
    assert any(run(seed, setup).late for seed in range(1000)), bound


def test_without_versions_a_late_write_overwrites_the_new_leaders_work():
    assert any(run(seed, broken(GAP, versioned=False)).overwritten for seed in range(1000))


def test_a_run_is_the_same_each_time_and_can_be_read():
    seed = next(seed for seed in range(1000) if run(seed, GAP).late)
    assert run(seed, GAP).late == run(seed, GAP).late
    text = trace(seed, GAP)
    assert "is stopped before the send" in text
    assert "LATE by" in text
    assert "became the leader" in text

"""The Lease's record, and the arithmetic of the fence."""

from datetime import UTC, datetime

import pytest

from asyncctl.client.errors import Fenced
from asyncctl.ha import lease
from asyncctl.ha.fence import Fence
from asyncctl.testing.clock import FakeClock

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def test_a_new_lease_is_held_for_the_first_time():
    taken = lease.taken(lease.new("team", "l"), "me", NOW, 15)
    assert taken["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-02T03:04:05.678901Z",
        "renewTime": "2026-01-02T03:04:05.678901Z",
        "leaseTransitions": 0,
    }
    assert taken["metadata"] == {"name": "l", "namespace": "team"}


def test_a_renewal_keeps_what_it_does_not_know_and_when_it_was_acquired():
    spec = {"holderIdentity": "me", "acquireTime": "then", "leaseTransitions": 4, "strategy": "theirs"}
    renewed = lease.taken({"metadata": {"labels": {"a": "b"}}, "spec": spec}, "me", NOW, 15)
    assert renewed["spec"]["acquireTime"] == "then"
    assert renewed["spec"]["leaseTransitions"] == 4
    assert renewed["spec"]["strategy"] == "theirs"
    assert renewed["metadata"] == {"labels": {"a": "b"}}
    assert spec == {"holderIdentity": "me", "acquireTime": "then", "leaseTransitions": 4, "strategy": "theirs"}


@pytest.mark.parametrize("before", ["other", ""])
def test_a_takeover_is_counted(before):
    taken = lease.taken(
        {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": before, "leaseTransitions": 4}}, "me", NOW, 15
    )
    assert taken["spec"]["leaseTransitions"] == 5


def test_a_lease_that_is_there_without_a_record_is_taken_over_like_any():
    """As client-go counts: only the one who makes the Lease begins at zero."""
    assert lease.taken({"metadata": {"resourceVersion": "1"}}, "me", NOW, 15)["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize(
    "before, after",
    [("7", 1), (-2, 1), (3.5, 1), (True, 1), (None, 1), (2**31 - 1, 2**31 - 1)],
)
def test_takeovers_that_were_counted_oddly_keep_nobody_from_the_lease(before, after):
    spec = {"holderIdentity": "other", "leaseTransitions": before}
    taken = lease.taken({"metadata": {"resourceVersion": "1"}, "spec": spec}, "me", NOW, 15)
    assert taken["spec"]["leaseTransitions"] == after


def test_a_record_has_whole_seconds_that_are_never_too_few():
    assert lease.taken(lease.new("team", "l"), "me", NOW, 2.2)["spec"]["leaseDurationSeconds"] == 3


def test_a_released_lease_has_no_holder_and_is_free_soon():
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 4, "strategy": "theirs"}
    metadata = {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    assert lease.released({"metadata": metadata, "spec": spec, "more": 1}, NOW) == {
        "metadata": metadata,
        "spec": {
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": "2026-01-02T03:04:05.678901Z",
            "renewTime": "2026-01-02T03:04:05.678901Z",
            "leaseTransitions": 4,
            "strategy": "theirs",
        },
        "more": 1,
    }


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": None}, {"holderIdentity": ""}])
def test_a_lease_without_a_holder(spec):
    assert lease.holder({"spec": spec}) == ""
    assert lease.holder({}) == ""


@pytest.mark.parametrize("found", [3, 0, True, {}, []])
def test_a_holder_that_is_no_text_is_somebody(found):
    assert lease.holder({"spec": {"holderIdentity": found}}) == str(found)
    assert not lease.held_by({"spec": {"holderIdentity": found}}, str(found))


def test_what_makes_no_sense_in_a_record_is_told_by_its_field():
    spec = {"holderIdentity": 3, "leaseDurationSeconds": -1, "leaseTransitions": "7"}
    assert dict(lease.oddities({"spec": spec}, 15.0)) == {
        "holderIdentity": "is no text, and is taken for somebody who holds the Lease",
        "leaseDurationSeconds": "is no number of seconds above zero; 15 are taken for it",
        "leaseTransitions": "is no number of takeovers, and is counted from zero again",
    }


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": ""}, {"holderIdentity": "a", "leaseDurationSeconds": 1}])
def test_an_empty_record_is_nothing_odd(spec):
    assert not list(lease.oddities({"spec": spec}, 15.0))


@pytest.mark.parametrize(
    "found, expected", [(7, 7.0), (0, 15.0), (-3, 15.0), ("7", 15.0), (None, 15.0), (True, 15.0), (2.5, 15.0)]
)
def test_the_duration_is_the_records_own_where_it_makes_sense(found, expected):
    assert lease.duration({"spec": {"leaseDurationSeconds": found}}, 15.0) == expected


def test_the_fence_is_shut_until_the_lease_is_held():
    with pytest.raises(Fenced, match="does not hold the Lease"):
        Fence(FakeClock())()


def test_the_fence_tells_what_is_left_and_shuts_when_it_is_over():
    clock = FakeClock()
    fence = Fence(clock)
    fence.extend(clock.boot() + 10)
    clock.advance(4)
    assert fence() == 6
    clock.advance(6)
    with pytest.raises(Fenced):
        fence()


def test_a_renewal_whose_answer_comes_late_takes_nothing_back():
    clock = FakeClock()
    fence = Fence(clock)
    fence.extend(clock.boot() + 10)
    fence.extend(clock.boot() + 3)
    assert fence() == 10


def test_time_in_which_the_machine_slept_counts():
    clock = FakeClock()
    fence = Fence(clock)
    fence.extend(clock.boot() + 10)
    clock.suspend(11)
    with pytest.raises(Fenced):
        fence()


def test_the_wall_clock_does_not_matter():
    clock = FakeClock()
    fence = Fence(clock)
    fence.extend(clock.boot() + 10)
    clock.set_wall(datetime(2040, 1, 1, tzinfo=UTC))
    assert fence() == 10


def test_a_fence_that_was_revoked_stays_shut_and_says_why():
    clock = FakeClock()
    fence = Fence(clock)
    fence.extend(clock.boot() + 10)
    fence.revoke("somebody else leads")
    fence.extend(clock.boot() + 99)
    with pytest.raises(Fenced, match="somebody else leads"):
        fence()

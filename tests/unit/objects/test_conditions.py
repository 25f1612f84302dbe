from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from asyncctl.objects import Status

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def conditions():
    return Status().conditions


@pytest.mark.parametrize("status, said", [(True, "True"), (False, "False"), (None, "Unknown")])
def test_a_status_is_said_in_the_words_of_the_api(conditions, status, said):
    assert conditions.set("Ready", status, "Because").status == said


def test_a_view_changes_the_status_it_came_from():
    status = Status()
    status.conditions.set("Ready", True, "Done")
    assert [each.type for each in status.condition_list] == ["Ready"]


def test_a_condition_has_no_time_until_it_is_stamped(conditions):
    assert conditions.set("Ready", True, "Done").last_transition_time is None
    conditions.stamp(NOON, 3)
    assert conditions.get("Ready").last_transition_time == NOON
    assert conditions.get("Ready").observed_generation == 3


def test_the_time_stays_while_the_status_stays(conditions):
    conditions.set("Ready", False, "Pulling", "10 %")
    conditions.stamp(NOON, 1)
    conditions.set("Ready", False, "Starting", "soon")
    conditions.stamp(NOON + timedelta(minutes=1), 2)
    found = conditions.get("Ready")
    assert (found.reason, found.message, found.observed_generation) == ("Starting", "soon", 2)
    assert found.last_transition_time == NOON


def test_the_time_moves_when_the_status_flips(conditions):
    conditions.set("Ready", False, "Pulling")
    conditions.stamp(NOON, 1)
    conditions.set("Ready", True, "Done")
    conditions.stamp(NOON + timedelta(minutes=1), 1)
    assert conditions.get("Ready").last_transition_time == NOON + timedelta(minutes=1)


def test_what_was_not_set_anew_keeps_the_generation_it_was_said_of(conditions):
    conditions.set("Ready", True, "Done")
    conditions.stamp(NOON, 1)
    conditions.set("Stalled", False, "Fine")
    conditions.stamp(NOON, 2)
    assert [each.observed_generation for each in conditions] == [1, 2]


def test_a_stamp_has_whole_seconds(conditions):
    conditions.set("Ready", True, "Done")
    conditions.stamp(NOON.replace(microsecond=123456), 1)
    assert conditions.get("Ready").last_transition_time == NOON


def test_saying_the_same_again_changes_nothing(conditions):
    seen = []
    for minute in range(2):
        conditions.set("Ready", True, "Done", "all is well")
        conditions.stamp(NOON + timedelta(minutes=minute), 1)
        seen.append(list(conditions))
    assert seen[0] == seen[1]


@given(st.lists(st.sampled_from(["Ready", "Stalled", "Reconciling", "Aa"])))
def test_conditions_are_sorted_and_there_is_one_of_a_type(types):
    conditions = Status().conditions
    for each in types:
        conditions.set(each, True, "Because")
    assert [each.type for each in conditions] == sorted(set(types))


def test_a_condition_can_be_removed(conditions):
    conditions.set("Ready", True, "Done")
    conditions.remove("Ready")
    conditions.remove("Ready")
    assert "Ready" not in conditions
    assert conditions.get("Ready") is None


@pytest.mark.parametrize("reason", ["", "two words", "Ends:", "1st", "ümlaut"])
def test_a_reason_that_the_server_would_refuse_is_refused_at_once(conditions, reason):
    with pytest.raises(ValueError, match="condition Ready: the reason must be one CamelCase word"):
        conditions.set("Ready", False, reason)
    assert "Ready" not in conditions


def test_a_message_that_is_too_long_is_cut(conditions):
    assert len(conditions.set("Ready", False, "Broken", "x" * 40_000).message) == 32768

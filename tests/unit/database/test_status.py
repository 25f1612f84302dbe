"""What a `Database` says of itself: when it is ready, when that is news, and when it is confirmed."""

from datetime import timedelta

import pytest

from asyncctl.database import status
from asyncctl.database.types import (
    Claim,
    Database,
    DatabaseSpec,
    DatabaseStatus,
    ExternalSpec,
    ItemStatus,
    Phase,
    Provisioner,
)
from asyncctl.testing.clock import FakeClock

SPEC = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="main"))
FAILED = status.Failed("DatabaseReady", "ServerUnreachable", "gone")


def database():
    found = Database(name="orders", namespace="team", spec=SPEC)
    found.metadata.generation = found.status.observed_generation = 1
    return found


def settled():
    found = database()
    found.status.claim = Claim(database_oid=1)
    status.running(found.status, "there")
    return found


def ready(of):
    found = of.conditions.get("Ready")
    return found.status, found.reason


def test_all_that_is_asked_for_is_ready():
    found = DatabaseStatus(extensions=[ItemStatus(name="pgcrypto", ready=True)])
    assert status.running(found, "there") == []
    assert (found.phase, ready(found)) == (Phase.RUNNING, ("True", "Running"))


@pytest.mark.parametrize("items", ["extensions", "schemas"])
def test_an_item_that_is_missing_makes_it_not_ready_though_it_runs_and_is_news_once(items):
    found = DatabaseStatus()
    missing = [ItemStatus(name="a", ready=True), ItemStatus(name="b", ready=False, reason="Unavailable", message="no")]
    setattr(found, items, missing)
    assert status.running(found, "there") == [("Unavailable", "b: no")]
    assert (found.phase, ready(found)) == (Phase.RUNNING, ("False", "Unavailable"))
    assert found.conditions.get("DatabaseReady").status == "True"
    assert status.running(found, "there") == []
    setattr(found, items, missing[:1])
    status.running(found, "there")
    assert ready(found) == ("True", "Running")


def test_a_login_that_could_not_be_dropped_is_told_once_and_leaves_it_ready():
    found = DatabaseStatus()
    assert status.running(found, "there", lingering=["b: no"]) == [("RoleHasDependents", "b: no")]
    logins = found.conditions.get("CredentialsReady")
    assert (logins.status, logins.reason) == ("True", "RoleHasDependents")
    assert logins.message.endswith(": b: no")
    assert ready(found) == ("True", "Running")
    assert status.running(found, "there", lingering=["b: no"]) == []
    status.running(found, "there")
    assert found.conditions.get("CredentialsReady").reason == "LoginProven"


@pytest.mark.parametrize(
    "before, stalled, after",
    [
        (Phase.RUNNING, True, Phase.FAILED),
        (Phase.TERMINATING, True, Phase.FAILED),
        (Phase.FAILED, False, Phase.PENDING),
        (Phase.FAILED, None, Phase.PENDING),
        (Phase.RUNNING, False, Phase.RUNNING),
        (Phase.SUSPENDED, None, Phase.SUSPENDED),
    ],
)
def test_the_phase_is_failed_exactly_while_it_is_stalled(before, stalled, after):
    found = DatabaseStatus(phase=before)
    if stalled is not None:
        found.conditions.set("Stalled", stalled, "Any")
    found.summarize()
    assert found.phase is after


def test_a_failure_is_news_when_its_reason_is_another():
    found = DatabaseStatus()
    assert status.failed(found, FAILED, deleting=False)
    assert not status.failed(found, FAILED, deleting=False)
    assert status.failed(found, status.Failed("", "Other", "x"), deleting=False)


def test_a_failure_that_is_retried_is_stalled_no_more_and_one_that_nobody_foresaw_leaves_that_to_the_runtime():
    found = DatabaseStatus()
    found.conditions.set("Stalled", True, "RetryLimitExceeded")
    status.failed(found, status.Failed("", "InternalError", "x", unforeseen=True), deleting=False)
    assert found.conditions.get("Stalled").status == "True"
    status.failed(found, FAILED, deleting=False)
    assert found.conditions.get("Stalled").status == "False"


@pytest.mark.parametrize("aspect", ["StorageReady", "WorkloadReady"])
def test_of_a_database_whose_instance_does_not_run_it_is_not_said_that_it_is_ready(aspect):
    found = settled()
    status.failed(found.status, status.Failed(aspect, "PodPending", "x", progress=True), deleting=False)
    said = found.status.conditions
    assert (said.get("DatabaseReady").status, said.get(aspect).status) == ("Unknown", "False")
    assert "DatabaseReady" not in failed_once(aspect).conditions


def failed_once(aspect):
    found = DatabaseStatus()
    status.failed(found, status.Failed(aspect, "PodPending", "x", progress=True), deleting=False)
    return found


def test_what_is_being_deleted_and_can_not_go_yet_is_terminating():
    found = DatabaseStatus()
    status.failed(found, FAILED, deleting=True)
    assert (found.phase, ready(found)) == (Phase.TERMINATING, ("False", "ServerUnreachable"))


def test_it_is_settled_while_nothing_else_is_wanted_and_it_is_there():
    assert status.settled(settled())
    changed = settled()
    changed.metadata.generation = 2
    assert not status.settled(changed)
    failed = settled()
    status.failed(failed.status, FAILED, deleting=False)
    assert not status.settled(failed)
    assert not status.settled(database())


def confirmed(found, clock, change=lambda: None):
    with status.confirmed(found, clock):
        change()
    return found.status.last_reconcile_time


def test_the_time_of_the_last_reconcile_moves_on_a_change_and_else_once_an_hour():
    clock, found = FakeClock(), settled()
    first = confirmed(found, clock)
    assert first == clock.now()
    clock.advance(timedelta(minutes=59).total_seconds())
    assert confirmed(found, clock) == first
    assert confirmed(found, clock, lambda: status.suspended(found.status)) == clock.now()
    clock.advance(timedelta(minutes=61).total_seconds())
    assert confirmed(found, clock) == clock.now()
    found.metadata.generation = 2
    clock.advance(60)
    assert confirmed(found, clock) == clock.now()


def test_the_time_moves_with_what_a_failure_has_said_too():
    clock, found = FakeClock(), settled()

    def fail():
        status.failed(found.status, FAILED, deleting=False)
        raise ValueError("gone")

    confirmed(found, clock)
    clock.advance(60)
    with pytest.raises(ValueError, match="gone"):
        confirmed(found, clock, fail)
    assert found.status.last_reconcile_time == clock.now()

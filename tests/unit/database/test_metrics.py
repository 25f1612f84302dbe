"""What the shipped controller counts: databases where they are, and nothing by the name of one."""

from datetime import UTC, datetime

import pytest
from anyio import to_thread

from asyncctl.database.catalogue import Catalogue
from asyncctl.database.metrics import OPERATIONS, DatabaseMetrics
from asyncctl.database.types import (
    CredentialsSpec,
    Database,
    DatabaseSpec,
    ExternalSpec,
    Provisioner,
    RotationSpec,
)
from asyncctl.observe import Metrics
from asyncctl.operator import Operator
from asyncctl.testing.clock import FakeClock
from tests.unit.harness import working
from tests.unit.support import until

SPEC = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="main"))
ROTATED = DatabaseSpec(
    provisioner=Provisioner.EXTERNAL,
    external=ExternalSpec(server_name="main"),
    credentials=CredentialsSpec(rotation=RotationSpec(interval="24h")),
)
EXTERNAL = {"provisioner": "External"}
RUNNING = EXTERNAL | {"phase": "Running"}


def series(metrics, name):
    return [sample.labels for family in metrics.registry.collect() for sample in family.samples if sample.name == name]


def test_corrections_are_counted_by_field_and_not_by_the_name_in_it():
    metrics = Metrics(process=False)
    counted = DatabaseMetrics(metrics)
    counted.corrected(["connectionLimit", "users[app]", "users[other]", "extensions[pg[]crypto]"])
    name = "asyncctl_database_drift_corrections_total"
    assert series(metrics, name) == [{"field": "connectionLimit"}, {"field": "users"}, {"field": "extensions"}]
    assert metrics.registry.get_sample_value(name, {"field": "users"}) == 2


def test_operations_that_nobody_foresaw_share_one_series():
    metrics = Metrics(process=False)
    counted = DatabaseMetrics(metrics)
    for number in range(3 * OPERATIONS):
        counted.took(f"OP {number}", 0.1)
    counted.took("OP 1", 0.1)
    found = series(metrics, "asyncctl_database_sql_duration_seconds_count")
    assert len(found) == OPERATIONS + 1
    count = metrics.registry.get_sample_value
    assert count("asyncctl_database_sql_duration_seconds_count", {"operation": "OP 1"}) == 2
    assert count("asyncctl_database_sql_duration_seconds_count", {"operation": "other"}) == 2 * OPERATIONS


@pytest.fixture
def catalogue():
    return Catalogue(None)


@pytest.fixture
async def counting(databases, catalogue):
    """A program that counts, and the clock by which it does."""
    operator, clock = Operator("test"), FakeClock(now=datetime(2026, 1, 2, tzinfo=UTC))
    made = []

    @operator.controller(Database)
    async def reconcile(ctx, db):
        pass

    @operator.on_startup
    async def start(running):
        made.append(DatabaseMetrics(running.metrics, clock))
        shown = await to_thread.run_sync(series, running.metrics, "asyncctl_databases")
        assert shown == []  # who does not lead shows none

    @operator.background
    async def count(running):
        await made[0].count(running, catalogue)

    async with working(operator, databases) as running:
        yield running.metrics.registry.get_sample_value


async def test_a_bad_catalogue_shows_until_it_is_mended(counting, catalogue):
    name = "asyncctl_database_catalogue_good"
    await until(lambda: counting(name) == 1)
    catalogue.problem = "servers.yaml:1: no"
    assert counting(name) == 0
    catalogue.problem = None
    assert counting(name) == 1


async def test_a_database_is_counted_by_its_phase_and_no_more_when_it_is_gone(databases, counting):
    await databases.create(Database, "a", spec=SPEC)
    await databases.create(Database, "b", spec=SPEC)
    await until(lambda: counting("asyncctl_databases", EXTERNAL | {"phase": "Pending"}) == 2)
    for name in ("a", "b"):
        await databases.patch(Database, name, {"status": {"phase": "Running"}}, subresource="status")
    await until(lambda: counting("asyncctl_databases", RUNNING) == 2)
    assert counting("asyncctl_databases", EXTERNAL | {"phase": "Pending"}) == 0
    assert counting("asyncctl_databases", {"phase": "Failed", "provisioner": "InCluster"}) == 0
    await databases.delete(Database, "a")
    await until(lambda: counting("asyncctl_databases", RUNNING) == 1)


async def test_the_oldest_password_is_told_of_those_that_change_by_an_interval(databases, counting):
    age = "asyncctl_database_rotation_age_seconds"
    for name, spec, day in (("never", SPEC, "2025-06-01"), ("a", ROTATED, "2026-01-01"), ("b", ROTATED, "2026-01-02")):
        await databases.create(Database, name, spec=spec)
        times = {"activeUsers": [], "lastRotationTime": f"{day}T00:00:00Z"}
        change = {"status": {"phase": "Running", "credentials": times}}
        await databases.patch(Database, name, change, subresource="status")
    await until(lambda: counting("asyncctl_databases", RUNNING) == 3)
    assert counting(age, EXTERNAL) == 86400
    users = [{"login": each, "secretName": each, "lastRotationTime": f"2025-12-3{each}T00:00:00Z"} for each in "01"]
    await databases.patch(Database, "b", {"status": {"credentials": {"users": users}}}, subresource="status")
    await until(lambda: counting(age, EXTERNAL) == 3 * 86400)
    await databases.patch(Database, "b", {"status": {"credentials": {"users": None}}}, subresource="status")
    await until(lambda: counting(age, EXTERNAL) == 86400)
    await databases.patch(Database, "a", {"status": {"phase": "Suspended"}}, subresource="status")
    await until(lambda: counting("asyncctl_databases", RUNNING) == 2)
    assert counting(age, EXTERNAL) == 0
    await databases.delete(Database, "b")
    await until(lambda: counting("asyncctl_databases", RUNNING) == 1)
    assert counting(age, EXTERNAL) is None

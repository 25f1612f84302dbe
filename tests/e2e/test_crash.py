"""SIGKILL at any moment, and start again: the end is the same as without it, and a settled object is left alone."""

import os
import random
import time

import pytest

from tests.e2e.cluster import condition
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

KILLS = 20
QUICK = {"lease_duration": "1s", "renew_deadline": "800ms", "retry_period": "100ms", "retry_base": "200ms"}
SEED = int(os.environ.get("ASYNCCTL_TEST_SEED", random.SystemRandom().randrange(10**6)))


def essence(found):
    """What a status says, but for names, ids and times."""
    status = found["status"]
    said = {kind: condition(found, kind) for kind in ("Ready", "DatabaseReady", "CredentialsReady")}
    return (
        status["phase"],
        sorted(status),
        {kind: (each["status"], each["reason"]) for kind, each in said.items()},
        sorted(each["type"] for each in status["conditions"]),
        found["metadata"]["finalizers"],
    )


def test_killed_twenty_times_at_random_moments_the_end_is_the_same(start, team, cluster, superuser):
    print(f"seed {SEED}; set ASYNCCTL_TEST_SEED to repeat it")
    moments = random.Random(SEED)
    names = [f"db-{number}" for number in range(KILLS)]
    for name in names:
        daemon = start(**QUICK)
        team.create(name, reclaimPolicy=moments.choice(["Delete", "Retain"]))
        daemon.until_working()
        time.sleep(moments.uniform(0, 0.4))  # the random moment itself, not a way to wait
        daemon.kill()
    daemon = start(**QUICK)
    names.append("undisturbed")
    daemon.until_working()
    team.create("undisturbed")
    found = {name: team.until_running(name, deadline=30) for name in names}

    databases = {name: each["status"]["databaseName"] for name, each in found.items()}
    assert len(set(databases.values())) == len(names)
    wanted = superuser.portrait(databases["undisturbed"])
    assert [len(wanted[what]) for what in ("databases", "roles")] == [1, 2]
    for name in names:
        assert superuser.portrait(databases[name]) == wanted, name
        assert essence(found[name]) == essence(found["undisturbed"]), name
        assert set(team.reasons(name)) <= {"Provisioned"}, name  # an event may die with who says it, or be said twice
        assert ask_as_tenant(team.binding(f"{name}-credentials")["uri"], "SELECT 1") == [(1,)]
    roles = {f"{database}_{role}" for database in databases.values() for role in ("owner", "a")}
    assert superuser.claimed(cluster.id, team.namespace) == roles
    assert sorted(each["metadata"]["name"] for each in team.secrets()) == sorted(
        f"{name}-credentials" for name in names
    )


def test_a_restart_changes_nothing_on_a_settled_object(start, team, cluster, superuser):
    first = start(lease_duration="2s", renew_deadline="1s", retry_period="200ms")
    first.until_working()
    team.create("kept")
    team.create("owned", reclaimPolicy="Delete")
    for name in ("kept", "owned"):
        team.until_running(name)
        until(lambda name=name: team.reasons(name))
    first.kill()
    objects, rows, written = team.versions(), superuser.versions(), cluster.written_by("b")

    second = start("b", database_resync="1s", lease_duration="2s", renew_deadline="1s", retry_period="200ms")
    second.until_working()
    passes = "controller_runtime_reconcile_total"
    until(lambda: second.metric(passes, result="requeue_after"), lambda count: count >= 6, deadline=20)
    assert team.versions() == objects
    assert superuser.versions() == rows
    assert cluster.written_by("b") == written
    assert second.metric(passes, result="error") == 0
    # One dry run asks whether the fence at the API server is in force; it stores nothing.
    for method, count in (("POST", 1), ("PATCH", 0), ("DELETE", 0)):
        assert second.metric("rest_client_requests_total", method=method) == count, method


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.2])
def test_killed_in_the_middle_of_a_deletion_nothing_is_left(start, team, cluster, superuser, moment):
    daemon = start(**QUICK)
    daemon.until_working()
    team.create(reclaimPolicy="Delete")
    team.until_running()
    team.delete()
    time.sleep(moment)  # as above
    daemon.kill()
    start(**QUICK).until_working()
    team.until_gone()
    assert not superuser.claimed(cluster.id, team.namespace)

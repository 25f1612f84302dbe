"""The Secret of a Database: whose it is, what it is called, and what becomes of its password."""

import pytest

from tests.e2e.cluster import condition
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until


@pytest.fixture
def daemon(start):
    daemon = start(database_resync="1s", retry_base="200ms", retry_max="1s")
    daemon.until_working()
    return daemon


def works(uri):
    return ask_as_tenant(uri, "SELECT 1") == [(1,)]


def test_a_secret_that_lost_its_labels_keeps_its_password(daemon, team):
    team.create()
    team.until_running()
    before = team.binding()
    labels = team.secret()["metadata"]["labels"]
    team.patch_secret({"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    until(lambda: team.secret()["metadata"]["labels"], lambda found: found == labels)
    assert team.binding() == before
    assert works(before["uri"])


def test_nothing_is_made_for_a_secret_that_is_somebody_elses(daemon, team, superuser):
    team.make_secret("orders-credentials", password="theirs")
    team.create()
    refused = team.until_refused("SecretNotOwned")
    assert "orders-credentials" in refused["message"]
    assert not superuser.claimed(team.cluster.id, team.namespace)
    assert team.binding() == {"password": "theirs"}
    assert condition(team.database(), "DatabaseReady") == {}


def test_two_databases_that_name_one_secret_the_second_is_told(daemon, team):
    team.create("first", credentials={"secretName": "shared"})
    team.until_running("first")
    before = team.binding("shared")
    team.create("second", credentials={"secretName": "shared"})
    team.until_refused("SecretNotOwned", "second")
    assert team.binding("shared") == before


def test_another_name_for_the_secret_takes_the_password_along(daemon, team):
    team.create(credentials={"secretName": "before"})
    team.until_running()
    password = team.binding("before")["password"]
    team.patch({"spec": {"credentials": {"secretName": "after"}}})
    until(lambda: team.database()["status"]["binding"]["name"] == "after")
    assert team.binding("after")["password"] == password
    assert works(team.binding("after")["uri"])
    assert not team.secret("before")


def test_delete_removes_the_secret_also_where_it_was_kept_until_then(daemon, team, superuser):
    team.create()
    team.until_running()
    team.patch({"spec": {"suspend": True, "reclaimPolicy": "Delete"}})
    until(lambda: team.database()["status"]["phase"] == "Suspended")
    team.delete()
    team.until_gone()
    assert not team.secret()
    assert not superuser.claimed(team.cluster.id, team.namespace)


def test_an_orphan_keeps_its_secret(daemon, team):
    team.create(reclaimPolicy="Delete")
    team.until_running()
    binding = team.binding()
    team.patch({"metadata": {"annotations": {"apps.example.com/on-delete": "orphan"}}})
    team.delete()
    team.until_gone()
    assert "ownerReferences" not in team.secret()["metadata"]
    assert team.binding() == binding
    assert works(binding["uri"])


def test_a_password_that_a_person_wrote_is_not_taken_over(daemon, team):
    team.create()
    team.until_running()
    team.patch_secret({"data": {"password": "YTpi"}})  # a:b
    found = until(team.binding, lambda found: found["password"] != "a:b")
    assert works(found["uri"])


def test_the_longest_name_has_a_secret_too(daemon, team):
    name = "a" * 253
    team.create(name)
    found = team.until_running(name)
    secret = found["status"]["binding"]["name"]
    assert len(secret) <= 253
    assert works(team.binding(secret)["uri"])


@pytest.mark.parametrize("limit", [0, 1])
def test_a_connection_limit_that_is_used_up_is_no_failure(daemon, team, limit):
    team.create()
    team.until_running()
    team.patch({"spec": {"connectionLimit": limit}})
    found = team.until_running()
    before = found["status"]["lastReconcileTime"]
    passes = daemon.metric("controller_runtime_reconcile_total", result="requeue_after")
    until(lambda: daemon.metric("controller_runtime_reconcile_total", result="requeue_after") >= passes + 2)
    assert condition(team.database(), "Ready")["status"] == "True"
    assert team.database()["status"]["lastReconcileTime"] == before


def test_what_was_made_and_is_gone_is_not_made_again_in_part(daemon, team, superuser):
    team.create()
    name = team.until_running()["status"]["databaseName"]
    superuser.do("DROP DATABASE {} WITH (FORCE)", name)
    for role in (f"{name}_a", f"{name}_owner"):
        superuser.do("DROP ROLE {}", role)
    team.until_refused("DatabaseMissing")
    assert superuser.portrait(name)["roles"] == []


def test_what_was_suspended_from_its_birth_goes_without_a_word(daemon, team):
    team.create(suspend=True, reclaimPolicy="Delete")
    until(lambda: team.database().get("status", {}).get("phase") == "Suspended")
    team.delete()
    team.until_gone()
    assert team.reasons() == []

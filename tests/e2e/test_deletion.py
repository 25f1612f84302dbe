"""What becomes of database, logins and Secret when a `Database` goes: dropped, or kept and found again."""

import psycopg
import pytest

from tests.e2e.cluster import condition
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

GARBAGE = 45.0  # seconds: the garbage collector looks for new kinds each 30 s, and ours may be new


@pytest.fixture
def daemon(start):
    daemon = start()
    daemon.until_working()
    return daemon


def test_delete_drops_database_and_roles_and_the_secret_goes(daemon, team, superuser):
    team.create(reclaimPolicy="Delete")
    name = team.until_running()["status"]["databaseName"]
    with psycopg.connect(team.binding()["uri"]) as session:  # in use, and with a table of its own
        session.execute("CREATE TABLE invoices (id int)")
        session.commit()
        team.delete()
        team.until_gone()
    assert superuser.portrait(name) == {"databases": [], "roles": [], "members": [], "settings": []}
    until(lambda: not team.secret(), deadline=GARBAGE)
    assert until(team.reasons, lambda found: "Deleted" in found) == ["Deleted", "Provisioned"]


def test_retain_keeps_the_database_and_a_namesake_gets_it_back(daemon, team, superuser):
    team.create()
    before = team.until_running()
    name = before["status"]["databaseName"]
    binding = team.binding()
    ask_as_tenant(binding["uri"], "CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)")
    kept = superuser.portrait(name)
    team.delete()
    team.until_gone()
    assert superuser.portrait(name) == kept
    assert team.binding() == binding
    assert ask_as_tenant(binding["uri"], "SELECT id FROM invoices") == [(7,)]
    assert "Retained" in until(team.reasons, lambda found: "Retained" in found)

    team.create()
    after = team.until_running()
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["databaseName"] == name
    assert ask_as_tenant(team.binding()["uri"], "SELECT id FROM invoices") == [(7,)]
    assert superuser.portrait(name) == kept


def test_a_protected_database_stays_and_says_so_until_it_is_protected_no_more(daemon, team, superuser):
    team.create(reclaimPolicy="Delete", deletionProtection=True)
    before = team.until_running()
    kept = superuser.portrait(before["status"]["databaseName"])
    team.delete()  # where the admission policy is not installed, as here
    assert "set it to false" in team.until_refused("DeletionProtected")["message"]
    found = until(team.database, lambda found: condition(found, "Stalled").get("status") == "True")
    assert found["status"]["phase"] == "Failed"
    assert superuser.portrait(before["status"]["databaseName"]) == kept
    assert until(team.reasons, lambda found: len(found) > 1) == ["DeletionProtected", "Provisioned"]
    team.patch({"spec": {"deletionProtection": False}})
    team.until_gone()
    assert superuser.portrait(before["status"]["databaseName"])["roles"] == []


def test_an_object_that_is_deleted_before_anything_was_made_goes(start, team, superuser):
    team.create(reclaimPolicy="Delete", deletionProtection=False)
    team.delete()
    start().until_working()
    team.until_gone()
    assert not superuser.claimed(team.cluster.id, team.namespace)

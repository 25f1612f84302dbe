"""Two objects, or a DBA and an object, and one name of a database: it is whose it was, until he lets it go."""

import psycopg
import pytest

from tests.e2e.cluster import condition, is_running
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

PAIRS = 4


@pytest.fixture
def daemon(fork):
    daemon = fork(retry_base="50ms", retry_max="500ms", database_resync="1s")
    daemon.until_working()
    return daemon


@pytest.fixture
def name(team):
    return team.namespace.replace("-", "_")


def rows(team, secret, *, of="invoices"):
    return ask_as_tenant(team.binding(secret)["uri"], f"SELECT id FROM {of}")


def fill(team, secret):
    ask_as_tenant(team.binding(secret)["uri"], "CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)")


def test_of_two_that_come_together_one_gets_it_and_the_other_is_told(daemon, team, superuser, name):
    for number in range(PAIRS):
        for who in "ab":
            team.create(f"{who}-{number}", databaseName=f"{name}_{number}")

    def settled():
        return all(is_running(db) or condition(db, "Ready").get("reason") == "NameConflict" for db in team.databases())

    until(settled, deadline=20)
    for number in range(PAIRS):
        pair = [team.database(f"{who}-{number}") for who in "ab"]
        assert sorted(condition(db, "Ready")["reason"] for db in pair) == ["NameConflict", "Running"]
        winner = next(db for db in pair if is_running(db))["metadata"]["name"]
        assert ask_as_tenant(team.binding(f"{winner}-credentials")["uri"], "SELECT 1") == [(1,)]
    assert len(team.secrets()) == PAIRS
    assert len([found for found in superuser.databases() if found.startswith(name)]) == PAIRS


def test_when_the_winner_is_dropped_the_loser_gets_the_name_and_none_of_the_data(daemon, team, superuser, name):
    team.create("winner", databaseName=name, reclaimPolicy="Delete")
    team.until_running("winner")
    fill(team, "winner-credentials")
    team.create("loser", databaseName=name, reclaimPolicy="Delete")
    team.until_refused("NameConflict", "loser")
    before = superuser.portrait(name)
    team.delete("winner")
    team.until_gone("winner")
    team.look_again("loser")
    team.until_running("loser")
    assert superuser.portrait(name) == before
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows(team, "loser-credentials")


def test_when_the_winner_is_kept_it_stays_his(daemon, team, superuser, name):
    team.create("winner", databaseName=name)
    team.until_running("winner")
    fill(team, "winner-credentials")
    team.create("loser", databaseName=name, reclaimPolicy="Delete")
    team.until_refused("NameConflict", "loser")
    before = superuser.portrait(name)
    team.delete("winner")
    team.until_gone("winner")
    passes = daemon.metric("controller_runtime_reconcile_total")
    team.look_again("loser")
    until(lambda: daemon.metric("controller_runtime_reconcile_total") > passes)
    team.until_refused("NameConflict", "loser")
    team.delete("loser")
    team.until_gone("loser")
    assert superuser.portrait(name) == before
    team.create("winner", databaseName=name)
    team.until_running("winner")
    assert rows(team, "winner-credentials") == [(7,)]


def test_who_never_got_its_database_takes_nothing_along_that_was_kept_for_the_name(daemon, team, superuser, name):
    team.create("other", databaseName=f"{name}_other")
    team.until_running("other")
    team.create(databaseName=name, users=[{"name": "app"}, {"name": "report", "privileges": "ReadOnly"}])
    team.until_running()
    team.delete()
    team.until_gone()
    kept = {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in team.secrets()}
    before = superuser.portrait(name)
    team.create(databaseName=f"{name}_other", reclaimPolicy="Delete")
    team.until_refused("NameConflict")
    team.delete()
    team.until_gone()
    assert {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in team.secrets()} == kept
    assert superuser.portrait(name) == before
    team.create(databaseName=name, users=[{"name": "app"}, {"name": "report", "privileges": "ReadOnly"}])
    team.until_running()
    assert superuser.portrait(name) == before


@pytest.fixture
def unowned(superuser, admin, name):
    """A database that somebody made as our admin, with data in it, and that bears nobody's claim."""
    superuser.do("CREATE DATABASE {} OWNER {}", name, admin.admin_user)
    superuser.do("CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)", database=name)
    superuser.do("ALTER TABLE invoices OWNER TO {}", admin.admin_user, database=name)
    yield name
    if name in superuser.databases():
        superuser.do("DROP DATABASE {} WITH (FORCE)", name)


def test_a_database_that_bears_no_claim_is_left_alone_unless_adoption_is_asked_for(daemon, team, superuser, unowned):
    before, versions = superuser.portrait(unowned), superuser.versions()
    team.create(databaseName=unowned, reclaimPolicy="Delete")
    said = team.until_refused("NameConflict")
    assert "adoptionPolicy" in said["message"]
    assert superuser.versions() == versions
    team.delete()
    team.until_gone()
    assert superuser.portrait(unowned) == before


def test_one_that_is_adopted_keeps_its_data_and_is_known_as_such(daemon, team, superuser, unowned):
    team.create(databaseName=unowned, adoptionPolicy="IfUnowned", reclaimPolicy="Delete")
    found = team.until_running()
    assert found["status"]["claim"]["adopted"] is True
    assert rows(team, "orders-credentials") == [(7,)]
    assert "Adopted" in until(team.reasons, lambda found: "Adopted" in found)
    versions = team.versions()
    passes = daemon.metric("controller_runtime_reconcile_total")
    until(lambda: daemon.metric("controller_runtime_reconcile_total") >= passes + 2)
    assert team.versions() == versions
    assert team.reasons().count("Adopted") == 1

    team.delete()
    team.until_gone()
    assert superuser.portrait(unowned) == {"databases": [], "roles": [], "members": [], "settings": []}

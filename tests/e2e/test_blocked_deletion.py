"""A deletion that can't be done is told in Ready, tried again and done when it can; nothing else is ever dropped."""

import psycopg
import pytest

from tests.e2e.cluster import condition
from tests.e2e.failing import BACKOFF, QUICK, is_retried, warnings
from tests.e2e.waiting import until


@pytest.fixture
def daemon(fork):
    daemon = fork(**QUICK)
    daemon.until_working()
    return daemon


@pytest.fixture
def name(daemon, team):
    """A Database that is to be dropped with its object; the name of its database."""
    team.create(reclaimPolicy="Delete")
    return team.until_running()["status"]["databaseName"]


def is_blocked(team, daemon, reason):
    until(lambda: team.database()["status"], lambda status: status["phase"] == "Terminating")
    said = team.until_refused(reason)
    found = team.database()
    assert found["status"]["phase"] == "Terminating"
    assert condition(found, "Stalled").get("status", "False") == "False"
    assert condition(found, "DatabaseReady")["reason"] == reason
    is_retried(daemon, BACKOFF)
    assert until(lambda: warnings(team)) == [(reason, None)]
    return said["message"]


def test_a_session_that_we_may_not_end_blocks_it_and_its_end_lets_it_go(name, team, daemon, superuser):
    with psycopg.connect(superuser.postgres.uri(name)):
        team.delete()
        assert "sessions of postgres: end them" in is_blocked(team, daemon, "DatabaseInUse")
        assert name in superuser.databases()
        assert team.secret()
    team.until_gone()
    assert superuser.portrait(name)["roles"] == []
    assert "Deleted" in until(team.reasons, lambda found: "Deleted" in found)


def test_what_a_role_of_ours_may_elsewhere_blocks_it_until_that_is_revoked(name, team, daemon, superuser):
    superuser.do("GRANT CONNECT ON DATABASE postgres TO {}", f"{name}_owner")
    team.delete()
    assert "database postgres" in is_blocked(team, daemon, "RoleHasDependents")
    superuser.do("REVOKE CONNECT ON DATABASE postgres FROM {}", f"{name}_owner")
    team.until_gone()
    assert superuser.portrait(name) == {"databases": [], "roles": [], "members": [], "settings": []}


def test_a_server_that_is_away_blocks_it_and_an_orphan_may_go(fork, team, superuser, cut_off, proxy):
    daemon = fork(database_servers=cut_off, **QUICK | {"database_resync": "60s"})  # or that it is away is told before
    team.create(reclaimPolicy="Delete")
    name = team.until_running()["status"]["databaseName"]
    before, binding = superuser.portrait(name), team.binding()
    daemon.until_idle()  # or a pass tells it of a database that nobody deletes yet
    proxy.down()
    team.delete()
    is_blocked(team, daemon, "ServerUnreachable")
    team.patch({"metadata": {"annotations": {"apps.example.com/on-delete": "orphan"}}})
    team.until_gone()
    assert superuser.portrait(name) == before
    assert team.binding() == binding
    assert "Orphaned" in until(team.reasons, lambda found: "Orphaned" in found)

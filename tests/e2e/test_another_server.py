"""Another server answers in the place of the one that a database was made on: it is told, and nothing is touched."""

import psycopg
import pytest
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer
from tests.e2e.cluster import condition
from tests.e2e.server import Superuser, ask_as_tenant
from tests.e2e.waiting import until

QUICK = {"retry_base": "50ms", "retry_max": "500ms", "database_resync": "1s"}


@pytest.fixture(scope="module")
def other(postgres, admin):
    """A second server, on which our admin is known by the same name and password."""
    with PostgresServer.running() as server:
        create = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}")
        with psycopg.connect(server.uri(), autocommit=True) as connection:
            connection.execute(create.format(sql.Identifier(admin.admin_user), sql.Literal(admin.admin_password)))
        yield Superuser(server)


@pytest.mark.parametrize("namesake", [False, True], ids=["an empty one", "one with a database of that name"])
def test_another_server_is_told_and_not_touched(fork, team, superuser, other, cut_off, proxy, namesake):
    daemon = fork(database_servers=cut_off, **QUICK)
    daemon.until_working()
    name = team.namespace.replace("-", "_")
    team.create(databaseName=name, reclaimPolicy="Delete")
    team.until_running()
    ask_as_tenant(team.binding()["uri"], "CREATE TABLE invoices (id int)")
    if namesake:
        other.do("CREATE DATABASE {}", name)
    before, secret, untouched = superuser.portrait(name), team.secret(), other.versions()

    proxy.lead_to(other.postgres.port)
    said = team.until_refused("ServerReplaced")
    assert "another PostgreSQL server" in said["message"]
    assert "nothing was changed" in said["message"]
    found = team.database()
    assert found["status"]["phase"] == "Failed"
    assert condition(found, "Stalled")["reason"] == "ServerReplaced"
    assert team.secret() == secret

    team.delete()
    until(lambda: "deletionTimestamp" in team.database()["metadata"])
    assert team.until_refused("ServerReplaced")
    assert other.versions() == untouched
    proxy.lead_to(superuser.postgres.port)
    assert superuser.portrait(name) == before
    team.look_again()
    team.until_gone()
    assert superuser.portrait(name)["roles"] == []
    assert other.versions() == untouched

"""One `Database` from its creation to its end, on real parts: what a tenant gets, and what he can't get at."""

import psycopg
import pytest
from psycopg import sql

from tests.e2e.cluster import condition
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until


@pytest.fixture
def daemon(start):
    daemon = start(retry_base="200ms", retry_max="1s", database_resync="1s")
    daemon.until_working()
    return daemon


def refused(uri, database):
    """Return what the server says to a tenant who wants into another database."""
    with pytest.raises(psycopg.OperationalError) as caught, psycopg.connect(uri, dbname=database):
        pass
    return str(caught.value)


def test_a_database_gets_running_and_says_where_it_is(daemon, team, cluster, postgres):
    team.create()
    status = team.until_running()["status"]
    name = status["databaseName"]
    assert name.startswith(f"{team.namespace}_orders_".replace("-", "_"))
    assert status["ownerRole"] == f"{name}_owner"
    assert (status["host"], status["port"]) == (postgres.host, postgres.port)
    assert status["serverVersion"] == postgres.version
    assert status["binding"] == {"name": "orders-credentials"}
    assert status["credentials"]["activeUsers"] == [f"{name}_a"]
    assert until(team.reasons) == ["Provisioned"]


def test_the_secret_has_all_that_an_application_needs(daemon, team, postgres):
    team.create()
    name = team.until_running()["status"]["databaseName"]
    assert team.secret()["type"] == "servicebinding.io/postgresql"
    assert "ownerReferences" not in team.secret()["metadata"]
    found = team.binding()
    place = f"{postgres.host}:{postgres.port}/{name}"
    password = found["password"]
    assert len(password) >= 32
    assert found == {
        "type": "postgresql",
        "provider": "asyncctl",
        "host": postgres.host,
        "port": str(postgres.port),
        "database": name,
        "dbname": name,
        "username": f"{name}_a",
        "user": f"{name}_a",
        "password": password,
        "sslmode": "disable",
        "uri": f"postgresql://{name}_a:{password}@{place}?sslmode=disable",
        "fqdn-uri": f"postgresql://{name}_a:{password}@{place}?sslmode=disable",
        "jdbc-uri": f"jdbc:postgresql://{place}?user={name}_a&password={password}&sslmode=disable",
        "pgpass": f"{postgres.host}:{postgres.port}:{name}:{name}_a:{password}",
    }


def test_the_login_may_work_in_its_database(daemon, team, superuser):
    team.create()
    name = team.until_running()["status"]["databaseName"]
    uri = team.binding()["uri"]
    ask_as_tenant(uri, "CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)")
    assert ask_as_tenant(uri, "SELECT id FROM invoices") == [(7,)]
    query = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'invoices'"
    assert superuser.ask(query, database=name) == [(f"{name}_owner",)]


def test_the_login_can_do_nothing_in_another_database(daemon, team):
    for name in ("orders", "stock"):
        team.create(name)
    stock = team.until_running("stock")["status"]["databaseName"]
    team.until_running("orders")
    uri = team.binding("orders-credentials")["uri"]
    assert "permission denied for database" in refused(uri, stock)
    for statement in (
        sql.SQL("DROP DATABASE {}").format(sql.Identifier(stock)),
        sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(stock)),
        sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(f"{stock}_owner")),
        sql.SQL("SET ROLE {}").format(sql.Identifier(f"{stock}_owner")),
        sql.SQL("ALTER ROLE {} PASSWORD 'mine'").format(sql.Identifier(f"{stock}_a")),
        sql.SQL("CREATE DATABASE more"),
        sql.SQL("CREATE ROLE more"),
    ):
        with psycopg.connect(uri, autocommit=True) as tenant, pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant.execute(statement)


def test_the_login_stays_out_of_a_maintenance_database_that_is_closed_to_the_public(daemon, team, superuser):
    team.create()
    team.until_running()
    superuser.do("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        assert "permission denied for database" in refused(team.binding()["uri"], "postgres")
    finally:
        superuser.do("GRANT CONNECT ON DATABASE postgres TO PUBLIC")


def test_what_is_not_yet_there_is_refused_and_nothing_is_made(daemon, team, superuser):
    team.create(schemas=[{"name": "sales"}])
    said = team.until_refused("NotYet")
    assert "spec.schemas" in said["message"]
    assert condition(team.database(), "Stalled")["status"] == "True"
    assert team.database()["status"]["phase"] == "Failed"
    assert not superuser.claimed(team.cluster.id, team.namespace)
    assert not team.secrets()

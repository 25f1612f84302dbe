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


def test_each_user_gets_a_login_and_a_secret_and_can_do_what_it_may(daemon, team):
    team.create(
        schemas=[{"name": "sales"}],
        users=[
            {"name": "app"},
            {"name": "worker", "privileges": "ReadWrite"},
            {"name": "report", "privileges": "ReadOnly", "secretName": "for-the-report"},
        ],
    )
    status = team.until_running()["status"]
    name = status["databaseName"]
    assert status["credentials"]["activeUsers"] == [f"{name}_{user}_a" for user in ("app", "worker", "report")]
    assert [(each["user"], each["secretName"]) for each in status["credentials"]["users"]] == [
        ("app", "orders-credentials"), ("worker", "orders-worker-credentials"), ("report", "for-the-report"),
    ]  # fmt: skip
    assert [each["login"] for each in status["credentials"]["users"]] == status["credentials"]["activeUsers"]
    assert all(each["lastRotationTime"] for each in status["credentials"]["users"])
    assert status["schemas"] == [{"name": "sales", "ready": True}]
    app, worker, report = (
        team.binding(secret)["uri"]
        for secret in (status["binding"]["name"], "orders-worker-credentials", "for-the-report")
    )
    ask_as_tenant(app, "CREATE TABLE sales.invoices (id int)")
    ask_as_tenant(worker, "INSERT INTO sales.invoices VALUES (7)")
    assert ask_as_tenant(report, "SELECT id FROM sales.invoices") == [(7,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask_as_tenant(report, "INSERT INTO sales.invoices VALUES (8)")


def test_an_extension_that_cannot_be_had_is_told_and_the_database_can_be_used(daemon, team):
    team.create(extensions=[{"name": "pgcrypto"}, {"name": "nobody_has_this"}])
    said = team.until_refused("ExtensionUnavailable")
    assert "nobody_has_this" in said["message"]
    status = team.database()["status"]
    assert status["phase"] == "Running"
    assert condition(team.database(), "DatabaseReady")["status"] == "True"
    assert [(each["name"], each["ready"]) for each in status["extensions"]] == [
        ("pgcrypto", True), ("nobody_has_this", False),
    ]  # fmt: skip
    assert ask_as_tenant(team.binding()["uri"], "SELECT length(gen_random_bytes(4))") == [(4,)]
    team.look_again()
    assert until(team.reasons, lambda found: len(found) > 1) == ["ExtensionUnavailable", "Provisioned"]
    team.patch({"spec": {"extensions": [{"name": "pgcrypto"}]}})
    assert [each["name"] for each in team.until_running()["status"]["extensions"]] == ["pgcrypto"]

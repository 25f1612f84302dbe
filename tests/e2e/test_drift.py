"""What somebody changes behind our back is put right; what can't be put right without loss is told, and left."""

import base64

import psycopg
import pytest
from psycopg import sql

from tests.e2e.cluster import condition
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until


@pytest.fixture
def daemon(start):
    daemon = start(database_resync="1s", retry_base="200ms", retry_max="1s")
    daemon.until_working()
    return daemon


@pytest.fixture
def name(daemon, team):
    """A Database that is Running, with data in it; the name of its database."""
    team.create()
    name = team.until_running()["status"]["databaseName"]
    ask_as_tenant(team.binding()["uri"], "CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)")
    return name


def works(uri):
    try:
        return ask_as_tenant(uri, "SELECT id FROM invoices") == [(7,)]
    except psycopg.OperationalError:
        return False


def test_a_deleted_secret_is_made_again_and_works(name, team):
    before = team.binding()
    team.delete_secret()
    until(team.secret)
    after = team.binding()
    assert works(after["uri"])
    assert after.keys() == before.keys()
    assert after["username"] == before["username"]


@pytest.mark.parametrize("data", [{"host": "bm93aGVyZQ=="}, {"uri": None}])
def test_a_secret_that_was_edited_is_put_right(name, team, data):
    before = team.binding()
    team.patch_secret({"data": data})
    assert until(team.binding, lambda found: found == before)
    assert works(before["uri"])


def test_a_password_that_was_edited_in_the_secret_ends_with_a_secret_that_works(name, team):
    team.patch_secret({"data": {"password": "MnNob3J0"}})
    found = until(team.binding, lambda found: f":{found['password']}@" in found["uri"])
    until(lambda: works(found["uri"]))
    assert until(team.binding) == found


def test_a_password_that_was_changed_in_postgresql_is_set_back(name, team, superuser):
    uri = team.binding()["uri"]
    version = team.secret()["metadata"]["resourceVersion"]
    before = superuser.verifiers()
    superuser.do("ALTER ROLE {} PASSWORD 'changed-by-a-dba'", f"{name}_a")
    until(lambda: works(uri))
    assert superuser.verifiers() != before  # it was changed, and set back with another salt
    assert team.secret()["metadata"]["resourceVersion"] == version


def test_a_login_that_was_dropped_is_made_again(name, team, superuser):
    before = superuser.portrait(name)
    superuser.do("DROP OWNED BY {}; DROP ROLE {}", f"{name}_a", f"{name}_a", database=name)
    until(lambda: works(team.binding()["uri"]))
    assert superuser.portrait(name) == before


def test_what_the_public_was_granted_is_revoked(name, team, superuser):
    before, versions = superuser.portrait(name), superuser.versions()
    superuser.do("GRANT CONNECT ON DATABASE {} TO PUBLIC", name)
    assert superuser.versions() != versions  # it was granted, and may have been revoked already
    until(lambda: superuser.portrait(name), lambda found: found == before)


def corrections(team):
    return [event["note"].partition(": ")[2] for event in team.events() if event["reason"] == "DriftCorrected"]


def test_what_was_put_right_is_named_and_counted_and_a_wish_that_changes_is_not(name, team, superuser, daemon):
    superuser.do("ALTER DATABASE {} CONNECTION LIMIT 7", name)
    assert until(lambda: corrections(team)) == ["connectionLimit"]
    counted = "asyncctl_database_drift_corrections_total"
    assert daemon.metric(counted, field="connectionLimit") == 1
    team.patch({"spec": {"connectionLimit": 5}})
    team.until_running()
    assert superuser.ask("SELECT datconnlimit FROM pg_database WHERE datname = %s", [name]) == [(5,)]
    superuser.do("ALTER ROLE {} PASSWORD 'changed-by-a-dba'", f"{name}_a")
    assert until(lambda: daemon.metric(counted, field="users")) == 1
    team.patch_secret({"data": {"host": "bm93aGVyZQ=="}})
    assert until(lambda: daemon.metric(counted, field="credentials")) == 1
    assert daemon.metric(counted, field="connectionLimit") == 1
    assert "credentials[orders-credentials]" in until(lambda: corrections(team), lambda found: len(found) == 3)


def test_a_dropped_database_is_told_and_never_made_again_empty(name, team, superuser, daemon):
    superuser.do("DROP DATABASE {} WITH (FORCE)", name)
    said = team.until_refused("DatabaseMissing")
    assert f'"{name}"' in said["message"]
    assert "restore" in said["message"]
    found = team.database()
    assert found["status"]["phase"] == "Failed"
    assert condition(found, "Stalled")["reason"] == "DatabaseMissing"
    passes = daemon.metric("controller_runtime_reconcile_total")
    team.look_again()
    until(lambda: daemon.metric("controller_runtime_reconcile_total") > passes)
    assert name not in superuser.databases()
    assert until(team.reasons, lambda found: len(found) > 1) == ["DatabaseMissing", "Provisioned"]


def test_a_renamed_database_is_told_and_is_found_again_when_it_is_back(name, team, superuser):
    superuser.do("ALTER DATABASE {} RENAME TO {}", name, f"{name}_old")
    team.until_refused("DatabaseMissing")
    assert superuser.databases() & {name, f"{name}_old"} == {f"{name}_old"}
    superuser.do("ALTER DATABASE {} RENAME TO {}", f"{name}_old", name)
    team.look_again()
    found = team.until_running()
    assert condition(found, "Stalled")["status"] == "False"
    assert works(team.binding()["uri"])


def test_an_object_whose_database_is_missing_can_still_be_deleted(name, team, superuser):
    team.patch({"spec": {"reclaimPolicy": "Delete"}})
    superuser.do("DROP DATABASE {} WITH (FORCE)", name)
    team.until_refused("DatabaseMissing")
    team.delete()
    team.until_gone()
    assert superuser.portrait(name)["roles"] == []


# Each thing that is managed: what somebody does to it, and what the event calls it. Two rounds, as who takes the
# database away from its owner, or the claim from it, is told from who has only made a mess.

MESS = [
    ("COMMENT ON ROLE {owner} IS NULL", "claim"),
    ("ALTER DATABASE {db} CONNECTION LIMIT 3", "connectionLimit"),
    ("GRANT CONNECT ON DATABASE {db} TO PUBLIC", "privileges"),
    ("REVOKE CONNECT ON DATABASE {db} FROM {app}", "users[app]"),
    ("ALTER ROLE {report} NOLOGIN CONNECTION LIMIT 1", "users[report]"),
    ("REVOKE {readonly} FROM {report}", "users[report]"),
    ("DROP EXTENSION citext", "extensions[citext]"),
    ("DROP SCHEMA audit", "schemas[audit]"),
    ("ALTER SCHEMA app OWNER TO {admin}", "schemas[app]"),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE SELECT ON TABLES FROM {readonly}", "privileges"),
    ("REVOKE USAGE ON SCHEMA app FROM {readonly}", "privileges"),
    ("REVOKE SELECT ON invoices FROM {readonly}", "privileges"),
]
TAKEN = [
    ("ALTER DATABASE {db} OWNER TO {admin}", "owner"),
    ("COMMENT ON ROLE {report} IS NULL", "claim"),
]


def is_left_alone(daemon, team, superuser):
    """Three resyncs write nothing, to neither server: not even when they were, which would wake the next."""
    versions, rows = team.versions(), superuser.versions()
    passes = daemon.metric("controller_runtime_reconcile_total", result="requeue_after")
    until(lambda: daemon.metric("controller_runtime_reconcile_total", result="requeue_after") >= passes + 3)
    assert team.versions() == versions
    assert superuser.versions() == rows


def test_each_thing_that_is_managed_is_put_right_and_named(fork, team, superuser, admin):
    daemon = fork(database_resync="1s", retry_base="200ms", retry_max="1s")
    daemon.until_working()
    team.create(
        connectionLimit=20, extensions=[{"name": "citext"}], schemas=[{"name": "app"}, {"name": "audit"}],
        users=[{"name": "app"}, {"name": "report", "privileges": "ReadOnly", "connectionLimit": 2}],
    )  # fmt: skip
    db = team.until_running()["status"]["databaseName"]
    binding = team.binding("orders-credentials")
    ask_as_tenant(binding["uri"], "CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)")
    names = {"db": db, "owner": f"{db}_owner", "readonly": f"{db}_readonly", "admin": admin.admin_user}
    names |= {"app": f"{db}_app_a", "report": f"{db}_report_a"}
    quoted = {key: sql.Identifier(name) for key, name in names.items()}
    table = "SELECT ARRAY(SELECT unnest(relacl)::text ORDER BY 1) FROM pg_class WHERE relname = 'invoices'"

    def state():
        return superuser.portrait(db), superuser.interior(db), superuser.ask(table, database=db), team.binding()

    def notes():
        return " ".join(event["note"] for event in team.events() if event["reason"] == "DriftCorrected")

    before = state()
    assert not notes()
    is_left_alone(daemon, team, superuser)
    for round_, edit in ((MESS, None), (TAKEN, {"data": {"host": base64.b64encode(b"elsewhere").decode()}})):
        for statement, _ in round_:
            superuser.ask(sql.SQL(statement).format(**quoted), database=db)
        if edit:
            team.patch_secret(edit)
        until(state, lambda found: found == before, deadline=15)
        wanted = {field for _, field in round_} | ({"credentials[orders-credentials]"} if edit else set())
        until(notes, lambda said, wanted=wanted: all(field in said for field in wanted))
    team.until_running()
    is_left_alone(daemon, team, superuser)

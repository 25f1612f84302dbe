"""Each failure of the table, provoked for real: its condition, its reason, one Warning, how it is retried, its end.

What goes by itself is retried with growing delay, is not counted, and comes right when its cause goes. What somebody
has to mend is parked, Stalled and Failed, and comes right when the object is touched, or after the slow retry.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.e2e.cluster import condition
from tests.e2e.failing import BACKOFF, QUICK, SLOW, Row, World, is_over, is_told, warnings
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until


@contextlib.contextmanager
def down(world: World) -> Iterator[None]:
    world.proxy.down()
    yield
    world.proxy.up()


@contextlib.contextmanager
def wrong_password(world: World) -> Iterator[None]:
    world.write_catalogue("not-the-one")
    yield
    world.write_catalogue(world.password)


@contextlib.contextmanager
def shut_out(world: World) -> Iterator[None]:
    """A line in pg_hba.conf rejects our admin."""
    ((file,),) = world.superuser.ask("SHOW hba_file")
    path = Path(file)
    before = path.read_text()
    path.write_text(f"host all {world.admin} 127.0.0.1/32 reject\n{before}")
    world.superuser.ask("SELECT pg_reload_conf()")
    yield
    path.write_text(before)
    world.superuser.ask("SELECT pg_reload_conf()")


@contextlib.contextmanager
def held_up(world: World) -> Iterator[None]:
    """Somebody's transaction holds the name of our role, and what waits for it is cancelled."""
    with psycopg.connect(world.superuser.postgres.uri()) as session:
        session.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(f"{world.name}_owner")))
        done = threading.Event()

        def cancel() -> None:
            while not done.wait(0.05):
                waits = "usename = %s AND wait_event_type = 'Lock'"
                world.superuser.ask(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waits}", [world.admin])

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            yield
        finally:
            done.set()
            canceller.join()
            session.rollback()


ROWS = [
    Row("the server is down", down, "ServerUnreachable", BACKOFF, writes=False),
    Row("a statement was cancelled", held_up, "ServerUnreachable", BACKOFF),
    Row("wrong admin password", wrong_password, "AuthenticationFailed", BACKOFF, writes=False),
    Row("rejected by pg_hba.conf", shut_out, "AuthenticationFailed", BACKOFF, writes=False),
    Row("no LOGIN", lambda w: w.altered("NOLOGIN", "LOGIN"), "AuthenticationFailed", BACKOFF, writes=False),
    Row(
        "no CREATEROLE", lambda w: w.altered("NOCREATEROLE", "CREATEROLE"),
        "InsufficientPrivilege", SLOW, writes=False,
    ),
    Row("no CREATEDB", lambda w: w.altered("NOCREATEDB", "CREATEDB"), "InsufficientPrivilege", SLOW),
    Row(
        "too many connections", lambda w: w.altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
        "TooManyConnections", BACKOFF, writes=False,
    ),
    Row(
        "a foreign database", lambda w: w.taken("CREATE DATABASE {name}", "DROP DATABASE {name}"),
        "NameConflict", SLOW, writes=False,
    ),
    Row(
        "a foreign owner role", lambda w: w.taken("CREATE ROLE {owner}", "DROP ROLE {owner}"),
        "NameConflict", SLOW, writes=False,
    ),
    Row(
        "a role of another object", lambda w: w.taken(
            "CREATE ROLE {owner}; COMMENT ON ROLE {owner} IS 'asyncctl:other/ns/name/uid'", "DROP ROLE {owner}"
        ),
        "NameConflict", SLOW, writes=False,
    ),
    Row("a foreign login", lambda w: w.taken("CREATE ROLE {a}", "DROP ROLE {a}"), "NameConflict", SLOW),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_failure_is_told_retried_and_over_when_its_cause_is_gone(row, world, fork):
    daemon = fork(**QUICK)
    daemon.until_working()
    with row.wrong(world):
        before = world.superuser.versions()
        world.team.create(databaseName=world.name)
        is_told(world.team, daemon, row.reason, row.retry)
        assert not world.team.secrets()
        if not row.writes:
            assert world.superuser.versions() == before
    is_over(world.team, row.reason, row.retry)


# What the API server refuses.

ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterrole"
ALL_BUT_SECRETS = [
    {"apiGroups": ["apps.example.com", "events.k8s.io", "apps", "policy"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list", "watch"]},
]


@contextlib.contextmanager
def without_the_right(team):
    """User c may all, but write Secrets."""
    meta = {"metadata": {"name": team.namespace}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": team.namespace}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "c"}
    team.cluster.call("POST", f"{ROLES}s", meta | {"rules": ALL_BUT_SECRETS})
    team.cluster.call("POST", f"{ROLES}bindings", meta | {"roleRef": role, "subjects": [subject]})
    yield
    for kind in ("bindings", "s"):
        team.cluster.call("DELETE", f"{ROLES}{kind}/{team.namespace}")


@contextlib.contextmanager
def out_of_quota(team):
    """No Secret more; what a quota's controller would write is written by hand, as none runs here."""
    path = f"/api/v1/namespaces/{team.namespace}/resourcequotas"
    hard = {"count/secrets": "0"}
    team.cluster.call("POST", path, {"metadata": {"name": "none"}, "spec": {"hard": hard}})
    status = {"status": {"hard": hard, "used": hard}}
    team.cluster.call("PATCH", f"{path}/none/status", status, content_type="application/merge-patch+json")
    yield
    team.cluster.call("DELETE", f"{path}/none")


@contextlib.contextmanager
def denied_by_a_policy(team):
    """An admission policy of the cluster's operators wants no such Secret."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    name = {"metadata": {"name": team.namespace}}
    here = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}
    match = {"namespaceSelector": here, "resourceRules": [rule]}
    refuses = {"matchConstraints": match, "validations": [{"expression": "false", "message": "not here"}]}
    team.cluster.call("POST", f"{path}ies", name | {"spec": refuses})
    bound = {"policyName": team.namespace, "validationActions": ["Deny"]}
    team.cluster.call("POST", f"{path}ybindings", name | {"spec": bound})
    until(lambda: team.try_secret() == 422)
    yield
    for kind in ("ybindings", "ies"):
        team.cluster.call("DELETE", f"{path}{kind}/{team.namespace}")
    until(lambda: team.try_secret() == 201)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [(without_the_right, "Forbidden"), (out_of_quota, "QuotaExceeded"), (denied_by_a_policy, "Invalid")],
)
def test_what_the_api_server_refuses_is_told_parked_and_over_when_it_is_touched(wrong, reason, team, fork, cluster):
    with contextlib.ExitStack() as until_the_end:
        with wrong(team):
            daemon = fork("c" if wrong is without_the_right else "a", **QUICK)
            daemon.until_working()
            team.create()
            is_told(team, daemon, reason, SLOW, "CredentialsReady")
            assert not team.secrets()
            until_the_end.enter_context(cluster.admin("c"))
        is_over(team, reason, SLOW, "CredentialsReady")


def test_an_extension_that_can_not_be_had_is_told_by_itself_and_the_rest_is_there(team, fork, superuser):
    fork(**QUICK).until_working()
    wanted = [{"name": "citext"}, {"name": "file_fdw"}, {"name": "nosuch"}]
    team.create(extensions=wanted, schemas=[{"name": "app"}])
    assert "nosuch" in team.until_refused("ExtensionUnavailable")["message"]
    found = team.database()
    assert [(each["name"], each["ready"]) for each in found["status"]["extensions"]] == [
        ("citext", True), ("file_fdw", False), ("nosuch", False),
    ]  # fmt: skip
    assert "superuser" in found["status"]["extensions"][1]["message"]
    assert found["status"]["phase"] == "Running"
    assert condition(found, "DatabaseReady")["status"] == condition(found, "CredentialsReady")["status"] == "True"
    assert ask_as_tenant(team.binding()["uri"], "SELECT 'A'::citext = 'a'") == [(True,)]
    assert until(lambda: warnings(team)) == [("ExtensionUnavailable", None)]
    superuser.do("CREATE EXTENSION file_fdw", database=found["status"]["databaseName"])
    team.patch({"spec": {"extensions": wanted[:2]}})
    team.until_running()
    assert warnings(team) == [("ExtensionUnavailable", None)]


def test_an_admin_password_that_changes_while_it_runs_is_told_and_read_anew(world, fork):
    team = world.team
    daemon = fork(**QUICK)
    daemon.until_working()
    team.create(databaseName=world.name)
    team.until_running()
    before, secret = world.superuser.portrait(world.name), team.secret()
    with world.altered("PASSWORD 'another-of-this-test'", ""):
        ask = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
        world.superuser.ask(ask, [world.admin])  # a session that is kept has no need of the new one
        is_told(team, daemon, "AuthenticationFailed", BACKOFF)
        assert ask_as_tenant(team.binding()["uri"], "SELECT 1") == [(1,)]
        world.write_catalogue("another-of-this-test")
        is_over(team, "AuthenticationFailed", BACKOFF)
    assert world.superuser.portrait(world.name) == before
    assert team.secret() == secret

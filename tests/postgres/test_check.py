"""What `asyncctl check` says of the servers in the catalogue; each thing that can be wrong, made wrong."""

from dataclasses import replace

import pytest
from psycopg import sql

from asyncctl.clock import SystemClock
from asyncctl.database import check
from asyncctl.database.check import check_servers
from asyncctl.database.settings import DatabaseSettings
from asyncctl.operator.checking import Checking, State
from tests.e2e.conftest import write_catalogue
from tests.unit.support import Log


async def look(path, *, hosts=None):
    """The rows, as {part: row}; that of the catalogue itself is "". That of tenants' hosts only where they are said."""
    settings = DatabaseSettings(servers=path, admin_hosts=hosts or ())
    checking = Checking("catalogue", settings=settings, logger=Log().logger, clock=SystemClock(), client=None)
    await check_servers(checking)
    rows = {row.check.partition(": ")[2]: row for row in checking.rows}
    if hosts is None:
        del rows["adminSecretRef"]
    return rows


def states(rows):
    return {part: str(row.state) for part, row in rows.items()}


@pytest.fixture
def catalogue(tmp_path, admin):
    """Write a catalogue whose server `main` is the admin's, but for what is said."""
    return lambda **values: write_catalogue(tmp_path, replace(admin, **values))


@pytest.fixture
def altered(superuser, admin):
    """Alter the admin's role for the length of the test."""
    role = sql.Identifier(admin.admin_user)
    yield lambda what: superuser.execute(sql.SQL("ALTER ROLE {} " + what).format(role))
    superuser.execute(sql.SQL("ALTER ROLE {} NOSUPERUSER CREATEROLE CREATEDB INHERIT").format(role))


async def test_all_is_well_with_a_good_server(catalogue, superuser):
    before = superuser.execute("SELECT xmin::text, oid FROM pg_authid ORDER BY 2").fetchall()
    rows = await look(catalogue())
    assert states(rows) == dict.fromkeys(["", "main", "main TLS", "main version", "main admin"], "ok")
    assert rows["main admin"].details["superuser"] is False
    assert superuser.execute("SELECT xmin::text, oid FROM pg_authid ORDER BY 2").fetchall() == before


async def test_no_catalogue_is_warned_of():
    rows = await look(None)
    assert states(rows) == {"": "warning"}
    assert "ASYNCCTL_DATABASE_SERVERS is not set" in rows[""].message


@pytest.mark.parametrize(
    ("only", "state", "said"),
    [("InCluster", "skipped", "External is not among"), ("External", "warning", "and nothing is left")],
)
async def test_what_is_not_served_is_not_looked_at(only, state, said):
    settings = DatabaseSettings(provisioners=(only,))
    checking = Checking("catalogue", settings=settings, logger=Log().logger, clock=SystemClock(), client=None)
    await check_servers(checking)
    assert (str(checking.rows[-1].state), said in checking.rows[-1].message) == (state, True)


async def test_an_empty_catalogue_is_warned_of(tmp_path):
    (tmp_path / "servers.yaml").write_text("servers: []\n")
    rows = await look(tmp_path / "servers.yaml")
    assert states(rows) == {"": "warning"}
    assert "has no server" in rows[""].message


@pytest.mark.parametrize("content", [None, "servers: [", "servers: [{name: main}]"])
async def test_a_catalogue_that_can_not_be_used(tmp_path, content):
    path = tmp_path / "servers.yaml"
    if content is not None:
        path.write_text(content)
    rows = await look(path)
    assert states(rows) == {"": "failed"}
    assert str(path) in rows[""].message


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"port": 1}, "ServerUnreachable"),
        ({"admin_password": "not-the-one"}, "AuthenticationFailed"),
        ({"admin_user": "nobody_of_that_name"}, "AuthenticationFailed"),
        ({"ssl_mode": "require"}, "ServerUnreachable"),
    ],
)
async def test_a_server_that_lets_nobody_in(catalogue, values, reason):
    rows = await look(catalogue(**values))
    skipped = dict.fromkeys(["main TLS", "main version", "main admin"], "skipped")
    assert states(rows) == {"": "ok", "main": "failed"} | skipped
    assert rows["main"].details["reason"] == reason
    assert "not-the-one" not in repr(rows)


async def test_one_bad_server_does_not_hide_the_next(tmp_path, admin):
    path = write_catalogue(tmp_path, replace(admin, name="bad", port=1), admin)
    rows = await look(path)
    assert (rows["bad"].state, rows["main"].state, rows["main admin"].state) == (State.FAILED, State.OK, State.OK)


@pytest.mark.parametrize(
    ("what", "missing"),
    [("NOCREATEDB", "CREATEDB"), ("NOCREATEROLE", "CREATEROLE"), ("NOCREATEDB NOCREATEROLE", "CREATEROLE CREATEDB")],
)
async def test_an_admin_who_lacks_a_privilege(catalogue, admin, altered, what, missing):
    altered(what)
    row = (await look(catalogue()))["main admin"]
    assert row.state is State.FAILED
    assert row.message.endswith(f'as a superuser: ALTER ROLE "{admin.admin_user}" {missing}')


async def test_an_admin_who_does_not_inherit_is_of_no_use_before_16(catalogue, admin, altered, superuser):
    altered("NOINHERIT")
    row = (await look(catalogue()))["main admin"]
    old = superuser.info.server_version < 160000
    assert row.state is (State.FAILED if old else State.OK)
    if old:
        assert row.message.endswith(f'lacks INHERIT; as a superuser: ALTER ROLE "{admin.admin_user}" INHERIT')


@pytest.mark.parametrize(
    ("hosts", "state", "said"),
    [
        ((), "ok", "tenants may bring no servers of their own; ASYNCCTL_DATABASE_ADMIN_HOSTS would name the hosts"),
        (("*.db.example.com", "10.0.0.7"), "ok", "tenants may bring servers at *.db.example.com, 10.0.0.7"),
        (("pg.example.com", "*"), "warning", "ASYNCCTL_DATABASE_ADMIN_HOSTS is *: whoever may make a Database has"),
    ],
)
async def test_which_servers_tenants_may_bring(catalogue, hosts, state, said):
    row = (await look(catalogue(), hosts=hosts))["adminSecretRef"]
    assert (str(row.state), row.message.startswith(said)) == (state, True)


async def test_without_a_catalogue_tenants_servers_are_enough():
    assert states(await look(None, hosts=["pg.example.com"])) == {"adminSecretRef": "ok", "": "ok"}


async def test_before_15_it_is_told_that_there_are_no_read_only_users(catalogue, monkeypatch):
    monkeypatch.setattr(check, "_READ_ONLY", 10**9)
    row = (await look(catalogue()))["main version"]
    assert (row.state, "privileges ReadOnly are refused there" in row.message) == (State.OK, True)


async def test_an_admin_who_is_a_superuser_is_warned_of(catalogue, altered):
    altered("SUPERUSER")
    row = (await look(catalogue()))["main admin"]
    assert (row.state, "less to lose" in row.message) == (State.WARNING, True)


async def test_that_everybody_may_connect_is_told(catalogue, superuser, admin):
    assert "everybody may CONNECT to its database postgres" in (await look(catalogue()))["main admin"].message
    superuser.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        superuser.execute(sql.SQL("GRANT CONNECT ON DATABASE postgres TO {}").format(sql.Identifier(admin.admin_user)))
        assert "everybody" not in (await look(catalogue()))["main admin"].message
    finally:
        superuser.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")


async def test_a_server_that_is_too_old(catalogue, monkeypatch):
    monkeypatch.setattr(check, "OLDEST", 99)
    row = (await look(catalogue()))["main version"]
    assert (row.state, "is too old; 99 or newer is needed" in row.message) == (State.FAILED, True)


async def test_a_standby_is_no_place_for_a_database(catalogue, monkeypatch):
    """A recovery can't be had on a server that others use: its answer is put into its mouth."""
    read = check.Connection.read

    async def lie(self, query, *parameters):
        return [(True,)] if "pg_is_in_recovery" in query else await read(self, query, *parameters)

    monkeypatch.setattr(check.Connection, "read", lie)
    row = (await look(catalogue()))["main version"]
    assert (row.state, "is a standby" in row.message) == (State.FAILED, True)

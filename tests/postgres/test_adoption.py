"""What is there already: taken over where that is asked for and it is nobody's; else it is told what is in the way."""

import itertools
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import InsufficientPrivilege, NameConflict
from asyncctl.database.postgres.provision import provision, remove
from asyncctl.database.types import Claim as Recorded
from tests.postgres.steps import EVERY, PASSWORD, Crash, Effects, recorded, wish, with_passwords


@pytest.fixture
def wanted(database, claim):
    return wish(database, claim, adopt=True)


@pytest.fixture
def old(superuser, database, postgres, admin):
    """A database as a team has made it by hand: with an owner of its own, `<database>_old`, whom the admin may be."""
    name = f"{database}_old"
    superuser.execute(f"CREATE ROLE {name} LOGIN")
    superuser.execute(f"CREATE DATABASE {database} OWNER {name}")
    superuser.execute(f"GRANT {name} TO {admin.admin_user}")
    with psycopg.connect(postgres.uri(database), autocommit=True) as inside:
        inside.execute(f"SET ROLE {name}; CREATE SCHEMA theirs; CREATE TABLE theirs.things AS SELECT 1 AS id")
    return name


async def go(admin, wanted, limits, effects=None):
    return await provision(admin, wanted, limits=limits, check=effects or Effects())


async def test_a_database_that_is_nobodys_is_taken_over_with_what_is_in_it(
    old, admin, wanted, claim, database, owner, limits, log_in, superuser, state
):
    known = await go(admin, with_passwords(wanted), limits)
    assert (known.adopted, known.made, known.corrected) == (True, False, ())
    tenant = log_in(wanted.logins[0].name, PASSWORD, database)
    assert tenant.execute("SELECT id FROM theirs.things").fetchall() == [(1,)]
    tenant.execute("ALTER TABLE theirs.things ADD more int")
    found = superuser.execute("SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", [database]).fetchall()
    assert found == [(owner,)]
    settled = replace(wanted, recorded=recorded(known))
    effects = Effects()
    again = await go(admin, settled, limits, effects)
    assert (again.adopted, effects.count) == (False, 0)
    assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
    assert [name for name, *_ in state()[1]] == [old]


async def test_that_it_was_taken_over_is_known_after_a_crash_at_any_point(
    old, admin, wanted, claim, database, owner, limits, superuser, postgres
):
    for step in itertools.count(0, EVERY):
        try:
            await go(admin, with_passwords(wanted), limits, Effects(step))
        except Crash:
            known = await go(admin, with_passwords(wanted), limits)
            assert (known.adopted, known.made) == (True, False), f"after a crash before effect {step}"
            await prove_login(admin, database, wanted.logins[0].name, PASSWORD, limits=limits)
            _give_up(superuser, postgres, database, owner, old)
        else:
            break
    assert step > 10


def _give_up(superuser, postgres, database, owner, old):
    """Make it as it was before the adoption."""
    superuser.execute(f"ALTER DATABASE {database} OWNER TO {old}")
    with psycopg.connect(postgres.uri(database), autocommit=True) as inside:
        inside.execute(f"REASSIGN OWNED BY {owner} TO {old}; DROP OWNED BY {owner}, {database}_a")
    superuser.execute(f"DROP ROLE {owner}, {database}_a")


async def test_without_being_asked_for_nothing_is_taken_over(old, admin, wanted, limits, database, state):
    before = state()
    with pytest.raises(NameConflict, match=f'database "{database}" .* belongs to role "{old}"'):
        await go(admin, with_passwords(replace(wanted, adopt=False)), limits)
    assert state() == before


async def test_another_objects_database_is_never_taken_over(admin, wanted, limits, database, claim, superuser, state):
    theirs = replace(wanted, claim=Claim("c1", "team-b", "app", "99ff"))
    await go(admin, with_passwords(theirs), limits)
    before = state()
    with pytest.raises(NameConflict, match="claimed by another Database"):
        await go(admin, with_passwords(wanted), limits)
    assert state() == before
    superuser.execute(f"CREATE ROLE {database}x; COMMENT ON ROLE {database}x IS '{Claim('c1', 'team-c', 'app', '1')}'")
    superuser.execute(f"ALTER DATABASE {database} OWNER TO {database}x; DROP OWNED BY {database}_owner, {database}_a")
    superuser.execute(f"DROP ROLE {database}_owner, {database}_a")
    before = state()
    with pytest.raises(NameConflict, match=f'belongs to role "{database}x"'):
        await go(admin, with_passwords(wanted), limits)
    assert state() == before


@pytest.mark.parametrize("name", ["postgres", "template1"])
async def test_a_database_of_the_servers_own_is_never_taken_over(name, admin, claim, limits):
    with pytest.raises(NameConflict, match="is the server's own"):
        await go(admin, with_passwords(wish(name, claim, adopt=True)), limits)


async def test_what_only_a_superuser_may_give_is_told_as_what_he_has_to_say_and_then_works(
    admin, wanted, limits, database, superuser, state, log_in
):
    superuser.execute(f"CREATE DATABASE {database}")
    before = state()
    with pytest.raises(InsufficientPrivilege, match="for which the admin role may not act") as told:
        await go(admin, with_passwords(wanted), limits)
    assert state() == before
    for statement in str(told.value).partition("let a superuser say ")[2].partition(", and give")[0].split("; "):
        superuser.execute(statement)
    known = await go(admin, with_passwords(wanted), limits)
    assert known.adopted
    log_in(wanted.logins[0].name, PASSWORD, database).execute("CREATE SCHEMA mine")


async def test_a_role_that_owns_other_databases_too_is_not_taken_from(old, admin, wanted, limits, database, superuser):
    superuser.execute(f"CREATE DATABASE {database}2 OWNER {old}")
    try:
        with pytest.raises(InsufficientPrivilege, match=f"which owns {database}2 too"):
            await go(admin, with_passwords(wanted), limits)
    finally:
        superuser.execute(f"DROP DATABASE {database}2")


@pytest.mark.parametrize("power", ["ALTER ROLE {owner} CREATEDB", "GRANT pg_read_all_data TO {owner}"])
async def test_an_owner_role_with_more_power_than_a_tenant_may_have_is_not_taken_over(
    power, admin, wanted, owner, limits, superuser, state
):
    superuser.execute(f"CREATE ROLE {owner}; {power.format(owner=owner)}")
    before = state()
    with pytest.raises(NameConflict, match="may do more than own"):
        await go(admin, with_passwords(wanted), limits)
    assert state() == before


@pytest.mark.parametrize("recorded", [False, True], ids=["adopted", "known by a status"])
async def test_an_owner_role_that_has_something_in_another_database_is_not_taken_over(
    recorded, admin, wanted, database, owner, limits, postgres, superuser, state
):
    superuser.execute(f"CREATE ROLE {owner} LOGIN; GRANT {owner} TO {admin.admin_user} WITH ADMIN OPTION")
    if recorded:
        oid = _made_by_hand(superuser, database, owner)
        identifier = superuser.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()[0]
        wanted = replace(wanted, recorded=Recorded(system_identifier=identifier, database_oid=oid), adopt=False)
    superuser.execute(f"CREATE DATABASE {database}2")
    with psycopg.connect(postgres.uri(f"{database}2"), autocommit=True) as other:
        other.execute(f"CREATE TABLE accounts (id int); ALTER TABLE accounts OWNER TO {owner}")
    before = state()
    try:
        with pytest.raises(NameConflict, match="may do more than own"):
            await go(admin, with_passwords(wanted), limits)
        assert state() == before
    finally:
        superuser.execute(f"DROP DATABASE {database}2")


def _made_by_hand(superuser, database, owner):
    superuser.execute(f"CREATE DATABASE {database} OWNER {owner}")
    return superuser.execute("SELECT oid FROM pg_database WHERE datname = %s", [database]).fetchone()[0]


async def test_an_owner_role_that_is_nobodys_is_taken_over_and_can_not_log_in_any_more(
    admin, wanted, owner, database, limits, superuser
):
    superuser.execute(f"CREATE ROLE {owner} LOGIN; GRANT {owner} TO {admin.admin_user} WITH ADMIN OPTION")
    superuser.execute(f"CREATE DATABASE {database} OWNER {owner}")
    known = await go(admin, with_passwords(wanted), limits)
    assert known.adopted
    assert superuser.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [owner]).fetchall() == [(False,)]


async def test_a_database_of_ours_that_was_given_to_another_role_is_taken_back_or_told(
    admin, wanted, owner, database, limits, superuser
):
    known = await go(admin, with_passwords(wanted), limits)
    settled = replace(wanted, recorded=recorded(known), adopt=False)
    superuser.execute(f"CREATE ROLE {database}x; ALTER DATABASE {database} OWNER TO {database}x")
    with pytest.raises(InsufficientPrivilege) as told:
        await go(admin, settled, limits)
    superuser.execute(str(told.value).partition("let a superuser say ")[2])
    assert "owner" not in (await go(admin, settled, limits)).corrected
    superuser.execute(f"ALTER DATABASE {database} OWNER TO {database}x; GRANT {database}x TO {admin.admin_user}")
    assert "owner" in (await go(admin, settled, limits)).corrected


async def test_a_claim_that_was_removed_is_written_again_on_what_the_status_knows_by_its_oid(
    admin, wanted, owner, database, limits, superuser, state
):
    known = await go(admin, with_passwords(wanted), limits)
    good = state()
    for role in (owner, wanted.logins[0].name):
        superuser.execute(sql.SQL("COMMENT ON ROLE {} IS NULL").format(sql.Identifier(role)))
    stranger = Recorded(system_identifier=known.facts.system_identifier, database_oid=1)
    with pytest.raises(NameConflict, match="bears no claim"):
        await go(admin, replace(wanted, recorded=stranger, adopt=False), limits)
    again = await go(admin, replace(wanted, recorded=recorded(known), adopt=False), limits)
    assert again.corrected == ("claim",)
    assert state() == good

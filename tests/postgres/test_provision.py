"""The whole path as the controller goes it: `provision`, `retire`, `remove`, with all that a `Database` can ask for."""

from dataclasses import replace

import psycopg
import pytest

from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import NameConflict
from asyncctl.database.postgres.provision import provision, remove, retire
from asyncctl.database.postgres.wanted import Login
from asyncctl.database.types import ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import PASSWORD, Effects, recorded, wish, with_passwords

NOTHING = [[], [], [], []]


@pytest.fixture
async def made(admin, database, claim, limits):
    """What is wanted after the first pass, as the controller asks for it in the next."""
    first = wish(database, claim)
    known = await provision(admin, with_passwords(first), limits=limits, check=Effects())
    assert (known.made, known.adopted, known.corrected) == (True, False, ())
    return replace(first, recorded=recorded(known))


async def test_all_is_as_wanted_and_the_second_pass_has_no_effect(made, admin, database, login, limits):
    effects = Effects()
    known = await provision(admin, made, limits=limits, check=effects)
    assert (known.made, known.corrected, effects.count) == (False, (), 0)
    await prove_login(admin, database, login, PASSWORD, limits=limits)


async def test_a_login_that_is_no_longer_wanted_goes_and_what_it_made_stays(
    made, admin, database, login, owner, limits, log_in, state
):
    second = replace(made.logins[0], name=f"{database}_b", password="b")
    both = replace(made, logins=(*made.logins, second))
    await provision(admin, both, limits=limits, check=Effects())
    session = log_in(login, PASSWORD, database)
    session.execute("CREATE TABLE public.things AS SELECT 1 AS id")
    only = replace(made, logins=(replace(second, password=None),))
    await provision(admin, only, limits=limits, check=Effects())
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert [name for name, *_ in state()[1]] == [f"{database}_b", owner]
    effects = Effects()
    await provision(admin, only, limits=limits, check=effects)
    assert effects.count == 0


async def test_a_retired_login_is_gone_with_its_sessions(
    made, admin, database, login, owner, claim, limits, log_in, state
):
    session = log_in(login, PASSWORD, database)
    session.execute("CREATE TABLE public.things AS SELECT 1 AS id")
    await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
    await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert [name for name, *_ in state()[1]] == [owner]


async def test_another_objects_login_is_not_retired(made, admin, database, login, claim, limits, state):
    before = state()
    with pytest.raises(NameConflict):
        await retire(admin, database, login, claim=replace(claim, name="other"), limits=limits, check=Effects())
    assert state() == before


async def test_nothing_is_left_after_the_removal(made, admin, database, claim, limits, state):
    assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
    assert state() == NOTHING
    assert await remove(admin, database, claim, limits=limits, check=Effects()) is False


FULL = {
    "schemas": (SchemaSpec(name="app"), SchemaSpec(name="public"), SchemaSpec(name="ext")),
    "extensions": (
        ExtensionSpec(name="earthdistance"),
        ExtensionSpec(name="cube"),
        ExtensionSpec(name="pgcrypto", schema="ext"),
        ExtensionSpec(name="citext", version="1.4"),
    ),
}


@pytest.fixture
def full(database, claim, superuser):
    """A wish for all there is. Before PostgreSQL 15 a superuser has to close `public` for the ReadOnly user."""
    users = [("app", Privileges.OWNER), ("writer", Privileges.READ_WRITE), ("reader", Privileges.READ_ONLY)]
    logins = [Login(name=f"{database}_{user}_a", user=user, privileges=privileges) for user, privileges in users]
    return wish(database, claim, logins=tuple(logins), **FULL)


async def test_full(admin, full, limits, superuser, database):
    known = await provision(admin, with_passwords(full), limits=limits, check=Effects())
    print(known)
    effects = Effects()
    again = await provision(admin, replace(full, recorded=recorded(known)), limits=limits, check=effects)
    print(again)
    assert effects.count == 0
    assert again.corrected == ()

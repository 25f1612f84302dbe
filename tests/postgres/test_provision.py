"""The whole path as the controller goes it: `provision`, `retire`, `remove`, with all that a `Database` can ask for."""

import itertools
from collections import Counter
from dataclasses import replace

import psycopg
import pytest

from asyncctl.database.postgres.connection import Limits
from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import NameConflict
from asyncctl.database.postgres.provision import provision, remove, retire
from asyncctl.database.postgres.wanted import Login
from asyncctl.database.types import Claim as Recorded, ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import EVERY, PASSWORD, Crash, Effects, recorded, wish, with_passwords

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


async def test_a_settled_pass_asks_as_little_for_three_users_as_for_one(made, admin, database, limits):
    asked, counting = Counter(), Limits(observe=lambda operation, _seconds: asked.update([operation]))
    users = [Login(name=f"{database}_{user}_a", user=user) for user in ("x", "y")]
    more = replace(made, logins=(*made.logins, *users))
    await provision(admin, with_passwords(more), limits=limits, check=Effects())
    try:
        await provision(admin, more, limits=counting, check=Effects())
    finally:
        await counting.close()
    assert asked == {"wait": 1, "connect": 1, "SET": 1, "SELECT": 5, "RESET": 1}


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


@pytest.fixture
async def ready(admin, made, database, superuser, postgres, limits):
    """A wish for all there is, on a database whose schema `public` is closed, as PostgreSQL 14 wants it first."""
    users = [("app", Privileges.OWNER), ("writer", Privileges.READ_WRITE), ("reader", Privileges.READ_ONLY)]
    rows = superuser.execute(
        """
        SELECT name FROM pg_available_extension_versions JOIN pg_available_extensions USING (name)
        WHERE trusted AND relocatable AND requires IS NULL AND name <> 'plpgsql' AND version = default_version
        ORDER BY name LIMIT 1
        """
    ).fetchall()
    return replace(
        made,
        connection_limit=7,
        logins=tuple(Login(name=f"{database}_{user}_a", user=user, privileges=which) for user, which in users),
        schemas=(SchemaSpec(name="own"),),
        extensions=tuple(ExtensionSpec(name=name, schema="own") for (name,) in rows),
    )


async def test_after_a_crash_before_any_effect_of_the_whole_path_the_next_pass_ends_the_same(
    ready, admin, database, claim, limits, state, postgres
):
    """From a database with one user to three with all there is, which retires that one; then all is dropped."""

    def inside():
        with psycopg.connect(postgres.uri(database)) as session:
            queries = (
                "SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'own'",
                "SELECT extname, extowner::regrole::text, extnamespace::regnamespace FROM pg_extension ORDER BY 1",
                "SELECT defaclrole::regrole::text, defaclobjtype, defaclacl::text FROM pg_default_acl ORDER BY 1, 2",
            )
            return [session.execute(query).fetchall() for query in queries]

    first = wish(database, claim)
    effects = Effects()
    await provision(admin, with_passwords(ready), limits=limits, check=effects)
    good, good_inside = state(), inside()
    assert effects.count > 25
    for step in range(0, effects.count, EVERY):
        await remove(admin, database, claim, limits=limits, check=Effects())
        known = await provision(admin, with_passwords(first), limits=limits, check=Effects())
        then = replace(ready, recorded=recorded(known))
        with pytest.raises(Crash):
            await provision(admin, with_passwords(then), limits=limits, check=Effects(step))
        await provision(admin, with_passwords(then), limits=limits, check=Effects())
        assert (state(), inside()) == (good, good_inside), f"after a crash before effect {step}"
        settled = Effects()
        await provision(admin, then, limits=limits, check=settled)
        assert settled.count == 0, f"after a crash before effect {step}"


async def test_after_a_crash_before_any_effect_of_the_removal_the_next_one_leaves_nothing(
    made, ready, admin, database, claim, limits, state
):
    for step in range(0, 8, EVERY):
        await provision(admin, with_passwords(replace(ready, recorded=None)), limits=limits, check=Effects())
        effects = Effects(step)
        try:
            await remove(admin, database, claim, limits=limits, check=effects)
        except Crash:
            assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
            assert state() == NOTHING
        else:
            assert step == effects.count == 7  # database, three logins, two groups, owner


async def test_after_a_crash_before_any_effect_of_a_retirement_the_next_one_ends_it(
    made, admin, database, login, owner, claim, limits, state, log_in
):
    for step in itertools.count():
        session = log_in(login, PASSWORD, database)
        session.execute("SET ROLE NONE; CREATE SCHEMA mine; DROP SCHEMA mine")
        try:
            await retire(admin, database, login, claim=claim, limits=limits, check=Effects(step))
        except Crash:
            await retire(admin, database, login, claim=claim, limits=limits, check=Effects())
        assert [name for name, *_ in state()[1]] == [owner]
        if step >= 5:
            break
        await provision(admin, with_passwords(made), limits=limits, check=Effects())


def noted(made, uid):
    """What the status holds once the object of this uid has claimed it."""
    known = made.recorded
    return Recorded(system_identifier=known.system_identifier, database_oid=known.database_oid, uid=uid)


async def test_of_two_clusters_with_one_id_the_second_takes_it_and_the_first_is_told_and_touches_nothing(
    made, admin, database, claim, limits, state
):
    mine = noted(made, claim.uid)
    theirs = replace(made, claim=replace(claim, uid="elsewhere"), recorded=None)
    await provision(admin, with_passwords(theirs), limits=limits, check=Effects())
    before, effects = state(), Effects()
    for record in (mine, made.recorded):
        with pytest.raises(NameConflict, match=r"\(uid elsewhere\): if another cluster .* nothing was changed"):
            await provision(admin, replace(made, recorded=record), limits=limits, check=effects)
    assert (state(), effects.count) == (before, 0)
    assert await remove(admin, database, claim, recorded=mine, limits=limits, check=effects) is False
    assert (state(), effects.count) == (before, 0)
    settled = replace(theirs, recorded=noted(made, "elsewhere"))
    assert (await provision(admin, settled, limits=limits, check=effects)).corrected == ()
    assert effects.count == 0


@pytest.mark.parametrize("status", ["gone", "restored"])
async def test_an_object_that_was_made_anew_takes_up_what_was_kept(
    status, made, admin, database, claim, limits, login, superuser
):
    """With no status; or, from a backup, with that of the object before."""
    again = replace(claim, uid="again")
    record = noted(made, claim.uid) if status == "restored" else None
    await provision(admin, replace(made, claim=again, recorded=record), limits=limits, check=Effects())
    marks = "SELECT DISTINCT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE starts_with(rolname, %s)"
    assert superuser.execute(marks, [database]).fetchall() == [(str(again),)]
    await prove_login(admin, database, login, PASSWORD, limits=limits)
    settled, effects = replace(made, claim=again, recorded=noted(made, "again")), Effects()
    assert (await provision(admin, settled, limits=limits, check=effects)).corrected == ()
    assert effects.count == 0

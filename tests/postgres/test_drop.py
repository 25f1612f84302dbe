"""Deletion with `Delete`: everything goes, in an order that survives a crash, or the reason is told."""

import itertools
from dataclasses import replace

import psycopg
import pytest

from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import lock
from asyncctl.database.postgres.errors import DatabaseInUse, RoleHasDependents
from asyncctl.database.postgres.logins import ensure_login
from asyncctl.database.postgres.wanted import Login
from tests.postgres.steps import PASSWORD, Crash, crash_at, ensure, remove

NOTHING = [[], [], [], []]


@pytest.fixture
async def made(admin, database, claim, limits):
    return await ensure(admin, database, claim, limits=limits)


async def test_drop_leaves_nothing_and_is_done_the_second_time(made, admin, database, claim, limits, state):
    assert (await remove(admin, database, claim, limits=limits))[0] is True
    assert state() == NOTHING
    assert await remove(admin, database, claim, limits=limits) == (False, [])


async def test_drop_ends_open_sessions_of_tenants(made, admin, database, login, claim, limits, state, log_in):
    session = log_in(login, PASSWORD, database)
    session.execute("BEGIN; CREATE TABLE public.things (id int)")
    await remove(admin, database, claim, limits=limits)
    assert state() == NOTHING
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")


async def test_drop_works_though_the_admin_lost_its_memberships(
    made, admin, database, owner, login, claim, limits, superuser, state, log_in
):
    log_in(login, PASSWORD, database)
    superuser.execute(f"SET ROLE {admin.admin_user}; REVOKE {owner}, {login} FROM {admin.admin_user}; RESET ROLE")
    await remove(admin, database, claim, limits=limits)
    assert state() == NOTHING


async def test_drop_goes_on_after_a_crash_before_any_effect(admin, database, claim, limits, state):
    for step in itertools.count():
        await ensure(admin, database, claim, limits=limits)
        try:
            await remove(admin, database, claim, limits=limits, check=crash_at(step))
        except Crash:
            assert (await remove(admin, database, claim, limits=limits))[0] is True
            assert state() == NOTHING
        else:
            break
    assert step == 3  # database, login, owner


async def test_what_a_crash_left_half_made_can_be_dropped(admin, database, claim, limits, state):
    for step in itertools.count():
        try:
            await ensure(admin, database, claim, limits=limits, check=crash_at(step))
        except Crash:
            await remove(admin, database, claim, limits=limits)
            assert state() == NOTHING
        else:
            break
    assert step > 10


async def test_second_login_of_ours_goes_too(made, admin, database, claim, limits, state):
    async with connect(admin, limits=limits) as session:
        await ensure_login(session, Login(name=f"{database}_b", password="b"), database=database, claim=claim)
    await remove(admin, database, claim, limits=limits)
    assert state() == NOTHING


async def test_session_that_the_admin_may_not_end_is_named(made, admin, database, claim, limits, postgres, state):
    before = state()
    named = pytest.raises(DatabaseInUse, match=f"DROP DATABASE .*; sessions of {postgres.superuser}: end them")
    with psycopg.connect(postgres.uri(database)), named:
        await remove(admin, database, claim, limits=limits)
    assert state() == before
    await remove(admin, database, claim, limits=limits)
    assert state() == NOTHING


async def test_what_a_login_owns_elsewhere_blocks_its_drop_and_is_named(
    made, admin, database, login, claim, limits, superuser, state
):
    superuser.execute(f"CREATE SCHEMA elsewhere AUTHORIZATION {login}")
    try:
        with pytest.raises(RoleHasDependents, match=f'DROP ROLE "{login}" .*owner of schema elsewhere'):
            await remove(admin, database, claim, limits=limits)
    finally:
        superuser.execute("DROP SCHEMA elsewhere")
    await remove(admin, database, claim, limits=limits)
    assert state() == NOTHING


async def test_database_name_is_one_processs_at_a_time(made, admin, database, claim, limits):
    hasty = replace(admin, name="hasty", lock_timeout=0.2)
    async with connect(admin, limits=limits) as first:
        await lock(first, database)
        with pytest.raises(DatabaseInUse, match=f'another session is at work on database "{database}"'):
            await remove(hasty, database, claim, limits=limits)
    assert (await remove(hasty, database, claim, limits=limits))[0] is True

"""Sessions that are kept: used again, never too many as the server counts them, and nothing of one use in the next."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from anyio import wait_all_tasks_blocked
from psycopg import sql

from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import lock, prove_login
from asyncctl.database.postgres.errors import AuthenticationFailed, DatabaseError, TooManyConnections
from asyncctl.database.postgres.sessions import Limits
from tests.postgres.steps import PASSWORD, ensure, until


async def use(server, limits, database=None):
    """Return the process that serves a session."""
    async with connect(server, database, limits=limits) as session:
        return (await session.read("SELECT pg_backend_pid()"))[0][0]


@pytest.fixture
def open_sessions(superuser, admin):
    def read():
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s"
        return [pid for (pid,) in superuser.execute(query, [admin.admin_user])]

    return read


@pytest.fixture
def at_most(superuser, admin):
    """Have the server refuse our admin more sessions than so many."""
    limit = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}")
    role = sql.Identifier(admin.admin_user)
    yield lambda number: superuser.execute(limit.format(role, number))
    superuser.execute(limit.format(role, -1))


async def test_a_session_is_used_again(admin, limits, open_sessions):
    first = await use(admin, limits)
    assert open_sessions() == [first]
    assert await use(admin, limits) == first


async def test_a_session_in_another_database_is_not_kept(admin, limits, open_sessions):
    await use(admin, limits, "template1")
    assert open_sessions() == []


async def test_nothing_of_a_use_is_left_for_the_next(admin, limits, database, superuser, open_sessions):
    settings = ("search_path", "statement_timeout", "lock_timeout", "client_min_messages", "role", "work_mem")

    async def read(session):
        return [(await session.read(f"SHOW {name}"))[0][0] for name in settings]

    superuser.execute(f"CREATE ROLE {database}")
    superuser.execute(f"GRANT {database} TO {admin.admin_user}")
    async with connect(admin, limits=limits, check=lambda: 3.0) as session:
        before = await read(session)
        await lock(session, database)
        for change in ("search_path = public", "work_mem = '1MB'", "lock_timeout = 1", "client_min_messages = error"):
            await session.write(sql.SQL(f"SET {change}"), about="work")
        await session.write(sql.SQL("SET ROLE {}").format(sql.Identifier(database)))
        assert not set(before) & set(await read(session))
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
    assert superuser.execute(held, open_sessions()).fetchone() == (0,)
    assert await idle_limit(superuser, admin) == ["RESET"]
    async with connect(admin, limits=limits) as session:
        assert await read(session) == before
        assert (session.written, session.corrected) == ([], [])
        assert [session._raw.info.backend_pid] == open_sessions()
        assert session._raw._notice_handlers == [session._noticed]


async def idle_limit(superuser, admin):
    """Return the first word of what the sessions did last."""
    rows = superuser.execute("SELECT query FROM pg_stat_activity WHERE usename = %s", [admin.admin_user]).fetchall()
    return ["RESET" if query.endswith("RESET idle_session_timeout") else query for (query,) in rows]


async def test_an_idle_session_outlives_the_time_that_one_at_work_may_be_silent(admin, limits):
    brief = replace(admin, idle_timeout=0.1)
    first = await use(brief, limits)
    async with connect(replace(admin, name="other"), limits=limits) as another:
        await another.read("SELECT pg_sleep(0.3)")
    assert await use(brief, limits) == first


async def test_a_transaction_that_was_left_open_takes_no_effect(admin, limits, database, superuser):
    async with connect(admin, limits=limits) as session:
        await session.write(sql.SQL("BEGIN"))
        await session.write(sql.SQL("CREATE ROLE {}").format(sql.Identifier(database)))
        ((first,),) = await session.read("SELECT pg_backend_pid()")
    assert await use(admin, limits) != first
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [database]).fetchall() == []


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
async def test_a_session_is_not_used_again_after_a_failure(failure, admin, limits, open_sessions):
    with suppress(failure):
        async with connect(admin, limits=limits) as session:
            ((first,),) = await session.read("SELECT pg_backend_pid()")
            raise failure
    assert open_sessions() == []
    assert await use(admin, limits) != first


async def test_a_session_is_not_used_again_after_a_failed_statement_that_was_forgiven(admin, limits, open_sessions):
    async with connect(admin, limits=limits) as session:
        with suppress(DatabaseError):
            await session.read("SELECT 1/0")
    assert open_sessions() == []


async def test_an_idle_session_that_the_server_has_ended_is_replaced(admin, limits, superuser, open_sessions):
    first = await use(admin, limits)
    superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    second = await use(admin, limits)
    assert second != first
    assert open_sessions() == [second]


async def test_an_idle_session_gives_way_to_one_of_another_kind(
    admin, limits, database, login, claim, at_most, open_sessions
):
    """The server itself refuses a second one."""
    narrow = replace(admin, max_connections=1)
    await ensure(narrow, database, claim, limits=limits)
    at_most(1)
    for _ in range(5):
        assert await use(narrow, limits)
        assert await use(narrow, limits, database)
        await use(narrow, limits)
        await prove_login(narrow, database, login, PASSWORD, limits=limits)
        assert open_sessions() == []


async def test_at_work_and_idle_together_are_never_more_than_the_limit(admin, limits, at_most, open_sessions):
    narrow = replace(admin, max_connections=3)
    at_most(3)
    seen = []

    async def work(worker):
        for turn in range(6):
            await use(narrow, limits, "template1" if (worker + turn) % 3 == 0 else None)
            seen.append(len(open_sessions()))

    async with asyncio.TaskGroup() as group:
        for worker in range(8):
            group.create_task(work(worker), name=f"work-{worker}")
    assert max(seen) == 3


async def test_a_lower_limit_holds_as_soon_as_sessions_come_back(admin, limits, open_sessions):
    async with sessions_at_work(admin, limits, 3):
        assert len(open_sessions()) == 3
        narrow = replace(admin, max_connections=1, connect_timeout=0.1)
        with pytest.raises(TooManyConnections):
            await use(narrow, limits)
    assert open_sessions() == []
    await use(replace(narrow, connect_timeout=10.0), limits)
    assert len(open_sessions()) == 1


@asynccontextmanager
async def sessions_at_work(server, limits, number):
    leave, ready = asyncio.Event(), asyncio.Barrier(number + 1)

    async def work():
        async with connect(server, limits=limits):
            await ready.wait()
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for index in range(number):
            group.create_task(work(), name=f"work-{index}")
        await ready.wait()
        yield
        leave.set()


async def test_a_new_entry_in_the_catalogue_means_a_new_session_and_the_old_one_goes(admin, limits, open_sessions):
    first = await use(admin, limits)
    for changed in ({"lock_timeout": 5.0}, {"ca_digest": "other"}, {"address": "127.0.0.1"}):
        second = await use(replace(admin, **changed), limits)
        assert second != first
        assert open_sessions() == [second]
        first = second


async def test_a_new_password_is_proven_at_once(admin, limits):
    await use(admin, limits)
    with pytest.raises(AuthenticationFailed):
        await use(replace(admin, admin_password="another"), limits)


async def test_a_session_at_work_with_an_old_entry_is_closed_when_it_comes_back(admin, limits, open_sessions):
    async with sessions_at_work(admin, limits, 1):
        second = await use(replace(admin, lock_timeout=5.0), limits)
        assert len(open_sessions()) == 2
    assert open_sessions() == [second]


async def test_idle_sessions_are_closed_when_they_are_old_enough(admin, limits, open_sessions):
    await use(admin, limits)
    await limits.close_idle(60.0)
    assert len(open_sessions()) == 1
    await limits.close_idle(0.0)
    assert open_sessions() == []
    assert not limits._by_server


async def test_a_session_at_work_is_left_alone_by_a_close_and_not_kept(admin, limits, open_sessions):
    await use(admin, limits)
    async with sessions_at_work(admin, limits, 2):
        await limits.close()
        assert len(open_sessions()) == 2
    assert open_sessions() == []


async def test_who_waits_for_a_session_and_is_cancelled_takes_none(admin, limits):
    narrow = replace(admin, max_connections=1)
    async with sessions_at_work(narrow, limits, 1):
        waiting = asyncio.create_task(use(narrow, limits), name="waiting")
        await wait_all_tasks_blocked()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await use(narrow, limits)


async def test_who_is_cancelled_at_any_moment_leaves_nothing_on_the_server(admin, limits, open_sessions):
    """While it connects, pins its settings, works, or cleans up."""
    narrow = replace(admin, max_connections=1)
    for steps in range(0, 60, 2):
        task = asyncio.create_task(use(narrow, limits), name="use")
        for _ in range(steps):
            await asyncio.sleep(0)  # the next step of the loop, whatever it brings
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        kept = len(limits._by_server["main"].idle) if limits._by_server else 0
        await asyncio.to_thread(until, lambda kept=kept: len(open_sessions()) == kept)
        await limits.close_idle(0.0)
    await use(narrow, limits)


async def test_the_duration_of_each_operation_is_told_by_its_kind(admin, database):
    seen = {}
    limits = Limits(observe=lambda operation, seconds: seen.setdefault(operation, []).append(seconds))
    async with connect(admin, limits=limits) as session:
        await session.read("SELECT pg_sleep(0.02)")
        async with session.transaction():
            await session.write(sql.SQL("CREATE ROLE {}").format(sql.Identifier(database)), about="users[a]")
            await session.write(sql.SQL("DROP ROLE {}").format(sql.Identifier(database)), about="users[a]")
        assert session.corrected == ["users[a]"]
    await limits.close()
    expected = {"wait", "connect", "SET", "SELECT", "BEGIN", "CREATE ROLE", "DROP ROLE", "COMMIT", "RESET"}
    assert set(seen) == expected
    assert seen["SELECT"][0] >= 0.02


async def test_the_address_is_connected_to_and_the_host_is_shown(admin, limits):
    by_address = replace(admin, host="pg.example.invalid", address=admin.host)
    async with connect(by_address, limits=limits) as session:
        with pytest.raises(DatabaseError, match=r"server main \(pg\.example\.invalid:"):
            await session.read("SELECT 1/0")


async def test_a_transaction_in_which_a_statement_failed_is_no_success(admin, limits, database, superuser):
    create = sql.SQL("CREATE ROLE {}").format(sql.Identifier(database))

    async def fail(session, failure):
        async with session.transaction():
            await session.write(create)
            if failure:
                raise failure
            with suppress(DatabaseError):
                await session.read("SELECT 1/0")

    async with connect(admin, limits=limits) as session:
        with pytest.raises(DatabaseError, match="undid all"):
            await fail(session, None)
        with pytest.raises(ZeroDivisionError):
            await fail(session, ZeroDivisionError())
        assert await session.read("SELECT 1") == [(1,)]
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [database]).fetchall() == []

"""What a connection promises: bounds, the fence, warnings that count, and errors that tell all but secrets."""

import asyncio
import logging
import math
import socket
import traceback
from contextlib import suppress
from dataclasses import replace

import pytest
from psycopg import sql

from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import lock, prove_login
from asyncctl.database.postgres.errors import (
    AuthenticationFailed,
    DatabaseError,
    DatabaseMissing,
    InsufficientPrivilege,
    ServerUnreachable,
    TooManyConnections,
)
from tests.postgres.steps import PASSWORD, ensure, until


async def failure(server, limits, database=None):
    with pytest.raises(DatabaseError) as caught:
        async with connect(server, database, limits=limits):
            pass
    return caught.value


async def test_nobody_listens(admin, limits, free_tcp_port):
    error = await failure(replace(admin, port=free_tcp_port), limits)
    assert isinstance(error, ServerUnreachable)
    assert str(error) == (
        f'can\'t connect to server main (127.0.0.1:{free_tcp_port}), database "postgres", as "{admin.admin_user}":'
        " Connection refused Is the server running on that host and accepting TCP/IP connections?:"
        " check that the server runs, its host and its port"
    )


async def test_server_that_never_answers(admin, limits):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await failure(replace(admin, port=silent.getsockname()[1], connect_timeout=0.2), limits)
    assert isinstance(error, ServerUnreachable)
    assert "no answer within 0.2 s" in str(error)


async def test_host_that_has_no_address(admin, limits, monkeypatch):
    def no_address(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)  # asks no name server from a test
    error = await failure(replace(admin, host="pg.example.invalid"), limits)
    assert isinstance(error, ServerUnreachable)
    assert "server main (pg.example.invalid:" in str(error)
    assert "Name or service not known" in str(error)


async def test_wrong_password(admin, limits):
    error = await failure(replace(admin, admin_password="wr0ng"), limits)
    assert isinstance(error, AuthenticationFailed)
    assert f'password authentication failed for user "{admin.admin_user}": check the user and the password' in str(
        error
    )


async def test_user_that_is_unknown(admin, limits):
    assert isinstance(await failure(replace(admin, admin_user="nobody_here"), limits), AuthenticationFailed)


async def test_user_that_may_not_log_in(admin, limits, database, superuser):
    superuser.execute(f"CREATE ROLE {database} NOLOGIN PASSWORD 'x'")
    assert isinstance(
        await failure(replace(admin, admin_user=database, admin_password="x"), limits), AuthenticationFailed
    )


async def test_database_that_is_not_there(admin, limits, database):
    error = await failure(admin, limits, database)
    assert isinstance(error, DatabaseMissing)
    assert f'database "{database}" does not exist' in str(error)


async def test_server_that_has_no_connection_left(admin, limits, superuser):
    superuser.execute(f"ALTER ROLE {admin.admin_user} CONNECTION LIMIT 0")
    try:
        error = await failure(admin, limits)
    finally:
        superuser.execute(f"ALTER ROLE {admin.admin_user} CONNECTION LIMIT -1")
    assert isinstance(error, TooManyConnections)
    assert "too many connections for role" in str(error)


async def test_own_limit_is_kept_and_said(admin, limits):
    narrow = replace(admin, max_connections=1, connect_timeout=0.2)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold():
        async with connect(narrow, limits=limits):
            entered.set()
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(hold(), name="hold")
        await entered.wait()
        error = await failure(narrow, limits)
        leave.set()
    assert isinstance(error, TooManyConnections)
    assert "all 1 connections that we may have to server main" in str(error)
    async with connect(narrow, limits=limits):
        pass


async def test_slot_is_given_back_after_a_failed_connection(admin, limits):
    narrow = replace(admin, max_connections=1, connect_timeout=1)
    await failure(replace(narrow, admin_password="wrong"), limits)
    async with connect(narrow, limits=limits):
        pass


async def test_second_connection_of_one_task_is_a_mistake_not_a_deadlock(admin, limits):
    async with connect(admin, limits=limits):
        with pytest.raises(RuntimeError, match="already holding"):
            async with connect(admin, limits=limits):
                pass


async def test_statement_that_takes_too_long_is_ended(admin, limits):
    async with connect(replace(admin, statement_timeout=0.1), limits=limits) as session:
        with pytest.raises(ServerUnreachable, match=r"57014.*it took too long"):
            await session.read("SELECT pg_sleep(60)")


async def test_cancellation_ends_the_statement_on_the_server(admin, limits, superuser):
    async def sleep():
        async with connect(admin, limits=limits) as session:
            await session.read("SELECT pg_sleep(60)")

    asleep = "SELECT FROM pg_stat_activity WHERE usename = %s AND wait_event = 'PgSleep'"
    task = asyncio.create_task(sleep(), name="sleep")
    await asyncio.to_thread(until, lambda: superuser.execute(asleep, [admin.admin_user]).fetchall())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert superuser.execute(asleep, [admin.admin_user]).fetchall() == []


async def test_session_that_the_server_ends_is_a_lost_connection(admin, limits, superuser):
    async with connect(admin, limits=limits) as session:
        ((pid,),) = await session.read("SELECT pg_backend_pid()")
        superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        with pytest.raises(ServerUnreachable):
            await session.read("SELECT 1")


async def test_no_write_after_the_fence_closed(admin, limits, database, superuser):
    def deposed():
        raise PermissionError("no longer the leader")

    async with connect(admin, limits=limits, check=deposed) as session:
        assert await session.read("SELECT 1") == [(1,)]
        with pytest.raises(PermissionError):
            await session.write(sql.SQL("CREATE ROLE {}").format(sql.Identifier(database)))
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [database]).fetchall() == []


async def test_no_commit_after_the_fence_closed(admin, limits, database, superuser):
    calls = iter([None, PermissionError])

    def deposed_after_the_first():
        if error := next(calls):
            raise error
        return math.inf

    async with connect(admin, limits=limits, check=deposed_after_the_first) as session:
        with pytest.raises(PermissionError):
            async with session.transaction():
                await session.write(sql.SQL("CREATE ROLE {}").format(sql.Identifier(database)))
    assert superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [database]).fetchall() == []


async def test_the_server_gives_a_write_up_before_the_lease_is_over(admin, limits):
    """By itself: this process may be stopped by then, and cancel nothing."""
    async with connect(admin, limits=limits, check=lambda: 0.2) as session:
        with pytest.raises(ServerUnreachable, match=r"57014.*it took too long"):
            await session.write(sql.SQL("SELECT pg_sleep(60)"))


async def limit_of(session):
    ((limit,),) = await session.read("SHOW statement_timeout")
    return limit


async def test_a_write_may_take_most_of_what_is_left_of_the_lease_and_never_more_than_is_set(admin, limits):
    left = [math.inf]
    nothing = sql.SQL("SELECT 1")
    async with connect(admin, limits=limits, check=lambda: left[0]) as session:
        await session.write(nothing)
        assert await limit_of(session) == "2min"
        for seconds, limit in ((10.0, "7500ms"), (9.0, "7500ms"), (4.0, "3s"), (9.0, "6750ms"), (1000.0, "2min")):
            left[0] = seconds
            await session.write(nothing)
            assert await limit_of(session) == limit
        left[0] = 10.0
        with suppress(ZeroDivisionError):
            async with session.transaction():
                await session.write(nothing)
                raise ZeroDivisionError
        assert await limit_of(session) == "2min"  # undone
        async with session.transaction():
            await session.write(nothing)
        assert await limit_of(session) == "7500ms"


@pytest.mark.parametrize(
    "statement", ["GRANT CONNECT ON DATABASE {name} TO PUBLIC", "REVOKE ALL ON DATABASE {name} FROM PUBLIC"]
)
async def test_warning_of_a_statement_that_did_nothing_is_an_error(statement, admin, limits, database, superuser):
    superuser.execute(f"CREATE DATABASE {database}")  # PUBLIC has CONNECT: so the server only warns
    async with connect(admin, limits=limits) as session:
        with pytest.raises(InsufficientPrivilege, match=f"^{statement.format(name=f'.{database}.')} did nothing on"):
            await session.write(sql.SQL(statement).format(name=sql.Identifier(database)))


async def test_mere_notice_is_no_error(admin, limits, database):
    async with connect(admin, limits=limits) as session:
        await session.write(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(database)))


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("ALTER ROLE {role} PASSWORD {verifier} BOGUS", DatabaseError),  # libpq would quote the whole line
        ("ALTER ROLE nobody_here PASSWORD {verifier}", DatabaseError),
        ("ALTER ROLE postgres PASSWORD {verifier}", InsufficientPrivilege),
    ],
)
async def test_failed_statement_shows_no_verifier_anywhere(statement, kind, admin, limits, database, caplog):
    caplog.set_level(logging.DEBUG)
    async with connect(admin, limits=limits) as session:
        verifier = session.verifier(database, "pass-word")
        composed = sql.SQL(statement).format(role=sql.Identifier(database), verifier=verifier)
        with pytest.raises(kind) as caught:
            await session.write(composed)
    error = caught.value
    assert "PASSWORD '…'" in str(error)
    assert (error.__cause__, error.__context__) == (None, None)
    shown = [str(error), repr(error), repr(composed), repr(verifier), *traceback.format_exception(error), caplog.text]
    for text in shown:
        assert "SCRAM-SHA-256$" not in text
        assert "pass-word" not in text


async def test_no_password_is_shown_by_whatever_goes_wrong_with_a_connection(admin, limits, free_tcp_port, caplog):
    caplog.set_level(logging.DEBUG)
    secret = replace(admin, admin_password="t0p-secret")
    shown = [repr(secret), str(secret)]
    for broken in (secret, replace(secret, port=free_tcp_port), replace(secret, ssl_mode="verify-full")):
        error = await failure(broken, limits)
        assert (error.__cause__, error.__context__) == (None, None)
        shown += [repr(error), *traceback.format_exception(error)]
    assert "t0p-secret" not in "".join([*shown, caplog.text])


async def test_ensuring_a_login_logs_and_records_no_secret(admin, limits, database, claim, caplog):
    caplog.set_level(logging.DEBUG)
    written = await ensure(admin, database, claim, limits=limits)
    text = "\n".join([*written, caplog.text])
    assert "PASSWORD '…'" in text
    assert PASSWORD not in text
    assert "SCRAM-SHA-256$" not in text


async def test_login_with_a_wrong_password_names_login_and_database(admin, limits, database, login, claim):
    await ensure(admin, database, claim, limits=limits)
    with pytest.raises(AuthenticationFailed, match=f'database "{database}", as "{login}"'):
        await prove_login(admin, database, login, "wrong", limits=limits)


async def test_unproven_server_cannot_ask_for_the_password_in_clear(admin, limits):
    received = bytearray()

    async def impostor(reader, writer):
        length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        writer.write(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))  # AuthenticationCleartextPassword
        received.extend(await reader.read())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(impostor, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(replace(admin, port=port), limits)
    assert isinstance(error, AuthenticationFailed)
    assert "cleartext password" in str(error)
    assert admin.admin_password.encode() not in received


async def test_a_write_that_the_lease_has_no_time_for_is_not_given_up_for_ever(admin, limits):
    slow, quick = sql.SQL("SELECT pg_sleep(0.5)"), sql.SQL("SELECT 1")
    async with connect(admin, limits=limits, check=lambda: 0.2) as session:
        with pytest.raises(ServerUnreachable, match=r"it had 0\.15 s.*the next time it has 120 s"):
            await session.write(slow)
    async with connect(admin, limits=limits, check=lambda: 0.2) as session:
        await session.write(slow)
        await session.write(quick)
        assert await limit_of(session) == "150ms"
        assert not limits.slow


async def test_a_write_that_takes_longer_than_is_set_is_given_up_each_time(admin, limits):
    patient = replace(admin, statement_timeout=0.1)
    async with connect(patient, limits=limits, check=lambda: math.inf) as session:
        for _ in range(2):
            with pytest.raises(ServerUnreachable, match=r"look for locks and load on the server$"):
                await session.write(sql.SQL("SELECT pg_sleep(60)"))


async def test_what_a_process_holds_that_was_stopped_is_free_soon(admin, limits, database, superuser):
    """Its machine's kernel goes on answering for it, so that no keepalive tells the server."""
    async with connect(replace(admin, idle_timeout=0.2), limits=limits) as session:
        await lock(session, database)
        held = "SELECT FROM pg_locks WHERE locktype = 'advisory'"
        await asyncio.to_thread(until, lambda: not superuser.execute(held).fetchall())
        with pytest.raises(ServerUnreachable):
            await session.read("SELECT 1")


async def test_what_a_machine_holds_that_was_switched_off_is_free_soon(admin, limits):
    async with connect(admin, limits=limits) as session:
        names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
        found = [(await session.read(f"SHOW {name}"))[0][0] for name in names]
        assert found == ["10", "5", "3"]


async def test_what_a_write_puts_right_is_noted_once_and_only_where_it_did(admin, limits, database):
    async with connect(admin, limits=limits) as session:
        await session.write(sql.SQL("SELECT 1"))
        assert session.corrected == []
        for _ in range(2):
            await session.write(sql.SQL("SELECT 1"), about="owner")
        with pytest.raises(DatabaseError):
            await session.write(sql.SQL("DROP ROLE {}").format(sql.Identifier(database)), about="claim")
        assert session.corrected == ["owner"]


async def test_what_was_looked_at_is_asked_again_once_something_is_written_or_undone(admin, database, limits):
    async def there():
        return bool(await session.look("SELECT FROM pg_roles WHERE rolname = %s", f"{database}_x"))

    create = sql.SQL("CREATE ROLE {}").format(sql.Identifier(f"{database}_x"))
    async with connect(admin, limits=limits) as session:
        assert not await there()
        with suppress(ZeroDivisionError):
            async with session.transaction():
                await session.write(create)
                assert await there()
                raise ZeroDivisionError
        assert not await there()
        asked = []
        limits.observe = lambda operation, _seconds: asked.append(operation)
        assert not await there()
        assert asked == []

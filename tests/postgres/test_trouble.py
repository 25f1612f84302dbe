"""Servers in trouble, provoked for real: what is told of each, and that the work goes on when the cause is gone.

On a server of their own, which is broken and mended.
"""

import asyncio
import re
import secrets
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from anyio import wait_all_tasks_blocked
from psycopg import sql

from asyncctl.database.postgres import connection
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import lock, prove_login
from asyncctl.database.postgres.errors import (
    AuthenticationFailed,
    DatabaseError,
    DatabaseInUse,
    ServerExhausted,
    ServerFull,
    ServerReadOnly,
    ServerReplaced,
    ServerUnreachable,
    TooManyConnections,
)
from asyncctl.database.postgres.provision import provision, remove
from asyncctl.database.postgres.server import close_session, open_session
from asyncctl.database.postgres.threads import Threads
from asyncctl.database.postgres.wanted import Login, Wanted
from asyncctl.database.types import Claim as Recorded
from tests.e2e.proxy import Proxy
from tests.postgres.machine import own_machine
from tests.postgres.steps import until

CLAIM = Claim("c1", "team", "app", "5f0c")


@pytest.fixture(scope="module")
def machine(backends):
    with own_machine(backends) as machine:
        yield machine


@pytest.fixture
def admin(machine):
    return machine.admin


@pytest.fixture
def proxied(admin):
    """A way to the server that can be cut."""
    with Proxy(admin.port) as proxy:
        yield replace(admin, port=proxy.port), proxy


@pytest.fixture
def database(machine):
    name = f"t{secrets.token_hex(4)}"
    yield name
    machine.do(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    for (role,) in machine.do("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", name):
        machine.do(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def works(server, limits, database=None):
    """Return the process that serves the session."""
    async with connect(server, database, limits=limits) as session:
        return (await session.read("SELECT pg_backend_pid()"))[0][0]


async def make(server, limits, database, recorded=None):
    login = Login(name=f"{database}_a", password=None if recorded else "pass")
    wanted = Wanted(database=database, claim=CLAIM, recorded=recorded, logins=(login,))
    return await provision(server, wanted, limits=limits, check=lambda: 60.0)


async def trouble(kind, work, *said):
    """Return how long `work` took to fail as it should, with a text that names the server and what to do."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        await work
    assert caught.type is kind
    assert (caught.value.reason, caught.value.stalled) == (kind.__name__, kind is ServerReplaced)
    text = str(caught.value)
    for each in (r"server own \(", *said):
        assert re.search(each, text), f"{each!r} is not in: {text}"
    return time.monotonic() - began


async def test_a_server_that_is_down_and_comes_back(proxied, limits):
    """Also the idle sessions are gone with it."""
    server, proxy = proxied
    first = await works(server, limits)
    proxy.down()
    await trouble(ServerUnreachable, works(server, limits), "Connection refused", "check that the server runs")
    proxy.up()
    assert await works(server, limits) != first


async def test_a_server_that_lets_us_in_and_says_nothing(proxied, limits):
    server, proxy = proxied
    with proxy.held():
        took = await trouble(
            ServerUnreachable, works(replace(server, connect_timeout=0.3), limits), r"no answer within 0\.3 s"
        )
    assert took < 5
    await works(server, limits)


async def test_a_session_that_hangs_in_a_statement_is_given_up_and_closed(machine, admin, limits, monkeypatch):
    """Its process is stopped, which the machine's kernel hides from us: no keepalive tells."""
    monkeypatch.setattr(connection, "_GRACE", 0.2)
    brief = replace(admin, statement_timeout=0.2, connect_timeout=2.0)
    with ExitStack() as cleanup:
        async with connect(brief, limits=limits) as session:
            ((pid,),) = await session.read("SELECT pg_backend_pid()")
            machine.shell(f"kill -STOP {pid}")
            cleanup.callback(machine.shell, f"kill -CONT {pid}")
            await trouble(ServerUnreachable, session.read("SELECT 1"), "no answer to SELECT 1", "the way to it")
        assert limits._by_server["own"].idle == []
    await works(admin, limits)


async def test_an_idle_session_that_hangs_is_replaced_and_does_not_fail_the_pass(machine, admin, limits):
    brief = replace(admin, connect_timeout=0.5)
    first = await works(brief, limits)
    machine.shell(f"kill -STOP {first}")
    try:
        assert await works(brief, limits) != first
    finally:
        machine.shell(f"kill -CONT {first}")


async def test_a_session_that_is_closed_counts_until_the_server_has_ended_it(machine, admin):
    session = await open_session(admin, "postgres", admin.admin_user, admin.admin_password, Threads())
    pid = session.info.backend_pid
    machine.shell(f"kill -STOP {pid}")
    try:
        closing = asyncio.create_task(close_session(session), name="closing")
        await wait_all_tasks_blocked()
        assert not closing.done()
    finally:
        machine.shell(f"kill -CONT {pid}")
    await closing
    assert machine.do("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid) == []


async def test_a_server_that_crashes_between_two_uses_is_not_noticed(machine, admin, limits):
    first = await works(admin, limits)
    await asyncio.to_thread(machine.crash)
    assert await works(admin, limits) != first


async def test_a_server_that_crashes_in_a_use(machine, admin, limits):
    async with connect(admin, limits=limits) as session:
        await session.read("SELECT 1")
        await asyncio.to_thread(machine.crash)
        await trouble(ServerUnreachable, session.read("SELECT 1"))
    await works(admin, limits)


@pytest.mark.parametrize("whose", ["SYSTEM", "ROLE boss", "DATABASE postgres"])
async def test_a_server_that_a_dba_has_made_read_only_is_left_alone(whose, machine, admin, database, limits):
    async with in_thread(machine.read_only(whose)):
        await trouble(ServerReadOnly, make(admin, limits, database), "read-only transaction", "name the primary")
        assert machine.do("SELECT 1 FROM pg_roles WHERE starts_with(rolname, %s)", database) == []
    assert (await make(admin, limits, database)).made


async def test_a_tenant_can_not_make_his_database_read_only_for_us(machine, admin, database, limits):
    await make(admin, limits, database)
    machine.do(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with connect(admin, database, limits=limits) as session:
        await session.write(sql.SQL("CREATE TEMPORARY TABLE t ()"))
        await session.write(sql.SQL("DROP TABLE t"))
        assert await session.read("SHOW default_transaction_read_only") == [("off",)]


async def test_a_server_that_has_become_a_standby(machine, admin, database, limits):
    """And is promoted again."""
    recorded = await settled(admin, limits, database)
    async with in_thread(machine.standby()):
        await make(admin, limits, database, recorded)  # nothing is to be written
        await trouble(ServerReadOnly, make(admin, limits, f"{database}2"), "read-only transaction", "name the primary")
    await make(admin, limits, f"{database}2")
    machine.do(f"DROP DATABASE {database}2")


async def settled(server, limits, database):
    facts = (await make(server, limits, database)).facts
    return Recorded(system_identifier=facts.system_identifier, database_oid=facts.database_oid)


@pytest.mark.parametrize("who", ["tenant", "postgres"])
async def test_a_server_whose_connections_others_have_used_up(who, machine, admin, limits):
    async with in_thread(machine.used_up(who)):
        await trouble(
            TooManyConnections, works(admin, limits),
            "too many clients" if who == "postgres" else "remaining connection slots are reserved",
            "end sessions, or raise the limit",
        )  # fmt: skip
    await works(admin, limits)


async def test_a_server_that_is_out_of_locks(machine, admin, database, limits):
    """Also the login that is refused for that is not taken for one with a wrong password."""
    recorded = await settled(admin, limits, database)
    async with in_thread(machine.out_of_locks()):
        for work in (make(admin, limits, database, recorded), works(admin, limits), prove(admin, limits, database)):
            await trouble(ServerExhausted, work, "out of shared memory", "give it more of what it lacks")
    await make(admin, limits, database, recorded)
    await prove(admin, limits, database)


def prove(server, limits, database):
    return prove_login(server, database, f"{database}_a", "pass", limits=limits)


async def test_an_admin_password_that_changes_while_we_run(machine, admin, limits):
    first = await works(admin, limits)
    changed = replace(admin, admin_password="another")
    machine.do("ALTER ROLE boss PASSWORD 'another'")
    try:
        assert await works(admin, limits) == first  # it is in
        await trouble(
            AuthenticationFailed, works(admin, limits, "template1"), 'password authentication failed for user "boss"',
            "check the user and the password",
        )  # fmt: skip
        await works(changed, limits)
        await works(changed, limits, "template1")
    finally:
        machine.do(f"ALTER ROLE boss PASSWORD '{admin.admin_password}'")
    await trouble(AuthenticationFailed, works(changed, limits, "template1"))
    await works(admin, limits)


async def test_a_server_that_does_not_let_us_in_by_pg_hba(machine, admin, limits):
    machine.shell("cp pg_hba.conf kept; (echo host all boss all reject; cat kept) > pg_hba.conf")
    machine.do("SELECT pg_reload_conf()")
    try:
        await asyncio.to_thread(
            until, lambda: machine.do("SELECT auth_method FROM pg_hba_file_rules LIMIT 1") == [("reject",)]
        )
        await trouble(AuthenticationFailed, works(admin, limits), "pg_hba.conf rejects connection", "let this host")
    finally:
        machine.shell("mv kept pg_hba.conf")
        machine.do("SELECT pg_reload_conf()")
    await recovers(works, admin, limits)


@asynccontextmanager
async def in_thread(trouble):
    """Enter and leave a block that waits."""
    entered = await asyncio.to_thread(trouble.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(trouble.__exit__, None, None, None)


async def recovers(work, *arguments):
    """Do it again until it works: the server takes a moment to read its files."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return await work(*arguments)
        except DatabaseError:
            assert time.monotonic() < deadline


async def test_a_server_whose_disk_is_full(machine, admin, database, limits):
    with machine.small_disk(32 << 20) as disk:
        with machine.full(disk):
            await trouble(ServerFull, make(admin, limits, database), "No space left on device", "free or add space")
        assert (await make(admin, limits, database)).made
        machine.do(f"ALTER DATABASE {database} SET TABLESPACE pg_default")


async def test_a_statement_that_takes_too_long(admin, limits):
    async with connect(replace(admin, statement_timeout=0.1), limits=limits) as session:
        await trouble(ServerUnreachable, session.read("SELECT pg_sleep(60)"), "57014", "look for locks and load")
    await works(admin, limits)


async def test_a_lock_that_is_held_for_too_long(machine, admin, database, limits):
    role = sql.Identifier(database)
    async with connect(replace(admin, lock_timeout=0.1), limits=limits) as session:
        await session.write(sql.SQL("CREATE ROLE {}").format(role))
        with machine.superuser() as other, other.transaction():
            other.execute("LOCK pg_authid")
            drop = session.write(sql.SQL("DROP ROLE {}").format(role))
            await trouble(DatabaseInUse, drop, "55P03", "end the session that holds the lock")
        await session.write(sql.SQL("DROP ROLE {}").format(role))


async def test_another_operator_that_is_at_work_on_the_database(admin, database, limits):
    async with connect(replace(admin, name="other"), limits=limits) as session:
        await lock(session, database)
        work = make(replace(admin, lock_timeout=0.1), limits, database)
        await trouble(DatabaseInUse, work, "another session is at work", "tried again")
    await make(admin, limits, database)


async def test_a_transaction_that_a_tenant_has_prepared_keeps_his_database_from_going(machine, admin, database, limits):
    """Only he and a superuser may end it: they are told what it is called."""
    await make(admin, limits, database)
    place = {"host": admin.host, "port": admin.port, "dbname": database}
    with psycopg.connect(**place, user=f"{database}_a", password="pass", autocommit=True) as tenant:
        tenant.execute("BEGIN; CREATE TABLE public.things (); PREPARE TRANSACTION 'his'")

    async def drop():
        return await remove(admin, database, CLAIM, limits=limits, check=lambda: 60.0)

    await trouble(DatabaseInUse, drop(), "55006", "prepared transaction", f"transaction 'his' of {database}_owner")
    with machine.superuser(dbname=database) as session:
        session.execute("ROLLBACK PREPARED 'his'")
    assert await drop() is True


async def test_another_server_in_the_place_of_the_one_that_it_was_made_on(machine, admin, database, limits):
    recorded = await settled(admin, limits, database)
    another = Recorded(system_identifier=f"{recorded.system_identifier}1", database_oid=recorded.database_oid)
    await trouble(ServerReplaced, make(admin, limits, database, another), "another PostgreSQL server", "nothing was ch")
    await make(admin, limits, database, recorded)

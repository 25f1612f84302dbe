"""The least that must be asked of PostgreSQL to look at settled databases: psycopg in a loop, and nothing else.

Of each, over a session that is kept, under the lock that passes hold: whose it is, and who may log in. Over a session
of its own: what is in it. And one login as each of its users. As many are under way as the operator has workers, over
no more sessions. `python -m bench.least` is a contestant as `bench.turns` says.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from bench.turns import SESSIONS, WORKERS, Given, Turn, serve

try:
    from uvloop import run  # as the operator, which has it where it is installed
except ImportError:
    from asyncio import run  # type: ignore[assignment]

KEPT = 2  # of the sessions, in the maintenance database
OUTSIDE = (
    """
    SELECT oid, pg_get_userbyid(datdba), shobj_description(datdba, 'pg_authid'), datconnlimit, datallowconn,
           datistemplate, datacl::text, (SELECT system_identifier FROM pg_control_system())
    FROM pg_database WHERE datname = %(name)s
    """,
    """
    SELECT rolname, shobj_description(oid, 'pg_authid'), rolcanlogin, rolconnlimit, rolvaliduntil,
           ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = pg_roles.oid),
           ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = pg_roles.oid)
    FROM pg_roles WHERE rolname >= %(name)s || '_' AND rolname < %(name)s || '`'
    """,
)
INSIDE = (
    "SELECT nspname, pg_get_userbyid(nspowner), nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_'",
    """
    SELECT relkind, nspname, relname, relacl::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    """,
    "SELECT defaclrole, defaclobjtype, defaclacl::text FROM pg_default_acl",
)


@asynccontextmanager
async def looking(given: Given) -> AsyncIterator[tuple[Given, Turn]]:
    """Look at the `databases` that the operator has told of, with the `admin` that is given."""
    place = {"host": given["host"], "port": given["port"], "sslmode": "disable", "autocommit": True}
    admin = {"user": given["user"], "password": given["password"], **place}
    kept: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    others = asyncio.Semaphore(SESSIONS - KEPT)

    @asynccontextmanager
    async def session(how: Given, database: str) -> AsyncIterator[psycopg.AsyncConnection]:
        async with others:
            made = await psycopg.AsyncConnection.connect(**how, dbname=database)
            try:
                yield made
            finally:
                await made.close()

    async def look(database: Given) -> None:
        outside = await kept.get()
        await outside.execute("SELECT pg_advisory_lock(%(lock)s)", database)
        for query in OUTSIDE:
            assert await (await outside.execute(query, database)).fetchall()
        await outside.execute("SELECT pg_advisory_unlock(%(lock)s)", database)
        kept.put_nowait(outside)
        async with session(admin, database["name"]) as inside:
            for query in INSIDE:
                await (await inside.execute(query)).fetchall()
        for user, password in database["logins"]:
            async with session({"user": user, "password": password, **place}, database["name"]):
                pass

    async def turn() -> Given:
        left = iter(given["databases"])

        async def work() -> None:
            for database in left:
                await look(database)

        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(work(), name=f"worker {number}")
        return {"passes": len(given["databases"])}

    for _ in range(KEPT):
        kept.put_nowait(await psycopg.AsyncConnection.connect(**admin, dbname="postgres"))
    yield {}, turn
    while not kept.empty():
        await kept.get_nowait().close()


if __name__ == "__main__":
    run(serve(looking))

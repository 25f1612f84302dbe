"""Whatever a name, password, version or locale is: it reaches the server as one identifier or literal, and no more.

The server logs every statement it gets. What is left of one without its quoted parts, its skeleton, is ours alone: so
a pass with hostile texts must leave the skeletons that a pass with harmless ones leaves, one for one.
"""

import os
import re
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Limits, Server
from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import DatabaseError, InvalidRequest
from asyncctl.database.postgres.provision import provision, remove
from asyncctl.database.postgres.wanted import Login, Wanted
from asyncctl.database.types import ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import Effects, recorded

SOAK = bool(os.environ.get("ASYNCCTL_TEST_SOAK"))
_QUOTED = re.compile(
    r"""
    "(?:[^"]|"")*" | E'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*'
    """,
    re.DOTALL | re.VERBOSE,
)
_DROP = "; DROP ROLE postgres; --"
_BAITS = (f'"{_DROP}', f"'{_DROP}", "$$", "\\", "\\'", "%s", "{}", "a=b host=c", "é'\"\n")

# What PostgreSQL can hold: all but NUL and half characters. The longest name of ours has 17 characters more.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=11)
hostile = st.one_of(text, st.sampled_from(_BAITS).flatmap(lambda bait: text.map(lambda more: (bait + more)[:20])))
name = hostile.filter(lambda it: 0 < len(it.encode()) <= 40)


@pytest.fixture(scope="module")
def talkative(backends):
    """A server that logs all statements, and what reads that log: `(server, admin, read)`."""
    try:
        running = PostgresServer.running(log_statement="all", log_line_prefix="@@%p@@ ", log_parameter_max_length="0")
        server = running.__enter__()
    except PostgresUnavailable as error:
        backends.lack("postgres", str(error))
    with psycopg.connect(server.uri(), autocommit=True) as session:
        session.execute("CREATE ROLE adm LOGIN CREATEROLE CREATEDB PASSWORD 'of-the-admin'")
        log = Path(session.execute("SHOW data_directory").fetchone()[0]).parent / "log"
    admin = Server(
        name="talkative",
        host=server.host,
        port=server.port,
        ssl_mode="disable",
        admin_user="adm",
        admin_password="of-the-admin",
    )
    yield server, admin, log
    running.__exit__(None, None, None)


def statements(log, since):
    """Return each statement that the server logged after `since` bytes."""
    said = log.read_bytes()[since:].decode(errors="replace")
    entries = re.split(r"^@@\d+@@ ", said, flags=re.MULTILINE)[1:]
    found = [re.match(r"LOG:  (?:statement|execute [^:]*): (.*)", entry, re.DOTALL) for entry in entries]
    return [match[1].rstrip("\n").replace("\n\t", "\n") for match in found if match]  # as it continues a line


def skeleton(statement):
    """Return what is left of a statement without identifiers and literals, and the parts that are."""
    return re.sub(r"\s+", " ", _QUOTED.sub("?", statement))


async def one_pass(admin, log, database, user, schema, extension, version, password, limits):
    """Make it, look again, drop it; return the statements the server got."""
    since = log.stat().st_size
    claim = Claim("c'1\"", "team", "app", "5f0c")
    logins = [(f"{database}_{user}_a", Privileges.OWNER), (f"{database}_{user}_b", Privileges.READ_WRITE)]
    wanted = Wanted(
        database=database,
        claim=claim,
        logins=tuple(Login(name=it, user=user, privileges=which, password=password) for it, which in logins),
        schemas=(SchemaSpec(name=schema),),
        extensions=(ExtensionSpec(name=extension, version=version, schema=schema),),
    )
    try:
        known = await provision(admin, wanted, limits=limits, check=Effects())
        assert recorded(known).database_oid
        assert [(item.name, item.ready) for item in known.extensions] == [(extension, False)]
        for login, _ in logins:
            await prove_login(admin, database, login, password, limits=limits)
    finally:
        await remove(admin, database, claim, limits=limits, check=Effects())
    return statements(log, since)


async def harmless(admin, log, limits):
    return [skeleton(it) for it in await one_pass(admin, log, "d", "u", "s", "x", "1", "p", limits)]


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@settings(max_examples=100 if SOAK else 3, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.tuples(name, name, name, name, name), hostile)
async def test_hostile_texts_leave_the_skeletons_of_harmless_ones(talkative, names, password):
    _, admin, log = talkative
    database, user, schema, extension, version = names
    database = f"d{database[:9]}"
    user, schema, secret = user[:3], f"s{schema}", f"s3cret-{password}"
    limits = Limits()
    try:
        expected = await harmless(admin, log, limits)
        got = await one_pass(admin, log, database, user, schema, extension, version, secret, limits)
        assert [skeleton(it) for it in got] == expected
        assert "s3cret-" not in "".join(got)
        quoted = sql.Identifier(database).as_string()
        assert any(quoted in it for it in got)
    finally:
        await limits.close()


@settings(max_examples=100 if SOAK else 5, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(hostile, hostile)
async def test_a_hostile_encoding_or_locale_is_one_literal(talkative, encoding, locale):
    _, admin, log = talkative
    limits, since = Limits(), log.stat().st_size
    claim = Claim("c1", "team", "app", "5f0c")
    wanted = Wanted(database="d", claim=claim, encoding=encoding, locale=locale)
    try:
        with pytest.raises(DatabaseError):
            await provision(admin, wanted, limits=limits, check=Effects())
        (created,) = [it for it in statements(log, since) if it.startswith("CREATE DATABASE")]
        assert skeleton(created) == (
            "CREATE DATABASE ? OWNER ? TEMPLATE template0 ENCODING ? CONNECTION LIMIT -1 LOCALE ?"
        )
    finally:
        await remove(admin, "d", claim, limits=limits, check=Effects())
        await limits.close()


@pytest.mark.parametrize("where", ["database", "encoding", "locale", "login", "password", "schema", "extension"])
async def test_what_postgresql_can_not_hold_is_refused_before_anything_is_sent(talkative, where):
    _, admin, log = talkative
    bad = {where: "a\0b"}
    wanted = Wanted(
        database=bad.get("database", "d"),
        claim=Claim("c1", "team", "app", "5f0c"),
        encoding=bad.get("encoding", "UTF8"),
        locale=bad.get("locale"),
        logins=(Login(name=bad.get("login", "d_a"), password=bad.get("password")),),
        schemas=(SchemaSpec(name=bad.get("schema", "s")),),
        extensions=(ExtensionSpec(name="x", version=bad.get("extension")),),
    )
    since = log.stat().st_size
    with pytest.raises(InvalidRequest, match="holds NUL"):
        await provision(admin, wanted, limits=Limits(), check=Effects())
    assert statements(log, since) == []

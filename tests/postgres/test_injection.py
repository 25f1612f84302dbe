"""Whatever a name, password, version or locale is: it reaches the server as one identifier or literal, and no more.

The server logs every statement it gets. What is left of one without its quoted parts, its skeleton, is ours alone: so
a pass with hostile texts must leave the skeletons that a pass with harmless ones leaves, one for one.
"""

import os
import re
from dataclasses import replace
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
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.postgres.wanted import Login, Wanted
from asyncctl.database.types import ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import Effects, recorded, until

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


def make_inside(server, database, name):
    """Have the owner make things of that name, which we then read in the catalogue, and grant on."""
    silent = {"autocommit": True, "options": "-c log_statement=none"}
    with psycopg.connect(server.uri(), **silent) as outside:
        with psycopg.connect(server.uri(database), **silent) as inside:
            pid = inside.info.backend_pid
            group = sql.Identifier(f"{database}_readwrite")
            inside.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner_role(database))))
            inside.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            for kind in ("TABLE", "SEQUENCE"):
                made = sql.Identifier(name, f"{name}{kind}")
                columns = sql.SQL("()" if kind == "TABLE" else "")
                inside.execute(sql.SQL("CREATE {} {} {}").format(sql.SQL(kind), made, columns))
                inside.execute(sql.SQL("REVOKE ALL ON {} {} FROM {}").format(sql.SQL(kind), made, group))
        until(lambda: not outside.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())


async def one_pass(talkative, limits, *, database, user, schema, extension, version, password):
    """Make it, look again, change it, which ends a login, drop it; return the statements the server got."""
    server, admin, log = talkative
    since = log.stat().st_size
    claim = Claim("c'1\"", "team", "app", "5f0c")
    users = [("a", Privileges.OWNER), ("b", Privileges.READ_WRITE)]
    logins = tuple(Login(name=f"{database}_{user}_{it}", user=user, privileges=which) for it, which in users)
    there, absent = ExtensionSpec(name="citext", schema=schema), ExtensionSpec(name=extension, version=version)
    wanted = Wanted(
        database=database,
        claim=claim,
        logins=tuple(replace(login, password=password) for login in logins),
        schemas=(SchemaSpec(name=schema),),
        extensions=(there, absent),
    )
    try:
        known = await provision(admin, wanted, limits=limits, check=Effects())
        assert recorded(known).database_oid
        assert [(item.name, item.ready) for item in known.extensions] == [("citext", True), (extension, False)]
        for login in logins:
            await prove_login(admin, database, login.name, password, limits=limits)
        make_inside(server, database, f"{schema}2")
        wanted = replace(wanted, recorded=recorded(known), logins=logins[1:])
        updated = ExtensionSpec(name="citext", version=version)
        moved = ExtensionSpec(name="citext", schema=f"{schema}2")  # what a superuser's script has made only he can move
        for change in (updated, moved):
            changed = replace(wanted, extensions=(change,))
            known = await provision(admin, changed, limits=limits, check=Effects())
            assert [(item.name, item.ready) for item in known.extensions] == [("citext", False)]
            assert "SQLSTATE" in known.extensions[0].message
    finally:
        await remove(admin, database, claim, limits=limits, check=Effects())
    return statements(log, since)


class Skeletons(list):
    """Hypothesis shows the arguments of each example, and these are long."""

    def __repr__(self):
        return f"{len(self)} skeletons"


@pytest.fixture(scope="module")
def expected():
    """What harmless texts leave; filled by who needs it first."""
    return Skeletons()


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


HARMLESS = {"database": "d", "user": "u", "schema": "s", "extension": "x", "version": "no", "password": "p"}


@settings(max_examples=100 if SOAK else 3, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.tuples(name, name, name, name, name), hostile)
async def test_hostile_texts_leave_the_skeletons_of_harmless_ones(talkative, expected, names, password):
    database, user, schema, extension, version = names
    database = f"d{database[:9]}"
    texts = {"database": database, "user": user[:3], "schema": f"s{schema}", "extension": extension, "version": version}
    limits = Limits()
    try:
        if not expected:
            expected += map(skeleton, await one_pass(talkative, limits, **HARMLESS))
            shown = {"CREATE EXTENSION ? SCHEMA ? VERSION ?", "ALTER EXTENSION ? UPDATE TO ?", "DROP ROLE ?"}
            shown |= {"ALTER EXTENSION ? SET SCHEMA ?", "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE ?.? TO ?"}
            assert shown <= set(expected)
        got = await one_pass(talkative, limits, **texts, password=f"s3cret-{password}")
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

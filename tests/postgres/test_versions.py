"""The whole path on each supported version: 14 to 18. Those that can't be had are skipped, and the run says so."""

from dataclasses import replace

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege as Refused

from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import AuthenticationFailed, InsufficientPrivilege
from asyncctl.database.postgres.provision import provision, remove, retire
from asyncctl.database.postgres.wanted import Login
from asyncctl.database.types import ExtensionSpec, Privileges, SchemaSpec
from tests.postgres.steps import PASSWORD, Effects, recorded, wish, with_passwords


@pytest.fixture
def extensions(superuser):
    """One that the admin may make, if the server has one; one that only a superuser may; one that nobody has."""
    rows = superuser.execute(
        """
        SELECT DISTINCT ON (trusted) name, trusted FROM pg_available_extension_versions
        WHERE requires IS NULL AND NOT installed AND (trusted OR superuser) AND relocatable ORDER BY trusted, name
        """
    ).fetchall()
    return [*rows, ("nobody_has_this", False)]


@pytest.fixture
def wanted(database, claim, extensions):
    users = [("app", Privileges.OWNER), ("writer", Privileges.READ_WRITE), ("reader", Privileges.READ_ONLY)]
    return wish(
        database,
        claim,
        connection_limit=20,
        logins=tuple(Login(name=f"{database}_{user}_a", user=user, privileges=which) for user, which in users),
        schemas=(SchemaSpec(name="own"), SchemaSpec(name="public")),
        extensions=tuple(ExtensionSpec(name=name, schema="own") for name, _ in extensions),
    )


async def test_the_whole_path(
    admin, database, owner, claim, wanted, extensions, limits, superuser, postgres, log_in, state
):
    async def go(wanted):
        effects = Effects()
        return await provision(admin, wanted, limits=limits, check=effects), effects.count

    if superuser.info.server_version < 150000:  # in each new database, and only a superuser can change it
        with pytest.raises(
            InsufficientPrivilege, match=r"no ReadOnly users .* everybody may CREATE in schema .public."
        ) as told:
            await go(with_passwords(wanted))
        with psycopg.connect(postgres.uri(database), autocommit=True) as inside:
            inside.execute(str(told.value).partition("let a superuser say there ")[2])
    known, _ = await go(with_passwords(wanted))
    assert [(item.name, item.ready) for item in known.schemas] == [("own", True), ("public", True)]
    assert {item.name: item.ready for item in known.extensions} == dict(extensions)
    wanted = replace(wanted, recorded=recorded(known))
    assert (await go(wanted))[1] == 0

    app, writer, reader = (log_in(login.name, PASSWORD, database) for login in wanted.logins)
    app.execute("CREATE TABLE own.things AS SELECT 1 AS id; CREATE SCHEMA later; CREATE TABLE later.things (id serial)")
    app.execute("CREATE TABLE public.things AS SELECT 1 AS id")
    writer.execute("INSERT INTO later.things DEFAULT VALUES; UPDATE own.things SET id = 2; CREATE TEMP TABLE mine ()")
    assert reader.execute("SELECT id FROM own.things UNION ALL SELECT id FROM later.things").fetchall() == [(2,), (1,)]
    for session, statement in [
        (reader, "INSERT INTO later.things DEFAULT VALUES"),
        (reader, "UPDATE own.things SET id = 3"),
        (reader, "CREATE TABLE public.mine ()"),
        (reader, "CREATE TEMP TABLE mine ()"),
        (reader, f"SET ROLE {owner}"),
        (writer, "DROP TABLE own.things"),
        (writer, "CREATE TABLE own.mine ()"),
        (writer, f"SET ROLE {owner}"),
    ]:
        with pytest.raises(Refused):
            session.execute(statement)

    old = wanted.logins[0]
    new = replace(old, name=f"{database}_app_b", password="new")
    await go(replace(wanted, logins=(*wanted.logins, new)))
    await prove_login(admin, database, new.name, "new", limits=limits)
    await retire(admin, database, old.name, claim=claim, limits=limits, check=Effects())
    with pytest.raises(AuthenticationFailed):
        await prove_login(admin, database, old.name, PASSWORD, limits=limits)
    wanted = replace(wanted, logins=(replace(new, password=None), *wanted.logins[1:]))
    assert (await go(wanted))[1] == 0

    good = state()
    app = log_in(new.name, "new", database)
    app.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 1; REVOKE ALL ON DATABASE {database} FROM {owner}")
    app.execute(f"GRANT ALL ON DATABASE {database} TO PUBLIC; DROP SCHEMA own CASCADE; CREATE SCHEMA own")
    app.execute(f"ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {database}_readonly")
    app.execute(f"REVOKE ALL ON public.things FROM {database}_readonly, {database}_readwrite")
    superuser.execute(f"ALTER ROLE {new.name} NOLOGIN; COMMENT ON ROLE {owner} IS NULL")
    known, _ = await go(wanted)
    there = {f"extensions[{name}]" for name, ready in extensions if ready}
    assert set(known.corrected) == {"connectionLimit", "privileges", "users[app]", "claim"} | there
    assert (await go(wanted))[1] == 0
    assert state() == good
    assert reader.execute("SELECT id FROM public.things").fetchall() == [(1,)]

    assert await remove(admin, database, claim, limits=limits, check=Effects()) is True
    assert state() == [[], [], [], []]

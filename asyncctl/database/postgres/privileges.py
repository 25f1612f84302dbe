"""What ReadWrite and ReadOnly logins may do in a database, by the role of their group that they are members of.

The groups have the privileges, and not the logins: so a change of password touches no table and no table's privileges
name a login. They cover what is there, looked at in each pass, and as default privileges what the owner role makes
later. What a tenant grants beyond is left alone, but for what would make a ReadOnly login's name a lie: that everybody
may CREATE in a schema.
"""

from collections.abc import AsyncIterator
from typing import LiteralString

from psycopg import sql
from psycopg.rows import TupleRow

from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import InsufficientPrivilege
from asyncctl.database.postgres.roles import acting_role, owner_role
from asyncctl.database.types import Privileges

_ABOUT = "privileges"
_AT_ONCE = 100  # tables that one statement names
_PAGE = 10_000  # names in one answer: it has an end (`bounded`), and what a tenant makes has none
_WORDS = {"r": sql.SQL("TABLES"), "S": sql.SQL("SEQUENCES"), "n": sql.SQL("SCHEMAS")}
_GRANTED: dict[Privileges, dict[str, LiteralString]] = {  # by kind of object, as pg_default_acl calls it
    Privileges.READ_WRITE: {"r": "SELECT, INSERT, UPDATE, DELETE", "S": "USAGE, SELECT, UPDATE", "n": "USAGE"},
    Privileges.READ_ONLY: {"r": "SELECT", "S": "SELECT", "n": "USAGE"},
}


async def ensure_privileges(inside: Connection, privileges: Privileges) -> None:
    """Make sure that a group, ReadWrite or ReadOnly, may do what it is to, now and with what is made later.

    Args:
        inside: a session in the database.
        privileges: of the group; its role is there.

    Raises:
        InsufficientPrivilege: everybody may CREATE in a schema, and the admin can't revoke it, so that there can be no
            ReadOnly logins: on PostgreSQL 14 that is so in `public`, until a superuser revokes it.

    """
    group = acting_role(inside.database, privileges)
    if privileges is Privileges.READ_ONLY:
        await _close_schemas(inside)
    elif not (await inside.read("SELECT has_database_privilege(%s, current_database(), 'TEMPORARY')", group))[0][0]:
        names = sql.Identifier(inside.database), sql.Identifier(group)
        await inside.write(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(*names), about=_ABOUT)
    granted = _GRANTED[privileges]
    await _defaults(inside, group, granted)
    await _schemas(inside, group)
    await _existing(inside, group, granted)


async def _defaults(inside: Connection, group: str, granted: dict[str, LiteralString]) -> None:
    owner = owner_role(inside.database)
    rows = await inside.read(
        """
        SELECT defaclobjtype::text, privilege_type FROM pg_default_acl, aclexplode(defaclacl)
        WHERE defaclnamespace = 0 AND pg_get_userbyid(defaclrole) = %s AND grantee <> 0
            AND pg_get_userbyid(grantee) = %s
        """,
        *(owner, group),
    )
    for kind, wanted in granted.items():
        if set(wanted.split(", ")) <= {privilege for of, privilege in rows if of == kind}:
            continue
        statement = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT {what} ON {kind} TO {group}").format(
            owner=sql.Identifier(owner), what=sql.SQL(wanted), kind=_WORDS[kind], group=sql.Identifier(group)
        )
        await inside.write(statement, about=_ABOUT)


async def _schemas(inside: Connection, group: str) -> None:
    query: LiteralString = """
        SELECT oid::bigint, nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
            AND CASE WHEN has_schema_privilege(%s, oid, 'USAGE') THEN false
                     ELSE nspowner = ANY (ARRAY(SELECT oid FROM pg_roles WHERE pg_has_role(oid, 'USAGE'))) END
            AND oid > %s::bigint::oid ORDER BY oid LIMIT %s
        """
    async for rows in _pages(inside, query, group):
        names = [sql.Identifier(name) for _, name in rows]
        await _grant(inside, sql.SQL("USAGE"), sql.SQL("SCHEMA"), names, group)


async def _existing(inside: Connection, group: str, granted: dict[str, LiteralString]) -> None:
    """Grant on the tables (and views and the like) and sequences that are there, and the admin's to grant on."""
    query: LiteralString = """
        SELECT pg_class.oid::bigint, relkind = 'S', nspname, relname
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND NOT EXISTS (SELECT FROM pg_depend
                            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
            AND CASE  -- in this order: what the admin may act for is dear to ask, and asked once where there is a need
                WHEN relnamespace = ANY (ARRAY(SELECT oid FROM pg_namespace
                                               WHERE nspname ~ '^pg_' OR nspname = 'information_schema')) THEN false
                WHEN EXISTS (
                    SELECT FROM unnest(string_to_array(CASE WHEN relkind = 'S' THEN %s ELSE %s END, ', ')) AS wanted
                    WHERE CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(%s, pg_class.oid, wanted)
                               ELSE NOT has_table_privilege(%s, pg_class.oid, wanted) END)
                THEN relowner = ANY (ARRAY(SELECT oid FROM pg_roles WHERE pg_has_role(oid, 'USAGE')))
                ELSE false END
            AND pg_class.oid > %s::bigint::oid ORDER BY 1 LIMIT %s
        """
    async for rows in _pages(inside, query, granted["S"], granted["r"], group, group):
        for kind, word in (("r", sql.SQL("TABLE")), ("S", sql.SQL("SEQUENCE"))):
            names = [sql.Identifier(schema, name) for _, sequence, schema, name in rows if sequence == (kind == "S")]
            await _grant(inside, sql.SQL(granted[kind]), word, names, group)


async def _pages(inside: Connection, query: LiteralString, *parameters: str) -> AsyncIterator[list[TupleRow]]:
    """Ask for what comes next until there is no more; the last two parameters of a query are after what, and how many.

    Its first column is what it is ordered by.
    """
    rows = await inside.read(query, *parameters, 0, _PAGE)
    while rows:
        yield rows
        rows = await inside.read(query, *parameters, rows[-1][0], _PAGE) if len(rows) == _PAGE else []


async def _grant(inside: Connection, what: sql.Composable, kind: sql.SQL, names: list[sql.Identifier], to: str) -> None:
    for first in range(0, len(names), _AT_ONCE):
        some = sql.SQL(", ").join(names[first : first + _AT_ONCE])
        statement = sql.SQL("GRANT {} ON {} {} TO {}").format(what, kind, some, sql.Identifier(to))
        await inside.write(statement, about=_ABOUT)


async def _close_schemas(inside: Connection) -> None:
    """Let not everybody CREATE in a schema, or a ReadOnly login could."""
    for name in await _open_schemas(inside):
        statement = sql.SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(sql.Identifier(name))
        try:
            await inside.write(statement, about=_ABOUT)
        except InsufficientPrivilege:
            still = True
        else:
            still = name in await _open_schemas(inside)
        if still:
            grant = sql.SQL("GRANT ALL ON SCHEMA {} TO {}")
            keep = grant.format(sql.Identifier(name), sql.Identifier(owner_role(inside.database)))
            raise InsufficientPrivilege(
                f'there can be no ReadOnly users in database "{inside.database}" on {inside.server}: everybody may'
                f' CREATE in schema "{name}", which the admin role can\'t revoke (before PostgreSQL 15 that is so in'
                " each database): make the users ReadWrite, or let a superuser say there"
                f" {statement.as_string()}; {keep.as_string()}"
            )


async def _open_schemas(inside: Connection) -> list[str]:
    rows = await inside.read(
        """
        SELECT DISTINCT nspname FROM pg_namespace, aclexplode(nspacl)
        WHERE grantee = 0 AND privilege_type = 'CREATE' AND nspname !~ '^pg_' ORDER BY nspname
        """
    )
    return [name for (name,) in rows]

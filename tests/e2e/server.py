"""PostgreSQL as its superuser sees it: what there is for a `Database`, and whether any of it was written to."""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer

Rows = list[tuple[Any, ...]]

# What there is of one database and the roles named after it, in words that are the same for any other.
_PORTRAIT: dict[str, LiteralString] = {
    "databases": """
        SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datconnlimit,
               ARRAY(SELECT unnest(datacl)::text ORDER BY 1)::text
        FROM pg_database WHERE datname = %(name)s
        """,
    "roles": """
        SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolconnlimit,
               left(rolpassword, 14), split_part(shobj_description(oid, 'pg_authid'), '/', 1)
        FROM pg_authid WHERE starts_with(rolname, %(name)s) ORDER BY 1
        """,
    "members": """
        SELECT roleid::regrole::text, member::regrole::text, grantor::regrole::text, admin_option
        FROM pg_auth_members WHERE starts_with(roleid::regrole::text, %(name)s) ORDER BY 1, 2, 3
        """,
    "settings": """
        SELECT setrole::regrole::text, setconfig::text FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = %(name)s ORDER BY 1
        """,
}
# What there is in it.
_INTERIOR: dict[str, LiteralString] = {
    "schemas": """
        SELECT nspname, pg_get_userbyid(nspowner), ARRAY(SELECT unnest(nspacl)::text ORDER BY 1)::text FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1
        """,
    "extensions": """
        SELECT extname, extversion, extnamespace::regnamespace::text, pg_get_userbyid(extowner)
        FROM pg_extension ORDER BY 1
        """,
    "default privileges": """
        SELECT pg_get_userbyid(defaclrole), defaclnamespace::regnamespace::text, defaclobjtype,
               ARRAY(SELECT unnest(defaclacl)::text ORDER BY 1)::text
        FROM pg_default_acl ORDER BY 1, 2, 3
        """,
}
# Each row's xmin and ctid: any write to it, even one that changes nothing, moves them.
VERSIONS: LiteralString = """
    SELECT 'database', oid, xmin::text, ctid::text FROM pg_database
    UNION ALL SELECT 'role', oid, xmin::text, ctid::text FROM pg_authid
    UNION ALL SELECT 'member', roleid, xmin::text, ctid::text FROM pg_auth_members
    UNION ALL SELECT 'comment', objoid, xmin::text, ctid::text FROM pg_shdescription
    UNION ALL SELECT 'setting', setrole, xmin::text, ctid::text FROM pg_db_role_setting
    ORDER BY 1, 2, 3, 4
    """


class Superuser:
    """Questions to one server, and what a DBA might do behind our back."""

    def __init__(self, postgres: PostgresServer) -> None:
        self.postgres = postgres
        self._verifiers: set[str] = set()  # of roles that are gone, too

    def ask(self, query: LiteralString | sql.Composed, parameters: object = None, database: str = "postgres") -> Rows:
        with psycopg.connect(self.postgres.uri(database), autocommit=True) as connection:
            cursor = connection.execute(query, parameters)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def do(self, statement: LiteralString, *names: str, database: str = "postgres") -> None:
        """Execute a statement whose `{}` are identifiers."""
        self.ask(sql.SQL(statement).format(*map(sql.Identifier, names)), database=database)

    def portrait(self, database: str) -> dict[str, Rows]:
        """All there is of a database and its roles; its own name is left out, so that two can be compared."""
        return {
            what: [_without(row, database) for row in self.ask(query, {"name": database})]
            for what, query in _PORTRAIT.items()
        }

    def interior(self, database: str) -> dict[str, Rows]:
        """All that we may make in a database, likewise; nothing where there is no database."""
        if database not in self.databases():
            return {}
        return {
            what: [_without(row, database) for row in self.ask(query, database=database)]
            for what, query in _INTERIOR.items()
        }

    def versions(self) -> Rows:
        return self.ask(VERSIONS)

    def databases(self) -> set[str]:
        return {name for (name,) in self.ask("SELECT datname FROM pg_database")}

    def roles(self) -> set[str]:
        return {name for (name,) in self.ask("SELECT rolname FROM pg_roles")}

    def claimed(self, cluster: str, namespace: str) -> set[str]:
        """The roles that bear a claim of an object of this namespace."""
        prefix = f"asyncctl:{cluster}/{namespace}/"
        query: LiteralString = """
            SELECT rolname FROM pg_roles WHERE starts_with(shobj_description(oid, 'pg_authid'), %s)
            """
        return {name for (name,) in self.ask(query, [prefix])}

    def verifiers(self) -> set[str]:
        """Every verifier that there is, or was whenever this was asked."""
        found = self.ask("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
        self._verifiers |= {verifier for (verifier,) in found}
        return set(self._verifiers)

    def clear(self, cluster: str, namespace: str) -> None:
        """Remove all that was made for objects of this namespace, retained or left behind."""
        self.verifiers()
        roles = self.claimed(cluster, namespace)
        query: LiteralString = "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = ANY (%s)"
        for (database,) in self.ask(query, [sorted(roles)]):
            self.do("DROP DATABASE {} WITH (FORCE)", database)
        for role in roles:
            self.do("DROP OWNED BY {} CASCADE", role)
        for role in roles:
            self.do("DROP ROLE {}", role)


def _without(row: Sequence[Any], name: str) -> tuple[Any, ...]:
    return tuple(value.replace(name, "$db") if isinstance(value, str) else value for value in row)


def ask_as_tenant(uri: str, query: LiteralString) -> Rows:
    """Log in with the `uri` of a Secret and execute one statement."""
    with psycopg.connect(uri, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []

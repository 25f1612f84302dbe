"""The schemas that are wanted in a database: there, and the owner role's."""

import json
from typing import LiteralString

from psycopg import sql

from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import InsufficientPrivilege
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.types import ItemStatus, SchemaSpec

_PUBLIC = "public"


async def ensure_schemas(inside: Connection, wanted: tuple[SchemaSpec, ...]) -> list[ItemStatus]:
    """Make sure that schemas are there and belong to the owner role, and return how it stands with each.

    Schema `public` is everybody's to use and may be the database's or, before PostgreSQL 15, a superuser's.

    Args:
        inside: a session in the database.
        wanted: what is to be there.

    """
    if not wanted:
        return []
    query: LiteralString = """
        SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace
        WHERE nspname IN (SELECT json_array_elements_text(%s::json))
        """
    found: dict[str, str] = dict(await inside.read(query, json.dumps([schema.name for schema in wanted])))
    return [await _ensure(inside, schema, found) for schema in wanted]


async def _ensure(inside: Connection, schema: SchemaSpec, found: dict[str, str]) -> ItemStatus:
    owner, about = owner_role(inside.database), f"schemas[{schema.name}]"
    names = {"schema": sql.Identifier(schema.name), "owner": sql.Identifier(owner)}
    make, take = "CREATE SCHEMA {schema} AUTHORIZATION {owner}", "ALTER SCHEMA {schema} OWNER TO {owner}"
    statement = sql.SQL(take if schema.name in found else make).format(**names)
    if schema.name not in found or (found[schema.name] != owner and schema.name != _PUBLIC):
        try:
            await inside.write(statement, about=about)
        except InsufficientPrivilege as error:
            message = f'{error}; or let a superuser say in database "{inside.database}": {statement.as_string()}'
            return ItemStatus(name=schema.name, ready=False, reason=error.reason, message=message)
    return ItemStatus(name=schema.name, ready=True)

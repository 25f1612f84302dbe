"""The schemas that are wanted in a database: there, and the owner role's."""

from psycopg import sql

from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import InsufficientPrivilege
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.types import ItemStatus, SchemaSpec

_PUBLIC = "public"


async def ensure_schema(inside: Connection, schema: SchemaSpec) -> ItemStatus:
    """Make sure that a schema is there and belongs to the owner role, and return how it stands with it.

    Schema `public` is everybody's to use and may be the database's or, before PostgreSQL 15, a superuser's.

    Args:
        inside: a session in the database.
        schema: what is wanted.

    """
    owner, about = owner_role(inside.database), f"schemas[{schema.name}]"
    names = {"schema": sql.Identifier(schema.name), "owner": sql.Identifier(owner)}
    found: dict[str, str] = dict(await inside.look("SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace"))
    make, take = "CREATE SCHEMA {schema} AUTHORIZATION {owner}", "ALTER SCHEMA {schema} OWNER TO {owner}"
    statement = sql.SQL(take if schema.name in found else make).format(**names)
    if schema.name not in found or (found[schema.name] != owner and schema.name != _PUBLIC):
        try:
            await inside.write(statement, about=about)
        except InsufficientPrivilege as error:
            message = f'{error}; or let a superuser say in database "{inside.database}": {statement.as_string()}'
            return ItemStatus(name=schema.name, ready=False, reason=error.reason, message=message)
    return ItemStatus(name=schema.name, ready=True)

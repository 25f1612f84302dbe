"""The extensions that are wanted in a database: each there, of its version, in its schema, or told why it can't be.

What runs the script of an extension is a session of a login made for it, which may do what the database's owner may
and nothing else: a script can be led to call a function that a tenant has put in its way, and the admin, who may act
for each database's owner, must not be who calls it. Afterwards that login goes; one that a crash left behind bears the
claim, is not wanted, and goes as such. Only where the admin is a superuser he runs himself what only a superuser may,
and only where the schemas in which the script looks hold nothing of the tenant's that it could call, be it a part of
an extension or not; until it has run nothing comes there.
"""

import asyncio
from dataclasses import dataclass, field

from psycopg import sql

from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import (
    DatabaseError,
    DatabaseInUse,
    DatabaseMissing,
    GivenUp,
    InsufficientPrivilege,
    ServerUnreachable,
    TooManyConnections,
)
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.types import ExtensionSpec, ItemStatus

REASON = "ExtensionUnavailable"
_TOO_LONG = "57014"  # SQLSTATE
_PATIENCE = 5.0  # seconds, for transactions that have begun before
_POLL = 0.05  # seconds
# Whoever makes, moves, renames or alters a function, an operator, a schema or an extension has to wait for our end.
_HOLD = sql.SQL(
    "LOCK TABLE pg_catalog.pg_proc, pg_catalog.pg_operator, pg_catalog.pg_namespace, pg_catalog.pg_extension"
    " IN SHARE MODE"
)
_OTHERS = (DatabaseInUse, DatabaseMissing, ServerUnreachable, TooManyConnections)  # are no extension's fault


@dataclass(slots=True)
class Item:
    """One extension: what is to be done for it, and how it stands."""

    name: str
    statements: list[sql.Composed] = field(default_factory=list)
    problem: str | None = None
    version: str | None = None
    as_admin: bool = False
    """Only the admin may do it, who is a superuser."""
    schema: str | None = None
    """The script, if one is to run, looks there."""

    def refuse(self, why: str) -> None:
        """Have nothing done for it."""
        self.problem, self.statements = why, []

    def status(self) -> ItemStatus:
        """Return how it stands, as the status says it."""
        reason = REASON if self.problem else None
        return ItemStatus(
            name=self.name, ready=self.problem is None, version=self.version, reason=reason, message=self.problem
        )


async def look(inside: Connection, wanted: tuple[ExtensionSpec, ...]) -> list[Item]:
    """Return what is to be done for each that is wanted; those come first that others require."""
    by_name = {extension.name: extension for extension in wanted}
    order: dict[str, Item] = {}
    for extension in wanted:
        await _look_at(inside, extension, by_name, order)
    return list(order.values())


async def apply(session: Connection, items: list[Item]) -> None:
    """Do what is to be done; what fails for one is its problem alone.

    Args:
        session: in the database; of the admin for those which are `as_admin`, else of a login that acts as the owner.
        items: of `look`.

    Raises:
        DatabaseError: the server or the connection failed, or someone's lock is in the way.

    """
    for item in items:
        try:
            await (_run_as_superuser if item.as_admin and item.schema else _run)(session, item)
        except _OTHERS as error:
            if error.sqlstate != _TOO_LONG or isinstance(error, GivenUp):
                raise
            say = f'let someone who has more time say in database "{session.database}": {_joined(item.statements)}'
            item.refuse(f"{error}; or {say}")
        except InsufficientPrivilege as error:
            say = f'let a superuser say in database "{session.database}": {_joined(item.statements)}'
            item.refuse(f"{error}; or {say}")
        except DatabaseError as error:
            item.refuse(str(error))
        item.version = (await _installed(session)).get(item.name, (None,))[0]


async def _run(session: Connection, item: Item) -> None:
    for statement in item.statements:
        try:
            await session.write(statement, about=f"extensions[{item.name}]")
        except InsufficientPrivilege as error:
            if not (error.sqlstate or "").startswith("01"):  # a script may warn of what it likes
                raise


async def _run_as_superuser(session: Connection, item: Item) -> None:
    """Run its script, unless it could call what a tenant has made; so that none can make it meanwhile.

    Who has made it before and not committed yet holds no lock, and nobody sees it: his transaction is waited for.
    """
    assert item.schema is not None
    async with session.transaction():
        await session.write(_HOLD)
        if not await _all_see_the_same(session):
            item.refuse(
                f'extension "{item.name}" is made by a superuser, which has to wait for the transactions that are open'
                f" on {session.server}, and some were for more than {_PATIENCE:g} s: end them; it is tried again"
            )
        elif strangers := await _callable(session, item.name, item.schema):
            item.refuse(strangers)
        else:
            await _run(session, item)


async def _all_see_the_same(session: Connection) -> bool:
    """Whether all transactions that have written something by now are over soon."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE
    ((ours,),) = await session.read("SELECT pg_current_xact_id()::text")  # which comes after all of those
    while not (await session.read("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= %s::xid8", ours))[0][0]:
        if loop.time() > until:
            return False
        await asyncio.sleep(_POLL)
    return True


async def _look_at(
    inside: Connection, wanted: ExtensionSpec, all_wanted: dict[str, ExtensionSpec], order: dict[str, Item]
) -> None:
    if wanted.name in order:
        return
    name, item = sql.Identifier(wanted.name), Item(wanted.name)
    found = (await _installed(inside)).get(wanted.name)
    if found is not None:
        item.version, schema, owner = found
        updates = wanted.version not in {None, item.version}
        if updates:
            update = sql.SQL("ALTER EXTENSION {} UPDATE TO {}").format(name, sql.Literal(wanted.version))
            item.statements.append(update)
        if wanted.schema and wanted.schema != schema:
            move = sql.SQL("ALTER EXTENSION {} SET SCHEMA {}").format(name, sql.Identifier(wanted.schema))
            item.statements.append(move)
        item.as_admin = owner != owner_role(inside.database)
        if item.statements and item.as_admin and not await _is_superuser(inside):
            item.refuse(
                f'extension "{wanted.name}" was made by another role: let a superuser say in database'
                f' "{inside.database}": {_joined(item.statements)}'
            )
        elif updates:
            item.schema = schema
            if item.as_admin and (strangers := await _callable(inside, wanted.name, schema)):
                item.refuse(strangers)
        order[wanted.name] = item
        return
    offered = await inside.read(
        """
        SELECT version, version = default_version, superuser AND NOT trusted, coalesce(schema::text, 'public'),
               coalesce(array_to_string(requires, ' '), '')
        FROM pg_available_extensions JOIN pg_available_extension_versions USING (name) WHERE name = %s ORDER BY version
        """,
        wanted.name,
    )
    chosen = next((row for row in offered if (row[0] == wanted.version if wanted.version else row[1])), None)
    if chosen is None:
        versions = ", ".join(version for version, *_ in offered)
        item.refuse(
            f'{inside.server} has no version "{wanted.version}" of extension "{wanted.name}", but {versions}'
            if offered and wanted.version
            else f'{inside.server} has no extension "{wanted.name}": let its package be installed there'
        )
        order[wanted.name] = item
        return
    version, _, needs_superuser, schema, requires = chosen
    create = sql.SQL("CREATE EXTENSION {} SCHEMA {} VERSION {}")
    schema = wanted.schema or schema
    item.statements = [create.format(name, sql.Identifier(schema), sql.Literal(version))]
    lacking = [other for other in requires.split() if other not in await _installed(inside)]
    item.as_admin, item.schema = needs_superuser, schema
    if needs_superuser and not await _is_superuser(inside):
        item.refuse(
            f'extension "{wanted.name}" can only be made by a superuser: let one say in database "{inside.database}":'
            f" {_joined(item.statements)}"
        )
    elif unlisted := [other for other in lacking if other not in all_wanted]:
        item.refuse(f'extension "{wanted.name}" requires {", ".join(unlisted)}: list it in spec.extensions too')
    elif not await inside.read("SELECT FROM pg_namespace WHERE nspname = %s", schema):
        item.refuse(f'there is no schema "{schema}" for extension "{wanted.name}": list it in spec.schemas')
    elif needs_superuser and (strangers := await _callable(inside, wanted.name, schema)):
        item.refuse(strangers)
    else:
        for other in lacking:
            await _look_at(inside, all_wanted[other], all_wanted, order)
    order.setdefault(wanted.name, item)


async def _installed(session: Connection) -> dict[str, tuple[str, str, str]]:
    """Return version, schema and owner of each extension that is there."""
    rows = await session.look(
        """
        SELECT extname, extversion, nspname, pg_get_userbyid(extowner)
        FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
        """
    )
    return {name: (version, schema, owner) for name, version, schema, owner in rows}


async def _callable(inside: Connection, extension: str, schema: str) -> str | None:
    """Return why a superuser can't run its script, if there is a function or an operator that a tenant made for it.

    It looks in the extension's schema and in those of the extensions that it requires. What belongs to an extension
    may be a tenant's, too: he can add to his own what he likes.
    """
    rows = await inside.read(
        """
        SELECT nspname, name FROM (
            SELECT proname AS name, pronamespace AS namespace, proowner AS owner FROM pg_proc
            UNION ALL SELECT oprname, oprnamespace, oprowner FROM pg_operator
        ) AS made JOIN pg_namespace ON pg_namespace.oid = namespace
        WHERE NOT (SELECT rolsuper FROM pg_roles WHERE oid = owner)
            AND (nspname = %s OR namespace IN (
                SELECT extnamespace FROM pg_extension
                WHERE extname IN (SELECT unnest(requires) FROM pg_available_extension_versions WHERE name = %s)))
        LIMIT 1
        """,
        *(schema, extension),
    )
    if not rows:
        return None
    where, what = rows[0]
    return (
        f'schema "{where}" holds functions or operators that are no superuser\'s, such as {what}, which the script of'
        f' extension "{extension}" could call as the superuser: move them, or name another schema for it'
    )


async def _is_superuser(inside: Connection) -> bool:
    return bool((await inside.look("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))[0][0])


def _joined(statements: list[sql.Composed]) -> str:
    return "; ".join(statement.as_string() for statement in statements)

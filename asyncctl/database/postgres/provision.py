"""The SQL steps of one `Database`, in an order in which each may be the last before a crash.

Claim, database, closed to the public, logins, then what is inside; each reads first and writes only what differs, so
that a settled database is only looked at. A login is proven by the caller: `database.prove_login`.
"""

import secrets

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Check, Connection, Limits, Server, connect, connect_as
from asyncctl.database.postgres.database import (
    Facts,
    close_to_public,
    drop,
    ensure_database,
    exists,
    facts,
    lock,
)
from asyncctl.database.postgres.errors import ServerReplaced
from asyncctl.database.postgres.extensions import Item, apply, look
from asyncctl.database.postgres.logins import drop_login, ensure_login, silence
from asyncctl.database.postgres.privileges import ensure_privileges
from asyncctl.database.postgres.roles import GROUPS, claim_owner, ensure_group, our_roles, ours
from asyncctl.database.postgres.schemas import ensure_schema
from asyncctl.database.postgres.wanted import Login, Provisioned, Wanted
from asyncctl.database.types import Claim as Recorded


async def provision(server: Server, wanted: Wanted, *, limits: Limits, check: Check) -> Provisioned:
    """Make it so: one session in the maintenance database, and one in the database where there is a need.

    Args:
        server: Where, and as which admin.
        wanted: What.
        limits: Counts our sessions.
        check: Asked before each effect; raises where we may not act.

    Raises:
        DatabaseError: As it fits; see the steps. What can't be had of a single item is told in its status instead.
    """
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, wanted.database)
        made, surplus = await _outside(admin, wanted)
        known = await facts(admin, wanted.database)
        corrected = admin.corrected
    schemas, extensions = [], []
    groups = [group for group in GROUPS if any(login.privileges is group for login in wanted.logins)]
    if wanted.schemas or wanted.extensions or groups:
        async with connect(server, wanted.database, limits=limits, check=check) as inside:
            schemas = [await ensure_schema(inside, schema) for schema in wanted.schemas]
            extensions = await look(inside, wanted.extensions)
            await apply(inside, [item for item in extensions if item.as_admin])
            for group in groups:
                await ensure_privileges(inside, group)
            corrected += inside.corrected
        if scripts := [item for item in extensions if item.statements and not item.as_admin]:
            corrected += await _run_scripts(server, wanted, scripts, limits, check)
    for login in surplus:
        await retire(server, wanted.database, login, claim=wanted.claim, limits=limits, check=check)
    return Provisioned(
        facts=known,
        made=made,
        corrected=tuple(dict.fromkeys(corrected)) if wanted.recorded else (),
        schemas=tuple(schemas),
        extensions=tuple(item.status() for item in extensions),
    )


async def remove(server: Server, database: str, claim: Claim, *, limits: Limits, check: Check) -> bool:
    """Drop the database, its logins and its owner, if they bear our claim; returns whether there was anything.

    Raises:
        DatabaseError: As it fits; see `database.drop`.
    """
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        return await drop(admin, database, claim)


async def retire(server: Server, database: str, login: str, *, claim: Claim, limits: Limits, check: Check) -> None:
    """End the sessions of a login and drop it; what it made is kept, for the owner. Nothing where it is gone.

    Raises:
        NameConflict: The role is not ours; nothing was written.
        RoleHasDependents: It owns or may do something in yet another database.
        DatabaseError: As it fits.
    """
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        if await ours(admin, login, claim) is None:
            return
        await silence(admin, login)
        if not await exists(admin, database):  # what it owned there is gone with it
            await drop_login(admin, login, database=database, claim=claim)
            return
    async with connect(server, database, limits=limits, check=check) as inside:
        await drop_login(inside, login, database=database, claim=claim)


async def _outside(admin: Connection, wanted: Wanted) -> tuple[bool, list[str]]:
    """All that is done from the maintenance database; returns whether it was made now, and logins that are to go."""
    database, claim, recorded = wanted.database, wanted.claim, wanted.recorded
    if recorded is not None:  # nothing is written where what was made can't be found
        _same_server(recorded, await facts(admin, database), admin.server)
    await claim_owner(admin, database, claim)
    made = await ensure_database(
        admin,
        database,
        made_before=recorded is not None,
        encoding=wanted.encoding,
        locale=wanted.locale,
        connection_limit=wanted.connection_limit,
    )
    await close_to_public(admin, database)
    for privileges in GROUPS:
        if any(login.privileges is privileges for login in wanted.logins):
            await ensure_group(admin, database, privileges, claim)
    for login in wanted.logins:
        await ensure_login(admin, login, database=database, claim=claim)
    kept = {login.name for login in wanted.logins}
    return made, [name for name in await our_roles(admin, database, claim, logins=True) if name not in kept]


async def _run_scripts(server: Server, wanted: Wanted, items: list[Item], limits: Limits, check: Check) -> list[str]:
    """Run the scripts of extensions as a login that is the owner's, and nobody else's; return what they put right."""
    password = secrets.token_urlsafe(24)
    login = Login(name=f"{wanted.database}_setup", password=password)
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, wanted.database)
        await ensure_login(admin, login, database=wanted.database, claim=wanted.claim)
    async with connect_as(server, wanted.database, login.name, password, limits=limits, check=check) as session:
        await apply(session, items)
    await retire(server, wanted.database, login.name, claim=wanted.claim, limits=limits, check=check)
    return session.corrected


def _same_server(recorded: Recorded, found: Facts, server: Server) -> None:
    before, now = recorded.system_identifier, found.system_identifier
    if before and now and before != now:
        raise ServerReplaced(
            f"{server} is another PostgreSQL server (system identifier {now}) than the one this database was made on "
            f"({before}): correct the catalogue; nothing was changed"
        )

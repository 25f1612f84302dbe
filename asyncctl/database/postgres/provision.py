"""The SQL steps of one `Database`, in an order in which each may be the last before a crash.

Claim, database, closed to the public, logins, then what is inside; each reads first and writes only what differs, so
that a settled database is only looked at. A login is proven by the caller: `database.prove_login`.
"""

import secrets
from dataclasses import dataclass, field, replace
from itertools import groupby

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
    system_identifier,
)
from asyncctl.database.postgres.elsewhere import release
from asyncctl.database.postgres.errors import InvalidRequest, RoleHasDependents, ServerReplaced
from asyncctl.database.postgres.extensions import Item, apply, look
from asyncctl.database.postgres.logins import drop_login, ensure_login
from asyncctl.database.postgres.ownership import claim_owner, take_over
from asyncctl.database.postgres.privileges import ensure_privileges
from asyncctl.database.postgres.roles import GROUPS, ensure_group, our_roles, ours, owner_role, roles, silence
from asyncctl.database.postgres.schemas import ensure_schemas
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
    _refuse_nul(wanted)
    outside = await _outside(server, wanted, limits, check)
    if outside.taken_from is not None:
        async with connect(server, wanted.database, limits=limits, check=check) as inside:
            await take_over(inside, outside.taken_from, wanted.claim)
        outside = await _outside(server, replace(wanted, adopt=False), limits, check)
    assert outside.facts is not None
    corrected = outside.corrected
    schemas, extensions = [], []
    groups = [group for group in GROUPS if any(login.privileges is group for login in wanted.logins)]
    if wanted.schemas or wanted.extensions or groups:
        async with connect(server, wanted.database, limits=limits, check=check) as inside:
            schemas = await ensure_schemas(inside, wanted.schemas)
            extensions = await look(inside, wanted.extensions)
            for group in groups:
                await ensure_privileges(inside, group)
            corrected += inside.corrected
        due = [item for item in extensions if item.statements]
        for as_admin, some in groupby(due, lambda item: item.as_admin):  # in their order: one may require another
            run = _run_as_admin if as_admin else _run_scripts
            corrected += await run(server, wanted, list(some), limits, check)
        if due and groups:
            async with connect(server, wanted.database, limits=limits, check=check) as inside:
                for group in groups:  # on what the scripts have made, too
                    await ensure_privileges(inside, group)
                corrected += inside.corrected
    lingering = []
    for login in outside.surplus:
        try:
            await retire(server, wanted.database, login, claim=wanted.claim, limits=limits, check=check)
        except RoleHasDependents as error:  # it lets nobody in; whoever granted it that must not stop the rest
            lingering.append(str(error))
    return Provisioned(
        facts=outside.facts,
        adopted=outside.adopted and not (wanted.recorded and wanted.recorded.adopted),
        made=outside.made,
        corrected=tuple(dict.fromkeys(corrected)) if wanted.recorded else (),
        schemas=tuple(schemas),
        extensions=tuple(item.status() for item in extensions),
        lingering=tuple(lingering),
    )


async def remove(
    server: Server, database: str, claim: Claim, *, recorded: Recorded | None = None, limits: Limits, check: Check
) -> bool:
    """Drop the database, its logins and its owner, if they bear our claim; returns whether there was anything.

    Raises:
        ServerReplaced: It is on another server, as `recorded` says; nothing was written to this one.
        DatabaseError: As it fits; see `database.drop`.
    """

    async def dropped() -> bool:
        async with connect(server, limits=limits, check=check) as admin:
            await lock(admin, database)
            await _same_server(admin, recorded)
            return await drop(admin, database, claim)

    try:
        return await dropped()
    except RoleHasDependents:
        await release(server, database, claim, limits=limits, check=check)
    return await dropped()


async def retire(server: Server, database: str, login: str, *, claim: Claim, limits: Limits, check: Check) -> None:
    """End the sessions of a login and drop it; what it made is kept, for the owner. Nothing where it is gone.

    Raises:
        NameConflict: The role is not ours; nothing was written.
        RoleHasDependents: It owns something in yet another database, or may do something in one that is nobody's; it
            lets nobody in any more.
        DatabaseError: As it fits.
    """
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        if ours(admin, login, (await roles(admin, database, claim)).get(login), claim) is None:
            return
        await silence(admin, login)
        where = database if await exists(admin, database) else None  # what it owned there is gone with it

    async def drop_it() -> None:
        async with connect(server, where, limits=limits, check=check) as session:
            await drop_login(session, login, database=database, claim=claim)

    try:
        await drop_it()
    except RoleHasDependents:
        await release(server, database, claim, login=login, limits=limits, check=check)
        await drop_it()


def _refuse_nul(wanted: Wanted) -> None:
    """Refuse the one character that PostgreSQL can't hold: a password would end before it, and be another one."""
    passwords = (login.password or "" for login in wanted.logins)
    names = (wanted.database, wanted.encoding, wanted.locale or "", *(login.name for login in wanted.logins))
    items = (text or "" for each in wanted.extensions for text in (each.name, each.version, each.schema))
    schemas = (schema.name for schema in wanted.schemas)
    if any("\0" in text for text in (*names, *passwords, *items, *schemas)):
        raise InvalidRequest(
            f"a name, a password or a locale that is wanted for database {wanted.database!r} holds NUL"
        )


@dataclass(slots=True, kw_only=True)
class _Outside:
    """What came of the session in the maintenance database."""

    taken_from: str | None = None
    """Nothing yet: the database is to be taken over from this role first."""
    facts: Facts | None = None
    made: bool = False
    adopted: bool = False
    surplus: list[str] = field(default_factory=list)
    """Logins that are to go."""
    corrected: list[str] = field(default_factory=list)


async def _outside(server: Server, wanted: Wanted, limits: Limits, check: Check) -> _Outside:
    database, claim, recorded = wanted.database, wanted.claim, wanted.recorded
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        await _same_server(admin, recorded)
        if recorded is not None:  # nothing is written where what was made can't be found
            await facts(admin, database)
        taken_from = await claim_owner(admin, database, claim, recorded=recorded, adopt=wanted.adopt)
        if taken_from is not None:
            return _Outside(taken_from=taken_from)
        made = await ensure_database(
            admin,
            database,
            made_before=recorded is not None,
            encoding=wanted.encoding,
            locale=wanted.locale,
            connection_limit=wanted.connection_limit,
        )
        await close_to_public(admin, database, claim)
        for privileges in GROUPS:
            if any(login.privileges is privileges for login in wanted.logins):
                await ensure_group(admin, database, privileges, claim, recorded=recorded is not None)
        for login in wanted.logins:
            await ensure_login(admin, login, database=database, claim=claim, recorded=recorded is not None)
        owner = (await roles(admin, database, claim)).get(owner_role(database))
        kept = {login.name for login in wanted.logins}
        return _Outside(
            facts=await facts(admin, database),
            made=made,
            adopted=owner is not None and owner.claim is not None and owner.claim.adopted,
            surplus=[name for name in await our_roles(admin, database, claim, logins=True) if name not in kept],
            corrected=admin.corrected,
        )


async def _run_as_admin(server: Server, wanted: Wanted, items: list[Item], limits: Limits, check: Check) -> list[str]:
    """Do for extensions what only the admin may; return what it put right."""
    async with connect(server, wanted.database, limits=limits, check=check) as inside:
        await apply(inside, items)
    return inside.corrected


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


async def _same_server(admin: Connection, recorded: Recorded | None) -> None:
    before = recorded.system_identifier if recorded is not None else None
    now = await system_identifier(admin) if before else None
    if before and now and before != now:
        raise ServerReplaced(
            f"{admin.server} is another PostgreSQL server (system identifier {now}) than the one this database was "
            f"made on ({before}): let its name lead to that one again; nothing was changed"
        )

"""What roles of ours were granted in databases that are not theirs, which must not keep them from going.

All tenants can read the names of all roles: one GRANT to another's login, in a database of his own, and that login
could not be dropped. So what a role of ours may do in a database of this cluster's is taken from it before its end.
What it owns there is left alone, as is each database that bears no claim: there its end is refused, and that is told.
"""

from contextlib import suppress

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Check, Connection, Limits, Server, connect
from asyncctl.database.postgres.database import lock
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.postgres.roles import forget_privileges, join, our_roles, ours, owner_role, role_claim, roles


async def release(
    server: Server, database: str, claim: Claim, *, login: str | None = None, limits: Limits, check: Check
) -> None:
    """Take from a login of a database, or from all its roles, what they may do in databases of other objects.

    What can't be taken is left to whoever drops the role, and is told why not.
    """
    held: dict[str, list[str]] = {}
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        for role in await _roles(admin, database, claim, login):
            await join(admin, role)
            for where in await _where(admin, role, database, claim):
                held.setdefault(where, []).append(role)
    for where, some in held.items():
        with suppress(DatabaseError):
            async with connect(server, where, limits=limits, check=check) as there:
                for role in some:
                    await forget_privileges(there, role)


async def _roles(admin: Connection, database: str, claim: Claim, login: str | None) -> list[str]:
    if login is not None:
        found = (await roles(admin, database, claim)).get(login)
        return [login] if ours(admin, login, found, claim) is not None else []
    owner = owner_role(database)
    return [*await our_roles(admin, database, claim), owner] if await role_claim(admin, owner) == claim else []


async def _where(admin: Connection, role: str, database: str, claim: Claim) -> list[str]:
    """Return the other databases of this cluster's in which or with which a role may do something, and owns nothing.

    Default privileges of its own are no property: they die with it.
    """
    rows = await admin.read(
        """
        SELECT datname, shobj_description(datdba, 'pg_authid')
        FROM pg_shdepend JOIN pg_database
            ON pg_database.oid = CASE WHEN classid = 'pg_database'::regclass THEN objid ELSE dbid END
        WHERE refclassid = 'pg_authid'::regclass AND pg_get_userbyid(refobjid) = %s AND datname <> %s
        GROUP BY datname, datdba
        HAVING NOT bool_or(deptype = 'o' AND classid <> 'pg_default_acl'::regclass) ORDER BY datname
        """,
        *(role, database),
    )
    claims = [(name, Claim.parse(comment)) for name, comment in rows]
    return [name for name, theirs in claims if theirs is not None and theirs.cluster == claim.cluster]

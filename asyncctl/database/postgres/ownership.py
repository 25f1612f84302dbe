"""Whose a database is: its owner role is made, or found to be ours by its claim, or taken over where that is asked for.

What bears another's claim is never written to. What bears nobody's is taken over only if the object asks for it, and
only where the admin may do it already: he gives himself no role of others; what a superuser has to say is told.
"""

from dataclasses import dataclass, replace

from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.database import look_at
from asyncctl.database.postgres.errors import InsufficientPrivilege, NameConflict
from asyncctl.database.postgres.roles import (
    UNMARKED,
    foreign_database,
    foreign_role,
    join,
    lost_role,
    mark,
    owner_role,
    roles,
    stand,
)
from asyncctl.database.types import Claim as Recorded

_FIRST_OID = 16384  # what has a lower one came with the server


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under the name of the database and of its owner role."""

    oid: int | None
    """Of the database; None where there is none."""
    owner: str
    """The database's."""
    owners_claim: Claim | None
    role: bool
    """The owner role is there, whoever owns the database."""
    role_claim: Claim | None
    joined: bool
    """The admin may act for the owner role."""


async def claim_owner(
    admin: Connection, database: str, claim: Claim, *, recorded: Recorded | None = None, adopt: bool = False
) -> str | None:
    """Make sure that the owner role exists, is ours by its claim, owns the database, and that the admin may act for it.

    Role, claim and membership are one transaction: no unmarked role can be left behind. A database that was kept
    (`Retain`) is taken up again by an object of the same cluster, namespace and name, whose new uid is written down.

    Args:
        admin: a session in the maintenance database.
        database: its name.
        claim: ours.
        recorded: what the status knows of the database, on this very server: by its OID a database and its owner role
            are known to be ours that were given to another role, or whose comment was removed; and by its uid, that
            the claim is another object's by now, which has our cluster, namespace and name.
        adopt: take over a database or owner role that bears nobody's claim.

    Returns:
        The role that the database is to be taken over from by `take_over`; nothing was written then.

    Raises:
        NameConflict: role or database belong to someone else; nothing was written.
        InsufficientPrivilege: the admin lacks CREATEROLE, or (before PostgreSQL 16) is NOINHERIT, or may not take
            over what it is to.

    """
    owner = owner_role(database)
    found = await _find(admin, database, claim)
    mine = claim.same_object(found.role_claim)
    known = recorded is not None and bool(recorded.system_identifier) and found.oid == recorded.database_oid
    if found.role_claim is not None:
        _refuse_anothers(admin, owner, found.role_claim, claim, recorded)
    if found.oid is not None and found.owner != owner:
        if found.owners_claim is not None and not claim.same_object(found.owners_claim):
            raise foreign_database(admin, database, found.owner)
        if not (known and mine):
            return await _to_be_taken(admin, database, found, adopt=adopt and not known)
        await stand(admin, owner, found.role_claim, claim)
        await _give_back(admin, database)
    elif found.role and not mine:
        if not known:
            await _take_role(admin, database, replace(claim, adopted=True), adopt=adopt)
        else:
            await _may_take(admin, owner, database)  # by now it may be another of that name
            await stand(admin, owner, UNMARKED, claim)
    elif found.role_claim != claim or not found.joined:
        await stand(admin, owner, found.role_claim, claim)
    return None


async def take_over(inside: Connection, previous: str, claim: Claim) -> None:
    """Make a database ours that was the role `previous`'s, with all that this owns in it: one transaction.

    Args:
        inside: a session **in the database**: what a role owns is seen from there only.
        previous: as `claim_owner` has returned it, which has made sure that nothing is in the way.
        claim: ours.

    Raises:
        InsufficientPrivilege: the admin may not after all.
        NameConflict: someone else was faster.

    """
    owner = owner_role(inside.database)
    names = {"previous": sql.Identifier(previous), "owner": sql.Identifier(owner)}
    async with inside.transaction():
        found = await _find(inside, inside.database, claim)
        if found.role_claim is not None and not claim.same_object(found.role_claim):
            raise foreign_role(inside, owner, found.role_claim)
        make = "ALTER ROLE {owner} NOLOGIN" if found.role else "CREATE ROLE {owner} NOLOGIN"
        await inside.write(sql.SQL(make).format(**names))
        await mark(inside, owner, None, replace(claim, adopted=True))
        await join(inside, owner)
        statement = sql.SQL("ALTER DATABASE {} OWNER TO {owner}").format(sql.Identifier(inside.database), **names)
        await inside.write(statement)
        await inside.write(sql.SQL("REASSIGN OWNED BY {previous} TO {owner}").format(**names))


async def _find(admin: Connection, database: str, claim: Claim) -> Found:
    owner = owner_role(database)
    there, role = await look_at(admin, database), (await roles(admin, database, claim)).get(owner)
    return Found(
        oid=there.oid if there else None,
        owner=there.owner if there else owner,
        owners_claim=there.owners_claim if there else None,
        role=role is not None,
        role_claim=role.claim if role else None,
        joined=role is not None and role.joined,
    )


def _refuse_anothers(admin: Connection, owner: str, found: Claim, claim: Claim, recorded: Recorded | None) -> None:
    """Raise where the claim on the owner role is another object's, or by now is another's that is called the same."""
    if not claim.same_object(found):
        raise foreign_role(admin, owner, found)
    if recorded is not None and found.uid not in {claim.uid, recorded.uid}:
        raise lost_role(admin, owner, found, claim)


async def _give_back(admin: Connection, database: str) -> None:
    """Give a database of ours back to its owner role."""
    names = sql.Identifier(database), sql.Identifier(owner_role(database))
    statement = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(*names)
    try:
        await admin.write(statement, about="owner")
    except InsufficientPrivilege as error:
        raise InsufficientPrivilege(
            f"{error}; or let a superuser say {statement.as_string()}", sqlstate=error.sqlstate
        ) from None


async def _to_be_taken(admin: Connection, database: str, found: Found, *, adopt: bool) -> str:
    """Return the role that the database is to be taken over from, if it may be."""
    if (found.oid or 0) < _FIRST_OID or database == admin.server.maintenance_database:
        raise NameConflict(
            f'database "{database}" on {admin.server} is the server\'s own: make a new Database with another'
            " databaseName"
        )
    if not adopt:
        raise foreign_database(admin, database, found.owner, unowned=True)
    owner = owner_role(database)
    if found.role and found.role_claim is None:
        await _may_take(admin, owner, database)
    rows = await admin.read(
        """
        SELECT pg_has_role(oid, 'USAGE') AND pg_has_role(oid, %s) AND NOT (rolsuper AND oid < %s),
               (SELECT string_agg(datname, ', ' ORDER BY datname) FROM pg_database
                WHERE datdba = role.oid AND datname <> %s)
        FROM pg_roles role WHERE rolname = %s
        """,
        *(_become(admin), _FIRST_OID, database, found.owner),
    )
    allowed, others = rows[0]
    names = {"database": sql.Identifier(database), "owner": sql.Identifier(owner)}
    names["admin"] = sql.Identifier(admin.server.admin_user)
    create = "" if found.role else "CREATE ROLE {owner} NOLOGIN; GRANT {owner} TO {admin} WITH ADMIN OPTION; "
    say = sql.SQL(create).format(**names) + sql.SQL("ALTER DATABASE {database} OWNER TO {owner}").format(**names)
    told = f"let a superuser say {say.as_string()}, and give what is in it to that role"
    if not allowed:
        raise InsufficientPrivilege(
            f'database "{database}" on {admin.server} belongs to role "{found.owner}", for which the admin role may not'
            f" act: {told}"
        )
    if others:
        raise InsufficientPrivilege(
            f'database "{database}" on {admin.server} belongs to role "{found.owner}", which owns {others} too, so'
            f" that what is this database's can't be told apart: {told}"
        )
    return found.owner


async def _take_role(admin: Connection, database: str, claim: Claim, *, adopt: bool) -> None:
    """Take over an owner role that bears nobody's claim, and its database, if there is one."""
    owner = owner_role(database)
    if not adopt:
        raise foreign_role(admin, owner, None)
    await _may_take(admin, owner, database)
    async with admin.transaction():
        await admin.write(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(owner)))
        await mark(admin, owner, None, claim)
        await join(admin, owner)


async def _may_take(admin: Connection, role: str, database: str) -> None:
    """Refuse to take over a role that a tenant must not have, or that the admin may not alter.

    A tenant's login becomes a member of it: what it has in other databases would be his, too.
    """
    rows = await admin.read(
        """
        SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,
               EXISTS (SELECT FROM pg_auth_members WHERE member = role.oid),
               EXISTS (
                   SELECT FROM pg_shdepend LEFT JOIN pg_database here ON here.datname = %s
                   WHERE refclassid = 'pg_authid'::regclass AND refobjid = role.oid
                       AND dbid IS DISTINCT FROM here.oid
                       AND NOT (classid = 'pg_database'::regclass AND objid IS NOT DISTINCT FROM here.oid)),
               pg_has_role(oid, 'MEMBER WITH ADMIN OPTION') OR current_setting('server_version_num')::int < 160000
        FROM pg_roles role WHERE rolname = %s
        """,
        *(database, role),
    )
    powerful, member, elsewhere, alterable = rows[0]
    if powerful or member or elsewhere:
        raise NameConflict(
            f'role "{role}" on {admin.server} exists and can\'t be taken over, as it may do more than own database'
            f' "{database}": take its attributes and memberships from it, and what it owns or may do in other'
            " databases, or choose another databaseName; nothing was changed"
        )
    if not alterable:
        grant = sql.SQL("GRANT {} TO {} WITH ADMIN OPTION")
        say = grant.format(sql.Identifier(role), sql.Identifier(admin.server.admin_user)).as_string()
        raise InsufficientPrivilege(
            f'role "{role}" on {admin.server} is not the admin role\'s to take over: let a superuser say {say}'
        )


def _become(admin: Connection) -> str:
    return "SET" if admin.version >= 160000 else "MEMBER"

"""The roles of one database, which bear the claim: its owner, which cannot log in, and what logins are members of.

Each step reads first and writes only what differs, so that it may be repeated after a crash at any point, and writes
nothing once all is as it should be. A role that bears another's claim, or none, is never touched.
"""

from dataclasses import replace

from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import InsufficientPrivilege, NameConflict
from asyncctl.database.types import Privileges

GROUPS = (Privileges.READ_WRITE, Privileges.READ_ONLY)
"""For whose logins there is a role, made for the first of them, that has the privileges."""
UNMARKED = Claim("", "", "", "")
"""Of a role that is known to be ours and has lost its claim."""


def owner_role(database: str) -> str:
    """Return the name of the role that owns a database."""
    return f"{database}_owner"


def acting_role(database: str, privileges: Privileges) -> str:
    """Return the name of the role whose privileges a login has: the owner's, or a group's."""
    return owner_role(database) if privileges is Privileges.OWNER else f"{database}_{privileges.lower()}"


async def ensure_group(
    admin: Connection, database: str, privileges: Privileges, claim: Claim, *, recorded: bool = False
) -> None:
    """Make sure that the role of a group is there; what it may do in the database is granted in the database.

    Args:
        admin: a session in the maintenance database.
        database: its name.
        privileges: of the group.
        claim: ours.
        recorded: the database was made before: a group without a claim that a login of ours is a member of has lost it.

    Raises:
        NameConflict: a role of that name is not ours; nothing was written.

    """
    group = acting_role(database, privileges)
    found = await ours(admin, group, claim, lost=recorded and await _has_our_login(admin, group, claim))
    await stand(admin, group, found, claim, about="privileges")


async def _has_our_login(admin: Connection, group: str, claim: Claim) -> bool:
    """Whether a role that bears our claim is a member: only who made the group, or a superuser, lets one in."""
    rows = await admin.read(
        """
        SELECT shobj_description(member, 'pg_authid') FROM pg_auth_members WHERE pg_get_userbyid(roleid) = %s
        """,
        group,
    )
    return any(claim.same_object(Claim.parse(comment)) for (comment,) in rows)


async def stand(admin: Connection, role: str, found: Claim | None, claim: Claim, about: str | None = None) -> None:
    """Make sure that a role without login is there, bears the claim, and is the admin's to use."""
    if found == claim:
        await join(admin, role)
        return
    async with admin.transaction():
        if found is None:
            await admin.write(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)), about=about)
        await mark(admin, role, found, claim)
        await join(admin, role)


async def forget_grants(admin: Connection, database: str, login: str) -> None:
    """Revoke all that a login of ours has granted others on the database, as it could once it was let to by the owner.

    A REVOKE by the owner does not reach such a grant, and CASCADE stops at a member of the owner role, as it could
    grant anyway: for the length of this transaction the login is none.
    """
    options = sql.SQL(" WITH SET TRUE, INHERIT TRUE" if admin.version >= 160000 else "")
    owner = owner_role(database)
    names = {"owner": sql.Identifier(owner), "login": sql.Identifier(login), "database": sql.Identifier(database)}
    query = "SELECT FROM pg_auth_members WHERE pg_get_userbyid(member) = %s AND pg_get_userbyid(roleid) = %s"
    member = bool(await admin.read(query, login, owner))
    async with admin.transaction():
        if member:
            await admin.write(sql.SQL("REVOKE {owner} FROM {login}").format(**names))
        grant = sql.SQL("GRANT ALL ON DATABASE {database} TO {login} WITH GRANT OPTION").format(**names)
        await admin.write(grant, about="privileges")
        await admin.write(sql.SQL("REVOKE ALL ON DATABASE {database} FROM {login} CASCADE").format(**names))
        await admin.write(sql.SQL("GRANT CONNECT ON DATABASE {database} TO {login}").format(**names))
        if member:
            await admin.write(sql.SQL("GRANT {owner} TO {login}").format(**names) + options)


async def forget_privileges(connection: Connection, role: str) -> None:
    """Take from a role of ours what it may do in the database of the session, and with databases.

    What another had to revoke the server only warns of: the role can't be dropped then, and that tells of it.
    """
    try:
        await connection.write(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
    except InsufficientPrivilege as error:
        if not (error.sqlstate or "").startswith("01"):
            raise


async def drop_roles(admin: Connection, database: str, claim: Claim) -> None:
    """Drop all roles of ours of this database, the owner last: while it is there, what is left is known to be ours."""
    owner = owner_role(database)
    for role in [*await our_roles(admin, database, claim), owner]:
        await admin.write(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


async def join_roles(admin: Connection, database: str, claim: Claim) -> None:
    """Make the admin a member of the roles of ours: to drop what they own and end their sessions."""
    for role in [owner_role(database), *await our_roles(admin, database, claim)]:
        await join(admin, role)


async def our_roles(admin: Connection, database: str, claim: Claim, *, logins: bool = False) -> list[str]:
    """Return the roles of this database, but for the owner, that are ours; the caller has made sure that the owner is.

    That are those which bear exactly this claim; and of an object of the same cluster, namespace and name that was
    deleted before, whose database we took up again, those that are members here: it could have had another database.

    Args:
        admin: a session in any database of the server.
        database: its name.
        claim: ours.
        logins: only those of users, also where they may not log in just now.

    """
    owner, groups = owner_role(database), [acting_role(database, group) for group in GROUPS]
    rows = await admin.read(
        """
        SELECT rolname, rolname IN (%s, %s), description,
               EXISTS (
                   SELECT FROM pg_auth_members
                   WHERE member = role.oid AND pg_get_userbyid(roleid) IN (%s, %s, %s))
        FROM pg_shdescription JOIN pg_roles role ON role.oid = objoid
        WHERE classoid = 'pg_authid'::regclass AND starts_with(description, %s) AND rolname <> %s ORDER BY rolname
        """,
        *(*groups, owner, *groups, claim.prefix, owner),
    )
    found = []
    for name, is_group, comment, is_member in rows:
        theirs = Claim.parse(comment)
        if theirs == claim or ((is_group or is_member) and claim.same_object(theirs)):
            found.append((name, is_group))
    return [name for name, is_group in found if not (is_group and logins)]


async def role_claim(admin: Connection, role: str) -> Claim | None:
    """Return the claim that a role bears; None where it bears none, or is not there."""
    rows = await admin.read("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", role)
    return Claim.parse(rows[0][0]) if rows else None


def foreign_database(admin: Connection, database: str, actual: str, *, unowned: bool = False) -> NameConflict:
    """Return the error for a database whose owner is the role `actual`; `unowned`: that bears nobody's claim."""
    adopt = ", or take it over by adoptionPolicy: IfUnowned" if unowned else ""
    return NameConflict(
        f'database "{database}" on {admin.server} exists and belongs to role "{actual}", not to'
        f' "{owner_role(database)}": make a new Database with another databaseName{adopt}; nothing was changed'
    )


def foreign_role(admin: Connection, role: str, found: Claim | None) -> NameConflict:
    """Return the error for a role that bears the claim `found`, or none."""
    whose = "is claimed by another Database" if found else "bears no claim of asyncctl"
    return NameConflict(
        f'role "{role}" on {admin.server} exists and {whose}: make a new Database with another databaseName; nothing'
        " was changed"
    )


async def ours(admin: Connection, role: str, claim: Claim, *, lost: bool = False) -> Claim | None:
    """Return the claim of a role of ours, or None where there is no role.

    Args:
        admin: a session in any database of the server.
        role: its name.
        claim: ours.
        lost: one without a claim is ours too, and has lost it: the caller knows by other marks. It is UNMARKED.

    Raises:
        NameConflict: it is not ours.

    """
    found = await role_claim(admin, role)
    if claim.same_object(found):
        return found
    if found is None and not await admin.read("SELECT FROM pg_roles WHERE rolname = %s", role):
        return None
    if found is None and lost:
        return UNMARKED
    raise foreign_role(admin, role, found)


async def mark(admin: Connection, role: str, found: Claim | None, claim: Claim) -> None:
    """Write the claim down on a role that bears none, or `found`."""
    if found != claim:
        comment = sql.SQL("COMMENT ON ROLE {} IS {}")
        bears = replace(claim, adopted=claim.adopted or (found is not None and found.adopted))
        statement = comment.format(sql.Identifier(role), sql.Literal(str(bears)))
        await admin.write(statement, about="claim" if found else None)


async def join(admin: Connection, role: str) -> None:
    """Make the admin a member that inherits from a role and may become it."""
    if await _joined(admin, role):
        return
    options = sql.SQL(" WITH SET TRUE, INHERIT TRUE" if admin.version >= 160000 else "")
    await admin.write(sql.SQL("GRANT {} TO CURRENT_USER{}").format(sql.Identifier(role), options))
    if not await _joined(admin, role):
        user = admin.server.admin_user
        raise InsufficientPrivilege(
            f'"{user}" on {admin.server} is a member of role "{role}" without inheriting from it:'
            f' let a superuser say ALTER ROLE "{user}" INHERIT'
        )


async def _joined(admin: Connection, role: str) -> bool:
    become = "SET" if admin.version >= 160000 else "MEMBER"
    rows = await admin.read("SELECT pg_has_role(%s, 'USAGE') AND pg_has_role(%s, %s)", role, role, become)
    return bool(rows[0][0])

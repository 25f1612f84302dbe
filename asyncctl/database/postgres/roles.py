"""The roles of one database: the owner, which cannot log in and bears the claim, and the logins that act as it.

Each step reads first and writes only what differs, so that it may be repeated after a crash at any point, and writes
nothing once all is as it should be. A role that bears another's claim, or none, is never touched.
"""

from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import DatabaseMissing, InsufficientPrivilege, NameConflict


def owner_role(database: str) -> str:
    """Return the name of the role that owns a database."""
    return f"{database}_owner"


async def claim_owner(admin: Connection, database: str, claim: Claim) -> None:
    """Make sure that the owner role exists, is ours by its claim, and that the admin may act for it.

    Role, claim and membership are one transaction: no unmarked role can be left behind. A database that was kept
    (`Retain`) is taken up again by an object of the same cluster, namespace and name, whose new uid is written down.

    Raises:
        NameConflict: role or database belong to someone else; nothing was written.
        InsufficientPrivilege: the admin lacks CREATEROLE, or (before PostgreSQL 16) is NOINHERIT.

    """
    owner = owner_role(database)
    found = await _ours(admin, owner, claim)
    rows = await admin.read("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", database)
    if rows and rows[0][0] != owner:
        raise foreign_database(admin, database, rows[0][0])
    async with admin.transaction():
        if found is None:
            await admin.write(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(owner)))
        await _mark(admin, owner, found, claim)
        await _join(admin, owner)


async def ensure_login(
    admin: Connection,
    login: str,
    *,
    database: str,
    claim: Claim,
    password: str,
    set_password: bool = False,
    connection_limit: int = -1,
) -> None:
    """Make sure that a login exists that may connect to the database and acts there as its owner.

    Args:
        admin: a session in the maintenance database.
        login: the role's name.
        database: it exists already.
        claim: ours.
        password: for a role that is made now; sent as a SCRAM verifier.
        set_password: give the password to a role that exists too (a verifier is never compared).
        connection_limit: sessions of this login at once; -1 is no limit.

    Raises:
        NameConflict: a role of that name is not ours; nothing was written.

    """
    owner, role = owner_role(database), sql.Identifier(login)
    found = await _ours(admin, login, claim)
    limit = sql.Literal(connection_limit)
    async with admin.transaction():
        if found is None:
            statement = sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}")
            await admin.write(statement.format(role, limit, admin.verifier(login, password)))
        await _mark(admin, login, found, claim)
    if found and set_password:
        await admin.write(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, admin.verifier(login, password)))
    facts = await admin.read(
        """
        SELECT login.rolcanlogin AND login.rolconnlimit = %s,
               EXISTS (SELECT FROM pg_auth_members WHERE roleid = owner.oid AND member = login.oid),
               EXISTS (SELECT FROM aclexplode(datacl) WHERE grantee = login.oid AND privilege_type = 'CONNECT'),
               EXISTS (SELECT FROM pg_db_role_setting
                       WHERE setdatabase = pg_database.oid AND setrole = login.oid AND 'role=' || %s = ANY (setconfig))
        FROM pg_roles login, pg_roles owner, pg_database
        WHERE login.rolname = %s AND owner.rolname = %s AND datname = %s
        """,
        *(connection_limit, owner, login, owner, database),
    )
    if not facts:
        raise DatabaseMissing(f'database "{database}" on {admin.server} or its role "{owner}" is gone')
    attributes, member, may_connect, acts_as_owner = facts[0]
    names = {"role": role, "owner": sql.Identifier(owner), "database": sql.Identifier(database), "limit": limit}
    if not attributes:
        await admin.write(sql.SQL("ALTER ROLE {role} LOGIN CONNECTION LIMIT {limit}").format(**names))
    if not member:
        await admin.write(sql.SQL("GRANT {owner} TO {role}").format(**names))
    if not may_connect:
        await admin.write(sql.SQL("GRANT CONNECT ON DATABASE {database} TO {role}").format(**names))
    if not acts_as_owner:
        await admin.write(sql.SQL("ALTER ROLE {role} IN DATABASE {database} SET role TO {owner}").format(**names))
    await _join(admin, login)  # so that its sessions can be ended when the database is dropped


async def drop_login(connection: Connection, login: str, *, claim: Claim) -> None:
    """Drop a login and keep what it made, for the owner. Does nothing where the role is gone.

    Args:
        connection: a session **in the login's database**: what a role owns is seen from there only.
        login: the role's name.
        claim: ours.

    Raises:
        NameConflict: the role is not ours; nothing was written.
        RoleHasDependents: it owns or may do something in yet another database.

    """
    if await _ours(connection, login, claim) is None:
        return
    await _join(connection, login)
    names = {"role": sql.Identifier(login), "owner": sql.Identifier(owner_role(connection.database))}
    await connection.write(sql.SQL("REASSIGN OWNED BY {role} TO {owner}").format(**names))
    await connection.write(sql.SQL("DROP OWNED BY {role}").format(**names))
    await connection.write(sql.SQL("DROP ROLE {role}").format(**names))


async def drop_roles(admin: Connection, database: str, claim: Claim) -> None:
    """Drop all roles that bear this claim, the owner last: while it is there, what is left is known to be ours."""
    owner = owner_role(database)
    for role in [*await claimed_logins(admin, database, claim), owner]:
        await admin.write(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


async def join_roles(admin: Connection, database: str, claim: Claim) -> None:
    """Make the admin a member of the roles that bear this claim: to drop what they own and end their sessions."""
    for role in [owner_role(database), *await claimed_logins(admin, database, claim)]:
        await _join(admin, role)


async def claimed_logins(admin: Connection, database: str, claim: Claim) -> list[str]:
    """Return the roles, but for the owner, that bear exactly this claim."""
    rows = await admin.read(
        """
        SELECT rolname FROM pg_roles
        WHERE shobj_description(oid, 'pg_authid') = %s AND rolname <> %s ORDER BY rolname
        """,
        *(str(claim), owner_role(database)),
    )
    return [name for (name,) in rows]


async def role_claim(admin: Connection, role: str) -> Claim | None:
    """Return the claim that a role bears; None where it bears none, or is not there."""
    rows = await admin.read("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", role)
    return Claim.parse(rows[0][0]) if rows else None


def foreign_database(admin: Connection, database: str, actual: str) -> NameConflict:
    """Return the error for a database whose owner is the role `actual`."""
    return NameConflict(
        f'database "{database}" on {admin.server} exists and belongs to role "{actual}", not to'
        f' "{owner_role(database)}": choose another databaseName; nothing was changed'
    )


async def _ours(admin: Connection, role: str, claim: Claim) -> Claim | None:
    """Return the claim of a role of ours, or None where there is no role; NameConflict where it is not ours."""
    found = await role_claim(admin, role)
    if claim.same_object(found):
        return found
    if found is None and not await admin.read("SELECT FROM pg_roles WHERE rolname = %s", role):
        return None
    whose = "is claimed by another Database" if found else "bears no claim of asyncctl"
    raise NameConflict(
        f'role "{role}" on {admin.server} exists and {whose}: choose another databaseName; nothing was changed'
    )


async def _mark(admin: Connection, role: str, found: Claim | None, claim: Claim) -> None:
    if found != claim:
        comment = sql.SQL("COMMENT ON ROLE {} IS {}")
        await admin.write(comment.format(sql.Identifier(role), sql.Literal(str(claim))))


async def _join(admin: Connection, role: str) -> None:
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

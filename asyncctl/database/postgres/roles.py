"""The roles of one database, which bear the claim: its owner, which cannot log in, and what logins are members of.

Each step reads first and writes only what differs, so that it may be repeated after a crash at any point, and writes
nothing once all is as it should be. A role that bears another's claim, or none, is never touched.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import DatabaseError, InsufficientPrivilege, NameConflict
from asyncctl.database.types import Privileges

_END = 5000  # milliseconds for the end of a session
GROUPS = (Privileges.READ_WRITE, Privileges.READ_ONLY)
"""For whose logins there is a role, made for the first of them, that has the privileges."""
UNMARKED = Claim("", "", "", "")
"""Of a role that is known to be ours and has lost its claim."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a role is now, of what we look at."""

    claim: Claim | None
    can_log_in: bool
    """As we would have it: at any time, and with what it is a member of."""
    connection_limit: int
    member_of: list[str]
    acts_as: list[str]
    """Of owner and groups, whose privileges it has, and whom it may become."""
    may_connect: bool
    may_pass_on: bool
    """It can grant others what it may do with the database."""
    settings: list[str]
    """Those that it has in the database."""
    joined: bool
    """The admin is a member that inherits from it and may become it; where this says no, `join` knows better."""


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
    name, found = acting_role(database, privileges), await roles(admin, database, claim)
    group = found.get(name)
    # a role of ours is a member: only who made the group, or a superuser, lets one in
    lost = recorded and any(name in each.member_of and claim.same_object(each.claim) for each in found.values())
    bears = ours(admin, name, group, claim, lost=lost)
    if bears != claim or group is None or not group.joined:
        await stand(admin, name, bears, claim, about="privileges")


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
        await act_for(admin, owner)
        grant = sql.SQL("GRANT ALL ON DATABASE {database} TO {login} WITH GRANT OPTION").format(**names)
        await admin.write(grant, about="privileges")
        await admin.write(sql.SQL("REVOKE ALL ON DATABASE {database} FROM {login} CASCADE").format(**names))
        await admin.write(sql.SQL("GRANT CONNECT ON DATABASE {database} TO {login}").format(**names))
        await act_for(admin, None)
        if member:
            await admin.write(sql.SQL("GRANT {owner} TO {login}").format(**names) + options)


async def act_for(connection: Connection, role: str | None) -> None:
    """Until the end of the transaction, act for this role alone; with None for all again that the admin may act for.

    A GRANT or REVOKE is made in the name of the first of them that may make it, as PostgreSQL comes upon them; and
    that can be whoever was given a privilege, and not who owns the object, so that nothing is revoked.
    """
    to = sql.SQL("NONE") if role is None else sql.Identifier(role)
    await connection.write(sql.SQL("SET LOCAL ROLE {}").format(to))


async def silence(admin: Connection, login: str) -> None:
    """Let nobody log in with a login of ours any more, and end its sessions."""
    await join(admin, login)
    rows = await admin.read("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", login)
    if rows[0][0]:
        await admin.write(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(login)))
    if await admin.read("SELECT FROM pg_stat_activity WHERE usename = %s", login):
        statement = sql.SQL("SELECT pg_terminate_backend(pid, {}) FROM pg_stat_activity WHERE usename = {}")
        await admin.write(statement.format(sql.Literal(_END), sql.Literal(login)))


async def forget_privileges(connection: Connection, role: str) -> None:
    """Take from a role of ours, which is to go, what it may do in the database of the session, and with databases.

    What another had to revoke the server only warns of: the role can't be dropped then, and that tells of it.
    """
    await _drop_owned(connection, role)
    rows = await connection.read(
        """
        SELECT DISTINCT pg_get_userbyid(theirs.refobjid)
        FROM pg_shdepend theirs JOIN pg_shdepend granted USING (dbid, classid, objid)
        WHERE theirs.deptype = 'o' AND granted.deptype = 'a' AND granted.refclassid = 'pg_authid'::regclass
            AND pg_get_userbyid(granted.refobjid) = %s
            AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        ORDER BY 1
        """,
        role,
    )
    for (owner,) in rows:  # it may pass all of it on, and the admin revoked it in the role's own name
        with suppress(DatabaseError):
            async with connection.transaction():
                names = {"role": sql.Identifier(role), "owner": sql.Identifier(owner)}
                await connection.write(sql.SQL("GRANT {role} TO {owner}").format(**names))
                await act_for(connection, owner)
                await _drop_owned(connection, role)
                await act_for(connection, None)
                await connection.write(sql.SQL("REVOKE {role} FROM {owner}").format(**names))


async def _drop_owned(connection: Connection, role: str) -> None:
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
        logins: only those of users, also where they may not log in just now; one that a DBA has renamed is among them
            for as long as it is a member here.

    """
    owner, groups = owner_role(database), [acting_role(database, group) for group in GROUPS]
    found = []
    for name, role in (await roles(admin, database, claim, renamed=not logins)).items():
        here = name in groups or not {owner, *groups}.isdisjoint(role.member_of)
        mine = role.claim == claim or (here and claim.same_object(role.claim))
        if mine and name != owner and not (logins and name in groups):
            found.append(name)
    return found


async def roles(admin: Connection, database: str, claim: Claim, *, renamed: bool = False) -> dict[str, Role]:
    """Return what could be the database's: by its name, or as a member of owner or group.

    And with `renamed` by the claim that it bears, whatever its name: for that the comments of all roles are read.

    Those are few, and that the others are many must not be felt: to be told what itself may do, the admin would follow
    its memberships, of which it has one for each role of ours on the server; so that is looked up here.
    """
    acting = [owner_role(database), *(acting_role(database, group) for group in GROUPS)]
    rows = await admin.look(
        """
        SELECT role.rolname, shobj_description(role.oid, 'pg_authid'), role.rolcanlogin AND role.rolinherit
                   AND coalesce(role.rolvaliduntil, 'infinity') = 'infinity', role.rolconnlimit,
               ARRAY(SELECT pg_get_userbyid(roleid)::text FROM pg_auth_members WHERE member = role.oid),
               ARRAY(SELECT pg_get_userbyid(acting)::text
                     FROM unnest(ARRAY(SELECT oid FROM pg_roles WHERE rolname IN (%s, %s, %s))) AS acting
                     WHERE pg_has_role(role.oid, acting, 'USAGE') AND pg_has_role(role.oid, acting, %s)),
               EXISTS (SELECT FROM aclexplode(datacl) WHERE grantee = role.oid AND privilege_type = 'CONNECT'),
               EXISTS (SELECT FROM aclexplode(datacl) WHERE grantee = role.oid AND is_grantable),
               ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting
                     WHERE setdatabase = pg_database.oid AND setrole = role.oid),
               coalesce((SELECT bool_or(coalesce((to_jsonb(membership) ->> 'inherit_option')::boolean, me.rolinherit)
                                        AND coalesce((to_jsonb(membership) ->> 'set_option')::boolean, true))
                         FROM pg_auth_members membership WHERE roleid = role.oid AND member = me.oid), false)
        FROM pg_roles me JOIN pg_roles role ON me.rolname = current_user AND role.oid <> me.oid
            LEFT JOIN pg_database ON datname = %s
        WHERE role.oid = ANY (ARRAY(
            SELECT oid FROM pg_roles WHERE rolname >= %s AND rolname < %s
            UNION ALL SELECT member FROM pg_auth_members
                WHERE roleid = ANY (ARRAY(SELECT oid FROM pg_roles WHERE rolname IN (%s, %s, %s)))
            UNION ALL SELECT objoid FROM pg_shdescription
                WHERE %s AND classoid = 'pg_authid'::regclass AND starts_with(description, %s)))
        ORDER BY role.rolname
        """,
        *acting,
        "SET" if admin.version >= 160000 else "MEMBER",
        database,
        f"{database}_",
        f"{database}`",  # ` comes next to _
        *acting,
        renamed,
        claim.prefix,
    )
    return {name: Role(Claim.parse(comment), *facts) for name, comment, *facts in rows}


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


def lost_role(admin: Connection, role: str, found: Claim, claim: Claim) -> NameConflict:
    """Return the error for a role that was ours, and by now bears the claim `found` of an object of the same name."""
    return NameConflict(
        f'role "{role}" on {admin.server} was claimed by this Database (uid {claim.uid}), and is now by another one of'
        f" the same name, namespace and cluster id (uid {found.uid}): if another cluster has the same"
        " ASYNCCTL_CLUSTER_ID, give each its own; then, to take the database back, make this object anew, with"
        " reclaimPolicy: Retain; nothing was changed"
    )


def ours(admin: Connection, name: str, role: Role | None, claim: Claim, *, lost: bool = False) -> Claim | None:
    """Return the claim of a role of ours, or None where there is no role.

    Args:
        admin: a session on the server.
        name: of the role.
        role: as it is among the `roles`.
        claim: ours.
        lost: one without a claim is ours too, and has lost it: the caller knows by other marks. It is UNMARKED.

    Raises:
        NameConflict: it is not ours.

    """
    if role is None:
        return None
    if claim.same_object(role.claim):
        return role.claim
    if role.claim is None and lost:
        return UNMARKED
    raise foreign_role(admin, name, role.claim)


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

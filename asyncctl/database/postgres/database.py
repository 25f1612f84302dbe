"""One database on a server: made, closed to the public, proven by its login, dropped.

The steps are for one session of the admin in the maintenance database, after `lock`. Each reads first and writes
only what differs; each may be repeated after a crash at any point.
"""

import hashlib
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Connection, Limits, Server
from asyncctl.database.postgres.errors import (
    DatabaseInUse,
    DatabaseMissing,
    InsufficientPrivilege,
    InvalidRequest,
)
from asyncctl.database.postgres.roles import (
    act_for,
    drop_roles,
    foreign_database,
    forget_grants,
    join_roles,
    our_roles,
    owner_role,
    role_claim,
    silence,
)

_INVALID = -2  # datconnlimit of a database whose DROP was interrupted: nobody can connect, it can only be dropped
_END = 5000  # milliseconds for the end of a session
_IN_THE_WAY: LiteralString = """
    SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner FROM pg_prepared_xacts WHERE database = %s
    UNION ALL SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE database = %s ORDER BY 1
    """
_NO_TEMPLATE = sql.SQL("ALTER DATABASE {} IS_TEMPLATE false")


@dataclass(frozen=True, slots=True)
class State:
    """What a database is now, of what we look at."""

    oid: int
    owner: str
    owners_claim: Claim | None
    limit: int
    open: bool
    template: bool
    complete: bool
    """Its owner may do with it what an owner can."""
    public: list[str]
    """What everybody may do with it, such as CONNECT."""


@dataclass(frozen=True)
class Facts:
    """What identifies a database, for status."""

    system_identifier: str | None
    """Of the server's cluster; None where the admin may not ask."""
    database_oid: int
    server_version: str


def lock_key(database: str) -> int:
    """Return the number of the advisory lock that stands for the name of a database."""
    return int.from_bytes(hashlib.sha256(f"asyncctl/{database}".encode()).digest()[:8], "big", signed=True)


async def lock(admin: Connection, database: str) -> None:
    """Hold the name of a database until the session ends, against every asyncctl with the same maintenance database.

    PostgreSQL keeps such locks for each database apart: of two catalogues that name different maintenance databases
    of one server, only the claim keeps the one from the other's databases. Whoever may connect to the maintenance
    database could hold the lock too: where that is a tenant, as a role with a claim, his session is ended.

    Raises:
        DatabaseInUse: someone else held it for 10 s.

    """
    if not await _locked(admin, database):
        await _end_tenants_that_hold(admin, database)
        if not await _locked(admin, database):
            raise DatabaseInUse(
                f'another session is at work on database "{database}" on {admin.server}: it is tried again'
            )


async def _locked(admin: Connection, database: str) -> bool:
    try:
        await admin.read("SELECT pg_advisory_lock(%s::bigint)", lock_key(database))
    except DatabaseInUse:
        return False
    return True


async def _end_tenants_that_hold(admin: Connection, database: str) -> None:
    high, low = (lock_key(database) >> 32) & 0xFFFFFFFF, lock_key(database) & 0xFFFFFFFF
    holders = await admin.read(
        """
        SELECT pid, shobj_description(usesysid, 'pg_authid')
        FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 1 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """,
        *(high, low),
    )
    for pid, comment in holders:
        if Claim.parse(comment) is not None:
            await admin.write(sql.SQL("SELECT pg_terminate_backend({}, {})").format(pid, _END))


async def ensure_database(
    admin: Connection,
    database: str,
    *,
    made_before: bool,
    encoding: str = "UTF8",
    locale: str | None = None,
    connection_limit: int = -1,
) -> bool:
    """Make sure that the database exists, belongs to the owner role and lets in as many as it is to.

    Args:
        admin: a session in the maintenance database, after `claim_owner`.
        database: its name.
        made_before: it is known to have existed: if it is gone, it is not made again.
        encoding: of a new database.
        locale: of a new database; the server's default when not given.
        connection_limit: sessions at once; -1 is no limit.

    Returns:
        Whether it was made now.

    Raises:
        DatabaseMissing: it was made before and is gone, or its DROP was interrupted.
        NameConflict: it is someone else's.
        InvalidRequest: the server has no such encoding or locale.

    """
    owner = owner_role(database)
    found = await look_at(admin, database)
    name, limit = sql.Identifier(database), sql.Literal(connection_limit)
    if found is None:
        if made_before:
            raise DatabaseMissing(
                f'database "{database}" on {admin.server} is gone, though it was made: restore it under that name with'
                f' owner "{owner}", or delete the Database object; it is not made again, empty'
            )
        parts = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} CONNECTION LIMIT {}")
        statement = parts.format(name, sql.Identifier(owner), sql.Literal(encoding), limit)
        try:
            await admin.write(statement + sql.SQL(" LOCALE {}").format(sql.Literal(locale)) if locale else statement)
        except InvalidRequest as error:
            text = f"{error}; as encoding and locale are immutable, make a new Database with others"
            raise InvalidRequest(text, sqlstate=error.sqlstate) from None
        return True
    if found.owner != owner:
        raise foreign_database(admin, database, found.owner)
    if found.limit == _INVALID:
        raise DatabaseMissing(
            f'database "{database}" on {admin.server} is invalid, as dropping it was interrupted: what it held is lost;'
            " drop and restore it, or delete the Database object"
        )
    if found.limit != connection_limit:
        await admin.write(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, limit), about="connectionLimit")
    if not found.open:
        await admin.write(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name), about="allowConnections")
    if found.template:  # anyone with CREATEDB could copy it
        await admin.write(_NO_TEMPLATE.format(name), about="isTemplate")
    if not found.complete:
        names = name, sql.Identifier(owner)
        await admin.write(sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(*names), about="privileges")
    return False


async def close_to_public(admin: Connection, database: str, claim: Claim) -> None:
    """Make sure that only roles which were granted something on the database can do anything with it.

    What a role gave to everybody, which the owner had let pass it on, goes too, and that it may: a tenant can have it
    so, by a login of his own or by another's. What the other may do itself, it still may.

    Raises:
        InsufficientPrivilege: the privileges are still there after REVOKE (another role granted them).

    """
    if not await public_privileges(admin, database):
        return
    name = sql.Identifier(database)
    revoke = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name)
    if not await _who_let_everybody(admin, database):
        await admin.write(revoke, about="privileges")
    before = None
    while await public_privileges(admin, database) and (roles := await _who_let_everybody(admin, database)) != before:
        strangers = []
        for role in roles:
            if claim.same_object(await role_claim(admin, role)):
                await forget_grants(admin, database, role)
            else:
                strangers.append(sql.Identifier(role))
        async with admin.transaction():
            await act_for(admin, owner_role(database))
            await admin.write(revoke, about="privileges")
            for stranger in strangers:
                statement = sql.SQL("REVOKE GRANT OPTION FOR ALL ON DATABASE {} FROM {} CASCADE")
                await admin.write(statement.format(name, stranger))
        before = roles  # one may have it from another, who comes after him
    if left := await public_privileges(admin, database):
        raise InsufficientPrivilege(
            f'PUBLIC still has {", ".join(left)} on database "{database}" on {admin.server} after REVOKE:'
            f' let its owner or a superuser say REVOKE ALL ON DATABASE "{database}" FROM PUBLIC'
        )


async def public_privileges(admin: Connection, database: str) -> list[str]:
    """Return what everybody may do with a database, such as CONNECT."""
    found = await look_at(admin, database)
    return found.public if found else []


async def _who_let_everybody(admin: Connection, database: str) -> list[str]:
    """Return the roles, but for the owner, who gave something to everybody, and from whom they had it."""
    rows = await admin.read(
        """
        WITH RECURSIVE granted AS (
            SELECT grantor, grantee FROM pg_database, aclexplode(datacl)
            WHERE datname = %s AND grantor <> datdba AND (is_grantable OR grantee = 0)
        ), passed_on AS (
            SELECT grantor FROM granted WHERE grantee = 0
            UNION SELECT granted.grantor FROM granted JOIN passed_on ON granted.grantee = passed_on.grantor
        )
        SELECT pg_get_userbyid(grantor) FROM passed_on ORDER BY 1
        """,
        database,
    )
    return [role for (role,) in rows]


async def facts(admin: Connection, database: str) -> Facts:
    """Return what identifies the database.

    Raises:
        DatabaseMissing: it is not there.

    """
    found = await look_at(admin, database)
    if found is None:
        raise DatabaseMissing(
            f'database "{database}" on {admin.server} is gone, though it was made: restore it under that name with'
            f' owner "{owner_role(database)}", or delete the Database object; it is not made again, empty'
        )
    return Facts(await system_identifier(admin), found.oid, admin.server_version)


async def system_identifier(admin: Connection) -> str | None:
    """Return the identity that the server got from initdb; None where the admin may not ask."""
    allowed = await admin.look("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
    found = await admin.look("SELECT system_identifier FROM pg_control_system()") if allowed[0][0] else []
    return str(found[0][0]) if found else None


async def prove_login(server: Server, database: str, user: str, password: str, *, limits: Limits) -> None:
    """Log in as a tenant would, and out again; not while the same task holds a connection to that server.

    Raises:
        DatabaseError: AuthenticationFailed where the password is not the role's, or another kind as it fits.

    """
    async with limits.session(server, database, user, password):
        pass


async def drop(admin: Connection, database: str, claim: Claim) -> bool:
    """Drop the database with all its sessions, its logins and its owner role, if they bear exactly this claim.

    After a crash at any point the next call goes on: the owner role, which bears the claim, goes last.

    Returns:
        Whether there was anything of ours: nothing is touched where the claim is another's or the role is gone.

    Raises:
        DatabaseInUse: a session that the admin may not end, a prepared transaction or a replication slot.
        RoleHasDependents: a role owns, or may do, something in another database.
        NameConflict: the database belongs to another role.

    """
    owner = owner_role(database)
    if await role_claim(admin, owner) != claim:
        return False
    there = await look_at(admin, database)
    if there is not None:
        if there.owner != owner:
            raise foreign_database(admin, database, there.owner)
        await join_roles(admin, database, claim)
        if there.template:
            await admin.write(_NO_TEMPLATE.format(sql.Identifier(database)))
        await _drop_database(admin, database)
    await _end_elsewhere(admin, await our_roles(admin, database, claim))
    await drop_roles(admin, database, claim)
    return True


async def _end_elsewhere(admin: Connection, ours: list[str]) -> None:
    """End sessions of our logins in other databases: of a role that is gone only a superuser can."""
    for (role,) in await admin.read("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename IS NOT NULL"):
        if role in ours:
            await silence(admin, role)


async def exists(admin: Connection, database: str) -> bool:
    """Whether there is a database of that name."""
    return bool(await admin.read("SELECT FROM pg_database WHERE datname = %s", database))


async def _drop_database(admin: Connection, database: str) -> None:
    try:
        await admin.write(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
    except InsufficientPrivilege as error:
        refused = error
    except DatabaseInUse as error:
        rows = await admin.read(_IN_THE_WAY, database, database)
        held = f": {', '.join(str(what) for (what,) in rows)}" if rows else ""
        raise DatabaseInUse(f"{error}{held}", sqlstate=error.sqlstate) from None
    else:
        return
    # The admin acts for the owner: what it was refused is to end a session.
    rows = await admin.read("SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = %s ORDER BY 1", database)
    raise DatabaseInUse(f"{refused}; sessions of {', '.join(str(name) for (name,) in rows)}: end them")


async def look_at(admin: Connection, database: str) -> State | None:
    """Return what a database is, if there is one of that name."""
    rows = await admin.look(
        """
        SELECT oid::bigint, pg_get_userbyid(datdba), shobj_description(datdba, 'pg_authid'), datconnlimit, datallowconn,
               datistemplate,
               (SELECT count(DISTINCT privilege_type) = 3 FROM aclexplode(acl) WHERE grantee = datdba),
               ARRAY(SELECT DISTINCT privilege_type FROM aclexplode(acl) WHERE grantee = 0 ORDER BY 1)
        FROM pg_database, coalesce(datacl, acldefault('d', datdba)) AS acl WHERE datname = %s
        """,
        database,
    )
    if not rows:
        return None
    oid, owner, comment, *facts = rows[0]
    return State(oid, owner, Claim.parse(comment), *facts)

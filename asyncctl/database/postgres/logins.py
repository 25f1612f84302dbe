"""The logins of one database: each bears the claim, acts by what it is a member of, and goes when no longer wanted.

An Owner acts as the owner role from its first statement on, so that what it makes belongs to that. A ReadWrite or
ReadOnly has what the role `<database>_readwrite` or `<database>_readonly` has: privileges are granted to those once,
and not to each login again at each change of password.
"""

from psycopg import sql

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Connection
from asyncctl.database.postgres.errors import DatabaseMissing, InsufficientPrivilege
from asyncctl.database.postgres.roles import (
    GROUPS,
    Role,
    acting_role,
    forget_grants,
    forget_privileges,
    join,
    mark,
    ours,
    owner_role,
    roles,
)
from asyncctl.database.postgres.wanted import Login
from asyncctl.database.types import Privileges

_MEMBER = "SELECT FROM pg_auth_members WHERE pg_get_userbyid(member) = %s AND pg_get_userbyid(roleid) = %s"
_GRANTED = "SELECT FROM pg_database, aclexplode(datacl) WHERE datname = %s AND pg_get_userbyid(grantor) = %s"


async def ensure_login(admin: Connection, login: Login, *, database: str, claim: Claim, recorded: bool = False) -> None:
    """Make sure that a login exists that may connect to the database and has the privileges of its user there.

    Args:
        admin: a session in the maintenance database.
        login: as it is to be; with a password, that is set, as a SCRAM verifier.
        database: it exists already.
        claim: ours.
        recorded: the database was made before: a member of its roles that bears no claim has lost it.

    Raises:
        NameConflict: a role of that name is not ours; nothing was written.
        InsufficientPrivilege: it keeps a privilege that it is not to have, as another role granted it.

    """
    owner, acting = owner_role(database), acting_role(database, login.privileges)
    ours_here = {owner, *(acting_role(database, group) for group in GROUPS)}
    state = (await roles(admin, database, claim)).get(login.name)
    lost = recorded and state is not None and not ours_here.isdisjoint(state.member_of)
    found = ours(admin, login.name, state, claim, lost=lost)
    if found is None and login.password is None:
        return  # one whose time is nearly over; one in use can't be proven, and comes again with its password
    about = None if found is None else login.about  # a role that is made is news of ours and no drift
    role, limit = sql.Identifier(login.name), sql.Literal(login.connection_limit)
    secret = sql.NULL if login.password is None else admin.verifier(login.name, login.password)
    if found is None:
        async with admin.transaction():
            statement = sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}")
            await admin.write(statement.format(role, limit, secret), about=about)
            await mark(admin, login.name, found, claim)
    else:
        await mark(admin, login.name, found, claim)
    if found and login.password is not None:
        await admin.write(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, secret))
    state = (await roles(admin, database, claim)).get(login.name)
    if state is None:
        raise DatabaseMissing(f'role "{login.name}" of database "{database}" on {admin.server} is gone')
    names = {"role": role, "acting": sql.Identifier(acting), "database": sql.Identifier(database), "limit": limit}
    if not state.can_log_in or state.connection_limit != login.connection_limit:
        statement = sql.SQL("ALTER ROLE {role} LOGIN INHERIT CONNECTION LIMIT {limit} VALID UNTIL 'infinity'")
        await admin.write(statement.format(**names), about=about)
    if acting not in state.acts_as:
        options = sql.SQL(" WITH SET TRUE, INHERIT TRUE" if admin.version >= 160000 else "")
        await admin.write(sql.SQL("GRANT {acting} TO {role}").format(**names) + options, about=about)
    if state.may_pass_on:
        await forget_grants(admin, database, login.name)
    if not state.may_connect:
        await admin.write(sql.SQL("GRANT CONNECT ON DATABASE {database} TO {role}").format(**names), about=about)
    await _act_as(admin, login, state, database, about)
    for group in sorted(ours_here.intersection(state.member_of) - {acting}):
        await _leave(admin, login, group, about)
    if not state.joined:
        await join(admin, login.name)  # so that its sessions can be ended when the database is dropped


async def _act_as(admin: Connection, login: Login, state: Role, database: str, about: str | None) -> None:
    """Have an Owner's sessions begin as the owner role, and nobody else's."""
    owner = owner_role(database)
    names = {"role": sql.Identifier(login.name), "database": sql.Identifier(database), "owner": sql.Identifier(owner)}
    if login.privileges is Privileges.OWNER:
        if f"role={owner}" not in state.settings:
            statement = sql.SQL("ALTER ROLE {role} IN DATABASE {database} SET role TO {owner}")
            await admin.write(statement.format(**names), about=about)
    elif any(setting.startswith("role=") for setting in state.settings):
        await admin.write(sql.SQL("ALTER ROLE {role} IN DATABASE {database} RESET role").format(**names), about=about)


async def _leave(admin: Connection, login: Login, group: str, about: str | None) -> None:
    names = {"group": sql.Identifier(group), "role": sql.Identifier(login.name)}
    await admin.write(sql.SQL("REVOKE {group} FROM {role}").format(**names), about=about)
    rows = await admin.read("SELECT pg_has_role(%s, %s, 'MEMBER')", login.name, group)
    if rows[0][0]:
        raise InsufficientPrivilege(
            f'login "{login.name}" on {admin.server} still is a member of role "{group}" after REVOKE, as another role'
            " granted it: let a superuser revoke it"
        )


async def drop_login(connection: Connection, login: str, *, database: str, claim: Claim) -> None:
    """Drop a login and keep what it made, for the owner. Does nothing where the role is gone.

    Args:
        connection: a session **in the login's database**: what a role owns is seen from there only. Where that is
            gone, in any.
        login: the role's name.
        database: the login's.
        claim: ours.

    Raises:
        NameConflict: the role is not ours; nothing was written.
        RoleHasDependents: it owns or may do something in yet another database.

    """
    if ours(connection, login, (await roles(connection, database, claim)).get(login), claim) is None:
        return
    await join(connection, login)
    names = {"role": sql.Identifier(login), "owner": sql.Identifier(owner_role(database))}
    if connection.database == database:
        for group in [owner_role(database), *(acting_role(database, group) for group in GROUPS)]:
            if await connection.read(_MEMBER, login, group):  # or what it granted others would stay, as a member's
                names["group"] = sql.Identifier(group)
                await connection.write(sql.SQL("REVOKE {group} FROM {role}").format(**names))
        if await connection.read(_GRANTED, database, login):
            await forget_grants(connection, database, login)
        await connection.write(sql.SQL("REASSIGN OWNED BY {role} TO {owner}").format(**names))
        await forget_privileges(connection, login)
    await connection.write(sql.SQL("DROP ROLE {role}").format(**names))

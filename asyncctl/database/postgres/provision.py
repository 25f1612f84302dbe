"""The SQL steps for one database, in an order in which each may be the last before a crash.

Claim, database, closed to the public, logins; each reads first and writes only what differs, so that a settled
database is only looked at.
"""

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Check, Limits, Server, connect
from asyncctl.database.postgres.database import close_to_public, drop, ensure_database, facts, lock
from asyncctl.database.postgres.errors import ServerReplaced
from asyncctl.database.postgres.roles import claim_owner, drop_login, ensure_login
from asyncctl.database.postgres.wanted import Provisioned, Wanted


async def provision(server: Server, wanted: Wanted, *, limits: Limits, check: Check) -> Provisioned:
    """Make it so.

    Raises:
        DatabaseError: As it fits; see the steps.
    """
    recorded, database = wanted.recorded, wanted.database
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        if recorded is not None:  # nothing is written where what was made can't be found
            before, now = recorded.system_identifier, (await facts(admin, database)).system_identifier
            if before and now and before != now:
                raise ServerReplaced(
                    f"{server} is another PostgreSQL server (system identifier {now}) than the one this database was "
                    f"made on ({before}): correct the catalogue; nothing was changed"
                )
        await claim_owner(admin, database, wanted.claim)
        await ensure_database(
            admin,
            database,
            made_before=recorded is not None,
            encoding=wanted.encoding,
            locale=wanted.locale,
            connection_limit=wanted.connection_limit,
        )
        await close_to_public(admin, database)
        for login in wanted.logins:
            await ensure_login(
                admin,
                login.name,
                database=database,
                claim=wanted.claim,
                password=login.password or "",
                set_password=login.password is not None,
                connection_limit=login.connection_limit,
            )
        return Provisioned(facts=await facts(admin, database))


async def remove(server: Server, database: str, claim: Claim, *, limits: Limits, check: Check) -> bool:
    """Drop the database, its logins and its owner, if they bear our claim; returns whether there was anything."""
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        return await drop(admin, database, claim)


async def retire(server: Server, database: str, login: str, *, claim: Claim, limits: Limits, check: Check) -> None:
    """Drop a login that has had its time; what it made stays, for the owner. Nothing where it is gone."""
    async with connect(server, database, limits=limits, check=check) as connection:
        await drop_login(connection, login, claim=claim)

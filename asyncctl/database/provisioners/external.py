"""A database on a server that exists already: the SQL steps, in an order in which each may be the last before a crash.

Claim, database, closed to the public, login, proof; each reads first and writes only what differs, so that a settled
database is only looked at. Secrets and status are not known here.
"""

from contextlib import suppress
from dataclasses import dataclass

from asyncctl.database.naming import login_name
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Check, Limits, Server, connect
from asyncctl.database.postgres.database import (
    Facts,
    close_to_public,
    drop,
    ensure_database,
    facts,
    lock,
    prove_login,
)
from asyncctl.database.postgres.errors import AuthenticationFailed, ConnectionLimitReached, ServerReplaced
from asyncctl.database.postgres.roles import claim_owner, ensure_login
from asyncctl.database.types import Claim as Recorded, Database


@dataclass(frozen=True, slots=True)
class External:
    """One database's place on one server. `check` is asked before each effect and raises where we may not act."""

    server: Server
    database: str
    claim: Claim
    limits: Limits
    check: Check

    async def provision(self, db: Database, password: str, *, new_password: bool) -> Facts:
        """Make it so, and prove that the login works.

        Args:
            db: What is wanted.
            password: Of the login.
            new_password: The password was made just now: set it. Otherwise it is set only where the login refuses it.

        Raises:
            DatabaseError: As it fits; see the steps.
        """
        login = login_name(self.database)
        known = await self._ensure(db, login, password, set_password=new_password)
        try:
            await self._prove(login, password)
        except AuthenticationFailed:
            if new_password:
                raise
            known = await self._ensure(db, login, password, set_password=True)
            await self._prove(login, password)
        return known

    async def remove(self) -> bool:
        """Drop the database, its logins and its owner, if they bear our claim; returns whether there was anything."""
        async with connect(self.server, limits=self.limits, check=self.check) as admin:
            await lock(admin, self.database)
            return await drop(admin, self.database, self.claim)

    async def _ensure(self, db: Database, login: str, password: str, *, set_password: bool) -> Facts:
        recorded = db.status.claim
        async with connect(self.server, limits=self.limits, check=self.check) as admin:
            await lock(admin, self.database)
            if recorded is not None:  # nothing is written where what was made can't be found
                _same_server(recorded, await facts(admin, self.database), self.server)
            await claim_owner(admin, self.database, self.claim)
            await ensure_database(
                admin,
                self.database,
                made_before=recorded is not None,
                encoding=db.spec.encoding,
                locale=db.spec.locale,
                connection_limit=db.spec.connection_limit,
            )
            await close_to_public(admin, self.database)
            await ensure_login(
                admin, login, database=self.database, claim=self.claim, password=password, set_password=set_password
            )
            return await facts(admin, self.database)

    async def _prove(self, login: str, password: str) -> None:
        with suppress(ConnectionLimitReached):  # the password was accepted before the limit was looked at
            await prove_login(self.server, self.database, login, password, limits=self.limits)


def _same_server(recorded: Recorded, found: Facts, server: Server) -> None:
    before, now = recorded.system_identifier, found.system_identifier
    if before and now and before != now:
        raise ServerReplaced(
            f"{server} is another PostgreSQL server (system identifier {now}) than the one this database was made on "
            f"({before}): correct the catalogue; nothing was changed"
        )

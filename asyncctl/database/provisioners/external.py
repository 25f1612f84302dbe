"""A database on a server that exists already: the SQL steps, then the login is proven."""

from contextlib import suppress
from dataclasses import dataclass

from asyncctl.database.naming import login_name
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Check, Limits, Server
from asyncctl.database.postgres.database import Facts, prove_login
from asyncctl.database.postgres.errors import AuthenticationFailed, ConnectionLimitReached
from asyncctl.database.postgres.provision import provision, remove
from asyncctl.database.postgres.wanted import Login, Wanted
from asyncctl.database.types import Database


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
        return await remove(self.server, self.database, self.claim, limits=self.limits, check=self.check)

    async def _ensure(self, db: Database, login: str, password: str, *, set_password: bool) -> Facts:
        wanted = Wanted(
            database=self.database,
            claim=self.claim,
            recorded=db.status.claim,
            encoding=db.spec.encoding,
            locale=db.spec.locale,
            connection_limit=db.spec.connection_limit,
            logins=(Login(name=login, password=password if set_password else None),),
        )
        return (await provision(self.server, wanted, limits=self.limits, check=self.check)).facts

    async def _prove(self, login: str, password: str) -> None:
        with suppress(ConnectionLimitReached):  # the password was accepted before the limit was looked at
            await prove_login(self.server, self.database, login, password, limits=self.limits)

"""A session of our admin, who is no superuser, on a PostgreSQL server: safe to work with, whoever used it before.

It is autocommit, bounded in time for each statement, and pins every session setting that could change what a statement
means: a tenant owns his database, and could set them there. It tells reads from writes: before each write the caller's
`check` runs (a deposed leader's raises), the server is told to give it up before the time is over that `check` gives
(this process may be stopped by then, and cancel nothing), and a warning of the server fails it, since `GRANT` and
`REVOKE` may succeed with a warning and do nothing. What was used without any failure is cleaned and kept for the next.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from asyncctl.database.postgres.errors import (
    DatabaseError,
    GivenUp,
    InsufficientPrivilege,
    ServerUnreachable,
    statement_failed,
)
from asyncctl.database.postgres.server import Server, Session, close_session, cut_line
from asyncctl.database.postgres.sessions import Limits
from asyncctl.database.postgres.slots import Use
from asyncctl.database.postgres.verifier import verifier

__all__ = ["Check", "Connection", "Limits", "Secret", "Server", "connect", "connect_as"]

# A tenant can set these for his database, and a DBA for the admin: what a statement of ours means must not depend on
# it. `SET ROLE NONE`, since RESET ROLE goes back to the database's setting; messages, since a muted warning is missed.
_SESSION = sql.SQL(
    "SET ROLE NONE; RESET ALL; SET search_path = pg_catalog, pg_temp; SET client_min_messages = notice;"
    " SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on;"
    " SET statement_timeout = {statement}; SET lock_timeout = {lock};"
    # What a session of ours holds, a database's lock above all, is free again soon after its process or its machine
    # has stopped, whatever the server believes of idle sessions and dead peers: the next leader waits for it.
    " SET idle_session_timeout = {idle}; SET idle_in_transaction_session_timeout = {idle};"
    " SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)
# Who sets this for the server or for our role wants nothing written, and is obeyed; not so a database's owner. Whose it
# is is dear to ask: only where the server, which tells of its own accord how it is set (since 14), has not said off.
_WRITABLE = sql.SQL(
    "; SELECT set_config('default_transaction_read_only', 'off', false) FROM pg_settings"
    " WHERE name = 'default_transaction_read_only' AND source = 'database'"
)
# The rest is put right when it is used again; while it idles it holds nothing, and the keepalives stay.
_CLEAN = sql.SQL("SELECT pg_advisory_unlock_all(); RESET idle_session_timeout")
_SHARE = 0.75  # of the time that is left, for a statement: so the next one, after moments, needs no other limit
_SLOW = 1000  # statements that are remembered
_CANCELED = "57014"  # SQLSTATE of a statement that has taken too long
_GRACE = 5.0  # seconds that the server has to give up what has taken too long, before it is taken for lost
Check = Callable[[], float]
"""Returns the seconds for which we may write, and raises where we may not any more."""


class Secret(sql.Literal):
    """A literal that the server gets and no message shows."""

    def __repr__(self) -> str:
        return "Secret(…)"


class Connection:
    """One open session of the admin; made by `connect`."""

    def __init__(self, server: Server, raw: Session, check: Check, limits: Limits) -> None:
        self.server = server
        self.database = raw.info.dbname
        self.version = raw.info.server_version
        """As libpq counts: 150018 is 15.18."""
        self.written: list[str] = []
        """The statements that had an effect, as they may be shown: empty when all was as it should be."""
        self.corrected: list[str] = []
        """What they put right, each once, as the spec calls it."""
        self._raw = raw
        self._check = check
        self._limits = limits
        self._slow = limits.slow
        self._failed = False  # a statement has
        self._begun: bool | None = None  # whether the transaction has, in one
        self._limit = server.statement_timeout  # seconds, as the session has it
        self._warnings: list[tuple[str, str]] = []
        self._known: dict[tuple[object, ...], list[TupleRow]] = {}
        raw.add_notice_handler(self._noticed)

    @property
    def server_version(self) -> str:
        """The server's version as it says it: `15.18`."""
        return (self._raw.info.parameter_status("server_version") or "").partition(" ")[0][:63]

    async def read(self, query: LiteralString, *parameters: str | int | None) -> list[TupleRow]:
        """Return the rows of a query that changes nothing.

        Raises:
            DatabaseError: the kind that fits.

        """
        return await (await self._execute(query, " ".join(query.split()), parameters)).fetchall()

    async def look(self, query: LiteralString, *parameters: str | int | None) -> list[TupleRow]:
        """Like `read`, but asked only once for as long as nothing is written: so each step can look for itself."""
        known = (query, *parameters)
        if known not in self._known:
            self._known[known] = await self.read(query, *parameters)
        return self._known[known]

    async def write(self, statement: sql.SQL | sql.Composed, *, about: str | None = None) -> None:
        """Execute a statement that has an effect, after `check`, and for no longer than that allows.

        One that was given up for that has all of `statement_timeout` the next time, or it would be given up for ever:
        a CREATE DATABASE takes minutes on a busy server. Late it harms nobody, whatever becomes of this process: in the
        maintenance database the session holds the database's lock (`database.lock`), so that the next leader waits for
        its end; what comes late inside of a database, its next pass finds and puts right.

        Args:
            statement: composed; a secret in it is a `Secret`.
            about: what it puts right, as the spec calls it, for `corrected`; such as `connectionLimit`.

        Raises:
            InsufficientPrivilege: the server warned instead of doing it (SQLSTATE class 01).
            GivenUp: see above.
            DatabaseError: the kind that fits; or what `check` raises.

        """
        self._known.clear()
        shown = _shown(statement)
        known = self.server.name, shown
        left = self._check()
        if self._begun is False:
            await self._execute("BEGIN", "BEGIN")
            self._begun = True
        await self._limit_to(math.inf if known in self._slow else left)
        self._warnings.clear()
        try:
            await self._execute(statement, shown)
        except ServerUnreachable as error:
            if error.sqlstate != _CANCELED or self._limit >= self.server.statement_timeout:
                raise
            self._remember(known)
            raise GivenUp(
                f"{error}; it had {self._limit:.3g} s, so that it ends before the Lease does: the next time it has"
                f" {self.server.statement_timeout:g} s",
                sqlstate=error.sqlstate,
            ) from None
        self._slow.discard(known)
        self.written.append(shown)
        for sqlstate, text in self._warnings:
            raise InsufficientPrivilege(
                f"{shown} did nothing on {self._where}: {text} (SQLSTATE {sqlstate}): give the admin role what is"
                " missing",
                sqlstate=sqlstate,
            )
        if about is not None and about not in self.corrected:
            self.corrected.append(about)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Make the writes of the block one; `check` runs again before they take effect. None within another.

        It begins with the first write: where there is none, nothing is sent.
        """
        limit = self._limit  # a SET in the block is undone with it
        self._begun = False
        try:
            yield
            if not self._begun:
                return
            await self._limit_to(self._check())
            done = await self._execute("COMMIT", "COMMIT")
        except Exception:
            self._limit = limit
            self._known.clear()
            if self._raw.info.transaction_status is not TransactionStatus.IDLE:
                with suppress(DatabaseError):  # the session is lost then, and the transaction with it
                    await self._execute("ROLLBACK", "ROLLBACK")
            raise
        finally:
            self._begun = None
        if done.statusmessage != "COMMIT":
            self._limit = limit
            raise DatabaseError(f"COMMIT on {self._where} undid all, since a statement before it had failed")

    def verifier(self, user: str, password: str) -> Secret:
        """Return the SCRAM-SHA-256 verifier (RFC 5803) that the server keeps instead of the password.

        Ours are in ASCII. libpq knows what becomes of other characters, but lets the server say how much it computes.
        """
        if password.isascii():
            return Secret(verifier(password))
        algorithm = b"scram-sha-256"
        return Secret(self._raw.pgconn.encrypt_password(password.encode(), user.encode(), algorithm).decode())

    async def pin_settings(self) -> None:
        """Make the session's settings ours, whatever role, database and the use before say; `connect` has done it."""
        times = self._limit, self.server.lock_timeout, self.server.idle_timeout
        statement, lock, idle = (int(1000 * seconds) for seconds in times)
        settings = _SESSION.format(statement=statement, lock=lock, idle=idle)
        if (
            self.database != self.server.maintenance_database
            and self._raw.info.parameter_status("default_transaction_read_only") != "off"
        ):
            settings += _WRITABLE
        await self._execute(settings, "SET", within=self.server.connect_timeout)

    async def close(self) -> None:
        """Let go of the session: it is kept for its next use where nothing of this one can be left, else closed."""
        kept = False
        try:
            with suppress(DatabaseError):  # it is lost
                kept = await self._is_reusable() and self._limits.keep(self.server, self._raw)
        finally:
            if not kept:
                await self.abort()

    async def abort(self) -> None:
        """Close the session, whatever it does."""
        await close_session(self._raw)

    async def _is_reusable(self) -> bool:
        if self._failed or self.database != self.server.maintenance_database:
            return False
        if self._raw.info.transaction_status is not TransactionStatus.IDLE:
            return False
        await self._execute(_CLEAN, "RESET", within=self.server.connect_timeout)
        self._raw.remove_notice_handler(self._noticed)
        return True

    def _remember(self, slow: tuple[str, str]) -> None:
        if len(self._slow) >= _SLOW:
            self._slow.clear()
        self._slow.add(slow)

    async def _limit_to(self, left: float) -> None:
        """Have the server give up a statement before `left` seconds are over; without need, nothing is sent."""
        wanted = min(self.server.statement_timeout, _SHARE * left)
        if wanted / 2 <= self._limit <= min(left, self.server.statement_timeout):
            return
        milliseconds = max(1, int(1000 * wanted))  # 0 would be no limit
        await self._execute(sql.SQL("SET statement_timeout = {}").format(milliseconds), "SET statement_timeout")
        self._limit = wanted
        self._check()  # that took its time

    async def _execute(
        self,
        query: LiteralString | sql.SQL | sql.Composed,
        shown: str,
        parameters: Sequence[object] | None = None,
        *,
        within: float | None = None,
    ) -> psycopg.AsyncCursor[TupleRow]:
        """Execute a statement; `within` is how many seconds later it must have ended, if it has no time limit."""
        loop = asyncio.get_running_loop()
        began, within = loop.time(), self._limit + _GRACE if within is None else within
        cut = loop.call_at(began + within, cut_line, self._raw)  # the driver's own way out would ask who is silent
        try:
            return await self._raw.execute(query, parameters)
        except psycopg.Error as error:
            failure = statement_failed(error, shown, self._where)
        finally:
            cut.cancel()
            self._limits.took(_operation(shown), began)
        self._failed = True
        if loop.time() >= began + within:
            failure = ServerUnreachable(
                f"no answer to {shown} on {self._where} within {within:g} s: look after the server and the way to it"
            )
        raise failure  # out here, or the driver's exception, which may quote the statement, would be its context

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if (notice.sqlstate or "").startswith("01"):
            self._warnings.append((notice.sqlstate or "", notice.message_primary or ""))

    @property
    def _where(self) -> str:
        return self.server.place(self.database, self.server.admin_user)


@asynccontextmanager
async def connect(
    server: Server,
    database: str | None = None,
    *,
    limits: Limits,
    check: Check = lambda: math.inf,
) -> AsyncIterator[Connection]:
    """Have a session of the admin for the length of the block; one at a time for each task and server.

    Cancelled, it cancels the running statement on the server, then closes.

    Args:
        server: where, and as whom.
        database: the maintenance database when not given.
        limits: keeps and counts the sessions of this process.
        check: called right before each effect; see `Check`.

    Raises:
        DatabaseError: ServerUnreachable, AuthenticationFailed, TooManyConnections and others, as they fit.

    """
    use = Use.ADMIN if database in {None, server.maintenance_database} else Use.OTHER
    async with limits.slot(server, use):
        connection = await _kept(server, limits, check) if use is Use.ADMIN else None
        if connection is None:
            connection = await _opened(server, database or server.maintenance_database, limits, check)
        try:
            with limits.answered(server):
                yield connection
        except BaseException:
            await connection.abort()
            raise
        await connection.close()


@asynccontextmanager
async def connect_as(
    server: Server, database: str, user: str, password: str, *, limits: Limits, check: Check
) -> AsyncIterator[Connection]:
    """Open a session of another than the admin, of our own connections, for the length of the block; never kept.

    It acts as that user, who has what the roles have that he is a member of; whatever the server has it begin as.
    """
    async with limits.session(server, database, user, password) as session:
        connection = Connection(server, session, check, limits)
        await connection.pin_settings()
        yield connection


async def _kept(server: Server, limits: Limits, check: Check) -> Connection | None:
    """Return a session that was used before and still answers."""
    session = limits.take(server)
    if session is None:
        return None
    try:
        return await _ready(server, session, check, limits)
    except DatabaseError:  # ended by the server, or cut, as the others may be: a new one tells how things stand
        await limits.close_idle_of(server)
        return None


async def _opened(server: Server, database: str, limits: Limits, check: Check) -> Connection:
    session = await limits.open(server, database, server.admin_user, server.admin_password)
    return await _ready(server, session, check, limits)


async def _ready(server: Server, session: Session, check: Check, limits: Limits) -> Connection:
    try:
        connection = Connection(server, session, check, limits)
        await connection.pin_settings()
    except BaseException:
        await close_session(session)
        raise
    return connection


def _operation(shown: str) -> str:
    """Return what kind of statement it is, without any name: `CREATE ROLE`, `GRANT`."""
    match = re.match(r"((CREATE|ALTER|DROP) )?[A-Z]+", shown)
    return match[0] if match else ""


def _shown(statement: sql.Composable) -> str:
    if isinstance(statement, sql.Composed):
        return "".join(_shown(part) for part in statement)
    return "'…'" if isinstance(statement, Secret) else statement.as_string()

"""Connections to PostgreSQL servers, for an admin that is no superuser.

A connection is autocommit, short-lived, bounded in number for each server and in time for each statement, and pins
every session setting that could change what a statement means: a tenant owns his database, and could set them there.
It tells reads from writes: before each write the caller's `check` runs (a deposed leader's raises), the server is told
to give it up before the time is over that `check` gives (this process may be stopped by then, and cancel nothing), and
a warning of the server fails it, since `GRANT` and `REVOKE` may succeed with a warning and do nothing.
"""

import asyncio
import ipaddress
import math
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import anyio
import anyio.to_thread
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from asyncctl.database.postgres.errors import (
    DatabaseError,
    InsufficientPrivilege,
    ServerUnreachable,
    TooManyConnections,
    connection_failed,
    statement_failed,
)
from asyncctl.database.types import SslMode

# A tenant can set these for his database, and a DBA for the admin: what a statement of ours means must not depend on
# it. `SET ROLE NONE`, since RESET ROLE goes back to the database's setting; messages, since a muted warning is missed.
_SESSION = sql.SQL(
    "SET ROLE NONE; SET search_path = pg_catalog, pg_temp; SET client_min_messages = notice;"
    " SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';"
    " SET standard_conforming_strings = on; SET statement_timeout = {statement}; SET lock_timeout = {lock};"
    # What a session of ours holds, a database's lock above all, is free again soon after its process or its machine
    # has stopped, whatever the server believes of idle sessions and dead peers: the next leader waits for it.
    " SET idle_session_timeout = {idle}; SET idle_in_transaction_session_timeout = {idle};"
    " SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)

_SHARE = 0.75  # of the time that is left, for a statement: so the next one, after moments, needs no other limit
_SLOW = 1000  # statements that are remembered
_CANCELED = "57014"  # SQLSTATE of a statement that has taken too long
Check = Callable[[], float]
"""Returns the seconds for which we may write, and raises where we may not any more."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL server and our admin role on it (CREATEROLE and CREATEDB; not a superuser)."""

    name: str
    host: str
    address: str | None = None
    port: int = 5432
    ssl_mode: SslMode = SslMode.VERIFY_FULL
    ca_file: Path | None = None
    admin_user: str
    admin_password: str = field(repr=False)
    maintenance_database: str = "postgres"
    max_connections: int = 5
    connect_timeout: float = 10.0  # seconds, as the next three
    statement_timeout: float = 120.0
    lock_timeout: float = 10.0
    idle_timeout: float = 30.0

    def __str__(self) -> str:
        return f"server {self.name} ({self.host}:{self.port})"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, so that no network sees what is sent."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Limits:
    """How many connections of ours each server has at once: at most its `max_connections`.

    A task holds at most one of a server's connections: a second would raise RuntimeError, since tasks that hold one
    while they wait for another could wait for each other forever.
    """

    def __init__(self) -> None:
        self._by_server: dict[str, anyio.CapacityLimiter] = {}
        self.slow: set[tuple[str, str]] = set()
        """Of which server, what the Lease's time was too short for when it was tried last."""

    @asynccontextmanager
    async def slot(self, server: Server) -> AsyncIterator[None]:
        """Hold one of the server's connections for the length of the block; wait for it as long as for a connection.

        Raises:
            TooManyConnections: none was free in time.

        """
        limiter = self._by_server.setdefault(server.name, anyio.CapacityLimiter(server.max_connections))
        limiter.total_tokens = server.max_connections
        try:
            async with asyncio.timeout(server.connect_timeout):
                await limiter.acquire()
        except TimeoutError:
            raise TooManyConnections(
                f"all {server.max_connections} connections that we may have to {server} were in use for"
                f" {server.connect_timeout:g} s: raise its maxConnections"
            ) from None
        try:
            yield
        finally:
            limiter.release()


class Secret(sql.Literal):
    """A literal that the server gets and no message shows."""

    def __repr__(self) -> str:
        return "Secret(…)"


class Connection:
    """One open session of the admin; made by `connect`."""

    def __init__(self, server: Server, raw: psycopg.AsyncConnection[TupleRow], check: Check, limits: Limits) -> None:
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
        self._slow = limits.slow
        self._limit = server.statement_timeout  # seconds, as the session has it
        self._warnings: list[tuple[str, str]] = []
        raw.add_notice_handler(self._noticed)

    @property
    def server_version(self) -> str:
        """The server's version as it says it: `15.18`."""
        return (self._raw.info.parameter_status("server_version") or "").partition(" ")[0]

    async def read(self, query: LiteralString, *parameters: str | int | None) -> list[TupleRow]:
        """Return the rows of a query that changes nothing.

        Raises:
            DatabaseError: the kind that fits.

        """
        return await (await self._execute(query, " ".join(query.split()), parameters)).fetchall()

    async def write(self, statement: sql.SQL | sql.Composed, *, about: str | None = None) -> None:
        """Execute a statement that has an effect, after `check`, and for no longer than that allows.

        One that was given up for that has all of `statement_timeout` the next time, or it would be given up for ever:
        a CREATE DATABASE takes minutes on a busy server. Late it harms nobody, whatever becomes of this process: the
        session holds the database's lock (`database.lock`), so that the next leader waits for its end.

        Args:
            statement: composed; a secret in it is a `Secret`.
            about: what it puts right, as the spec calls it, for `corrected`; such as `connectionLimit`.

        Raises:
            InsufficientPrivilege: the server warned instead of doing it (SQLSTATE class 01).
            DatabaseError: the kind that fits; or what `check` raises.

        """
        shown = _shown(statement)
        known = self.server.name, shown
        left = self._check()
        await self._limit_to(math.inf if known in self._slow else left)
        self._warnings.clear()
        try:
            await self._execute(statement, shown)
        except ServerUnreachable as error:
            if error.sqlstate != _CANCELED or self._limit >= self.server.statement_timeout:
                raise
            self._remember(known)
            raise ServerUnreachable(
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
        """Make the writes of the block one; `check` runs again before they take effect."""
        limit = self._limit  # a SET in the block is undone with it
        try:
            async with self._raw.transaction():
                yield
                await self._limit_to(self._check())
            limit = self._limit
        except psycopg.Error as error:
            failure = statement_failed(error, "COMMIT", self._where)
        else:
            return
        finally:
            self._limit = limit
        raise failure

    def verifier(self, user: str, password: str) -> Secret:
        """Return the SCRAM-SHA-256 verifier (RFC 5803) that the server keeps instead of the password."""
        algorithm = b"scram-sha-256"
        return Secret(self._raw.pgconn.encrypt_password(password.encode(), user.encode(), algorithm).decode())

    async def pin_settings(self) -> None:
        """Make the session's settings ours, whatever role and database say; `connect` has done it."""
        times = self._limit, self.server.lock_timeout, self.server.idle_timeout
        statement, lock, idle = (int(1000 * seconds) for seconds in times)
        await self._execute(_SESSION.format(statement=statement, lock=lock, idle=idle), "SET")

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
        self, query: LiteralString | sql.SQL | sql.Composed, shown: str, parameters: Sequence[object] | None = None
    ) -> psycopg.AsyncCursor[TupleRow]:
        try:
            return await self._raw.execute(query, parameters)
        except psycopg.Error as error:
            failure = statement_failed(error, shown, self._where)
        raise failure  # out here, or the driver's exception, which may quote the statement, would be its context

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if (notice.sqlstate or "").startswith("01"):
            self._warnings.append((notice.sqlstate or "", notice.message_primary or ""))

    @property
    def _where(self) -> str:
        return _place(self.server, self.database, self.server.admin_user)


@asynccontextmanager
async def connect(
    server: Server,
    database: str | None = None,
    *,
    limits: Limits,
    check: Check = lambda: math.inf,
) -> AsyncIterator[Connection]:
    """Open a session of the admin for the length of the block; one at a time for each task and server.

    Cancelled, it cancels the running statement on the server, then closes.

    Args:
        server: where, and as whom.
        database: the maintenance database when not given.
        limits: counts the connections of this process.
        check: called right before each effect; see `Check`.

    Raises:
        DatabaseError: ServerUnreachable, AuthenticationFailed, TooManyConnections and others, as they fit.

    """
    database = database or server.maintenance_database
    async with limits.slot(server):
        raw = await open_session(server, database, server.admin_user, server.admin_password)
        try:
            connection = Connection(server, raw, check, limits)
            await connection.pin_settings()
            yield connection
        finally:
            await raw.close()


@asynccontextmanager
async def connect_as(
    server: Server, database: str, user: str, password: str, *, limits: Limits, check: Check
) -> AsyncIterator[Connection]:
    """Open a session of another than the admin, of our own connections, for the length of the block; never kept.

    Its role is the one that the server gives it: of a login of ours, the database's owner.
    """
    async with limits.slot(server):
        raw = await open_session(server, database, user, password)
        try:
            connection = Connection(server, raw, check, limits)
            await connection.pin_settings()
            yield connection
        finally:
            await raw.close()


async def open_session(server: Server, database: str, user: str, password: str) -> psycopg.AsyncConnection[TupleRow]:
    """Open a bare session as any user; the caller closes it. Raises as `connect` does."""
    where = _place(server, database, user)
    try:
        async with asyncio.timeout(server.connect_timeout):
            return await psycopg.AsyncConnection.connect(
                host=server.host,
                hostaddr=server.address,
                port=server.port,
                dbname=database,
                user=user,
                password=password,
                sslmode=server.ssl_mode,
                sslrootcert=await _authorities(server),
                # Without a proof of who the server is, it must not be able to ask for the password in clear.
                require_auth=None if server.ssl_mode.startswith("verify-") else "!password",
                gssencmode="disable",
                application_name="asyncctl",
                client_encoding="UTF8",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=30_000,
                autocommit=True,
                prepare_threshold=None,
            )
    except psycopg.Error as error:
        failure: DatabaseError = connection_failed(error, where)
    except TimeoutError:
        failure = ServerUnreachable(
            f"can't connect to {where}: no answer within {server.connect_timeout:g} s: check that it runs, its"
            " host and its port"
        )
    raise failure


async def _authorities(server: Server) -> str | None:
    """Return the file of the authorities to trust: the server's own, else the machine's."""
    if not server.ssl_mode.startswith("verify-"):
        return None
    return str(server.ca_file) if server.ca_file else await anyio.to_thread.run_sync(_trust_store)


def _trust_store() -> str:
    """Return the machine's bundle: `system` alone may not find it, as psycopg's binary brings an OpenSSL of its own."""
    debian, red_hat = "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"
    files = (ssl.get_default_verify_paths().cafile, debian, red_hat)
    return next((file for file in files if file and Path(file).is_file()), "system")


def _place(server: Server, database: str, user: str) -> str:
    return f'{server}, database "{database}", as "{user}"'


def _shown(statement: sql.Composable) -> str:
    if isinstance(statement, sql.Composed):
        return "".join(_shown(part) for part in statement)
    return "'…'" if isinstance(statement, Secret) else statement.as_string()

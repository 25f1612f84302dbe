"""A PostgreSQL server, our admin on it, and how a session is opened there: who it is is proven, within a deadline.

A session is a bare one of the driver, of whoever has a name and a password; `connection` makes one of the admin's
safe to work with, `sessions` keeps and counts them.
"""

import asyncio
import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
import psycopg
from psycopg.rows import TupleRow

from asyncctl.database.postgres import startup
from asyncctl.database.postgres.bounded import BoundedConnection
from asyncctl.database.postgres.errors import DatabaseError, ServerUnreachable, connection_failed
from asyncctl.database.postgres.threads import Threads
from asyncctl.database.types import SslMode

Session = psycopg.AsyncConnection[TupleRow]

_GOODBYE = 2.0  # seconds for the server to end a session that was closed


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL server and our admin role on it (CREATEROLE and CREATEDB; not a superuser).

    Attributes:
        name: Unique in this process: connections are counted by it.
        host: What the server's certificate is to name, and what messages show.
        address: Where to connect to, an IP address; None to ask the name service for `host`.
        port: TCP.
        ssl_mode: As libpq's.
        ca_file: The authorities to trust; None for the machine's.
        ca_digest: Of that file's content, so that other content makes another server.
        admin_user: Our role.
        admin_password: Its password.
        maintenance_database: Where our role works on roles and databases.
        max_connections: Of ours at once, at most.
        tenants: It is a tenant's own, and may mean harm.
        connect_timeout: Seconds, as the next three.
        statement_timeout: After which the server gives a statement up.
        lock_timeout: After which it gives up to wait for a lock.
        idle_timeout: After which it ends a session that holds something and asks nothing.
    """

    name: str
    host: str
    address: str | None = None
    port: int = 5432
    ssl_mode: SslMode = SslMode.VERIFY_FULL
    ca_file: Path | None = None
    ca_digest: str | None = None
    admin_user: str
    admin_password: str = field(repr=False)
    maintenance_database: str = "postgres"
    max_connections: int = 5
    tenants: bool = False
    connect_timeout: float = 10.0
    statement_timeout: float = 120.0
    lock_timeout: float = 10.0
    idle_timeout: float = 30.0

    def __str__(self) -> str:
        return f"server {self.name} ({self.host}:{self.port})"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, so that no network sees what is sent."""
        host = self.address or self.host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def place(self, database: str, user: str) -> str:
        """Return where something happened, for messages."""
        return f'{self}, database "{database}", as "{user}"'


async def open_session(server: Server, database: str, user: str, password: str, threads: Threads) -> Session:
    """Open a bare session as any user, by `threads` on a tenant's server; `close_session` is for the caller.

    Raises:
        DatabaseError: ServerUnreachable, AuthenticationFailed, TooManyConnections and others, as they fit.

    """
    where, kind = server.place(database, user), threads.connection if server.tenants else BoundedConnection
    try:
        async with asyncio.timeout(server.connect_timeout):
            try:
                return await _connect(kind, server, database, user, password)
            except psycopg.Error as error:
                if not startup.was_cut_off(error):
                    raise
            return await _connect(kind, server, database, user, password, since_17=True)
    except psycopg.Error as error:
        failure: DatabaseError = connection_failed(error, where)
    except TimeoutError:
        failure = ServerUnreachable(
            f"can't connect to {where}: no answer within {server.connect_timeout:g} s: check that it runs, its"
            " host and its port"
        )
    raise failure  # out here, or the driver's exception would be its context


async def _connect(
    kind: type[BoundedConnection], server: Server, database: str, user: str, password: str, *, since_17: bool = False
) -> Session:
    session = await kind.connect(
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
        options=startup.options(since_17=since_17),
        client_encoding="UTF8",
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
        autocommit=True,
        prepare_threshold=None,
    )
    if since_17 or session.info.server_version < 170000:
        return session
    try:
        shown = await (await session.execute("SHOW transaction_timeout")).fetchone()
    except psycopg.Error:
        shown = None
    except BaseException:
        await session.close()
        raise
    if shown == ("0",):
        return session
    await session.close()
    return await _connect(kind, server, database, user, password, since_17=True)


async def close_session(session: Session) -> None:
    """Close a session, and wait until the server has ended it: so long it counts there, for the limits of a role too.

    The server closes the line last of all. Who does not within moments is not waited for.
    """
    if session.closed:
        return
    with socket.socket(fileno=os.dup(session.fileno())) as line:
        line.setblocking(False)
        await session.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                while await asyncio.get_running_loop().sock_recv(line, 4096):
                    pass


def cut_line(session: Session) -> None:
    """Have whoever waits for the server see the session end now."""
    if not session.closed:
        with socket.socket(fileno=os.dup(session.fileno())) as line, suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)


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

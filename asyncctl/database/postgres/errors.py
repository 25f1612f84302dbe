"""What can go wrong with a PostgreSQL server, as one tree of errors with the reasons that conditions show.

Each message says what happened, on which server and database, and what to do. None ever carries a password, a
verifier or a driver's exception: only the server's primary message, detail and hint are taken over, never the
excerpt of the statement that libpq adds, and nothing is chained.
"""

import re
from typing import ClassVar

import psycopg


class DatabaseError(Exception):
    """A step on a PostgreSQL server failed."""

    reason: ClassVar[str] = "StatementFailed"
    stalled: ClassVar[bool] = False
    """Trying again soon is useless: someone has to change something first."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.told = False
        """The log has it already, as of the server."""


class ServerUnreachable(DatabaseError):
    """No connection, or none that lasted, or no answer in time."""

    reason = "ServerUnreachable"


class GivenUp(ServerUnreachable):
    """It had less time than a statement may take, since the Lease was about to end; the next time it has all of it."""


class AuthenticationFailed(DatabaseError):
    """The server refused this user or password."""

    reason = "AuthenticationFailed"


class TooManyConnections(DatabaseError):
    """The server's limit, or ours for this server, is used up."""

    reason = "TooManyConnections"


class ServerReadOnly(DatabaseError):
    """The server takes no writes: it is a standby, or a DBA has said so."""

    reason = "ServerReadOnly"


class ServerFull(DatabaseError):
    """A disk of the server is full."""

    reason = "ServerFull"


class ServerExhausted(DatabaseError):
    """The server lacks memory, locks or another resource."""

    reason = "ServerExhausted"


class ConnectionLimitReached(TooManyConnections):
    """The database's or the role's own limit is used up; the login itself was accepted."""


class InsufficientPrivilege(DatabaseError):
    """The admin may not do what the step needs; also when the server only warned, and did nothing."""

    reason = "InsufficientPrivilege"
    stalled = True


class NameConflict(DatabaseError):
    """The role or database is somebody else's. Nothing was written."""

    reason = "NameConflict"
    stalled = True


class DatabaseMissing(DatabaseError):
    """The database is not there, though it should be. It is never silently made again, empty."""

    reason = "DatabaseMissing"
    stalled = True


class ServerReplaced(DatabaseError):
    """Another server answers in the place of the one that the database was made on. Nothing was written."""

    reason = "ServerReplaced"
    stalled = True


class InvalidRequest(DatabaseError):
    """The server does not know the encoding, locale or another value that was asked for."""

    reason = "Invalid"
    stalled = True


class DatabaseInUse(DatabaseError):
    """Someone's session, prepared transaction or lock is in the way."""

    reason = "DatabaseInUse"


class RoleHasDependents(DatabaseError):
    """A role still owns something, or holds a privilege, in another database."""

    reason = "RoleHasDependents"


_LONGEST = 1000  # characters of what a server says

# By SQLSTATE, or its class (two characters) where the exact code is not listed.
_BY_SQLSTATE: dict[str, tuple[type[DatabaseError], str]] = {
    "08": (ServerUnreachable, "check that the server runs and can be reached"),
    "57014": (ServerUnreachable, "it took too long: look for locks and load on the server"),
    "57": (ServerUnreachable, "the server is starting or stopping"),
    "28": (AuthenticationFailed, "check the user and the password"),
    "53300": (TooManyConnections, "end sessions, or raise the limit"),
    "53100": (ServerFull, "free or add space on the server"),
    "53": (ServerExhausted, "see the server's log, and give it more of what it lacks"),
    "25006": (ServerReadOnly, "name the primary, or set default_transaction_read_only to off for the server and admin"),
    "42501": (InsufficientPrivilege, "give the admin role what is missing"),
    "42P04": (NameConflict, "make a new Database with another databaseName"),
    "42710": (NameConflict, "make a new Database with another databaseName"),
    "3D000": (DatabaseMissing, "check the name, or restore the database"),
    "55006": (DatabaseInUse, "end what uses it"),
    "55P03": (DatabaseInUse, "end the session that holds the lock"),
    "40": (DatabaseInUse, "another session was at work on the same: it is tried again"),
    "2BP01": (RoleHasDependents, "drop, reassign or revoke what depends on it"),
    "22": (InvalidRequest, "correct the value"),
    "42704": (InvalidRequest, "correct the value"),
    "42809": (InvalidRequest, "correct the value"),
}

# A connection that fails has a text but no SQLSTATE (libpq keeps it to itself). The texts are those of an English
# server; one that speaks another language is judged by whether it was given a password.
_BY_TEXT: tuple[tuple[str, type[DatabaseError], str], ...] = (
    ("too many connections for (database|role)", ConnectionLimitReached, "end sessions, or raise connectionLimit"),
    ("too many connections|too many clients|connection slots are reserved", *_BY_SQLSTATE["53300"]),
    ('database ".*" does not exist', *_BY_SQLSTATE["3D000"]),
    ("permission denied for database", InsufficientPrivilege, "grant CONNECT on the database"),
    ("pg_hba.conf", AuthenticationFailed, "let this host and user in by pg_hba.conf, or correct sslMode"),
    ("the database system is|invalid database", *_BY_SQLSTATE["57"]),
    ("out of (shared )?memory", *_BY_SQLSTATE["53"]),
    ("No space left on device", *_BY_SQLSTATE["53100"]),
    ('authentication|role ".*" does not exist|not permitted to log in', *_BY_SQLSTATE["28"]),
    ("certificate|SSL", ServerUnreachable, "check sslMode, caFile and the server's certificate"),
)


def statement_failed(error: psycopg.Error, statement: str, where: str) -> DatabaseError:
    """Translate what the driver raised for a statement.

    Args:
        error: the driver's exception; the caller must not chain it.
        statement: how the statement may be shown (no secrets).
        where: server, database and user.

    """
    code, said = error.sqlstate, error.diag
    if code is None or said.message_primary is None:
        return ServerUnreachable(f"the connection was lost at {statement} on {where}: {_one_line(error)}")
    kind, advice = _BY_SQLSTATE.get(code) or _BY_SQLSTATE.get(code[:2]) or (DatabaseError, "see the server's log")
    parts = (said.message_primary, said.message_detail, said.message_hint)
    text = _short("; ".join(part.rstrip(".") for part in parts if part))
    return kind(f"{statement} failed on {where}: {text} (SQLSTATE {code}): {advice}", sqlstate=code)


def connection_failed(error: psycopg.Error, where: str) -> DatabaseError:
    """Translate what the driver raised for a connection attempt; the caller must not chain it."""
    text = _one_line(error)
    for pattern, kind, advice in _BY_TEXT:
        if re.search(pattern, text):
            return kind(f"can't connect to {where}: {text}: {advice}")
    asked = error.pgconn is not None and error.pgconn.used_password
    if asked and not re.search("server closed|could not|timeout", text):
        return AuthenticationFailed(f"can't connect to {where}: {text}: check the user and the password")
    return ServerUnreachable(f"can't connect to {where}: {text}: check that the server runs, its host and its port")


def _one_line(error: psycopg.Error) -> str:
    """Return the text without libpq's prefixes and, of several addresses, the last one's only."""
    text = str(error).partition("Multiple connection attempts failed")[0]
    text = re.sub(r"^connection (failed|is bad): |connection to server at .*? failed: |FATAL: +", "", text)
    return _short(text)


def _short(text: str) -> str:
    """Return the server's words on one line, and no more of them than fit there: it may be anybody's server."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

"""What goes wrong with a `Database`, told to who has it, and what the runtime is to do then: the failure table.

It is tried again soon (`TransientError`), or slowly and after each change (`TerminalError`); what is waited for wakes
the object. An outage of the API server, or that somebody else wrote first, is no news of the database. What nobody
foresaw is told as such, and raised as it is: the runtime logs it, counts it, and parks what it keeps happening to.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from asyncctl import Context, NotOwned, TerminalError, TransientError
from asyncctl.client.errors import (
    ApplyConflict,
    Conflict,
    Forbidden,
    Invalid,
    KubernetesError,
    ServerError,
    StatusError,
    TooManyRequests,
    Unauthorized,
)
from asyncctl.database import status
from asyncctl.database.catalogue import ServerRefused
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.provisioners.place import PlaceRefused, Stopped, Waiting
from asyncctl.database.status import Failed
from asyncctl.database.types import Database, Phase


@contextmanager
def told(ctx: Context, db: Database) -> Iterator[None]:
    """Say in the status what the block raises, and raise what the runtime understands."""
    try:
        yield
    except Exception as error:
        failure = understood(error)
        if failure is None:
            raise
        _say(ctx, db, failure)
        if failure.stalled:
            raise TerminalError(failure.message, reason=failure.reason) from error
        if failure.unforeseen:
            raise
        raise TransientError(failure.message, told=isinstance(error, DatabaseError) and error.told) from error


def wait(ctx: Context, db: Database, waiting: Waiting) -> None:
    """Say what is waited for, of an object that will be woken by it."""
    _say(ctx, db, _of(waiting))


def understood(error: Exception) -> Failed | None:
    """What `error` means for the database; None where it means nothing."""
    message = str(error)
    match error:
        case Waiting():
            return _of(error)
        case DatabaseError():
            return Failed("DatabaseReady", error.reason, message, stalled=error.stalled)
        case ServerRefused():  # what is not stalled can be allowed at any time, which wakes nobody
            return Failed("DatabaseReady", error.reason, message, stalled=error.stalled)
        case PlaceRefused():
            return Failed(error.aspect, error.reason, message, stalled=True)
        case TerminalError():
            return Failed("", error.reason, message, stalled=True)
        case NotOwned():
            return Failed("CredentialsReady", "SecretNotOwned", message, stalled=True)
        case Forbidden():
            reason = "QuotaExceeded" if "exceeded quota" in error.server_message else "Forbidden"
            return Failed("CredentialsReady", reason, message, stalled=True)
        case Invalid():
            return Failed("CredentialsReady", "Invalid", message, stalled=True)
        case ApplyConflict():
            return Failed("CredentialsReady", "FieldConflict", message)
        case Conflict() | TooManyRequests() | Unauthorized() | ServerError():
            return None
        case StatusError():
            return Failed("", "RequestRefused", message, unforeseen=True)
        case KubernetesError() | TransientError():
            return None
        case _:
            text = f"{type(error).__name__}, which nobody foresaw: the log of the operator has more"
            return Failed("", "InternalError", text, unforeseen=True)


def _of(waiting: Waiting) -> Failed:
    phase = Phase.SUSPENDED if isinstance(waiting, Stopped) else Phase.PENDING
    return Failed(waiting.aspect, waiting.reason, str(waiting), phase=phase, progress=not waiting.trouble)


def _say(ctx: Context, db: Database, failure: Failed) -> None:
    news = status.failed(db.status, failure, deleting=ctx.header.deleting)
    if news and not failure.progress and not failure.stalled:  # of what is stalled the runtime says it
        ctx.warning(failure.reason, failure.message)

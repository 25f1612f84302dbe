"""What goes wrong with a `Database`, told to who has it, and what the runtime is to do then: the failure table.

An error of PostgreSQL's side has its own reason; one of the API server's side is a matter of the Secret, most often.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asyncctl.client.errors import ApplyConflict, Forbidden, Invalid
from asyncctl.controller.context import Context
from asyncctl.controller.outcome import NotOwned, TerminalError, TransientError
from asyncctl.database import status
from asyncctl.database.catalogue import ServerRefused
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.provisioners.place import PlaceRefused, Stopped, Waiting
from asyncctl.database.types import Database, Phase


@dataclass(slots=True)
class Pass:
    """How a block of `told` has ended.

    Attributes:
        after: Seconds after which it is to be looked at again, where that is soon.
    """

    after: float | None = None


@contextmanager
def told(ctx: Context, db: Database) -> Iterator[Pass]:
    """Say in the status what the block raises, and raise what the runtime understands.

    `Waiting` ends the block and is no failure, since what is waited for wakes the object; but where `db` is being
    deleted, and returning would let it go.
    """
    this = Pass()
    try:
        yield this
    except Exception as error:
        failure = understood(error)
        if failure is None:
            raise
        news = status.failed(db.status, failure, deleting=ctx.header.deleting)
        if failure.stalled:  # the runtime says it by an event
            raise TerminalError(failure.message, reason=failure.reason) from error
        if isinstance(error, Stopped) and not ctx.header.deleting:
            db.status.phase = Phase.SUSPENDED
        if news and not (isinstance(error, Waiting) and not error.trouble):
            ctx.warning(failure.reason, failure.message)
        if isinstance(error, Waiting):
            this.after = error.after
        if not isinstance(error, Waiting) or ctx.header.deleting:
            raise TransientError(failure.message) from error


def understood(error: Exception) -> status.Failed | None:
    """What `error` means for the database; None where the API server's outage or a conflict is all there is to it."""
    message = str(error)
    match error:
        case Waiting():
            return status.Failed(error.aspect, error.reason, message, stalled=False)
        case DatabaseError():
            return status.Failed("DatabaseReady", error.reason, message, stalled=error.stalled)
        case ServerRefused():  # a new catalogue can allow it at any time, and wakes nobody
            return status.Failed("DatabaseReady", error.reason, message, stalled=False)
        case NotOwned():
            return status.Failed("CredentialsReady", "SecretNotOwned", message, stalled=True)
        case PlaceRefused():
            return status.Failed(error.aspect, error.reason, message, stalled=True)
        case TerminalError():
            return status.Failed("", error.reason, message, stalled=True)
        case ApplyConflict():
            return status.Failed("CredentialsReady", "FieldConflict", message, stalled=True)
        case Forbidden():
            reason = "QuotaExceeded" if "exceeded quota" in error.server_message else "Forbidden"
            return status.Failed("CredentialsReady", reason, message, stalled=True)
        case Invalid():
            return status.Failed("CredentialsReady", "Invalid", message, stalled=True)
        case _:
            return None

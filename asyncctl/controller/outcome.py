"""The contract of a reconcile: what a pass may return or raise, and what the queue does then.

| the pass                                          | the queue                                            |
|---------------------------------------------------|------------------------------------------------------|
| returns None                                      | forgets earlier failures                             |
| returns `Requeue(after=...)`                      | forgets, and adds after that time, ±10 %             |
| raises `Conflict`                                 | adds fast, five times; then it counts                |
| raises `TerminalError`                            | parks: no retry until the object changes, or slowly  |
| raises what says nothing of the object            | adds with growing delay, never counted               |
| raises anything else, or takes too long           | adds with growing delay, counted; parks at the limit |

What says nothing of the object: no answer, no credential, 401, 429, 5xx, a write that was fenced. An outage of ten
minutes parks nothing. An `ApiException` of kubernetes-asyncio is treated as the error of ours that it stands for; a
group, as a TaskGroup raises it, as the one in it that weighs most.
"""

import enum
import math
import re
from dataclasses import dataclass
from datetime import timedelta

from asyncctl.client.bridge.errors import as_ours
from asyncctl.client.errors import (
    ConfigError,
    Conflict,
    CredentialsError,
    Fenced,
    ServerError,
    StatusError,
    StreamError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)

_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_]{0,126}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Requeue:
    """Run this object's next pass after a while, whether or not it changes.

    Args:
        after: A timedelta, or seconds. What is past already is now.

    Raises:
        TypeError: It is neither.
        ValueError: It is no time that will come.
    """

    after: timedelta | float

    def __post_init__(self) -> None:
        if not isinstance(self.after, timedelta | int | float):
            raise TypeError(f"Requeue(after={self.after!r}): give a timedelta, or seconds as a number")
        if not math.isfinite(self.seconds):
            raise ValueError(
                f"Requeue(after={self.after!r}) never comes; return None where there is nothing to wait for"
            )

    @property
    def seconds(self) -> float:
        """The delay in seconds."""
        return self.after.total_seconds() if isinstance(self.after, timedelta) else float(self.after)


class TerminalError(Exception):
    """Retrying can't help: the object is parked until it changes, with condition `Stalled`.

    Args:
        message: What is wrong and what to do, for the condition's message and a Warning event.
        reason: CamelCase, for the condition's reason.

    Raises:
        ValueError: The reason is not one word; the API server would refuse the condition and the event.
    """

    def __init__(self, message: str, *, reason: str = "TerminalError") -> None:
        if not _REASON.fullmatch(reason):
            raise ValueError(f"TerminalError: the reason must be one CamelCase word, not {reason!r}; {message}")
        super().__init__(message)
        self.reason = reason


class TransientError(Exception):
    """Something outside is down, which says nothing of the object: retried with growing delay, and never parked.

    Args:
        message: What is down, for the log.
        told: The log has it already, as of all objects that wait for the same: that one of them does is said at level
            debug.
    """

    told: bool = False  # also of a subclass that does not call this constructor

    def __init__(self, message: str = "", *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class NotOwned(Exception):
    """An object of the wanted name exists and belongs to somebody else; it was not touched."""


class TookTooLong(TimeoutError):
    """The pass was not over in time, and was cancelled. For the runtime: an author's own `TimeoutError` is none."""


class Failure(enum.Enum):
    """How a failed pass is treated. Of several the last one decides."""

    FAST = "conflict"
    UNCOUNTED = "outage"
    COUNTED = "error"
    TERMINAL = "terminal"


_ORDER = tuple(Failure)


def leaves(error: Exception) -> tuple[Exception, ...]:
    """What was raised: of a group, such as a TaskGroup raises, each error in it; else the one. As errors of ours."""
    if not isinstance(error, ExceptionGroup):
        return (as_ours(error),)
    return tuple(leaf for each in error.exceptions for leaf in leaves(each))


def classify(error: Exception) -> Failure:
    """How the queue treats a pass that raised `error`."""
    return max(map(_of_one, leaves(error)), key=_ORDER.index)


def _of_one(error: Exception) -> Failure:
    match error:
        case TerminalError():
            return Failure.TERMINAL
        case Conflict():
            return Failure.FAST
        case (
            TransientError()
            | TransportError()
            | TooManyRequests()
            | Unauthorized()
            | ServerError()
            | Fenced()
            | StreamError()
            | ConfigError()
            | CredentialsError()
        ):
            return Failure.UNCOUNTED
        case _:
            return Failure.COUNTED


def retry_after(error: Exception) -> float:
    """Seconds for which the server has asked us to wait."""
    return max(leaf.retry_after or 0.0 if isinstance(leaf, StatusError) else 0.0 for leaf in leaves(error))

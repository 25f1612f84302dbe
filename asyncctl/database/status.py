"""What a `Database` says of itself: its phase, its conditions, and when they were last confirmed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from asyncctl.database.types import Database, DatabaseStatus, Phase
from asyncctl.objects import JsonObject, to_dict

CONFIRMED_FOR = timedelta(hours=1)


def working(status: DatabaseStatus, reason: str, message: str) -> None:
    """It is being made, for the first time or anew."""
    status.phase = Phase.PENDING
    status.conditions.set("Ready", False, reason, message)
    status.conditions.set("Reconciling", True, reason, message)


def running(status: DatabaseStatus, message: str) -> None:
    """All is as wanted."""
    status.phase = Phase.RUNNING
    status.conditions.set("DatabaseReady", True, "Provisioned", "the database is there, and closed to others")
    status.conditions.set("CredentialsReady", True, "LoginProven", "the login in the Secret works")
    status.conditions.set("Ready", True, "Running", message)
    status.conditions.remove("Reconciling")


def suspended(status: DatabaseStatus) -> None:
    """Left alone by wish."""
    status.phase = Phase.SUSPENDED
    status.conditions.set("Ready", None, "Suspended", "spec.suspend is true: nothing is looked at or changed")
    status.conditions.remove("Reconciling")


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a database is not as wanted.

    Attributes:
        aspect: The condition that is False beside `Ready`; empty where none of them is to blame.
        reason: One CamelCase word.
        message: What happened, and what to do.
        stalled: It stays so until somebody does something.
    """

    aspect: str
    reason: str
    message: str
    stalled: bool


def failed(status: DatabaseStatus, failure: Failed, *, deleting: bool) -> bool:
    """It is not as wanted. Returns whether that is news: another reason than before."""
    before = status.conditions.get("Ready")
    status.phase = Phase.TERMINATING if deleting else Phase.FAILED if failure.stalled else Phase.PENDING
    if failure.aspect:
        status.conditions.set(failure.aspect, False, failure.reason, failure.message)
    status.conditions.set("Ready", False, failure.reason, failure.message)
    status.conditions.remove("Reconciling")
    return before is None or before.reason != failure.reason


def confirm(db: Database, before: JsonObject, now: datetime) -> None:
    """Move `lastReconcileTime` where something else has changed since `before`, or it is older than an hour.

    A steady object is not written at each resync: it would wake whoever watches it.
    """
    last = db.status.last_reconcile_time
    changed = essence(db) != before or db.status.observed_generation != db.metadata.generation
    if changed or last is None or now - last > CONFIRMED_FOR:
        db.status.last_reconcile_time = now.replace(microsecond=0)


def essence(db: Database) -> JsonObject:
    """The status without what moves by itself."""
    status = to_dict(db.status)
    status.pop("lastReconcileTime", None)
    status.pop("observedGeneration", None)
    status["conditions"] = [
        {key: condition[key] for key in ("type", "status", "reason", "message")} for condition in status["conditions"]
    ]
    return status

"""What a `Database` says of itself: its phase, its conditions, and when they were last confirmed.

`Ready` promises all that the spec asks for, and one that lacks an extension is not ready though its logins work: who
waits for it wants to use what he has asked for. Its phase is Running then, and `DatabaseReady` True. `Stalled` is the
runtime's to set; the phase is Failed exactly while it is True (`DatabaseStatus.summarize`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from asyncctl import Clock
from asyncctl.database.types import Database, DatabaseStatus, ItemStatus, Phase
from asyncctl.objects import JsonObject, to_dict

CONFIRMED_FOR = timedelta(hours=1)
_INSTANCE = ("StorageReady", "WorkloadReady")
_LOGINS, _LINGERS = "CredentialsReady", "RoleHasDependents"


def working(status: DatabaseStatus, reason: str, message: str) -> None:
    """It is being made, for the first time or anew."""
    status.phase = Phase.PENDING
    status.conditions.set("Ready", False, reason, message)
    status.conditions.set("Reconciling", True, reason, message)


def running(status: DatabaseStatus, message: str, *, lingering: Sequence[str] = ()) -> list[tuple[str, str]]:
    """It can be used. Returns reason and message of each thing that it lacks, and did not for that reason before.

    Args:
        status: Of the object.
        message: Where it is.
        lingering: Why logins of before could not be dropped; they let nobody in, and so it is ready all the same.
    """
    before = {kind: found.reason for kind in ("Ready", _LOGINS) if (found := status.conditions.get(kind)) is not None}
    lacking = _lacking(status.extensions) or _lacking(status.schemas)
    status.phase = Phase.RUNNING
    status.conditions.set("DatabaseReady", True, "Provisioned", "the database is there, and closed to others")
    proven, left = "the login in each Secret works", "; ".join(lingering)
    if left:
        status.conditions.set(_LOGINS, True, _LINGERS, f"{proven}; one of before lets nobody in, and stays: {left}")
    else:
        status.conditions.set(_LOGINS, True, "LoginProven", proven)
    status.conditions.remove("Reconciling")
    if lacking is None:
        status.conditions.set("Ready", True, "Running", message)
    else:
        status.conditions.set("Ready", False, *lacking)
    news = [("Ready", lacking)] if lacking else []
    news += [(_LOGINS, (_LINGERS, left))] if left else []
    return [each for kind, each in news if before.get(kind) != each[0]]


def suspended(status: DatabaseStatus) -> None:
    """Left alone by wish."""
    status.phase = Phase.SUSPENDED
    status.conditions.set("Ready", None, "Suspended", "spec.suspend is true: nothing is looked at or changed")
    status.conditions.remove("Reconciling")


def terminating(status: DatabaseStatus, message: str) -> None:
    """Its data is being dropped."""
    status.phase = Phase.TERMINATING
    status.conditions.set("Ready", False, "Terminating", message)
    status.conditions.set("Reconciling", True, "Terminating", message)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a database is not as wanted.

    Attributes:
        aspect: The condition that is False beside `Ready`; empty where none of them is to blame.
        reason: One CamelCase word.
        message: What happened, and what to do.
        stalled: It stays so until somebody does something.
        phase: Where it is neither stalled nor being deleted.
        progress: It comes by itself, or is as wished: no Warning.
        unforeseen: A bug, most likely.
    """

    aspect: str
    reason: str
    message: str
    stalled: bool = False
    phase: Phase = Phase.PENDING
    progress: bool = False
    unforeseen: bool = False


def failed(status: DatabaseStatus, failure: Failed, *, deleting: bool) -> bool:
    """It is not as wanted. Returns whether that is news: another reason than before."""
    before, stalled = status.conditions.get("Ready"), status.conditions.get("Stalled")
    status.phase = Phase.FAILED if failure.stalled else Phase.TERMINATING if deleting else failure.phase
    if failure.aspect:
        status.conditions.set(failure.aspect, False, failure.reason, failure.message)
    status.conditions.set("Ready", False, failure.reason, failure.message)
    if failure.aspect in _INSTANCE and status.conditions.get("DatabaseReady"):
        status.conditions.set("DatabaseReady", None, failure.reason, "the instance does not run")
    if failure.progress and failure.phase is Phase.PENDING:
        status.conditions.set("Reconciling", True, failure.reason, failure.message)
    else:
        status.conditions.remove("Reconciling")
    retried = not failure.stalled and not failure.unforeseen
    if retried and stalled is not None and stalled.status == "True":
        status.conditions.set("Stalled", False, failure.reason, "it is tried again")
    return before is None or before.reason != failure.reason


@contextmanager
def confirmed(db: Database, clock: Clock) -> Iterator[None]:
    """Move `lastReconcileTime` after the block where something else has changed in it, or it is older than an hour.

    A steady object is not written at each resync: it would wake whoever watches it.
    """
    before = essence(db)
    try:
        yield
    finally:
        last, now = db.status.last_reconcile_time, clock.now()
        changed = essence(db) != before or db.status.observed_generation != db.metadata.generation
        if changed or last is None or now - last > CONFIRMED_FOR:
            db.status.last_reconcile_time = now.replace(microsecond=0)


def settled(db: Database) -> bool:
    """Whether it was once as wanted, and nothing else is wanted since: what differs then is drift."""
    ready = db.status.conditions.get("DatabaseReady")
    there = ready is not None and ready.status == "True"
    return db.status.claim is not None and there and db.status.observed_generation == db.metadata.generation


def essence(db: Database) -> JsonObject:
    """The status without what moves by itself."""
    status = to_dict(db.status)
    status.pop("lastReconcileTime", None)
    status.pop("observedGeneration", None)
    status["conditions"] = [
        {key: condition[key] for key in ("type", "status", "reason", "message")} for condition in status["conditions"]
    ]
    return status


def _lacking(items: Sequence[ItemStatus]) -> tuple[str, str] | None:
    """Reason and message for those that can't be had."""
    missing = [item for item in items if not item.ready]
    if not missing:
        return None
    return missing[0].reason or "ItemUnavailable", "; ".join(f"{item.name}: {item.message}" for item in missing)

"""The failure table: what each error means for a `Database`, how it is told, and what the runtime does then."""

import asyncio

import pytest

from asyncctl.client.errors import (
    ApplyConflict,
    BadRequest,
    Conflict,
    CredentialsError,
    Fenced,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    Target,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from asyncctl.controller.outcome import NotOwned, TerminalError, TransientError
from asyncctl.database import failures
from asyncctl.database.catalogue import ServerRefused, ServerUnknown
from asyncctl.database.postgres import errors as sql
from asyncctl.database.provisioners.admin_secret import HostNotAllowed, SecretMissing
from asyncctl.database.provisioners.place import PlaceRefused, Stopped, Waiting
from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Phase, Provisioner
from asyncctl.operator import Operator
from tests.unit.harness import working
from tests.unit.support import until

SPEC = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="main"))
TARGET = Target("create", "secrets", "team", "app")
STALLED, RETRIED = True, False


def answer(kind, message=""):
    """An answer of the API server."""
    return kind(TARGET, 400, {"message": message})


@pytest.mark.parametrize(
    "error, aspect, reason, stalled",
    [
        (sql.ServerUnreachable("x"), "DatabaseReady", "ServerUnreachable", RETRIED),
        (sql.AuthenticationFailed("x"), "DatabaseReady", "AuthenticationFailed", RETRIED),
        (sql.InsufficientPrivilege("x"), "DatabaseReady", "InsufficientPrivilege", STALLED),
        (sql.NameConflict("x"), "DatabaseReady", "NameConflict", STALLED),
        (sql.DatabaseMissing("x"), "DatabaseReady", "DatabaseMissing", STALLED),
        (sql.ServerReplaced("x"), "DatabaseReady", "ServerReplaced", STALLED),
        (sql.InvalidRequest("x"), "DatabaseReady", "Invalid", STALLED),
        (sql.TooManyConnections("x"), "DatabaseReady", "TooManyConnections", RETRIED),
        (sql.ServerReadOnly("x"), "DatabaseReady", "ServerReadOnly", RETRIED),
        (sql.ServerFull("x"), "DatabaseReady", "ServerFull", RETRIED),
        (sql.ServerExhausted("x"), "DatabaseReady", "ServerExhausted", RETRIED),
        (sql.DatabaseInUse("x"), "DatabaseReady", "DatabaseInUse", RETRIED),
        (sql.RoleHasDependents("x"), "DatabaseReady", "RoleHasDependents", RETRIED),
        (ServerRefused("x"), "DatabaseReady", "ServerNotAllowed", RETRIED),
        (ServerUnknown("x"), "DatabaseReady", "ServerUnknown", RETRIED),
        (SecretMissing("x"), "DatabaseReady", "SecretMissing", RETRIED),
        (HostNotAllowed("x"), "DatabaseReady", "HostNotAllowed", STALLED),
        (Waiting("x", aspect="StorageReady", reason="VolumePending"), "StorageReady", "VolumePending", RETRIED),
        (Stopped("x"), "WorkloadReady", "Stopped", RETRIED),
        (PlaceRefused("x", aspect="StorageReady", reason="Gone"), "StorageReady", "Gone", STALLED),
        (TerminalError("x", reason="DeletionProtected"), "", "DeletionProtected", STALLED),
        (NotOwned("x"), "CredentialsReady", "SecretNotOwned", STALLED),
        (answer(Forbidden), "CredentialsReady", "Forbidden", STALLED),
        (answer(Forbidden, "exceeded quota: q"), "CredentialsReady", "QuotaExceeded", STALLED),
        (answer(Invalid), "CredentialsReady", "Invalid", STALLED),
        (answer(ApplyConflict), "CredentialsReady", "FieldConflict", RETRIED),
        (answer(BadRequest), "", "RequestRefused", RETRIED),
        (answer(NotFound), "", "RequestRefused", RETRIED),
        (KeyError("size"), "", "InternalError", RETRIED),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else None,
)
def test_each_error_has_a_condition_a_reason_and_a_way_on(error, aspect, reason, stalled):
    failure = failures.understood(error)
    assert (failure.aspect, failure.reason, failure.stalled) == (aspect, reason, stalled)


@pytest.mark.parametrize(
    "error",
    [
        *(answer(kind) for kind in (Conflict, TooManyRequests, Unauthorized, ServerError)),
        TransportError("gone", sent=True),
        Fenced("deposed"),
        CredentialsError("none"),
        TransientError("out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_outage_of_the_api_server_says_nothing_of_the_database(error):
    assert failures.understood(error) is None


def program(steps):
    """A controller of Databases whose passes do `steps`, one after the other: what raises is told as ours is."""
    operator = Operator("test")
    steps = iter(steps)
    last = [None]

    @operator.controller(Database)
    async def reconcile(ctx, db):
        last[0] = next(steps, last[0])
        with failures.told(ctx, db):
            last[0](ctx, db)

    return operator


def raising(error):
    def step(ctx, db):
        raise error

    return step


def waits(waiting):
    return lambda ctx, db: failures.wait(ctx, db, waiting)


def is_in(phase, reason):
    """Whether an object is in a phase, and not Ready for a reason."""

    def seen(db):
        ready = db.status.conditions.get("Ready")
        return db.status.phase is phase and ready is not None and (ready.status, ready.reason) == ("False", reason)

    return seen


def is_stalled(db):
    stalled = db.status.conditions.get("Stalled")
    return stalled is not None and stalled.status == "True"


async def look_again(cluster, note):
    await cluster.patch(Database, "a", {"metadata": {"annotations": {"again": note}}})


async def test_what_somebody_has_to_mend_is_stalled_and_its_phase_failed_until_that_is_no_longer_all(databases):
    steps = [
        raising(sql.NameConflict("taken")),
        raising(sql.NameConflict("taken")),
        raising(sql.TooManyConnections("full")),
    ]
    await databases.create(Database, "a", spec=SPEC)
    async with working(program(steps), databases) as running:
        found = await databases.until(Database, "a", is_in(Phase.FAILED, "NameConflict"))
        assert is_stalled(found)
        assert found.status.conditions.get("DatabaseReady").reason == "NameConflict"
        parked = running.metrics.registry.get_sample_value
        labels = {"controller": "databases"}
        await until(lambda: parked("asyncctl_parked_keys", labels) == 1)
        await look_again(databases, "1")
        await until(lambda: parked("controller_runtime_terminal_reconcile_errors_total", labels) == 2)
        await look_again(databases, "2")
        found = await databases.until(Database, "a", is_in(Phase.PENDING, "TooManyConnections"))
        assert not is_stalled(found)
        await until(lambda: parked("asyncctl_parked_keys", labels) == 0)
        await until_reasons(databases, ["NameConflict", "TooManyConnections"])


async def until_reasons(cluster, reasons):
    """Each reason is told by one event, however often it comes."""
    async with asyncio.timeout(30):
        while sorted(said for said, _ in await cluster.until_said("a")) != reasons:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.02)


async def test_what_nobody_foresaw_is_told_and_its_phase_is_failed_once_it_is_parked(databases):
    await databases.create(Database, "a", spec=SPEC)
    async with working(program([raising(KeyError("size"))]), databases, retry_limit=3) as running:
        found = await databases.until(Database, "a", is_stalled)
        assert found.status.phase is Phase.FAILED
        assert found.status.conditions.get("Ready").reason == "InternalError"
        assert "KeyError" in found.status.conditions.get("Ready").message
        await until_reasons(databases, ["InternalError", "RetryLimitExceeded"])
        assert running.log.said("KeyError: 'size'")


async def test_what_is_waited_for_is_no_failure_and_warned_of_only_where_it_may_not_come(databases):
    pending = Waiting("no volume", aspect="StorageReady", reason="VolumePending")
    pulling = Waiting("no image", aspect="WorkloadReady", reason="ImagePullBackOff", trouble=True)
    await databases.create(Database, "a", spec=SPEC)
    async with working(program([waits(pending), waits(pulling), waits(Stopped("by wish"))]), databases) as running:
        found = await databases.until(Database, "a", is_in(Phase.PENDING, "VolumePending"))
        assert found.status.conditions.get("Reconciling").status == "True"
        await look_again(databases, "1")
        found = await databases.until(Database, "a", is_in(Phase.PENDING, "ImagePullBackOff"))
        assert "Reconciling" not in found.status.conditions
        await look_again(databases, "2")
        found = await databases.until(Database, "a", is_in(Phase.SUSPENDED, "Stopped"))
        assert "Reconciling" not in found.status.conditions
        await until_reasons(databases, ["ImagePullBackOff"])
        assert not running.log.said("the pass has failed")


async def test_a_reason_is_warned_of_once_however_often_it_comes(databases):
    warned, passes = [], []

    def note(step):
        def noted(ctx, db):
            ctx.warning = lambda reason, text: warned.append(reason)  # of several the API shows one, as a series
            passes.append(step)
            step(ctx, db)

        return noted

    full, gone = raising(sql.TooManyConnections("full")), raising(sql.ServerUnreachable("gone"))
    await databases.create(Database, "a", spec=SPEC)
    async with working(program(map(note, [full, full, full, gone, gone, full])), databases):
        await until(lambda: len(passes) > 6)
    assert warned == ["TooManyConnections", "ServerUnreachable", "TooManyConnections"]

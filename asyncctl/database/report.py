"""What a pass over a `Database` has come to, told: in the status, by events, by the log, by metrics."""

from collections.abc import Mapping, Sequence

from asyncctl import Context
from asyncctl.database import status
from asyncctl.database.accounts import Account
from asyncctl.database.metrics import DatabaseMetrics
from asyncctl.database.postgres.wanted import Provisioned
from asyncctl.database.provisioners.place import Place
from asyncctl.database.rotation import Turn
from asyncctl.database.types import Binding, Claim, CredentialsStatus, Database, LoginStatus


def report(
    ctx: Context,
    db: Database,
    place: Place,
    done: Provisioned,
    turns: Mapping[Account, Turn],
    *,
    put_right: Sequence[Account],
    metrics: DatabaseMetrics,
) -> None:
    """Say of `db` that it can be used, and what is new.

    Args:
        ctx: Of the pass.
        db: As it was before the pass, but for the names.
        place: Where it is.
        done: What the SQL steps have found and done.
        turns: Who logs in.
        put_right: Whose Secrets were not as they should be; news only of an object that was settled before.
        metrics: Of the program.
    """
    main = next(account for account in turns if account.main)
    where = f"database {db.status.database_name} on {place.host} port {place.port}"
    message = f"{where}; credentials in Secret {main.secret}"
    was_there, moved = db.status.claim is not None, (db.status.host, db.status.port) != (place.host, place.port)
    was_settled = status.settled(db) and not moved
    used = db.status.credentials.active_users if db.status.credentials else []
    _fill(db, place, done, turns, main)
    lacking = status.running(db.status, message, lingering=done.lingering)
    if done.adopted:
        tell(ctx, "Adopted", f"{where} existed, belonged to nobody and was taken over (adoptionPolicy IfUnowned)")
    if not was_there:  # also where the first pass had to wait, or was cut short
        tell(ctx, "Provisioned", message)
    corrected = [*done.corrected, *(f"credentials[{account.secret}]" for account in put_right)]
    if corrected and was_settled:
        fields = list(dict.fromkeys(corrected))
        metrics.corrected(fields)
        tell(ctx, "DriftCorrected", f"put right on {where}: {', '.join(fields)}")
    for account, turn in turns.items():
        if turn.login not in used and any(login in used for login in account.logins):
            kept = f"; {turn.kept} lets in until {turn.kept_until:%Y-%m-%dT%H:%M:%SZ}" if turn.kept else ""
            tell(ctx, "PasswordRotated", f"Secret {account.secret} has login {turn.login} with a new password{kept}")
    for reason, text in lacking:
        ctx.warning(reason, text)


def tell(ctx: Context, reason: str, note: str) -> None:
    """Say what went as it should: to the tenant by an event, to the operator by the log."""
    ctx.normal(reason, note)
    ctx.log.info("told by an event", reason=reason, note=note)


def _fill(db: Database, place: Place, done: Provisioned, turns: Mapping[Account, Turn], main: Account) -> None:
    known, facts = db.status.claim or Claim(), done.facts
    db.status.claim = Claim(
        system_identifier=facts.system_identifier or known.system_identifier,
        database_oid=facts.database_oid,
        adopted=done.adopted or known.adopted or None,
        uid=db.uid,
    )
    db.status.host, db.status.port, db.status.replicas = place.host, place.port, place.replicas
    db.status.server_version = facts.server_version
    db.status.binding = Binding(name=main.secret)
    db.status.schemas, db.status.extensions = list(done.schemas), list(done.extensions)
    db.status.credentials = CredentialsStatus(
        active_users=[turn.login for turn in turns.values()],
        users=[_login(account, turn) for account, turn in turns.items()],
        last_rotation_time=max(turn.rotated_at for turn in turns.values()).replace(microsecond=0),
        next_rotation_time=min((turn.next_rotation for turn in turns.values() if turn.next_rotation), default=None),
    )


def _login(account: Account, turn: Turn) -> LoginStatus:
    return LoginStatus(
        login=turn.login,
        user=account.user or None,
        secret_name=account.secret,
        last_rotation_time=turn.rotated_at.replace(microsecond=0),
        next_rotation_time=turn.next_rotation,
    )

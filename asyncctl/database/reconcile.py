"""The reconcile of a `Database`, read from top to bottom: refuse, name, record, place, provision, prove, bind, say.

Name and claim are on record in the status before anything outside is made. Nothing is dropped or altered that does
not bear this object's claim.
"""

import math
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from asyncctl.controller.context import Context
from asyncctl.controller.outcome import Requeue, TerminalError
from asyncctl.database import binding, failures, naming, status
from asyncctl.database.accounts import Account, accounts
from asyncctl.database.catalogue import Catalogue, CatalogueError
from asyncctl.database.cluster import Cluster
from asyncctl.database.deletion import Deletion, tell
from asyncctl.database.postgres.claim import Claim as RoleClaim
from asyncctl.database.postgres.connection import Limits
from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import AuthenticationFailed, ConnectionLimitReached
from asyncctl.database.postgres.provision import provision
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.postgres.wanted import Login, Provisioned, Wanted
from asyncctl.database.provisioners.external import External
from asyncctl.database.provisioners.in_cluster import InCluster
from asyncctl.database.provisioners.place import Place, Provisioner
from asyncctl.database.rotation import Turn, plan, stamped
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import (
    AdoptionPolicy,
    Binding,
    Claim,
    CredentialsStatus,
    Database,
    Provisioner as Kind,
    RotationSpec,
)
from asyncctl.objects import JsonObject, Secret
from asyncctl.operator import Running
from asyncctl.settings import Problem, SettingsError

_IDLE = 60.0  # seconds for which a session on a server is kept for its next use


class DatabaseReconciler:
    """Gives each `Database` what it asks for. `start` has to run before the first pass."""

    def __init__(self) -> None:
        self._limits = Limits()
        self._cluster = Cluster(None)
        self._provisioners: dict[Kind, Provisioner] = {}

    async def start(self, running: Running) -> None:
        """Read the settings and the catalogue; a bad one ends the start, with file, line and field."""
        assert isinstance(running.settings, DatabaseSettings)
        self._settings = running.settings
        self._clock = running.clock
        self._cluster = Cluster(running.settings.cluster_id)
        catalogue = Catalogue(running.settings.servers)
        try:
            await catalogue.load()
        except CatalogueError as error:
            raise SettingsError([Problem(("servers",), f"ASYNCCTL_DATABASE_SERVERS: {error}")]) from error
        for warning in catalogue.warnings:
            running.logger.warning(warning)
        running.probes.inform("catalogue", lambda: catalogue.problem)
        self._provisioners[Kind.IN_CLUSTER] = InCluster(image=running.settings.image, limits=self._limits)
        self._provisioners[Kind.EXTERNAL] = External(catalogue, logger=running.logger)

    async def stop(self, _: Running) -> None:
        """Close the sessions on the servers."""
        await self._limits.close()

    async def tidy(self, running: Running) -> None:
        """Close sessions that are not used any more, now and then, for as long as the program runs."""
        while True:
            await running.clock.sleep(_IDLE)
            await self._limits.close_idle(_IDLE)

    async def reconcile(self, ctx: Context, db: Database) -> Requeue:
        """Make the world match `db`."""
        before = status.essence(db)
        next_step: datetime | None = None
        with failures.told(ctx, db) as this:
            if db.spec.suspend:
                status.suspended(db.status)
            else:
                next_step = await self._settle(ctx, db)
        now = self._clock.now()
        status.confirm(db, before, now)
        after = timedelta(seconds=min(self._settings.drift, this.after or math.inf))
        return Requeue(after if next_step is None else max(min(after, next_step - now), timedelta(seconds=1)))

    async def clean_up(self, ctx: Context, db: Database | JsonObject) -> None:
        """Before `db` may go: keep or drop its data, as it says."""
        await Deletion(self._provisioners, self._cluster, self._limits).clean_up(ctx, db)

    async def _settle(self, ctx: Context, db: Database) -> datetime | None:
        """The pass itself; returns when there is something to do next."""
        _refuse_what_is_not_there_yet(db)
        claim = await self._cluster.claim(ctx, db)
        name = naming.database_name(db, claim.cluster)
        people = accounts(db, name)
        secrets = await binding.find(ctx, db, people)  # whose they are is known before anything is made
        await _record(ctx, db, name)
        place = await self._provisioners[db.spec.provisioner].place(ctx, db)
        turns = {account: self._turn(db, account, secrets.get(account.user)) for account in people}
        done = await self._provision(ctx, place, _wanted(db, name, claim), turns)
        for account, turn in turns.items():
            turns[account] = stamped(turn, _rotation(db), self._clock.now())
            await binding.write(ctx, db, binding.secret_for(db, place, name, account, turns[account]))
        await binding.prune(ctx, db, people)
        _say(ctx, db, place, done, turns)
        return min((turn.next_step for turn in turns.values() if turn.next_step), default=None)

    def _turn(self, db: Database, account: Account, secret: Secret | None) -> Turn:
        known = db.status.credentials or CredentialsStatus()
        active = next((login for login in known.active_users if login in account.logins), None)
        now, last = self._clock.now(), known.last_rotation_time
        return plan(account, secret, rotation=_rotation(db), active=active, now=now, last=last)

    async def _provision(
        self, ctx: Context, place: Place, wanted: Wanted, turns: Mapping[Account, Turn]
    ) -> Provisioned:
        """Make it so, and prove each login; where one refuses a password that it should have, that is set anew."""
        set_anew: set[str] = set()
        while True:
            logins = tuple(login for account, turn in turns.items() for login in _logins(account, turn, set_anew))
            server, limits = place.server, self._limits
            done = await provision(server, replace(wanted, logins=logins), limits=limits, check=ctx.fence.check)
            refused = set()
            for turn in turns.values():
                try:
                    with suppress(ConnectionLimitReached):  # the password was accepted before the limit was looked at
                        await prove_login(server, wanted.database, turn.login, turn.password, limits=limits)
                except AuthenticationFailed:
                    if turn.new_password or turn.login in set_anew:
                        raise
                    refused.add(turn.login)
            if not refused:
                return done
            set_anew |= refused


def _rotation(db: Database) -> RotationSpec | None:
    return db.spec.credentials.rotation if db.spec.credentials else None


def _logins(account: Account, turn: Turn, set_anew: Container[str]) -> Iterator[Login]:
    """The roles of an account: the one in use, and the one before it in its grace period."""
    login = Login(
        name=turn.login,
        user=account.user,
        privileges=account.privileges,
        connection_limit=account.connection_limit,
        password=turn.password if turn.new_password or turn.login in set_anew else None,
    )
    yield login
    if turn.kept is not None:
        yield replace(login, name=turn.kept, password=None)


def _wanted(db: Database, name: str, claim: RoleClaim) -> Wanted:
    """The database without its logins, which depend on the Secrets."""
    return Wanted(
        database=name,
        claim=claim,
        recorded=db.status.claim,
        adopt=db.spec.adoption_policy is AdoptionPolicy.IF_UNOWNED,
        encoding=db.spec.encoding,
        locale=db.spec.locale,
        connection_limit=db.spec.connection_limit,
        schemas=tuple(db.spec.schemas),
        extensions=tuple(db.spec.extensions),
    )


async def _record(ctx: Context, db: Database, name: str) -> None:
    """What it will be called is on record before anything outside is made."""
    if db.status.database_name == name and db.status.owner_role == owner_role(name):
        return
    db.status.database_name, db.status.owner_role = name, owner_role(name)
    status.working(db.status, "Provisioning", f"database {name} is being made")
    await ctx.save_status()


def _say(ctx: Context, db: Database, place: Place, done: Provisioned, turns: Mapping[Account, Turn]) -> None:
    main = next(account for account in turns if account.main)
    first = db.status.claim is None  # also where the first pass had to wait, or was cut short
    db.status.claim = Claim(system_identifier=done.facts.system_identifier, database_oid=done.facts.database_oid)
    db.status.host, db.status.port, db.status.replicas = place.host, place.port, place.replicas
    db.status.server_version = done.facts.server_version
    db.status.binding = Binding(name=main.secret)
    db.status.credentials = CredentialsStatus(
        active_users=[turn.login for turn in turns.values()],
        last_rotation_time=max(turn.rotated_at for turn in turns.values()).replace(microsecond=0),
        next_rotation_time=min((turn.next_rotation for turn in turns.values() if turn.next_rotation), default=None),
    )
    message = (
        f"database {db.status.database_name} on {place.host} port {place.port}; credentials in Secret {main.secret}"
    )
    status.running(db.status, message)
    if first:
        tell(ctx, "Provisioned", message)
    for account, turn in turns.items():
        if turn.rotated:
            whose = f"user {account.user}" if account.user else "the owner"
            then = f"; {turn.kept} works for the grace period" if turn.kept else ""
            tell(ctx, "PasswordRotated", f"{whose} logs in as {turn.login} now, see Secret {account.secret}{then}")


def _refuse_what_is_not_there_yet(db: Database) -> None:
    """What this version can't do is said, not half done."""
    spec = db.spec
    wishes = {
        "external.adminSecretRef": spec.external is not None and spec.external.admin_secret_ref is not None,
        "users": bool(spec.users),
        "schemas": bool(spec.schemas),
        "extensions": bool(spec.extensions),
        "adoptionPolicy IfUnowned": spec.adoption_policy is AdoptionPolicy.IF_UNOWNED,
    }
    missing = [wish for wish, wished in wishes.items() if wished]
    if missing:
        raise TerminalError(
            f"not yet in this version: {', '.join('spec.' + wish for wish in missing)}; nothing was made or changed",
            reason="NotYet",
        )

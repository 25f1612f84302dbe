"""The reconcile of a `Database`, read from top to bottom: name, record, place, provision, prove, bind, say.

Name and claim are on record in the status before anything outside is made. Nothing is dropped or altered that does
not bear this object's claim. What a step raises is told in one place (`failures`), what all of it has come to in
another (`report`).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

from asyncctl import Context, Problem, Requeue, Running, SettingsError
from asyncctl.database import binding, failures, naming, status
from asyncctl.database.accounts import Account, accounts
from asyncctl.database.catalogue import Catalogue, CatalogueError
from asyncctl.database.cluster import Cluster
from asyncctl.database.deletion import Deletion
from asyncctl.database.metrics import DatabaseMetrics
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.connection import Limits
from asyncctl.database.postgres.database import prove_login
from asyncctl.database.postgres.errors import AuthenticationFailed, ConnectionLimitReached
from asyncctl.database.postgres.outages import Outages
from asyncctl.database.postgres.provision import provision
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.postgres.wanted import Login, Provisioned, Wanted
from asyncctl.database.provisioners.external import External
from asyncctl.database.provisioners.in_cluster import InCluster
from asyncctl.database.provisioners.place import Place, Provisioner, Waiting, serving
from asyncctl.database.report import report
from asyncctl.database.rotation import Turn, plan, stamped
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import AdoptionPolicy, CredentialsStatus, Database, Provisioner as Kind, RotationSpec
from asyncctl.objects import JsonObject, Secret

_SOON = timedelta(seconds=1)
_IDLE = 60.0  # seconds for which a session on a server is kept for its next use


class DatabaseReconciler:
    """Gives each `Database` what it asks for. `start` has to run before the first pass."""

    def __init__(self) -> None:
        self._limits = Limits()
        self._cluster = Cluster(None)
        self._catalogue = Catalogue(None)
        self._provisioners: dict[Kind, Provisioner] = {}
        self._external: External | None = None

    async def start(self, running: Running) -> None:
        """Read the settings and the catalogue; a bad one ends the start, with file, line and field."""
        assert isinstance(running.settings, DatabaseSettings)
        self._resync = timedelta(seconds=running.settings.drift)
        self._clock = running.clock
        self._metrics = DatabaseMetrics(running.metrics, running.clock)
        self._cluster = Cluster(running.settings.cluster_id)
        external = running.settings.serves(Kind.EXTERNAL)
        self._catalogue = catalogue = Catalogue(running.settings.servers if external else None)
        try:
            await catalogue.load()
        except CatalogueError as error:
            raise SettingsError([Problem(("servers",), f"ASYNCCTL_DATABASE_SERVERS: {error}")]) from error
        for warning in catalogue.warnings:
            running.logger.warning(warning)
        running.probes.inform("catalogue", lambda: catalogue.problem)
        self._limits = Limits(observe=self._metrics.took, outages=Outages(running.logger, running.clock))
        if external:
            self._external = External(catalogue, admin_hosts=running.settings.admin_hosts, logger=running.logger)
            self._provisioners[Kind.EXTERNAL] = self._external
        if running.settings.serves(Kind.IN_CLUSTER):
            self._provisioners[Kind.IN_CLUSTER] = InCluster(image=running.settings.image, limits=self._limits)

    async def stop(self, _: Running) -> None:
        """Close the sessions on servers, and remove what was written to disk; also after half a start."""
        await self._limits.close()
        if self._external is not None:
            await self._external.close()

    async def tidy(self, running: Running) -> None:
        """Close sessions that nobody uses any more, now and then."""
        while True:
            await running.clock.sleep(_IDLE)
            await self._limits.close_idle(_IDLE)

    async def count(self, running: Running) -> None:
        """Show how many databases there are, while this process leads."""
        await self._metrics.count(running, self._catalogue)

    async def reconcile(self, ctx: Context, db: Database) -> Requeue:
        """Make the world match `db`."""
        next_step: datetime | None = None
        with status.confirmed(db, self._clock), failures.told(ctx, db):
            if db.spec.suspend:
                status.suspended(db.status)
            else:
                next_step = await self._settle(ctx, db)
        wait = next_step - self._clock.now() if next_step is not None else self._resync
        return Requeue(after=max(_SOON, min(wait, self._resync)))

    async def clean_up(self, ctx: Context, db: Database | JsonObject) -> None:
        """Before `db` may go: keep or drop its data, as it says."""
        await Deletion(self._provisioners, self._cluster, self._limits).clean_up(ctx, db)

    async def _settle(self, ctx: Context, db: Database) -> datetime | None:
        """The pass itself. Returns when there is something to do next, if that is known."""
        provisioner = serving(self._provisioners, db.spec.provisioner)
        claim = await self._cluster.claim(ctx, db)
        name = naming.database_name(db, claim.cluster)
        people = accounts(db, name)
        secrets = await binding.find(ctx, db, people)  # whose they are is known before anything is made
        await _record(ctx, db, name)
        try:
            place = await provisioner.place(ctx, db)
        except Waiting as waiting:
            failures.wait(ctx, db, waiting)
            return None if waiting.after is None else self._clock.now() + timedelta(seconds=waiting.after)
        turns = {account: self._turn(db, account, secrets.get(account.user)) for account in people}
        done = await self._provision(ctx, place, _wanted(db, name, claim), turns)
        turns, put_right = await self._bind(ctx, db, place, name, turns)
        report(ctx, db, place, done, turns, put_right=put_right, metrics=self._metrics)
        return min((turn.next_step for turn in turns.values() if turn.next_step is not None), default=None)

    def _turn(self, db: Database, account: Account, secret: Secret | None) -> Turn:
        said = db.status.credentials or CredentialsStatus()
        active = next((login for login in said.active_users if login in account.logins), None)
        own = next((each.last_rotation_time for each in said.users if each.login in account.logins), None)
        rotation, last = _rotation(db), own or said.last_rotation_time
        return plan(account, secret, rotation=rotation, active=active, last=last, now=self._clock.now())

    async def _provision(self, ctx: Context, place: Place, wanted: Wanted, turns: dict[Account, Turn]) -> Provisioned:
        """Make it so, and prove each login; where one refuses the password of its Secret, that is set anew."""
        logins = {account: list(_logins(account, turn)) for account, turn in turns.items()}
        wanted = replace(wanted, logins=tuple(chain.from_iterable(logins.values())))
        done = await provision(place.server, wanted, limits=self._limits, check=ctx.fence.check)
        refused = [account for account, turn in turns.items() if not await self._lets_in(place, wanted.database, turn)]
        if not refused:
            return done
        set_anew = {account: replace(turns[account], new_password=True) for account in refused}
        again = await self._provision(ctx, place, wanted, turns | set_anew)
        passwords = (logins[account][0].about for account in refused)
        return replace(done, corrected=(*done.corrected, *again.corrected, *passwords))

    async def _lets_in(self, place: Place, database: str, turn: Turn) -> bool:
        try:
            with suppress(ConnectionLimitReached):  # the password was accepted before the limit was looked at
                await prove_login(place.server, database, turn.login, turn.password, limits=self._limits)
        except AuthenticationFailed:
            if turn.new_password:
                raise
            return False
        return True

    async def _bind(
        self, ctx: Context, db: Database, place: Place, name: str, turns: dict[Account, Turn]
    ) -> tuple[dict[Account, Turn], list[Account]]:
        """Write the Secrets, each with the record of its turn; returns the turns, and whose Secret was not so."""
        recorded, put_right = {}, []
        for account, planned in turns.items():
            turn = stamped(planned, _rotation(db), self._clock.now())
            if await binding.write(ctx, db, binding.secret_for(db, place, name, account, turn)) and not turn.rotated:
                put_right.append(account)
            recorded[account] = turn
        await binding.prune(ctx, db, turns)
        return recorded, put_right


async def _record(ctx: Context, db: Database, name: str) -> None:
    """What it is called is on record before anything outside is made."""
    if (db.status.database_name, db.status.owner_role) == (name, owner_role(name)):
        return
    db.status.database_name, db.status.owner_role = name, owner_role(name)
    status.working(db.status, "Provisioning", f"database {name} is being made")
    await ctx.save_status()


def _wanted(db: Database, name: str, claim: Claim) -> Wanted:
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


def _logins(account: Account, turn: Turn) -> Iterator[Login]:
    """The roles of an account: the one in use, and the one before it while somebody may still use that."""
    login = Login(
        name=turn.login,
        user=account.user,
        privileges=account.privileges,
        connection_limit=account.connection_limit,
        password=turn.password if turn.new_password else None,
    )
    yield login
    if turn.kept is not None:
        yield replace(login, name=turn.kept, password=None)


def _rotation(db: Database) -> RotationSpec | None:
    return db.spec.credentials.rotation if db.spec.credentials else None

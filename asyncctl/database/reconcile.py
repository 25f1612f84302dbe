"""The reconcile of a `Database`, read from top to bottom: refuse, name, claim, record, provision, bind, say.

Name and claim are on record in the status before anything outside is made. Nothing is dropped or altered that does
not bear this object's claim.
"""

from datetime import timedelta

from asyncctl.client.errors import NotFound
from asyncctl.controller.context import Context
from asyncctl.controller.outcome import NotOwned, Requeue, TerminalError, TransientError
from asyncctl.database import credentials, naming, status
from asyncctl.database.catalogue import Catalogue, CatalogueError, ServerRefused
from asyncctl.database.postgres.claim import Claim as RoleClaim
from asyncctl.database.postgres.connection import Limits
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.postgres.roles import owner_role
from asyncctl.database.provisioners.external import External
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import (
    AdoptionPolicy,
    Binding,
    Claim,
    CredentialsStatus,
    Database,
    Provisioner,
    ReclaimPolicy,
)
from asyncctl.objects import Namespace, Secret
from asyncctl.operator import Running
from asyncctl.settings import Problem, SettingsError

ORPHAN = "apps.example.com/on-delete"


class DatabaseReconciler:
    """Gives each `Database` what it asks for. `start` has to run before the first pass."""

    def __init__(self) -> None:
        self._limits = Limits()
        self._cluster: str | None = None

    async def start(self, running: Running) -> None:
        """Read the settings and the catalogue; a bad one ends the start, with file, line and field."""
        assert isinstance(running.settings, DatabaseSettings)
        self._settings = running.settings
        self._logger = running.logger
        self._clock = running.clock
        self._cluster = running.settings.cluster_id
        self._catalogue = Catalogue(running.settings.servers)
        try:
            await self._catalogue.load()
        except CatalogueError as error:
            raise SettingsError([Problem(("servers",), f"ASYNCCTL_DATABASE_SERVERS: {error}")]) from error
        for warning in self._catalogue.warnings:
            running.logger.warning(warning)

    async def reconcile(self, ctx: Context, db: Database) -> Requeue:
        """Make the world match `db`."""
        before = status.essence(db)
        if db.spec.suspend:
            status.suspended(db.status)
        else:
            try:
                await self._provision(ctx, db)
            except (DatabaseError, ServerRefused, NotOwned, TerminalError) as error:
                raise self._failure(ctx, db, error) from error
        status.confirm(db, before, self._clock.now())
        return Requeue(after=timedelta(seconds=self._settings.drift))

    async def clean_up(self, ctx: Context, db: Database) -> None:
        """Before `db` may go: keep or drop its data, as it says."""
        name = db.status.database_name
        if db.annotations.get(ORPHAN) == "orphan":
            ctx.normal("Orphaned", f"let go by annotation {ORPHAN}; database {name} was left as it is")
        elif db.spec.deletion_protection:
            message = "spec.deletionProtection is true; set it to false to let this object go"
            raise self._failure(ctx, db, TerminalError(message, reason="DeletionProtected"))
        elif db.spec.reclaim_policy is ReclaimPolicy.RETAIN:
            ctx.normal("Retained", f"database {name} was kept, with its logins and its Secret (reclaimPolicy Retain)")
        elif name is not None:
            try:
                external = await self._external(ctx, db, name)
                removed = await external.remove()
            except (DatabaseError, ServerRefused, TerminalError) as error:
                raise self._failure(ctx, db, error) from error
            ctx.normal(
                "Deleted", f"database {name} was dropped" if removed else f"database {name} was not ours to drop"
            )

    async def _provision(self, ctx: Context, db: Database) -> None:
        _refuse_what_is_not_there_yet(db)
        name = naming.database_name(db, await self._cluster_id(ctx))
        external = await self._external(ctx, db, name)
        recorded, provisioned = db.status.database_name is not None, db.status.claim is not None
        db.status.database_name = name
        db.status.owner_role = owner_role(name)
        if not recorded:
            status.working(db.status, "Provisioning", f"database {name} is being made on {external.server}")
            await ctx.save_status()  # on record before anything outside is made
        login = naming.login_name(name)
        known_password = credentials.known_password(ctx.get(Secret, naming.secret_name(db)), login)
        password = known_password or credentials.new_password()
        known = await external.provision(db, password, new_password=known_password is None)
        secret = credentials.binding(db, external.server, name, login, password)
        await ctx.apply(secret, owned=db.spec.reclaim_policy is ReclaimPolicy.DELETE)
        db.status.claim = Claim(system_identifier=known.system_identifier, database_oid=known.database_oid)
        db.status.host, db.status.port = external.server.host, external.server.port
        db.status.server_version = known.server_version
        db.status.binding = Binding(name=secret.name)
        db.status.credentials = CredentialsStatus(active_users=[login])
        message = (
            f"database {name} on {external.server.host}:{external.server.port}; credentials in Secret {secret.name}"
        )
        status.running(db.status, message)
        if not provisioned:  # also where the first pass had to wait, or was cut short
            ctx.normal("Provisioned", message)

    async def _external(self, ctx: Context, db: Database, name: str) -> External:
        await self._refresh_catalogue()
        wanted = db.spec.external.server_name if db.spec.external else None
        server = self._catalogue.server(wanted or "", db.namespace)
        claim = RoleClaim(await self._cluster_id(ctx), db.namespace, db.name, db.uid)
        return External(server, name, claim, self._limits, ctx.fence)

    async def _refresh_catalogue(self) -> None:
        if await self._catalogue.refresh():
            if self._catalogue.problem:
                self._logger.error("the catalogue's new state is not used", cause=self._catalogue.problem)
            else:
                self._logger.info("the catalogue was read anew")

    async def _cluster_id(self, ctx: Context) -> str:
        if self._cluster is None:
            try:
                self._cluster = (await ctx.client.get(Namespace, "kube-system")).uid
            except NotFound as error:
                message = "namespace kube-system, whose uid names this cluster, is not there; set ASYNCCTL_CLUSTER_ID"
                raise TerminalError(message, reason="NoClusterId") from error
        return self._cluster

    def _failure(
        self, ctx: Context, db: Database, error: DatabaseError | ServerRefused | NotOwned | TerminalError
    ) -> Exception:
        """Say `error` in the status, and return what the runtime is to do about it."""
        reason = getattr(error, "reason", "SecretNotOwned")
        stalled = not isinstance(error, DatabaseError) or error.stalled
        news = status.failed(db.status, reason, str(error), stalled=stalled, deleting=ctx.header.deleting)
        if stalled:
            return TerminalError(str(error), reason=reason)
        if news:
            ctx.warning(reason, str(error))
        return TransientError(str(error))


def _refuse_what_is_not_there_yet(db: Database) -> None:
    """What this version can't do is said, not half done."""
    spec = db.spec
    wishes = {
        "provisioner InCluster": spec.provisioner is Provisioner.IN_CLUSTER,
        "external.adminSecretRef": spec.external is not None and spec.external.admin_secret_ref is not None,
        "users": bool(spec.users),
        "schemas": bool(spec.schemas),
        "extensions": bool(spec.extensions),
        "credentials.rotation": spec.credentials is not None and spec.credentials.rotation is not None,
        "adoptionPolicy IfUnowned": spec.adoption_policy is AdoptionPolicy.IF_UNOWNED,
    }
    missing = [wish for wish, wished in wishes.items() if wished]
    if missing:
        raise TerminalError(
            f"not yet in this version: {', '.join('spec.' + wish for wish in missing)}; nothing was made or changed",
            reason="NotYet",
        )

"""The reconcile of a `Database`, read from top to bottom: refuse, name, claim, record, provision, bind, say.

Name and claim are on record in the status before anything outside is made. Nothing is dropped or altered that does
not bear this object's claim.
"""

from datetime import timedelta

import anyio.to_thread

from asyncctl.client.errors import (
    ApplyConflict,
    Forbidden,
    Invalid,
    KubernetesError,
    NamespaceBoundaryExceeded,
    NotFound,
)
from asyncctl.controller.context import Context
from asyncctl.controller.outcome import NotOwned, Requeue, TerminalError, TransientError
from asyncctl.database import binding, credentials, naming, status
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
from asyncctl.objects import DecodeError, Json, JsonObject, Namespace, from_dict
from asyncctl.operator import Running
from asyncctl.settings import Problem, SettingsError

ORPHAN = "apps.example.com/on-delete"
_IDLE = 60.0  # seconds for which a session on a server is kept for its next use
_TOLD = (DatabaseError, ServerRefused, NotOwned, TerminalError, KubernetesError)


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
        running.probes.inform("catalogue", lambda: self._catalogue.problem)

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
        if db.spec.suspend:
            status.suspended(db.status)
        else:
            try:
                await self._provision(ctx, db)
            except _TOLD as error:
                raise self._failure(ctx, db, error) from error
        status.confirm(db, before, self._clock.now())
        return Requeue(after=timedelta(seconds=self._settings.drift))

    async def clean_up(self, ctx: Context, db: Database | JsonObject) -> None:
        """Before `db` may go: keep or drop its data, as it says. A dict is one that can't be decoded."""
        if not isinstance(db, Database):
            await _let_go_unread(ctx, db)
            return
        try:
            await self._let_go(ctx, db)
        except _TOLD as error:
            raise self._failure(ctx, db, error) from error

    async def _let_go(self, ctx: Context, db: Database) -> None:
        name = db.status.database_name
        if name is None:
            return  # nothing was made
        if db.annotations.get(ORPHAN) == "orphan":
            await binding.let_go(ctx, binding.recorded_name(db))
            _say_orphaned(ctx, name)
        elif db.spec.deletion_protection:
            message = "spec.deletionProtection is true; set it to false to let this object go"
            raise TerminalError(message, reason="DeletionProtected")
        elif db.spec.reclaim_policy is ReclaimPolicy.RETAIN:
            await binding.let_go(ctx, binding.recorded_name(db))
            _say_retained(ctx, name)
        else:
            external = await self._external(ctx, db, name)
            removed = await external.remove()
            await binding.remove(ctx, db)
            _tell(
                ctx, "Deleted", f"database {name} was dropped" if removed else f"database {name} was not ours to drop"
            )

    async def _provision(self, ctx: Context, db: Database) -> None:
        _refuse_what_is_not_there_yet(db)
        secret = await binding.find(ctx, db)
        name = naming.database_name(db, await self._cluster_id(ctx))
        external = await self._external(ctx, db, name)
        server = external.server
        recorded, provisioned = db.status.database_name is not None, db.status.claim is not None
        db.status.database_name = name
        db.status.owner_role = owner_role(name)
        if not recorded:
            status.working(db.status, "Provisioning", f"database {name} is being made on {server}")
            await ctx.save_status()  # on record before anything outside is made
        login = naming.login_name(name)
        known_password = credentials.known_password(secret, login)
        password = known_password or credentials.new_password()
        known = await external.provision(db, password, new_password=known_password is None)
        ca = await anyio.to_thread.run_sync(server.ca_file.read_bytes) if server.ca_file else None
        secret = credentials.secret_for(db, server, name, login, password, ca=ca)
        await binding.write(ctx, db, secret)
        db.status.claim = Claim(system_identifier=known.system_identifier, database_oid=known.database_oid)
        db.status.host, db.status.port = server.host, server.port
        db.status.server_version = known.server_version
        db.status.binding = Binding(name=secret.name)
        db.status.credentials = CredentialsStatus(active_users=[login])
        message = f"database {name} on {server.host} port {server.port}; credentials in Secret {secret.name}"
        status.running(db.status, message)
        if not provisioned:  # also where the first pass had to wait, or was cut short
            _tell(ctx, "Provisioned", message)

    async def _external(self, ctx: Context, db: Database, name: str) -> External:
        await self._refresh_catalogue()
        wanted = db.spec.external.server_name if db.spec.external else None
        server = self._catalogue.server(wanted or "", db.namespace)
        claim = RoleClaim(await self._cluster_id(ctx), db.namespace, db.name, db.uid)
        return External(server, name, claim, self._limits, ctx.fence.check)

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
            except (NotFound, NamespaceBoundaryExceeded) as error:
                why = "is not there" if isinstance(error, NotFound) else "is outside of ASYNCCTL_NAMESPACES"
                message = f"namespace kube-system, whose uid names this cluster, {why}; set ASYNCCTL_CLUSTER_ID"
                raise TerminalError(message, reason="NoClusterId") from error
        return self._cluster

    def _failure(self, ctx: Context, db: Database, error: Exception) -> Exception:
        """Say `error` in the status, and return what the runtime is to do about it."""
        failure = _understood(error)
        if failure is None:
            return error
        news = status.failed(db.status, failure, deleting=ctx.header.deleting)
        if failure.stalled:
            return TerminalError(failure.message, reason=failure.reason)
        if news:
            ctx.warning(failure.reason, failure.message)
        return TransientError(failure.message)


async def _let_go_unread(ctx: Context, db: JsonObject) -> None:
    """Before one may go that can't be decoded: its data is kept where its raw fields say so, and never dropped."""
    spec, status = _part(db, "spec"), _part(db, "status")
    name, secret = status.get("databaseName"), _part(status, "binding").get("name")
    secret = secret if isinstance(secret, str) else None
    if name is None:
        return  # nothing was made
    if _part(_part(db, "metadata"), "annotations").get(ORPHAN) == "orphan":
        await binding.let_go(ctx, secret)
        _say_orphaned(ctx, name)
    elif spec.get("reclaimPolicy", ReclaimPolicy.RETAIN) == ReclaimPolicy.RETAIN and not spec.get("deletionProtection"):
        await binding.let_go(ctx, secret)
        _say_retained(ctx, name)
    else:
        raise TerminalError(
            f"this object can't be read ({_why_not(db)}), so that database {name} is not dropped; correct the field, "
            f"or keep the data and let the object go with annotation {ORPHAN}: orphan",
            reason="Unreadable",
        )


def _why_not(db: JsonObject) -> str:
    try:
        from_dict(Database, db)
    except DecodeError as error:
        return f"{error.path}: {error.reason}" if error.path else error.reason
    return "it can by now"


def _part(of: JsonObject, name: str) -> JsonObject:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _say_orphaned(ctx: Context, name: Json) -> None:
    _tell(ctx, "Orphaned", f"let go by annotation {ORPHAN}; database {name} and its Secret stay as they are")


def _say_retained(ctx: Context, name: Json) -> None:
    _tell(ctx, "Retained", f"database {name} was kept, with its logins and its Secret (reclaimPolicy Retain)")


def _understood(error: Exception) -> status.Failed | None:
    """What `error` means for the database; None where the API server's outage or a conflict is all there is to it."""
    message = str(error)
    match error:
        case DatabaseError():
            return status.Failed("DatabaseReady", error.reason, message, stalled=error.stalled)
        case ServerRefused():  # a new catalogue can allow it at any time, and wakes nobody
            return status.Failed("DatabaseReady", error.reason, message, stalled=False)
        case NotOwned():
            return status.Failed("CredentialsReady", "SecretNotOwned", message, stalled=True)
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


def _tell(ctx: Context, reason: str, note: str) -> None:
    """Say what went as it should: to the tenant by an event, to the operator by the log."""
    ctx.normal(reason, note)
    ctx.log.info(note, reason=reason)


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

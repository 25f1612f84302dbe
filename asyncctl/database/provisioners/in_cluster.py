"""Databases with an instance of their own in the cluster: volume, credentials, Services, StatefulSet, and a real login.

Each object is made or put right by apply, in the order in which one needs the other; what is missing then is told by
the objects themselves, whose changes wake the `Database`. The volume outlives everything but a wished deletion, and is
never made again where a database was on it. Nothing that is somebody else's is touched.
"""

import contextlib
import re
from collections.abc import Iterator

from asyncctl import Context, NotOwned
from asyncctl.client.errors import (
    BadRequest,
    Forbidden,
    Invalid,
    NamespaceBoundaryExceeded,
)
from asyncctl.database import parameters
from asyncctl.database.credentials import new_password
from asyncctl.database.postgres.connection import Check, Limits, Server, connect
from asyncctl.database.postgres.errors import AuthenticationFailed
from asyncctl.database.postgres.verifier import fits, verifier
from asyncctl.database.provisioners import manifests, storage, workload
from asyncctl.database.provisioners.manifests import (
    POD,
    PORT,
    SERVICE,
    STATEFUL_SET,
    SUPERUSER,
    VOLUME_CLAIM,
    Names,
)
from asyncctl.database.provisioners.place import Place, PlaceRefused, Stopped, Waiting
from asyncctl.database.types import Database, InClusterSpec, ReclaimPolicy, SslMode
from asyncctl.objects import JsonObject, Secret, Unstructured

EVENT = Unstructured("v1", "Event")
_SECRET = Unstructured("v1", "Secret")
_CONNECTIONS = 3  # of ours to one instance at once
_USABLE = re.compile(rb"[!-~]{1,256}")  # as a password: what SASLprep leaves as it is


class InCluster:
    """The provisioner.

    Args:
        image: Repository of the default image.
        limits: Counts the connections of this process.
    """

    def __init__(self, *, image: str, limits: Limits) -> None:
        self._image = image
        self._limits = limits

    async def place(self, ctx: Context, db: Database) -> Place:
        """Make the instance as it is wanted; return when it lets its superuser in.

        `StorageReady` and `WorkloadReady` of `db` are True then; `StorageReady` is False where all works, but the
        volume does not grow.

        Raises:
            Waiting: Something of it is not there yet, and wakes the object when it comes.
            Stopped: There is to be no instance.
            PlaceRefused: It can't be made so.
            DatabaseError: It does not let us in.
        """
        wanted, names = _wanted(db), Names.of(db.name)
        if why := parameters.refusal(wanted.parameters):
            raise PlaceRefused(f"{why}; nothing was made or changed", aspect=workload.ASPECT, reason="Invalid")
        _refuse_secret_name(db, names.secret)
        claim, too_small = await self._volume(ctx, db)
        secret = await self._admin(ctx, db)
        db.status.host, db.status.port, db.status.replicas = names.host(db.namespace), PORT, 0
        with _about(workload.ASPECT):
            for service in manifests.services(db):
                await ctx.apply(service, SERVICE)
            stateful_set = await self._run(ctx, db, secret.data["verifier"].decode())
        if wanted.replicas == 0:
            raise Stopped(
                f"spec.inCluster.replicas is 0: the instance is stopped; PersistentVolumeClaim {names.claim} keeps its "
                "data. Set it to 1 to start it again"
            )
        pod = await self._pod(ctx, db, claim, stateful_set)
        _say_storage(ctx, db, claim, too_small)
        if waiting := workload.not_ready(stateful_set, pod):
            raise waiting
        server = Server(
            name=f"{db.namespace}/{db.name}/postgres",  # a Secret that names a server may be called as the Database is
            host=names.host(db.namespace),
            address=pod["status"]["podIP"],  # a name is cached, and may lead to where the pod was
            port=PORT,
            ssl_mode=SslMode.DISABLE,
            admin_user=SUPERUSER,
            admin_password=secret.data["password"].decode(),
            max_connections=_CONNECTIONS,
            tenants=True,  # its image is
        )
        db.status.replicas = 1
        db.status.conditions.set(workload.ASPECT, True, "PodReady", f"pod {names.pod} is ready")  # if no more than that
        await self._log_in(ctx, db, server, secret)
        db.status.conditions.set(workload.ASPECT, True, "LoginProven", f"pod {names.pod} lets {SUPERUSER} in")
        return Place(server=server, host=names.host(db.namespace), port=PORT, replicas=1)

    async def known_place(self, ctx: Context, db: Database) -> None:
        """See `Provisioner.known_place`: the volume goes, and all that is on it, whether a server runs or not."""

    async def let_go(self, ctx: Context, *, orphan: bool) -> None:
        """See `Provisioner.let_go`: volume and credentials stay, and if `orphan` the rest, which else goes by itself.

        A `Database` that is made again under the name takes up what it finds.
        """
        names = Names.of(ctx.header.name)
        kept = [(VOLUME_CLAIM, names.claim), (_SECRET, names.secret)]
        if orphan:
            kept += [(SERVICE, names.service), (SERVICE, names.pods), (STATEFUL_SET, names.service)]
        for kind, name in kept:
            found = await ctx.find(kind, name)
            if found is not None and ctx.owns(found):
                await ctx.release(found, kind)

    async def holds_data(self, ctx: Context, db: Database) -> bool:
        """See `Provisioner.holds_data`: its volume is there, until it is gone for good."""
        claim = await ctx.find(VOLUME_CLAIM, Names.of(db.name).claim)
        return claim is not None and ctx.owns(claim) and storage.is_taken(claim, db.uid)

    async def remove(self, ctx: Context, db: Database) -> bool:
        """See `Provisioner.remove`: everything that is ours goes, the data with it; returns when it is gone.

        A volume that was kept, and that `db` could not take up, stays with all that was kept with it.

        Raises:
            Waiting: It is going.
        """
        names, taken = Names.of(db.name), await self.holds_data(ctx, db)
        claim = await ctx.find(VOLUME_CLAIM, names.claim)
        if claim is not None and ctx.owns(claim) and not taken:
            return False
        going = []
        for kind, name in (
            (STATEFUL_SET, names.service),
            (SERVICE, names.service),
            (SERVICE, names.pods),
            (_SECRET, names.secret),
            (VOLUME_CLAIM, names.claim),  # last, as it tells whether the others were taken up
        ):
            found = await ctx.find(kind, name)
            if found is None or not ctx.owns(found):
                continue
            if not (taken or db.status.claim is not None or _controls(db, found)):
                continue
            if "deletionTimestamp" not in found["metadata"]:
                await ctx.delete(found, kind)
                found = ctx.get(kind, name)
            if found is not None:
                going.append(f"{kind.resource_type.kind} {name}")
        if going:
            raise Waiting(
                f"being deleted: {', '.join(going)}; a volume goes when no pod uses it any more",
                aspect=storage.ASPECT,
                reason="Removing",
            )
        return True

    async def _volume(self, ctx: Context, db: Database) -> tuple[JsonObject, str]:
        """The claim as it is wanted; and why it could not grow, where that is so."""
        wanted, name = _wanted(db), Names.of(db.name).claim
        found = await ctx.find(VOLUME_CLAIM, name)
        if found is None:
            if db.status.claim is not None:
                raise PlaceRefused(
                    f"PersistentVolumeClaim {name} is gone, and the database was on it; no empty one is made in its "
                    "place. Restore the claim under this name, with its annotations, or delete this object",
                    aspect=storage.ASPECT,
                    reason="VolumeMissing",
                )
            with _about(storage.ASPECT):
                made = manifests.volume_claim(db, wanted.storage.size)
                return await ctx.apply(made, VOLUME_CLAIM, owned=False), ""
        if not ctx.owns(found):
            raise _not_owned(storage.ASPECT, "PersistentVolumeClaim", name)
        if waiting := storage.going(found):
            raise waiting
        storage.refuse_other_data(found, wanted.storage, manifests.major(wanted.version))
        before = storage.requested(found)
        bound = (found.get("status") or {}).get("phase") == "Bound"  # no other can grow
        size = max(before, wanted.storage.size) if bound else before  # nor shrink, also where somebody else made it so
        with _about(storage.ASPECT):
            try:
                return await ctx.apply(manifests.volume_claim(db, size), VOLUME_CLAIM, owned=False), ""
            except Forbidden as error:
                why = error.server_message
                if size == before or "cannot patch resource" in why:  # which is about our own rights
                    raise
            return await ctx.apply(manifests.volume_claim(db, before), VOLUME_CLAIM, owned=False), why

    async def _admin(self, ctx: Context, db: Database, *, renewed: bool = False) -> Secret:
        """The superuser's Secret: its password is ours, or one that somebody wrote there to have it changed."""
        name = Names.of(db.name).secret
        found = await ctx.find(Secret, name)
        if found is not None and not ctx.owns(found):
            raise _not_owned("CredentialsReady", "Secret", name)
        data = found.data if found is not None else {}
        password = data.get("password", b"")
        known = data.get("verifier", b"").decode(errors="replace")
        if not _USABLE.fullmatch(password):
            password, known = new_password().encode(), ""
        if not known or renewed:
            known = verifier(password.decode())
        with _about("CredentialsReady"):
            wanted = manifests.admin_secret(db, password.decode(), known)
            return await ctx.apply(wanted, owned=db.spec.reclaim_policy is ReclaimPolicy.DELETE)

    async def _run(self, ctx: Context, db: Database, known: str) -> JsonObject:
        wanted = manifests.stateful_set(db, repository=self._image, verifier=known)
        return await ctx.apply(wanted, STATEFUL_SET)

    async def _pod(self, ctx: Context, db: Database, claim: JsonObject, stateful_set: JsonObject) -> JsonObject:
        """The instance's pod, of a volume that is there; else what is waited for."""
        if waiting := workload.not_rolled_out(stateful_set):
            raise waiting
        uid, name = stateful_set["metadata"]["uid"], stateful_set["metadata"]["name"]
        pod = ctx.get(POD, f"{name}-0")
        if pod is not None and all(each["uid"] != uid for each in pod["metadata"].get("ownerReferences") or []):
            raise _not_owned(workload.ASPECT, "Pod", f"{name}-0")
        no_volume = storage.pending(claim, workload.unschedulable(pod) if pod else "")
        if pod is None:
            no_pod = workload.no_pod(stateful_set, await _events(ctx, uid))
            if no_pod.trouble or no_volume is None:
                raise no_pod
        if no_volume is not None:
            db.status.conditions.set(workload.ASPECT, False, "Starting", f"the pod of {name} waits for its volume")
            raise no_volume
        assert pod is not None
        return pod

    async def _log_in(self, ctx: Context, db: Database, server: Server, secret: Secret) -> None:
        """Prove that the server lets us in; where it does not, see to it that its next start sets the password."""
        check: Check = ctx.fence.check
        try:
            async with connect(server, limits=self._limits, check=check):
                return
        except AuthenticationFailed as error:
            refused = str(error).partition(": check the user")[0]
        names = Names.of(db.name)
        if fits(secret.data["verifier"].decode(errors="replace"), secret.data["password"].decode()):
            raise AuthenticationFailed(
                f"{refused}: the password was changed in the server; delete pod {names.pod}, which at its start sets "
                f"the one of Secret {names.secret} (unless its image refuses local connections)"
            )
        renewed = await self._admin(ctx, db, renewed=True)
        with _about(workload.ASPECT):
            await self._run(ctx, db, renewed.data["verifier"].decode())
        raise Waiting(
            f"the password in Secret {names.secret} was changed: pod {names.pod} starts anew with it",
            aspect=workload.ASPECT,
            reason="PasswordChanged",
        )


def _refuse_secret_name(db: Database, admin: str) -> None:
    chosen = {user.secret_name for user in db.spec.users}
    chosen |= {db.spec.credentials.secret_name} if db.spec.credentials else set()
    if admin in chosen:
        raise PlaceRefused(
            f"Secret {admin} is the superuser's: choose another secretName; nothing was made or changed",
            aspect="CredentialsReady",
            reason="Invalid",
        )


def _say_storage(ctx: Context, db: Database, claim: JsonObject, too_small: str) -> None:
    """How it stands with a volume that is there; one that can't grow is no reason to do nothing else."""
    name, before = claim["metadata"]["name"], db.status.conditions.get(storage.ASPECT)
    size = storage.requested(claim)
    if too_small:
        reason = "QuotaExceeded" if "exceeded quota" in too_small else "ResizeUnsupported"
        advice = (
            "raise the quota"
            if reason == "QuotaExceeded"
            else f"set allowVolumeExpansion on StorageClass {claim['spec'].get('storageClassName')}, if its driver can"
        )
        message = (
            f"PersistentVolumeClaim {name} stays at {size} and does not grow to {_wanted(db).storage.size}: "
            f"{too_small}; {advice}, or move the data to a new Database"
        )
        db.status.conditions.set(storage.ASPECT, False, reason, message)
        if before is None or before.reason != reason:
            ctx.warning(reason, message)
    elif how := storage.growing(claim):
        db.status.conditions.set(storage.ASPECT, False, "Resizing", f"PersistentVolumeClaim {name}: {how}")
    else:
        db.status.conditions.set(storage.ASPECT, True, "Bound", f"PersistentVolumeClaim {name} has {size}")


def _controls(db: Database, found: JsonObject) -> bool:
    """Whether it was made by `db` itself, and not by one of its name before it."""
    return any(each["uid"] == db.uid for each in found["metadata"].get("ownerReferences") or [])


async def _events(ctx: Context, uid: str) -> list[JsonObject]:
    """The events about an object; none where we may not read them."""
    fields = {"involvedObject.uid": uid}
    try:
        return await ctx.client.list(EVENT, namespace=ctx.header.namespace, fields=fields).all()
    except Forbidden:
        return []


@contextlib.contextmanager
def _about(aspect: str) -> Iterator[None]:
    """What the API server refuses here is why `aspect` is False."""
    try:
        yield
    except NamespaceBoundaryExceeded:
        raise
    except NotOwned as error:
        raise PlaceRefused(str(error), aspect=aspect, reason="NotOwned") from error
    except Forbidden as error:
        reason = "QuotaExceeded" if "exceeded quota" in error.server_message else "Forbidden"
        raise PlaceRefused(str(error), aspect=aspect, reason=reason) from error
    except (Invalid, BadRequest) as error:
        raise PlaceRefused(str(error), aspect=aspect, reason="Invalid") from error


def _not_owned(aspect: str, kind: str, name: str) -> PlaceRefused:
    return PlaceRefused(
        f"{kind} {name} exists and is not this Database's; it was not touched. Delete it if nobody needs it, or make "
        "the Database under another name",
        aspect=aspect,
        reason="NotOwned",
    )


def _wanted(db: Database) -> InClusterSpec:
    assert db.spec.in_cluster is not None
    return db.spec.in_cluster

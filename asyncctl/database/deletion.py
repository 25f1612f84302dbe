"""The end of a `Database`: its data is kept, or dropped, as it says; what is not its own is never touched.

Names come from the status. Where nothing can be told for sure, the data is kept and the object waits.
"""

from collections.abc import Mapping

from asyncctl import Context, TerminalError
from asyncctl.database import binding, failures, status
from asyncctl.database.cluster import Cluster
from asyncctl.database.postgres import provision
from asyncctl.database.postgres.connection import Limits
from asyncctl.database.provisioners.place import Provisioner, serving
from asyncctl.database.report import tell
from asyncctl.database.types import Database, Phase, Provisioner as Kind, ReclaimPolicy
from asyncctl.objects import DecodeError, Json, JsonObject, from_dict

ORPHAN = "apps.example.com/on-delete"


class Deletion:
    """Does what has to be done before an object may go."""

    def __init__(self, provisioners: Mapping[Kind, Provisioner], cluster: Cluster, limits: Limits) -> None:
        self._provisioners = provisioners
        self._cluster = cluster
        self._limits = limits

    async def clean_up(self, ctx: Context, db: Database | JsonObject) -> None:
        """Keep or drop the data of `db`; returns when it may go. A dict is one that can't be decoded."""
        if not isinstance(db, Database):
            await self._clean_up_unread(ctx, db)
            return
        with failures.told(ctx, db):
            await self._clean_up(ctx, db)

    async def _clean_up(self, ctx: Context, db: Database) -> None:
        name = db.status.database_name
        if name is None:
            return  # nothing was made
        serving(self._provisioners, db.spec.provisioner)
        if db.annotations.get(ORPHAN) == "orphan":
            await self._let_go(ctx, name, binding.recorded_name(db), made=db.status.claim is not None, orphan=True)
        elif db.spec.deletion_protection:
            message = "spec.deletionProtection is true; set it to false to let this object go"
            raise TerminalError(message, reason="DeletionProtected")
        elif db.spec.reclaim_policy is ReclaimPolicy.RETAIN:
            await self._let_go(ctx, name, binding.recorded_name(db), made=db.status.claim is not None, orphan=False)
        else:
            await self._drop(ctx, db, name)

    async def _clean_up_unread(self, ctx: Context, db: JsonObject) -> None:
        """Of one that can't be decoded: its data is kept where its raw fields say so, and never dropped."""
        spec, said = _part(db, "spec"), _part(db, "status")
        name, secret = said.get("databaseName"), _part(said, "binding").get("name")
        secret = secret if isinstance(secret, str) else None
        if name is None:
            return  # nothing was made
        if spec.get("provisioner") in tuple(Kind):
            serving(self._provisioners, Kind(spec["provisioner"]))
        retain = spec.get("reclaimPolicy", ReclaimPolicy.RETAIN) == ReclaimPolicy.RETAIN
        if _part(_part(db, "metadata"), "annotations").get(ORPHAN) == "orphan":
            await self._let_go(ctx, name, secret, made="claim" in said, orphan=True)
        elif retain and not spec.get("deletionProtection"):
            await self._let_go(ctx, name, secret, made="claim" in said, orphan=False)
        else:
            raise TerminalError(
                f"this object can't be read ({_why_not(db)}), so that database {name} is not dropped; correct the "
                f"field, or keep the data and let the object go with annotation {ORPHAN}: orphan",
                reason="Unreadable",
            )

    async def _let_go(self, ctx: Context, name: Json, secret: str | None, *, made: bool, orphan: bool) -> None:
        await binding.let_go(ctx, secret)
        for provisioner in self._provisioners.values():  # each knows its own, and what is not there stays so
            await provisioner.let_go(ctx, orphan=orphan)
        unmade = f"database {name} was never claimed by this object; what was made for it"  # it may be somebody else's
        if orphan:
            kept = f"database {name} and its Secrets stay as they are" if made else f"{unmade} stays as it is"
            tell(ctx, "Orphaned", f"let go by annotation {ORPHAN}; {kept}")
        else:
            kept = f"database {name} was kept, with its logins and Secrets" if made else f"{unmade} was kept"
            tell(ctx, "Retained", f"{kept} (reclaimPolicy Retain)")

    async def _drop(self, ctx: Context, db: Database, name: str) -> None:
        provisioner = serving(self._provisioners, db.spec.provisioner)
        if db.status.phase not in {Phase.TERMINATING, Phase.FAILED}:
            status.terminating(db.status, f"database {name} is being dropped")
            await ctx.save_status()
        place = await provisioner.known_place(ctx, db)
        if place is None:
            dropped = await provisioner.holds_data(ctx, db)
        else:
            claim = await self._cluster.claim(ctx, db)
            dropped = await provision.remove(
                place.server, name, claim, recorded=db.status.claim, limits=self._limits, check=ctx.fence.check
            )
        if dropped or db.status.claim is not None:  # else they were kept for a namesake's database
            await binding.remove(ctx, db)
        removed = await provisioner.remove(ctx, db)
        dropped = removed if place is None else dropped
        how = "was dropped" if dropped else "is not there, or not this object's: none was dropped"
        tell(ctx, "Deleted", f"database {name} {how}")


def _why_not(db: JsonObject) -> str:
    try:
        from_dict(Database, db)
    except DecodeError as error:
        return f"{error.path}: {error.reason}" if error.path else error.reason
    return "it can by now"


def _part(of: JsonObject, name: str) -> JsonObject:
    found = of.get(name)
    return found if isinstance(found, dict) else {}

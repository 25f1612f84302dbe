"""The end of a `Database`: its data is kept, or dropped, as it says; what is not its own is never touched.

Names come from the status. Where nothing can be told for sure, the data is kept and the object waits.
"""

from collections.abc import Mapping

from asyncctl.controller.context import Context
from asyncctl.controller.outcome import TerminalError
from asyncctl.database import binding, failures
from asyncctl.database.cluster import Cluster
from asyncctl.database.postgres import provision
from asyncctl.database.postgres.connection import Limits
from asyncctl.database.provisioners.place import Provisioner
from asyncctl.database.types import Database, Provisioner as Kind, ReclaimPolicy
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
            await _let_go_unread(ctx, db)
            return
        with failures.told(ctx, db):
            await self._let_go(ctx, db)

    async def _let_go(self, ctx: Context, db: Database) -> None:
        name = db.status.database_name
        if name is None:
            return  # nothing was made
        orphaned = db.annotations.get(ORPHAN) == "orphan"
        if db.spec.deletion_protection and not orphaned:
            message = "spec.deletionProtection is true; set it to false to let this object go"
            raise TerminalError(message, reason="DeletionProtected")
        provisioner = self._provisioners[db.spec.provisioner]
        if orphaned or db.spec.reclaim_policy is ReclaimPolicy.RETAIN:
            await binding.let_go(ctx, binding.recorded_name(db))
            await provisioner.let_go(ctx, orphan=orphaned)
            _say_orphaned(ctx, name) if orphaned else _say_retained(ctx, name)
            return
        dropped = await self._drop(ctx, db, name, provisioner)
        await binding.remove(ctx, db)
        await provisioner.remove(ctx, db)
        tell(ctx, "Deleted", f"database {name} was dropped" if dropped else f"database {name} was not ours to drop")

    async def _drop(self, ctx: Context, db: Database, name: str, provisioner: Provisioner) -> bool:
        place = await provisioner.known_place(ctx, db)
        if place is None:
            return True
        claim = await self._cluster.claim(ctx, db)
        return await provision.remove(
            place.server, name, claim, recorded=db.status.claim, limits=self._limits, check=ctx.fence.check
        )


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


def tell(ctx: Context, reason: str, note: str) -> None:
    """Say what went as it should: to the tenant by an event, to the operator by the log."""
    ctx.normal(reason, note)
    ctx.log.info(note, reason=reason)


def _say_orphaned(ctx: Context, name: Json) -> None:
    tell(ctx, "Orphaned", f"let go by annotation {ORPHAN}; database {name} and its Secret stay as they are")


def _say_retained(ctx: Context, name: Json) -> None:
    tell(ctx, "Retained", f"database {name} was kept, with its logins and its Secret (reclaimPolicy Retain)")


def _why_not(db: JsonObject) -> str:
    try:
        from_dict(Database, db)
    except DecodeError as error:
        return f"{error.path}: {error.reason}" if error.path else error.reason
    return "it can by now"


def _part(of: JsonObject, name: str) -> JsonObject:
    found = of.get(name)
    return found if isinstance(found, dict) else {}

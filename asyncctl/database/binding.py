"""The Secret of one `Database` in the cluster: found, written, moved to another name, let go, removed.

Whose a Secret is, is looked at before anything is made for it; one that is somebody else's is never touched. The cache
holds those that bear our label; one that lost it is read live, so that its password is not taken for lost.
"""

from collections.abc import Sequence

from asyncctl.client.errors import NotFound
from asyncctl.controller.context import Context
from asyncctl.controller.outcome import NotOwned
from asyncctl.database.accounts import Account
from asyncctl.database.naming import secret_name
from asyncctl.database.types import Database, ReclaimPolicy
from asyncctl.objects import Secret


async def find(ctx: Context, db: Database, accounts: Sequence[Account]) -> dict[str, Secret]:
    """The Secrets as they are, by user: each under its name, or under the one that it had before that was changed.

    Raises:
        NotOwned: There is one of the wanted name, and it is not ours.
    """
    found = await _read(ctx, secret_name(db))
    if found is not None and not ctx.owns(found):
        raise NotOwned(
            f"Secret {found.name} exists and is not this Database's; it was not touched. "
            "Set spec.credentials.secretName to another name, or delete that Secret if nobody needs it"
        )
    secret = found or await _earlier(ctx, db)
    return {accounts[0].user: secret} if secret is not None else {}


async def write(ctx: Context, db: Database, secret: Secret) -> None:
    """Make it so; the Secret of an earlier name goes. With `Retain` it has no owner, so that it outlives `db`."""
    await ctx.apply(secret, owned=db.spec.reclaim_policy is ReclaimPolicy.DELETE)
    earlier = await _earlier(ctx, db)
    if earlier is not None:
        await ctx.delete(earlier)


async def let_go(ctx: Context, name: str | None) -> None:
    """Before an object goes and its database stays: its Secret `name` stays too, also where it had an owner."""
    secret = await _recorded(ctx, name)
    if secret is not None and secret.metadata.owner_references:
        kept = Secret(
            name=secret.name, namespace=secret.namespace, labels=secret.labels, type=secret.type, data=secret.data
        )
        await ctx.apply(kept, owned=False)


async def remove(ctx: Context, db: Database) -> None:
    """Before `db` goes and its database is gone: the Secret goes too, also where it had no owner."""
    secret = await _recorded(ctx, recorded_name(db))
    if secret is not None:
        await ctx.delete(secret)


def recorded_name(db: Database) -> str | None:
    """The name of the Secret, as the status says it."""
    return db.status.binding.name if db.status.binding else None


async def _earlier(ctx: Context, db: Database) -> Secret | None:
    recorded = recorded_name(db)
    return await _recorded(ctx, recorded) if recorded != secret_name(db) else None


async def _recorded(ctx: Context, name: str | None) -> Secret | None:
    """The Secret that the status names, if it is there and ours."""
    if name is None:
        return None
    found = await _read(ctx, name)
    return found if found is not None and ctx.owns(found) else None


async def _read(ctx: Context, name: str) -> Secret | None:
    cached = ctx.get(Secret, name)
    if cached is not None:
        return cached
    try:
        return await ctx.client.get(Secret, name, namespace=ctx.header.namespace)
    except NotFound:
        return None

"""The Secrets of one `Database` in the cluster, one for each user: found, written, moved, let go, removed.

Whose a Secret is, is looked at before anything is made for it; one that is somebody else's is never touched. The cache
holds those that bear our label; one that lost it is read live, so that its password is not taken for lost.
"""

from collections.abc import Iterable, Sequence

from asyncctl import Context, NotOwned
from asyncctl.database.accounts import Account
from asyncctl.database.credentials import TYPE, known, values
from asyncctl.database.naming import LABEL, MANAGED, MANAGER, label
from asyncctl.database.provisioners.place import Place
from asyncctl.database.rotation import PREVIOUS, ROTATED_AT, TRIGGER, Turn, is_record
from asyncctl.database.types import Database, ReclaimPolicy
from asyncctl.objects import Secret

_RECORD = (ROTATED_AT, TRIGGER, PREVIOUS)


def secret_for(db: Database, place: Place, database: str, account: Account, turn: Turn) -> Secret:
    """The Secret of one user, complete, with the record of its rotation.

    Args:
        db: Whose it is.
        place: Where the database is.
        database: Its name there.
        account: The user.
        turn: Who logs in, and with which password.
    """
    return Secret(
        name=account.secret,
        namespace=db.namespace,
        labels={MANAGED: MANAGER, LABEL: label(db.name)},
        annotations=turn.annotations,
        type=TYPE,
        data=values(place, database, turn.login, turn.password),
    )


async def find(ctx: Context, db: Database, accounts: Sequence[Account]) -> dict[str, Secret]:
    """The Secrets as they are, by user; one also under the name that it had before `secretName` was changed.

    Raises:
        NotOwned: There is one of a wanted name, and it is not ours.
    """
    wanted = [await _wanted(ctx, account) for account in accounts]
    by_name = {secret.name: secret for secret in (*await _ours(ctx, recorded_name(db)), *wanted) if secret is not None}
    by_login = {pair[0]: secret for secret in by_name.values() if (pair := known(secret)) is not None}
    used = {login for account in accounts for login in account.logins}
    found: dict[str, Secret] = {}
    for account in accounts:
        named = by_name.get(account.secret)
        pair = known(named)
        its = [by_login[login] for login in (*account.logins, *account.former) if login in by_login]
        if named is not None and pair is not None and pair[0] in account.logins:
            found[account.user] = named
        elif its:
            found[account.user] = its[0]
        elif named is not None and (pair is None or pair[0] not in used):
            found[account.user] = named
    return found


async def write(ctx: Context, db: Database, secret: Secret) -> bool:
    """Make it so; with `Retain` it has no owner, so that it outlives `db`. Returns whether it was not so before.

    What the record says is no difference: it changes with time. That it was lost, or is no record, is one.

    One that the API server would not let us correct, since a person has made it immutable or of another type, is made
    anew.
    """
    found = await ctx.find(Secret, secret.name)
    if found is not None and ctx.owns(found) and _is_stuck(found, secret):
        await ctx.delete(found)
    await ctx.apply(secret, owned=db.spec.reclaim_policy is ReclaimPolicy.DELETE)
    return found is None or not _is_same(found, secret)


async def prune(ctx: Context, db: Database, accounts: Iterable[Account]) -> list[str]:
    """Delete the Secrets of users that are gone, and those of earlier names; returns what they were called."""
    kept = {account.secret for account in accounts}
    gone = [secret for secret in await _ours(ctx, recorded_name(db)) if secret.name not in kept]
    for secret in gone:
        await ctx.delete(secret)
    return [secret.name for secret in gone]


async def let_go(ctx: Context, name: str | None) -> None:
    """Before an object goes and its database stays: its Secrets stay too, also where they had an owner.

    Args:
        ctx: Of the object's pass.
        name: Of the Secret that the status names.
    """
    for secret in await _ours(ctx, name):
        if secret.metadata.owner_references:
            kept = Secret(
                name=secret.name,
                namespace=secret.namespace,
                labels=secret.labels,
                annotations={key: value for key, value in secret.annotations.items() if key in _RECORD},
                type=secret.type,
                data=secret.data,
            )
            await ctx.apply(kept, owned=False)


async def remove(ctx: Context, db: Database) -> None:
    """Before `db` goes and its database is gone: its Secrets go too, also where they had no owner."""
    for secret in await _ours(ctx, recorded_name(db)):
        await ctx.delete(secret)


def recorded_name(db: Database) -> str | None:
    """The name of the Secret that the status names."""
    return db.status.binding.name if db.status.binding else None


def _is_stuck(found: Secret, wanted: Secret) -> bool:
    return found.type != wanted.type or bool(found.immutable and not _holds(found, wanted))


def _is_same(found: Secret, wanted: Secret) -> bool:
    labelled = wanted.labels.items() <= found.labels.items()
    return found.type == wanted.type and _holds(found, wanted) and labelled and is_record(found.annotations)


def _holds(found: Secret, wanted: Secret) -> bool:
    """Whether it has all values; what a person has added is his."""
    return wanted.data.items() <= found.data.items()


async def _wanted(ctx: Context, account: Account) -> Secret | None:
    found = await ctx.find(Secret, account.secret)
    if found is not None and not ctx.owns(found):
        where = f"spec.users[{account.user}].secretName" if account.user else "spec.credentials.secretName"
        raise NotOwned(
            f"Secret {found.name} exists and is not this Database's; it was not touched. "
            f"Set {where} to another name, or delete that Secret if nobody needs it"
        )
    return found


async def _ours(ctx: Context, recorded: str | None) -> list[Secret]:
    """All Secrets with credentials that are the object's, the one of this name included, if it is one."""
    labels = {LABEL: label(ctx.header.name)}
    found = {
        secret.name: secret
        for secret in ctx.list(Secret, namespace=ctx.header.namespace, labels=labels)
        if secret.type == TYPE and ctx.owns(secret)
    }
    if recorded is not None and recorded not in found:
        secret = await ctx.find(Secret, recorded)
        if secret is not None and secret.type == TYPE and ctx.owns(secret):
            found[recorded] = secret
    return list(found.values())

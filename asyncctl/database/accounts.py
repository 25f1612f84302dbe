"""The users of a `Database`, each with two names for logins, so that one can follow the other, and a Secret."""

from dataclasses import dataclass

from asyncctl import TerminalError
from asyncctl.database.naming import logins, secret_name
from asyncctl.database.types import Database, Privileges, UserSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user of a database.

    Attributes:
        user: As the spec calls it; empty for the one owner of a Database that lists none.
        privileges: What it may do.
        connection_limit: Sessions of one login at once; -1 for no limit.
        secret: The name of the Secret with its credentials.
        logins: The two roles that take turns; the first is the first in use.
        main: Whose Secret `status.binding` names: the first owner, else the first user.
        former: Logins whose Secret it takes over: those of the one owner, from before the spec listed users.
    """

    user: str
    privileges: Privileges
    connection_limit: int
    secret: str
    logins: tuple[str, str]
    main: bool
    former: tuple[str, ...] = ()


def accounts(db: Database, database: str) -> list[Account]:
    """Those of `db`, in the order of its spec; where that lists none, one owner.

    Args:
        db: Whose they are.
        database: Its name on the server.

    Raises:
        TerminalError: Two of them would have the same Secret.
    """
    users = db.spec.users or [UserSpec(name="")]
    main = next((user for user in users if user.privileges is Privileges.OWNER), users[0])
    found = [
        Account(
            user=user.name,
            privileges=user.privileges,
            connection_limit=user.connection_limit,
            secret=_secret(db, user, main=user is main),
            logins=logins(database, user.name),
            main=user is main,
            former=logins(database) if user is main and user.name else (),
        )
        for user in users
    ]
    _tell_apart(found)
    return found


def _secret(db: Database, user: UserSpec, *, main: bool) -> str:
    chosen = db.spec.credentials.secret_name if main and db.spec.credentials else None
    return user.secret_name or chosen or secret_name(db, "" if main else user.name)


def _tell_apart(found: list[Account]) -> None:
    by_secret: dict[str, Account] = {}
    for account in found:
        other = by_secret.setdefault(account.secret, account)
        if other is not account:
            raise TerminalError(
                f'users "{other.user}" and "{account.user}" would both have Secret {account.secret}: set secretName of '
                "one of them to another name; nothing was made or changed",
                reason="SecretNameTaken",
            )

"""The users of a `Database`, each with two names for logins, so that one can follow the other, and a Secret."""

from dataclasses import dataclass

from asyncctl.database import naming
from asyncctl.database.types import Database, Privileges


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
    """

    user: str
    privileges: Privileges
    connection_limit: int
    secret: str
    logins: tuple[str, str]
    main: bool


def accounts(db: Database, database: str) -> list[Account]:
    """Those of `db`, whose database has this name."""
    return [
        Account(
            user="",
            privileges=Privileges.OWNER,
            connection_limit=-1,
            secret=naming.secret_name(db),
            logins=(f"{database}_a", f"{database}_b"),
            main=True,
        )
    ]

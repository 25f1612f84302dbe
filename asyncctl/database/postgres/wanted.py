"""What is wanted of a PostgreSQL server for one `Database`, and what came of it; neither knows of Kubernetes' API."""

from dataclasses import dataclass, field

from asyncctl.database.postgres.claim import Claim
from asyncctl.database.postgres.database import Facts
from asyncctl.database.types import Claim as Recorded, ExtensionSpec, ItemStatus, Privileges, SchemaSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A role that may log in, of one user of a database.

    Attributes:
        name: Of the role.
        user: Whose it is, as the spec calls it; for messages, and for what a correction is called.
        privileges: What it may do in the database.
        connection_limit: Sessions at once; -1 for no limit.
        password: To be set, also where the role exists; None leaves the one that it has, and makes no role.
    """

    name: str
    user: str = ""
    privileges: Privileges = Privileges.OWNER
    connection_limit: int = -1
    password: str | None = field(default=None, repr=False)

    @property
    def about(self) -> str:
        """What a correction of it is called."""
        return f"users[{self.user or self.name}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One database as it is to be.

    Attributes:
        database: Its name.
        claim: Ours.
        recorded: What the status knows of it; None where it was never made.
        adopt: A database or owner role that bears nobody's claim may be taken over.
        encoding: Of a new one.
        locale: Of a new one; None is the server's default.
        connection_limit: Sessions at once; -1 for no limit.
        schemas: To be there; others are left alone.
        extensions: To be there; others are left alone.
        logins: Of the users, and whom a user's grace period still lets in. Other logins that bear the claim go.
    """

    database: str
    claim: Claim
    recorded: Recorded | None = None
    adopt: bool = False
    encoding: str = "UTF8"
    locale: str | None = None
    connection_limit: int = -1
    schemas: tuple[SchemaSpec, ...] = ()
    extensions: tuple[ExtensionSpec, ...] = ()
    logins: tuple[Login, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """What a pass of the SQL steps found and did.

    Attributes:
        facts: What identifies the database.
        adopted: It existed, bore nobody's claim, and was taken over now.
        made: It was created now.
        corrected: What was not as wanted and was put right, by the spec's names: `connectionLimit`, `owner`,
            `privileges`, `claim`, `schemas[app]`, `extensions[pgcrypto]`, `users[app]`. Empty in the steady state.
        schemas: How it stands with each that is wanted.
        extensions: Likewise; one that can't be had is no failure of the whole.
        lingering: Why logins that are to go could not be dropped, of each; they let nobody in any more.
    """

    facts: Facts
    adopted: bool = False
    made: bool = False
    corrected: tuple[str, ...] = ()
    schemas: tuple[ItemStatus, ...] = ()
    extensions: tuple[ItemStatus, ...] = ()
    lingering: tuple[str, ...] = ()

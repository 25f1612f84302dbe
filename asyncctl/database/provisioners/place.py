"""Where a database is: the server that we work on as its admin, what applications connect to, and who finds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from asyncctl import Context, TerminalError
from asyncctl.database.postgres.connection import Server
from asyncctl.database.types import Database, Provisioner as Kind

SETTING = "ASYNCCTL_DATABASE_PROVISIONERS"


@dataclass(frozen=True, slots=True)
class Place:
    """A server that answers, found or made by a provisioner.

    Attributes:
        server: As our admin connects to it.
        host: For applications, as the Secret and the status say it.
        port: Likewise.
        ca: The certificates by which applications verify the server, where they are not the system's.
        replicas: Instances that run, in the cluster; None on a server that is not ours.
    """

    server: Server
    host: str
    port: int
    ca: bytes | None = None
    replicas: int | None = None


class Waiting(Exception):
    """The place is not ready yet, and what makes it so wakes the object: nothing failed, there is just nothing to do.

    Args:
        message: What is waited for, and what to do where it never comes.
        aspect: The condition that is False meanwhile: `StorageReady` or `WorkloadReady`.
        reason: One CamelCase word.
        trouble: It does not look as if it would come by itself: worth a Warning event.
        after: Seconds after which to look again, where nothing may tell that it came; None: at the next resync.
    """

    def __init__(
        self, message: str, *, aspect: str, reason: str, trouble: bool = False, after: float | None = None
    ) -> None:
        super().__init__(message)
        self.aspect = aspect
        self.reason = reason
        self.trouble = trouble
        self.after = after


class Stopped(Waiting):
    """There is no server because none is wanted; the data is kept. The phase is Suspended."""

    def __init__(self, message: str) -> None:
        super().__init__(message, aspect="WorkloadReady", reason="Stopped")


class PlaceRefused(TerminalError):
    """The place can't be made as it is wanted: somebody has to change something first.

    Args:
        message: What is wrong, and what to do.
        aspect: The condition that is False.
        reason: One CamelCase word.
    """

    def __init__(self, message: str, *, aspect: str, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.aspect = aspect


class Provisioner(Protocol):
    """Finds servers, or makes them. One serves all objects; `db` is the one of the pass."""

    async def place(self, ctx: Context, db: Database) -> Place:
        """Make it so, as far as the server is concerned; returns when it answers.

        Raises:
            Waiting: Something that wakes the object has to happen first.
            DatabaseError: As it fits; so `ServerRefused`, `NotOwned`, `TerminalError` and errors of the API server.
        """
        ...

    async def known_place(self, ctx: Context, db: Database) -> Place | None:
        """Where it is, to drop the database there; nothing is made. None where `remove` takes the data as well.

        Raises:
            Waiting: As `place`.
            DatabaseError: As `place`.
        """
        ...

    async def let_go(self, ctx: Context, *, orphan: bool) -> None:
        """Before the object of the pass, be it readable or not, goes and its data stays: what holds it must not go too.

        Args:
            ctx: Of the pass.
            orphan: All that was made stays as it is, and runs on.
        """
        ...

    async def holds_data(self, ctx: Context, db: Database) -> bool:
        """Whether there is data of `db` that `remove` would take away."""
        ...

    async def remove(self, ctx: Context, db: Database) -> bool:
        """Before `db` goes and its data is gone, or goes by this; returns False where the data never was `db`'s.

        Raises:
            Waiting: It is going.
        """
        ...


def serving(provisioners: Mapping[Kind, Provisioner], kind: Kind) -> Provisioner:
    """The provisioner of a `Database`.

    Args:
        provisioners: Those that are served.
        kind: As the spec names it.

    Raises:
        TerminalError: That one is not served.
    """
    if kind not in provisioners:
        raise TerminalError(
            f"Databases of provisioner {kind} are not served here ({SETTING} is {','.join(provisioners)}): nothing was "
            f"looked at or changed. Ask the operator of asyncctl to add {kind} to it, with the rights that takes "
            "(manifests/rbac)",
            reason="ProvisionerOff",
        )
    return provisioners[kind]

"""Which cluster this is: in each claim and each made-up name, so that two clusters on one server do not meet."""

from asyncctl import Context, TerminalError
from asyncctl.client.errors import NamespaceBoundaryExceeded, NotFound
from asyncctl.database.postgres.claim import Claim
from asyncctl.database.types import Database
from asyncctl.objects import Namespace


class Cluster:
    """The cluster that we serve.

    Args:
        known_as: Its id, where the settings have one; else the uid of namespace kube-system, which is read once.
    """

    def __init__(self, known_as: str | None) -> None:
        self._id = known_as

    async def id(self, ctx: Context) -> str:
        """What it is known by, for ever.

        Raises:
            TerminalError: There is no telling.
        """
        if self._id is None:
            try:
                self._id = (await ctx.client.get(Namespace, "kube-system")).uid
            except (NotFound, NamespaceBoundaryExceeded) as error:
                why = "is not there" if isinstance(error, NotFound) else "is outside of ASYNCCTL_NAMESPACES"
                message = f"namespace kube-system, whose uid names this cluster, {why}; set ASYNCCTL_CLUSTER_ID"
                raise TerminalError(message, reason="NoClusterId") from error
        return self._id

    async def claim(self, ctx: Context, db: Database) -> Claim:
        """What marks a database as that of `db`. Raises as `id` does."""
        return Claim(await self.id(ctx), db.namespace, db.name, db.uid)

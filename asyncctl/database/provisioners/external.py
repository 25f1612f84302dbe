"""A database on a server that exists already: one of the operator's catalogue, or a tenant's own.

Finds servers; makes none, and takes none away. It opens no connection.
"""

from collections.abc import Sequence

from asyncctl import Context, Logger
from asyncctl.database.authorities import Authorities
from asyncctl.database.catalogue import Catalogue
from asyncctl.database.provisioners.admin_secret import server_of
from asyncctl.database.provisioners.place import Place
from asyncctl.database.types import Database


class External:
    """Finds the server of a `Database`; one serves all of them. `close` it at the end of the program.

    Args:
        catalogue: Of the servers that are known by name; looked at anew before each answer.
        admin_hosts: Shell patterns of the hosts that an `adminSecretRef` may name.
        logger: Says when the catalogue was read anew, or could not be.
    """

    def __init__(self, catalogue: Catalogue, *, admin_hosts: Sequence[str] = (), logger: Logger) -> None:
        self._catalogue = catalogue
        self._admin_hosts = admin_hosts
        self._logger = logger
        self._authorities = Authorities()

    async def place(self, ctx: Context, db: Database) -> Place:
        """See `Provisioner.place`.

        Raises:
            ServerRefused: The server is not there for this object, or what was said of it can't be used.
        """
        return await self.known_place(ctx, db)

    async def known_place(self, ctx: Context, db: Database) -> Place:
        """See `Provisioner.known_place`; raises as `place` does."""
        external = db.spec.external
        assert external is not None
        if external.server_name is not None:
            await self._refresh()
            server = self._catalogue.server(external.server_name, db.namespace)
            return Place(server, server.host, server.port, self._catalogue.authorities(external.server_name))
        server, ca = await server_of(
            ctx.client, db, external, admin_hosts=self._admin_hosts, authorities=self._authorities
        )
        return Place(server, server.host, server.port, ca)

    async def let_go(self, ctx: Context, *, orphan: bool) -> None:
        """See `Provisioner.let_go`: there is nothing here that would go."""

    async def holds_data(self, ctx: Context, db: Database) -> bool:  # noqa: ARG002 - the protocol's
        """See `Provisioner.holds_data`: the server is asked for that."""
        return False

    async def remove(self, ctx: Context, db: Database) -> bool:  # noqa: ARG002 - the protocol's
        """See `Provisioner.remove`: the server is not ours to remove."""
        return True

    async def close(self) -> None:
        """Remove what was written to disk."""
        await self._authorities.close()

    async def _refresh(self) -> None:
        if await self._catalogue.refresh():
            if self._catalogue.problem:
                self._logger.error("the catalogue's new state is not used", cause=self._catalogue.problem)
            else:
                self._logger.info("the catalogue was read anew")
                for warning in self._catalogue.warnings:
                    self._logger.warning(warning)

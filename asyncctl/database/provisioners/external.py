"""A database on a server that exists already: one of the operator's catalogue."""

import anyio.to_thread

from asyncctl.controller.context import Context
from asyncctl.database.catalogue import Catalogue
from asyncctl.database.provisioners.place import Place
from asyncctl.database.types import Database
from asyncctl.observe.logs import Logger


class External:
    """Finds servers; makes none, and takes none away."""

    def __init__(self, catalogue: Catalogue, *, logger: Logger) -> None:
        self._catalogue = catalogue
        self._logger = logger

    async def place(self, ctx: Context, db: Database) -> Place:
        """See `Provisioner.place`."""
        return await self.known_place(ctx, db)

    async def known_place(self, ctx: Context, db: Database) -> Place:
        """See `Provisioner.known_place`."""
        del ctx
        await self._refresh()
        wanted = db.spec.external.server_name if db.spec.external else None
        server = self._catalogue.server(wanted or "", db.namespace)
        ca = await anyio.to_thread.run_sync(server.ca_file.read_bytes) if server.ca_file else None
        return Place(server, server.host, server.port, ca)

    async def let_go(self, ctx: Context, *, orphan: bool) -> None:
        """See `Provisioner.let_go`."""

    async def remove(self, ctx: Context, db: Database) -> None:
        """See `Provisioner.remove`."""

    async def _refresh(self) -> None:
        if await self._catalogue.refresh():
            if self._catalogue.problem:
                self._logger.error("the catalogue's new state is not used", cause=self._catalogue.problem)
            else:
                self._logger.info("the catalogue was read anew")

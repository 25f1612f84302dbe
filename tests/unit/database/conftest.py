"""An embedded API server that knows `Database`."""

from contextlib import asynccontextmanager

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.database.types import Database
from asyncctl.generate import crd
from tests.unit.harness import cluster_at

KIND = Database.resource_type
DEFINITION = crd(Database)  # at import: it reads the source for its docstrings


@pytest.fixture
def serving(backends):
    """Return a function: have an embedded API server with a definition of Databases, for the length of a block."""

    @asynccontextmanager
    async def serve(definition):
        async with ApiServer() as server:
            backends.have("embedded")
            async with cluster_at(ClusterConfig(server=server.url)) as made:
                await made.define(definition)
                yield made

    return serve


@pytest.fixture
async def databases(serving):
    """A cluster with the definition as it is shipped."""
    async with serving(DEFINITION) as made:
        yield made

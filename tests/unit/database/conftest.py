"""An embedded API server that knows `Database`."""

import asyncio

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import NotFound
from asyncctl.database.types import Database
from asyncctl.generate import crd
from tests.unit.harness import cluster_at

KIND = Database.resource_type
DEFINITION = crd(Database)  # at import: it reads the source for its docstrings


@pytest.fixture
async def databases(backends):
    """A cluster with the definition as it is shipped."""
    async with ApiServer() as server:
        backends.have("embedded")
        async with cluster_at(ClusterConfig(server=server.url)) as made:
            await made.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
            async with asyncio.timeout(10):
                while True:
                    try:
                        await made.send("GET", f"/apis/{KIND.api_version}/{KIND.plural}")
                        break
                    except NotFound:
                        await asyncio.sleep(0.02)
            yield made

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from tests.unit.harness import cluster_at


@pytest.fixture
async def cluster(backends):
    """An embedded API server of the test's own."""
    async with ApiServer() as server:
        backends.have("embedded")
        async with cluster_at(ClusterConfig(server=server.url)) as made:
            yield made

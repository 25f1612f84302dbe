"""A token that the real API server takes back in the middle of the work: the next one is read, and nobody notices."""

import asyncio
from dataclasses import replace

import pytest

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Unauthorized
from asyncctl.objects import ConfigMap, Unstructured
from tests.unit.harness import cluster_at
from tests.unit.support import connected

ACCOUNT = Unstructured("v1", "ServiceAccount")
ROLE = Unstructured("rbac.authorization.k8s.io/v1", "Role")
BINDING = Unstructured("rbac.authorization.k8s.io/v1", "RoleBinding")
GROUP = "rbac.authorization.k8s.io"


@pytest.fixture
async def cluster(kube):
    config = ClusterConfig(server=kube.url, ca_file=str(kube.ca_file), authorization=f"Bearer {kube.admin_token}")
    async with cluster_at(config) as made:
        yield made


async def account(cluster, token_file):
    """Make the ServiceAccount anew, so that the tokens of the one before are void, and write its token."""
    team, client = cluster.namespace, cluster.client
    await client.delete_all(ACCOUNT, namespace=team, fields={"metadata.name": "worker"})
    await client.create({"metadata": {"name": "worker", "namespace": team}}, ACCOUNT)
    token = await client.create_token("worker", namespace=team)
    temporary = token_file.with_suffix(".new")
    temporary.write_text(token.token)
    temporary.replace(token_file)


async def test_a_token_that_is_taken_back_in_mid_flight_costs_no_request(cluster, tmp_path):
    team, client = cluster.namespace, cluster.client
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}
    await client.create({"metadata": {"name": "w", "namespace": team}, "rules": [rule]}, ROLE)
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": team}
    binding = {"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "w"}, "subjects": [subject]}
    await client.create({"metadata": {"name": "w", "namespace": team}} | binding, BINDING)
    await client.create(ConfigMap(name="a", namespace=team, data={}))
    file = tmp_path / "token"
    await account(cluster, file)
    config = replace(cluster.config, authorization=None, token_file=file)
    void = f"Bearer {file.read_text()}"
    async with connected(config) as worker:
        await worker.get(ConfigMap, "a", namespace=team)
        await account(cluster, file)
        made = 0
        async with asyncio.timeout(60):  # the server remembers a good token for ten seconds
            while await is_good(void, config, team):
                await worker.create(ConfigMap(name=f"c-{made}", namespace=team, data={}))
                made += 1
        await asyncio.gather(
            *(worker.get(ConfigMap, "a", namespace=team) for _ in range(50)),
            *(worker.create(ConfigMap(name=f"c-{made + n}", namespace=team, data={})) for n in range(10)),
        )
        refused = {code for code, _ in worker._transport._metrics._retries}
    assert refused == {401}
    assert (
        len(await client.list(ConfigMap, namespace=team, fields="metadata.name!=kube-root-ca.crt").all()) == made + 11
    )


async def is_good(authorization, config, team):
    """Whether the server takes a token."""
    async with connected(replace(config, token_file=None, authorization=authorization)) as client:
        try:
            await client.get(ConfigMap, "a", namespace=team)
        except Unauthorized:
            return False
        return True

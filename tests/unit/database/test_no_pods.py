"""An instance in the cluster at an API server where nothing would run its pod, as that of `asyncctl dev`."""

from contextlib import asynccontextmanager

from msgspec.structs import replace

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.database.credentials import TYPE
from asyncctl.database.operator import database_operator
from asyncctl.database.provisioners.manifests import SERVICE, STATEFUL_SET, VOLUME_CLAIM
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import (
    CredentialsSpec,
    Database,
    DatabaseSpec,
    InClusterSpec,
    Phase,
    Provisioner,
    ReclaimPolicy,
    StorageSpec,
)
from asyncctl.generate import crd
from asyncctl.objects import Namespace, Quantity, Secret
from asyncctl.settings import Address
from tests.unit.harness import Cluster
from tests.unit.support import Log, connected, until

SPEC = DatabaseSpec(
    provisioner=Provisioner.IN_CLUSTER,
    reclaim_policy=ReclaimPolicy.DELETE,
    in_cluster=InClusterSpec(version="17", storage=StorageSpec(size=Quantity("1Gi"))),
)
SETTINGS = DatabaseSettings(
    leader_election=False, http_address=Address("127.0.0.1", 0), debug_address=None, pod_name="test", cluster_id="c1"
)
DATABASES = crd(Database)  # at import: it reads the source for its docstrings
LABELS, MARK = {"apps.example.com/database": "orders"}, {"asyncctl/owner": "databases.apps.example.com/team/orders"}
NAMES = [
    (SERVICE, "orders-postgres"),
    (SERVICE, "orders-postgres-pods"),
    (STATEFUL_SET, "orders-postgres"),
    (VOLUME_CLAIM, "orders-postgres-data"),
    (Secret, "orders-postgres-admin"),
]


@asynccontextmanager
async def served():
    async with ApiServer() as server, connected(config := ClusterConfig(server=server.url)) as client:
        cluster = Cluster(config, client, "team")
        await cluster.define(DATABASES)
        await client.create(Namespace(name="team"))
        operator = database_operator()
        async with operator.running(settings=SETTINGS, logger=Log().logger, config=config) as running:
            await until(running.ready.is_set)
            yield cluster


async def test_a_volume_that_was_kept_and_refused_is_not_deleted_with_who_could_not_take_it_up():
    async with served() as cluster:
        await cluster.create(Database, "orders", spec=replace(SPEC, reclaim_policy=ReclaimPolicy.RETAIN))
        await cluster.until(Database, "orders", lambda db: db.status.conditions.get("WorkloadReady"))
        await cluster.delete(Database, "orders")
        await cluster.until_gone(Database, "orders")
        other = InClusterSpec(version="16", storage=StorageSpec(size=Quantity("1Gi")))
        await cluster.create(Database, "orders", spec=replace(SPEC, in_cluster=other))
        await cluster.until(
            Database, "orders", lambda db: "data of PostgreSQL 17" in str(db.status.conditions.get("Ready"))
        )
        await cluster.delete(Database, "orders")
        await cluster.until_gone(Database, "orders")
        for kind, name in ((VOLUME_CLAIM, "orders-postgres-data"), (Secret, "orders-postgres-admin")):
            assert await cluster.get(kind, name)


async def test_what_was_kept_of_a_volume_that_is_gone_is_not_deleted_with_who_never_took_it_up():
    async with served() as cluster:
        await cluster.create(Database, "orders", spec=replace(SPEC, reclaim_policy=ReclaimPolicy.RETAIN))
        await cluster.until(Database, "orders", lambda db: db.status.conditions.get("WorkloadReady"))
        await cluster.delete(Database, "orders")
        await cluster.until_gone(Database, "orders")
        await cluster.client.delete(VOLUME_CLAIM, "orders-postgres-data", namespace="team")
        await cluster.create(Secret, "orders-credentials", labels=LABELS, annotations=MARK, type=TYPE)
        taken = CredentialsSpec(secret_name="orders-postgres-admin")  # which is refused before anything is made
        await cluster.create(Database, "orders", spec=replace(SPEC, credentials=taken))
        await cluster.until(
            Database, "orders", lambda db: "choose another secretName" in str(db.status.conditions.get("Ready"))
        )
        await cluster.delete(Database, "orders")
        await cluster.until_gone(Database, "orders")
        for name in ("orders-postgres-admin", "orders-credentials"):
            assert await cluster.get(Secret, name)


async def test_a_secret_of_another_type_stays_whatever_it_and_the_status_say_whose_it_is():
    async with served() as cluster:
        await cluster.create(Database, "orders", spec=SPEC)
        await cluster.until(Database, "orders", lambda db: db.status.conditions.get("WorkloadReady"))
        for name, labels in (("recorded", {}), ("labelled", LABELS), ("ours", LABELS)):
            kind = TYPE if name == "ours" else "Opaque"
            await cluster.create(Secret, name, labels=labels, annotations=MARK, type=kind)
        await cluster.patch(Database, "orders", {"status": {"binding": {"name": "recorded"}}}, subresource="status")
        await cluster.delete(Database, "orders")
        await cluster.until_gone(Database, "orders")
        assert await cluster.get(Secret, "recorded")
        assert await cluster.get(Secret, "labelled")
        assert await cluster.gone(Secret, "ours")


async def test_it_waits_says_for_whom_and_goes_without_a_trace():
    async with served() as cluster:
        await cluster.create(Database, "orders", spec=SPEC)
        waiting = await cluster.until(Database, "orders", lambda db: db.status.conditions.get("WorkloadReady"))
        ready = waiting.status.conditions.get("Ready")
        assert (waiting.status.phase, ready.reason) == (Phase.PENDING, "Starting")
        assert "waits for the cluster's controller of StatefulSets" in ready.message
        for kind, name in NAMES:
            assert await cluster.get(kind, name)
        await cluster.delete(Database, "orders")
        await cluster.until_gone(Database, "orders")
        for kind, name in NAMES:
            await cluster.until_gone(kind, name)

"""An instance in the cluster at an API server where nothing would run its pod, as that of `asyncctl dev`."""

import dataclasses
from contextlib import asynccontextmanager

from msgspec.structs import replace

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.database.credentials import TYPE
from asyncctl.database.deletion import ORPHAN
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
    async with clusters() as cluster, serving(cluster):
        yield cluster


@asynccontextmanager
async def serving(cluster, *provisioners):
    """The shipped operator, for all provisioners or for these."""
    settings = dataclasses.replace(SETTINGS, provisioners=provisioners) if provisioners else SETTINGS
    operator = database_operator()
    async with operator.running(settings=settings, logger=Log().logger, config=cluster.config) as running:
        await until(running.ready.is_set)
        yield running


@asynccontextmanager
async def clusters():
    async with ApiServer() as server, connected(config := ClusterConfig(server=server.url)) as client:
        cluster = Cluster(config, client, "team")
        await cluster.define(DATABASES)
        await client.create(Namespace(name="team"))
        yield cluster


async def test_what_is_not_served_is_told_so_and_nothing_else_happens_to_it():
    async with clusters() as cluster:
        async with serving(cluster):
            await cluster.create(Database, "orders", spec=SPEC)
            await cluster.until(Database, "orders", lambda db: db.status.conditions.get("WorkloadReady"))
        await cluster.create(Database, "new", spec=SPEC)
        before = {name: await version(cluster, kind, name) for kind, name in NAMES}
        async with serving(cluster, Provisioner.EXTERNAL) as running:
            assert {informer.kind.plural for informer in running._informers} == {"databases", "secrets"}
            for name in ("orders", "new"):
                found = await cluster.until(Database, name, is_off)
                assert "ASYNCCTL_DATABASE_PROVISIONERS is External" in found.status.conditions.get("Ready").message
                assert found.status.phase is Phase.FAILED
                await cluster.patch(Database, name, {"metadata": {"annotations": {ORPHAN: "orphan"}}})
                await cluster.delete(Database, name)
            await cluster.until_gone(Database, "new")
            held = await cluster.until(Database, "orders", lambda db: db.metadata.deletion_timestamp and is_off(db))
            assert held.metadata.finalizers
        assert {name: await version(cluster, kind, name) for kind, name in NAMES} == before
        async with serving(cluster, Provisioner.IN_CLUSTER):
            await cluster.until_gone(Database, "orders")
        for kind, name in NAMES:
            assert await cluster.get(kind, name)


def is_off(db):
    ready = db.status.conditions.get("Ready")
    return ready is not None and ready.reason == "ProvisionerOff"


async def version(cluster, kind, name):
    found = await cluster.get(kind, name)
    return found["metadata"]["resourceVersion"] if isinstance(found, dict) else found.metadata.resource_version


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

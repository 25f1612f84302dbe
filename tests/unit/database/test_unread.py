"""What becomes of a `Database` that can't be decoded when it is deleted: its raw fields decide; no data is dropped."""

import copy

import pytest

from asyncctl.client.patch import Patch
from asyncctl.controller.outcome import TerminalError
from asyncctl.database.credentials import TYPE
from asyncctl.database.deletion import ORPHAN
from asyncctl.database.operator import FINALIZER
from asyncctl.database.reconcile import DatabaseReconciler
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Database
from asyncctl.generate import crd
from asyncctl.objects import Secret, Unstructured
from asyncctl.operator import Operator
from tests.unit.harness import working
from tests.unit.support import until

KIND = Database.resource_type
RAW = Unstructured(KIND.api_version, KIND.kind)
BROKEN = {"connectionLimit": "many"}
MADE = {"databaseName": "team_a", "binding": {"name": "a-secret"}, "claim": {"databaseOID": 1}}


def loose():
    """The definition of an earlier version, which let anything pass."""
    definition = copy.deepcopy(crd(Database))
    version = definition["spec"]["versions"][0]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version["schema"] = {"openAPIV3Schema": anything}
    version.pop("additionalPrinterColumns", None)
    return definition


LOOSE = loose()  # at import: it reads the source for its docstrings


@pytest.fixture
async def cluster(serving):
    async with serving(LOOSE) as made:
        yield made


async def deleted(cluster, spec, status, annotations=None):
    """A Database with a Secret that it owns, waiting for the finalizer."""
    path = f"/apis/{KIND.api_version}/namespaces/{cluster.namespace}/{KIND.plural}"
    metadata = {"name": "a", "finalizers": [FINALIZER], "annotations": annotations or {}}
    body = {"apiVersion": KIND.api_version, "kind": KIND.kind, "metadata": metadata, "spec": spec}
    made = await cluster.send("POST", path, body)
    await cluster.patch(Database, "a", {"status": status}, subresource="status")
    owner = {"apiVersion": KIND.api_version, "kind": KIND.kind, "name": "a", "uid": made["metadata"]["uid"]}
    metadata = {"name": "a-secret", "ownerReferences": [owner | {"controller": True}]}
    await cluster.send(
        "PATCH", f"/api/v1/namespaces/{cluster.namespace}/secrets/a-secret?fieldManager=asyncctl-test",
        {"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata}, Patch.APPLY.value,
    )  # fmt: skip
    await cluster.delete(Database, "a")


def program(refused=None):
    """The reconciler with its clean-up; what that refuses is noted."""
    operator = Operator("test", settings=DatabaseSettings)
    reconciler = DatabaseReconciler()
    operator.on_startup(reconciler.start)
    declared = operator.controller(Database, owns=[Secret])(reconciler)

    @declared.finalizer(FINALIZER)
    async def clean_up(ctx, db):
        try:
            await reconciler.clean_up(ctx, db)
        except TerminalError as error:
            refused.append(error)
            raise

    return operator


@pytest.mark.parametrize(
    "spec, annotations, reason",
    [
        ({}, {}, "Retained"),
        ({"reclaimPolicy": "Retain"}, {}, "Retained"),
        ({"reclaimPolicy": "Delete"}, {ORPHAN: "orphan"}, "Orphaned"),
        ({"deletionProtection": True}, {ORPHAN: "orphan"}, "Orphaned"),
    ],
)
async def test_it_goes_and_its_secret_stays_where_its_data_is_to_be_kept(cluster, spec, annotations, reason):
    await deleted(cluster, BROKEN | spec, MADE, annotations)
    async with working(program(), cluster, cluster_id="c1", provisioners=("External",)):
        await cluster.until_gone(RAW, "a")
        assert [said for said, _ in await cluster.until_said("a")] == [reason]
    assert (await cluster.get(Secret, "a-secret")).metadata.owner_references == []


@pytest.mark.parametrize(
    "spec, field",
    [
        (BROKEN | {"reclaimPolicy": "Delete"}, "spec.connectionLimit: expected int"),
        ({"reclaimPolicy": "Keep"}, "spec.reclaimPolicy: invalid enum value"),
        (BROKEN | {"deletionProtection": True}, "spec.connectionLimit: expected int"),
    ],
)
async def test_it_waits_and_says_which_field_to_correct_where_its_data_is_not_surely_to_be_kept(cluster, spec, field):
    await deleted(cluster, spec, MADE)
    refused = []
    async with working(program(refused), cluster, cluster_id="c1", provisioners=("External",)):
        error = (await until(lambda: refused))[0]
        assert error.reason == "Unreadable"
        assert f"can't be read ({field}" in str(error)
        assert f"annotation {ORPHAN}: orphan" in str(error)
        assert (await cluster.client.get(RAW, "a", namespace=cluster.namespace))["metadata"]["finalizers"]
        assert (await cluster.get(Secret, "a-secret")).metadata.owner_references
        await cluster.patch(Database, "a", {"metadata": {"annotations": {ORPHAN: "orphan"}}})  # as the text says
        await cluster.until_gone(RAW, "a")


@pytest.mark.parametrize("spec", [{}, BROKEN], ids=["readable", "unreadable"])
@pytest.mark.parametrize("annotations", [{}, {ORPHAN: "orphan"}], ids=["retained", "orphaned"])
@pytest.mark.parametrize("made", [True, False])
async def test_nothing_is_said_to_be_kept_that_was_never_its_own(cluster, spec, annotations, made):
    good = {"provisioner": "External", "external": {"serverName": "main"}}
    await deleted(cluster, good | spec, MADE if made else {"databaseName": "team_a"}, annotations)
    async with working(program(), cluster, cluster_id="c1", provisioners=("External",)):
        await cluster.until_gone(RAW, "a")
        ((_, note),) = await cluster.until_said("a")
    assert ("was never claimed by this object" in note) is not made


async def test_it_goes_where_nothing_was_made(cluster):
    await deleted(cluster, BROKEN | {"reclaimPolicy": "Delete"}, {})
    async with working(program(), cluster, cluster_id="c1", provisioners=("External",)):
        await cluster.until_gone(RAW, "a")

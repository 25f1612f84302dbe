"""Kinds and their definitions: what the server has, held against what is declared and what the code generates."""

import copy
import json

import pytest
from aiohttp import web

from asyncctl.check.definition import differences, schema_differences, schema_of
from asyncctl.controller.sources import Watch
from asyncctl.database.types import Database
from asyncctl.generate import crd
from asyncctl.objects import ConfigMap, Unstructured
from asyncctl.operator import Operator
from asyncctl.operator.checking import State
from asyncctl.settings import Settings
from tests.unit.check.conftest import in_front_of, nothing
from tests.unit.harness import CRDS, WIDGETS, Widget
from tests.unit.support import status

NAME = WIDGETS["metadata"]["name"]
API, CRD = "api runtime.example.com/v1 Widget", f"crd {NAME}"


def without_status(definition):
    del definition["spec"]["versions"][0]["subresources"]


def as_v2(definition):
    definition["spec"]["versions"][0]["name"] = "v2"


def with_v2(definition):
    second = copy.deepcopy(definition["spec"]["versions"][0]) | {"name": "v2", "storage": False}
    definition["spec"]["versions"].append(second)


def deprecated(definition):
    definition["spec"]["versions"][0] |= {"deprecated": True, "deprecationWarning": "use v2"}


def cluster_scoped(definition):
    definition["spec"]["scope"] = "Cluster"


def _of(definition):
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def spec_of(definition):
    return _of(definition)["properties"]


def older(definition):
    del spec_of(definition)["size"]
    _of(definition)["default"] = {}


def newer(definition):
    spec_of(definition)["colour"] = {"type": "string"}


def other_type(definition):
    spec_of(definition)["size"] = {"type": "string"}
    _of(definition)["default"] = {}


def other_words(definition):
    spec_of(definition)["size"]["description"] = "How big."


@pytest.fixture
def define(cluster):
    """Have the definition of Widgets be another one: `define(change)`; with None there is none."""

    async def make(change):
        await cluster.send("DELETE", f"{CRDS}/{NAME}")
        if change is not None:
            definition = copy.deepcopy(WIDGETS)
            change(definition)
            await cluster.send("POST", CRDS, definition)

    return make


async def test_a_definition_that_is_missing(check, cluster, define):
    await define(None)
    rows = await check(cluster.url)
    assert rows.failed() == [API, CRD]
    assert "the server does not know widgets.runtime.example.com: install its CRD" in rows[API].message
    assert rows[CRD].message.startswith("it is not there; apply the CRD of this program's version")


async def test_a_version_that_is_not_served(check, cluster, define):
    await define(as_v2)
    rows = await check(cluster.url)
    assert rows.failed() == [API, CRD]
    assert "runtime.example.com/v1 is not served; Widget is in v2" in rows[API].message
    assert rows[API].details == {
        "apiVersion": "runtime.example.com/v1", "kind": "Widget", "served": False, "servedVersions": ["v2"],
        "preferred": "v2",
    }  # fmt: skip
    assert "v1: the version is not there" in rows[CRD].message


async def test_a_version_that_is_not_preferred(check, cluster, define):
    await define(with_v2)
    rows = await check(cluster.url)
    assert rows.states(State.FAILED, State.WARNING) == {}
    assert rows[API].message == "served; the server prefers v2"
    assert rows[API].details["preferred"] == "v2"


async def test_a_version_that_is_deprecated(check, cluster, define):
    await define(deprecated)
    rows = await check(cluster.url)
    assert rows.states(State.FAILED, State.WARNING) == {API: "warning"}
    assert rows[API].message == "served, and preferred; the server warns: use v2"


async def test_a_kind_without_its_status(check, cluster, define):
    await define(without_status)
    rows = await check(cluster.url)
    assert rows.failed() == [API, CRD]
    assert rows[API].message == "it has no subresource status there"


async def test_a_kind_of_another_scope(check, cluster, define):
    await define(cluster_scoped)
    rows = await check(cluster.url)
    assert rows.failed() == [API, CRD]
    assert rows[API].message == "it is cluster-scoped there, and declared namespaced"


async def test_a_plural_that_is_another_kinds(check, cluster):
    operator = Operator("test")
    operator.controller(Unstructured("v1", "Config", plural="configmaps", has_status=False))(nothing)
    rows = await check(cluster.url, operator)
    assert "configmaps are of kind ConfigMap there" in rows["api v1 Config"].message


@pytest.mark.parametrize(
    ("change", "state", "which", "said"),
    [
        (older, State.FAILED, "older than", "spec.size: the cluster does not know this field, and would drop it"),
        (newer, State.WARNING, "newer than", "spec.colour: a field that this program does not know"),
        (other_type, State.FAILED, "another than", "spec.size: type is string, should be integer"),
        (other_words, State.WARNING, "another than", "spec.size: description differs"),
    ],
)
async def test_a_definition_of_another_schema(check, cluster, define, change, state, which, said):
    await define(change)
    rows = await check(cluster.url)
    assert rows[CRD].state is state
    assert rows[CRD].message.startswith(f"{which} this program's")
    assert f"- {said}" in rows[CRD].message
    assert rows.failed() == ([CRD] if state is State.FAILED else [])


async def test_a_definition_whose_names_are_not_accepted(check, cluster, define):
    await define(None)
    taken = copy.deepcopy(WIDGETS)
    taken["metadata"]["name"] = "gadgets.runtime.example.com"
    taken["spec"]["names"] = {"plural": "gadgets", "singular": "gadget", "kind": "Widget", "listKind": "WidgetList"}
    await cluster.send("POST", CRDS, taken)
    await cluster.send("POST", CRDS, WIDGETS)
    rows = await check(cluster.url)
    assert rows[CRD].state is State.FAILED
    assert "NamesAccepted is False" in rows[CRD].message
    assert "already in use" in rows[CRD].message


def hidden(request):
    if request.path.startswith(CRDS):
        return status(403, "Forbidden", "customresourcedefinitions is forbidden")
    return None


@pytest.mark.parametrize(("change", "state"), [(lambda _: None, State.OK), (older, State.FAILED)])
async def test_without_the_right_to_read_definitions_the_published_schema_is_compared(
    check, cluster, define, change, state
):
    await define(change)
    async with in_front_of(cluster.url, hidden) as url:
        rows = await check(url)
    assert rows[CRD].state is state
    assert "as the server publishes it" in rows[CRD].message


async def test_without_the_right_to_read_definitions_a_missing_one_is_missing(check, cluster, define):
    await define(None)
    async with in_front_of(cluster.url, hidden) as url:
        rows = await check(url)
    assert rows[CRD].state is State.FAILED


async def test_a_server_that_shows_no_schema_at_all(check, cluster):
    def closed(request):
        return hidden(request) or (status(403, "Forbidden", "no") if request.path.startswith("/openapi") else None)

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert rows[CRD].state is State.SKIPPED
    assert "neither the CRD nor its published schema can be read" in rows[CRD].message


async def test_a_kind_that_can_not_be_listed(check, cluster):
    def broken(request):
        if request.path.endswith("/widgets"):
            return status(500, "InternalError", "conversion webhook failed")
        return None

    async with in_front_of(cluster.url, broken) as url:
        rows = await check(url)
    assert rows.failed() == [API]
    assert "conversion webhook failed" in rows[API].message


async def test_a_group_whose_server_is_away(check, cluster):
    def stale(request):
        if request.path != "/apis":
            return None
        version = {"version": "v1beta1", "resources": [], "freshness": "Stale"}
        body = {
            "kind": "APIGroupDiscoveryList",
            "items": [{"metadata": {"name": "metrics.k8s.io"}, "versions": [version]}],
        }
        return web.Response(body=json.dumps(body).encode(), content_type="application/json")

    operator = Operator("test")
    metrics = Unstructured("metrics.k8s.io/v1beta1", "PodMetrics", plural="pods", has_status=False)
    operator.controller(Unstructured("v1", "ConfigMap", has_status=False), reads=[metrics])(nothing)
    async with in_front_of(cluster.url, stale) as url:
        rows = await check(url, operator)
    row = rows["api metrics.k8s.io/v1beta1 PodMetrics"]
    assert row.state is State.FAILED
    assert "does not answer now" in row.message


async def test_a_discovery_that_is_refused_is_told_once_with_the_kinds_that_it_leaves_unknown(check, cluster):
    def closed(request):
        return status(403, "Forbidden", "no") if request.path == "/apis" else None

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert [name for name in rows.failed() if name.startswith("api")] == ["api /apis"]
    for kind in ("runtime.example.com/v1 Widget", "events.k8s.io/v1 Event"):
        assert kind in rows["api /apis"].message
    assert rows["api v1 ConfigMap"].state is State.OK


async def test_a_discovery_without_an_answer_is_told_once(check, cluster):
    def closed(request):
        return status(401, "Unauthorized", "no") if request.path == "/apis" else None

    async with in_front_of(cluster.url, closed) as url:
        rows = await check(url)
    assert rows.states(State.FAILED) == {"api": "failed"}
    assert rows["crd"].state is State.SKIPPED


@pytest.mark.parametrize("own", [None, ["b"]], ids=["the operator's", "its own"])
async def test_with_namespaces_a_kind_is_listed_in_one_of_them(check, cluster, own):
    seen = []

    def note(request):
        if "limit=1" in request.query_string:
            seen.append(request.path)

    operator = Operator("test")
    operator.controller(Widget, owns=[Watch(ConfigMap, namespaces=own)])(nothing)
    async with in_front_of(cluster.url, note) as url:
        rows = await check(url, operator, settings=Settings(namespaces=("a", "b")))
    assert rows.failed() == []
    where = "b" if own else "a"
    assert sorted(seen) == [
        f"/api/v1/namespaces/{where}/configmaps", "/apis/runtime.example.com/v1/namespaces/a/widgets",
    ]  # fmt: skip


async def test_only_a_kind_that_is_reconciled_has_a_definition_of_ours(check, cluster):
    operator = Operator("test")
    operator.controller(Unstructured("v1", "ConfigMap", has_status=False), reads=[Widget])(nothing)
    rows = await check(cluster.url, operator)
    assert [row.check for row in rows if row.check.startswith("crd")] == []


def test_a_definition_does_not_differ_from_itself():
    for kind in (Database, Widget):
        assert differences(crd(kind), crd(kind)) == []
        assert schema_differences(schema_of(crd(kind)), schema_of(crd(kind))) == []


PATHS = {
    "spec.provisioner": lambda node: node["provisioner"]["enum"].remove("External"),
    "spec.users[].name": lambda node: node["users"]["items"]["properties"].pop("name"),
    "spec.databaseName": lambda node: node["databaseName"].update(maxLength=63),
    "spec.users": lambda node: node["users"].update({"x-kubernetes-list-type": "atomic"}),
    "spec.inCluster.version": lambda node: node["inCluster"]["properties"]["version"].pop("x-kubernetes-validations"),
    "spec.inCluster.resources.limits[]": lambda node: node["inCluster"]["properties"]["resources"]["properties"][
        "limits"
    ]["additionalProperties"].pop("pattern"),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_difference_is_named_by_its_path(path):
    found = crd(Database)
    PATHS[path](spec_of(found))
    paths = {each.path for each in differences(crd(Database), found)}
    assert path in paths


def test_what_the_server_fills_in_is_no_difference():
    found = crd(Widget)
    found["spec"] |= {"conversion": {"strategy": "None"}, "preserveUnknownFields": False}
    found["status"] = {"acceptedNames": {}}
    assert differences(crd(Widget), found) == []

"""Discovery beyond what a script can hold: the real server has many more groups."""

import json

import pytest

from tests.unit.support import answered

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]


def group(answer, name):
    return next(item for item in answer["items"] if item["metadata"].get("name", "") == name)


async def test_a_custom_group_in_aggregated_discovery(client):
    reply = await client.send("GET /apis", accept=AGGREGATED)
    assert (reply.code, reply.headers["Content-Type"], reply.headers["Vary"]) == (200, AGGREGATED, "Accept")
    assert reply.headers["ETag"]
    (version,) = group(client.normal(reply), "conformance.example.com")["versions"]
    kind = {"group": "conformance.example.com", "version": "v1"}
    widgets = next(each for each in version["resources"] if each["resource"] == "widgets")
    assert widgets == {
        "resource": "widgets",
        "responseKind": {**kind, "kind": "Widget"},
        "scope": "Namespaced",
        "singularResource": "widget",
        "shortNames": ["wd"],
        "categories": ["all"],
        "verbs": VERBS,
        "subresources": [
            {
                "subresource": "status",
                "responseKind": {**kind, "kind": "Widget"},
                "verbs": ["get", "patch", "update"],
            },
            {
                "subresource": "scale",
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                "verbs": ["get", "patch", "update"],
            },
        ],
    }
    assert (version["version"], version["freshness"]) == ("v1", "Current")


@pytest.mark.parametrize(
    ("path", "name", "kind", "short", "namespaced"),
    [
        ("/api/v1", "configmaps", "ConfigMap", ["cm"], True),
        ("/api/v1", "namespaces", "Namespace", ["ns"], False),
        ("/apis/apps/v1", "deployments", "Deployment", ["deploy"], True),
        ("/apis/coordination.k8s.io/v1", "leases", "Lease", None, True),
        ("/apis/events.k8s.io/v1", "events", "Event", ["ev"], True),
        (
            "/apis/apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            ["crd", "crds"],
            False,
        ),
    ],
)
async def test_a_built_in_resource_in_its_list(ask, path, name, kind, short, namespaced):
    code, body = await ask(f"GET {path}")
    assert code == 200
    found = next(each for each in body["resources"] if each["name"] == name)
    assert (found["kind"], found.get("shortNames"), found["namespaced"]) == (kind, short, namespaced)
    assert found["singularName"] == kind.lower()


async def test_the_core_version(ask):
    code, body = await ask("GET /api")
    assert (code, body["kind"], body["versions"]) == (200, "APIVersions", ["v1"])


async def test_openapi_documents_are_found_by_the_index_and_can_be_kept(client, ask):
    name = "com.example.conformance.v1.Widget"

    async def published():  # by a real server, some time after a definition is served
        _, index = await ask("GET /openapi/v3")
        path = index["paths"].get("apis/conformance.example.com/v1")
        if path is None:
            return "", None, {}
        reply = await client.send(f"GET {path['serverRelativeURL']}")
        assert reply.code == 200
        return path["serverRelativeURL"], reply, json.loads(reply.body)["components"]["schemas"]

    url, reply, schemas = await answered(published, lambda found: name in found[-1])
    assert reply.headers["ETag"].strip('"') == url.rpartition("hash=")[2]
    schema = schemas[name]
    assert schema["properties"]["spec"]["required"] == ["size"]
    assert schema["x-kubernetes-group-version-kind"] == [
        {"group": "conformance.example.com", "kind": "Widget", "version": "v1"}
    ]

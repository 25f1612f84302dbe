"""The two backends of the conformance suite, and what every case finds there."""

import asyncio
import itertools
import json
from contextlib import AsyncExitStack
from functools import partial

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from tests.conformance.script import Backend, Client
from tests.unit.harness import cluster_at
from tests.unit.support import answered

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.conformance.example.com"},
    "spec": {
        "group": "conformance.example.com",
        "names": {
            "plural": "widgets",
            "singular": "widget",
            "shortNames": ["wd"],
            "kind": "Widget",
            "listKind": "WidgetList",
            "categories": ["all"],
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A Widget is an example.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What is wanted.",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "maximum": 10},
                                    "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                                    "replicas": {"type": "integer"},
                                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "port": {"x-kubernetes-int-or-string": True},
                                    "items": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {"name": {"type": "string"}, "v": {"type": "string"}},
                                        },
                                    },
                                    "tags": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "set",
                                        "items": {"type": "string"},
                                    },
                                    "words": {"type": "array", "items": {"type": "string"}},
                                    "limits": {"type": "object", "additionalProperties": {"type": "string"}},
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "phase": {"type": "string"},
                                    "replicas": {"type": "integer"},
                                    "selector": {"type": "string"},
                                    "conditions": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["type"],
                                        "items": {
                                            "type": "object",
                                            "required": ["type", "status"],
                                            "properties": {
                                                "type": {"type": "string"},
                                                "status": {"type": "string"},
                                                "reason": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
                ],
            }
        ],
    },
}
BOXES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boxes.conformance.example.com"},
    "spec": {
        "group": "conformance.example.com",
        "names": {"plural": "boxes", "kind": "Box"},
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["embedded", "kube"])  # while it lives, its event loop is every test's
async def backend(request, tmp_path_factory):
    """A server with the definitions the cases use."""
    if request.param == "embedded":
        async with ApiServer() as server:
            request.getfixturevalue("backends").have("embedded")

            async def compact():
                server.compact()

            found = Backend("embedded", server.url, compact=compact)
            await _define(found)
            yield found
    else:
        kube = request.getfixturevalue("kube")
        compact = partial(asyncio.to_thread, kube.compact)
        found = Backend("kube", kube.url, kube.admin_token, str(kube.ca_file), compact)
        await _define(found)
        yield found


async def _define(backend):
    async with backend.session() as session, asyncio.timeout(30):
        for definition in (WIDGETS, BOXES):
            async with session.post(_CRDS, json=definition) as response:
                assert response.status in {201, 409}, await response.text()  # the real one keeps it for the next module
        for plural in ("widgets", "boxes"):
            path = f"/apis/conformance.example.com/v1/{plural}"
            await answered(partial(session.get, path), lambda response: response.status == 200)


@pytest.fixture
async def client(backend):
    """A client with a namespace of its own."""
    namespace = f"case-{next(_numbers)}"
    async with backend.session() as session:
        client = Client(session, namespace)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        async with session.post("/api/v1/namespaces", json=body) as response:
            assert response.status == 201, await response.text()
        yield client


@pytest.fixture
def ask(client):
    """Send a request; return its code and decoded body."""

    async def send(line, body=None, **extra):
        reply = await client.send(line, body, **extra)
        return reply.code, json.loads(reply.body)

    return send


@pytest.fixture
async def cluster(backend):
    """The real server is shared; an embedded one is the test's own, so that its watches end with it."""
    async with AsyncExitStack() as stack:
        url = (await stack.enter_async_context(ApiServer())).url if backend.name == "embedded" else backend.url
        token = f"Bearer {backend.token}" if backend.token else None
        config = ClusterConfig(server=url, ca_file=backend.ca or None, authorization=token)
        yield await stack.enter_async_context(cluster_at(config))

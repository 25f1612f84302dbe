"""What a server says to those who use a deprecated version of a definition: with each answer, also with a read's."""

from functools import partial

import pytest

from tests.unit.support import answered

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "deprecated.example.com"
ANYTHING = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}


def version(name, **values):
    return {"name": name, "served": True, "storage": name == "v2", "schema": ANYTHING} | values


@pytest.fixture
async def relics(client):
    """Paths of collections, by version: v1beta1 and v1 are deprecated, the second with a word of its own."""
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"relics.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {"plural": "relics", "kind": "Relic"},
            "scope": "Namespaced",
            "versions": [
                version("v2"),
                version("v1", deprecated=True, deprecationWarning="let it go"),
                version("v1beta1", deprecated=True),
                version("v3alpha1", deprecated=True),
            ],
        },
    }
    assert (await client.send(f"POST {CRDS}", definition)).code == 201
    paths = {name: f"/apis/{GROUP}/{name}/namespaces/$ns/relics" for name in ("v1", "v1beta1", "v2", "v3alpha1")}
    for path in paths.values():
        await answered(partial(client.send, f"GET {path}"), lambda reply: reply.code == 200)
    yield paths
    await client.send(f"DELETE {CRDS}/relics.{GROUP}")
    await answered(partial(client.send, f"GET {CRDS}/relics.{GROUP}"), lambda reply: reply.code == 404)


async def test_each_answer_says_so(client, relics):
    said = {
        "v1": ['299 - "let it go"'],
        "v1beta1": [f'299 - "{GROUP}/v1beta1 Relic is deprecated; use {GROUP}/v2 Relic"'],
        "v2": [],
        "v3alpha1": [f'299 - "{GROUP}/v3alpha1 Relic is deprecated; use {GROUP}/v2 Relic"'],
    }
    for name, path in relics.items():
        body = {"apiVersion": f"{GROUP}/{name}", "kind": "Relic", "metadata": {"name": name}}
        answers = [
            await client.send(f"GET {path}?limit=1"),
            await client.send(f"GET {path}/nothing"),
            await client.send(f"POST {path}", body),
            await client.send(f"GET {path}?watch=1&timeoutSeconds=1"),
            await client.send(f"DELETE {path}/{name}"),
        ]
        assert [answer.code for answer in answers] == [200, 404, 201, 200, 200]
        assert [answer.warnings for answer in answers] == [said[name]] * 5, name

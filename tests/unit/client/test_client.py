"""The live client: what it asks, and what it makes of odd answers."""

import pytest
from aiohttp import web

from asyncctl.client.client import Client
from asyncctl.client.errors import AlreadyExists, NamespaceBoundaryExceeded, ServerError
from asyncctl.client.patch import Patch
from asyncctl.objects import ConfigMap, Namespace
from asyncctl.objects.codec import DecodeError
from tests.unit.support import connected, http_server, make_transport, status

KIND = ConfigMap.resource_type


def answering(answer):
    async def handler(request):
        handler.asked.append((request.method, request.path, dict(request.query), request.content_type))
        return answer() if callable(answer) else answer

    handler.asked = []
    return handler


@pytest.mark.parametrize(
    "body, gone",
    [
        ({"kind": "Status", "metadata": {}, "status": "Success"}, True),
        ({"kind": "Status", "status": "Success"}, True),
        ({"kind": "Service", "metadata": {"name": "a"}}, True),  # some kinds answer with what was deleted
        ({"kind": "Pod", "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
    ],
)
async def test_a_deletion_tells_whether_the_object_is_gone(body, gone):
    async with http_server(answering(web.json_response(body))) as url, connected(url) as client:
        assert await client.delete(KIND, "a", namespace="team") is gone


async def test_an_error_of_a_create_names_the_object():
    async with http_server(answering(status(409, "AlreadyExists", "there"))) as url, connected(url) as client:
        with pytest.raises(AlreadyExists, match="create configmaps team/a: 409"):
            await client.create(ConfigMap(name="a", namespace="team"))


@pytest.mark.parametrize("body", ["<html>log in</html>", "[]", "{", '{"kind":"ConfigMapList"}'])
async def test_a_list_that_is_none_is_an_error_of_the_server(body):
    async with http_server(answering(web.Response(text=body))) as url, connected(url) as client:
        with pytest.raises(ServerError, match="the reply is not a Kubernetes object"):
            await client.list_page(KIND, namespace="team")


async def test_an_object_that_is_none_is_a_decode_error():
    async with http_server(answering(web.Response(text="<html>"))) as url, connected(url) as client:
        with pytest.raises(DecodeError, match="not JSON"):
            await client.get(ConfigMap, "a", namespace="team")


@pytest.mark.parametrize("patch", list(Patch))
async def test_a_patch_says_its_kind_and_whose_it_is(patch):
    handler = answering(web.json_response({}))
    async with http_server(handler) as url, connected(url) as client:
        await client.patch(KIND, "a", {}, patch=patch, namespace="team", subresource="status", force=True)
    assert handler.asked == [
        (
            "PATCH",
            "/api/v1/namespaces/team/configmaps/a/status",
            {"fieldManager": "test", "fieldValidation": "Strict", "force": "true"},
            patch.value,
        )
    ]


async def test_a_request_outside_of_the_namespaces_is_never_sent():
    handler = answering(lambda: web.json_response({"metadata": {"name": "a"}}))
    async with http_server(handler) as url, make_transport(url) as transport:
        inside = Client(transport, field_manager="x", namespaces=("team",))
        for request in (
            inside.get(ConfigMap, "a", namespace="other"),
            inside.get(Namespace, "team"),
            inside.list_page(KIND),
            inside.delete(KIND, "a", namespace="other"),
            inside.patch(KIND, "a", {}, patch=Patch.MERGE, namespace="other"),
            inside.create(ConfigMap(name="a", namespace="other")),
        ):
            with pytest.raises(NamespaceBoundaryExceeded):
                await request
        assert handler.asked == []
        await inside.get(ConfigMap, "a", namespace="team")
        declared = Client(
            transport, field_manager="x", namespaces=("team",), cluster_kinds=frozenset({Namespace.resource_type})
        )
        assert (await declared.with_audit_id("id").get(Namespace, "team")).name == "a"
    assert len(handler.asked) == 2

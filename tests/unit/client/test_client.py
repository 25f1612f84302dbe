"""The live client: what it asks, and what it makes of odd answers."""

import pytest
from aiohttp import web

from asyncctl.client.client import Client
from asyncctl.client.errors import AlreadyExists, NamespaceBoundaryExceeded, ServerError
from asyncctl.client.patch import Patch
from asyncctl.objects import ConfigMap, Namespace, Unstructured
from tests.unit.support import connected, http_server, make_transport, status

KIND = ConfigMap.resource_type
SUCCESS = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'


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
        ({"kind": "ConfigMap", "metadata": {"name": "a"}}, True),  # some kinds answer with what was deleted
        ({"kind": "ConfigMap", "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
    ],
)
async def test_a_deletion_tells_whether_the_object_is_gone(body, gone):
    async with http_server(answering(web.json_response(body))) as url, connected(url) as client:
        assert await client.delete(KIND, "a", namespace="team") is gone


async def test_an_error_of_a_create_names_the_object():
    async with http_server(answering(status(409, "AlreadyExists", "there"))) as url, connected(url) as client:
        with pytest.raises(AlreadyExists, match="create configmaps team/a: 409"):
            await client.create(ConfigMap(name="a", namespace="team"))


@pytest.mark.parametrize(
    "body",
    ["<html>log in</html>", "", "[]", "{", "{}", '{"kind":"ConfigMapList"}', SUCCESS,
     '{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"5"}}'],
)  # fmt: skip
async def test_a_list_that_is_none_is_an_error_of_the_server(body):
    async with http_server(answering(web.Response(text=body))) as url, connected(url) as client:
        with pytest.raises(ServerError, match="the reply is not a Kubernetes object"):
            await client.list_page(KIND, namespace="team")


ASKS = {
    "get": lambda client: client.get(ConfigMap, "a", namespace="team"),
    "get untyped": lambda client: client.get(Unstructured("v1", "ConfigMap"), "a", namespace="team"),
    "create": lambda client: client.create(ConfigMap(name="a", namespace="team")),
    "apply": lambda client: client.patch(KIND, "a", {}, patch=Patch.APPLY, namespace="team"),
    "status": lambda client: client.patch(KIND, "a", {}, patch=Patch.MERGE, namespace="team", subresource="status"),
    "delete": lambda client: client.delete(KIND, "a", namespace="team"),
}


@pytest.mark.parametrize(
    "body",
    [b"<html>log in</html>", b"", b"[]", b"{}", b"null", b"\xff\xfe", b'{"kind":"ConfigMap"}',
     b'{"kind":"ConfigMapList","metadata":{},"items":[]}', b'{"metadata":{"name":"a"}}'],
)  # fmt: skip
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_an_answer_that_is_no_such_object_is_an_error_of_the_server(ask, body):
    async with http_server(answering(lambda: web.Response(body=body))) as url, connected(url) as client:
        with pytest.raises(ServerError, match=r"configmaps(/status)? team/a: 200 .*the reply is not a Kubernetes obj"):
            await ask(client)


@pytest.mark.parametrize("what", [what for what in ASKS if what != "delete"])
async def test_a_status_is_never_taken_for_an_object(what):
    async with http_server(answering(lambda: web.Response(text=SUCCESS))) as url, connected(url) as client:
        with pytest.raises(ServerError, match="the reply is not a Kubernetes object"):
            await ASKS[what](client)


@pytest.mark.parametrize("patch", list(Patch))
async def test_a_patch_says_its_kind_and_whose_it_is(patch):
    handler = answering(web.json_response({"kind": "ConfigMap", "metadata": {"name": "a"}}))
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
    kinds = iter(["ConfigMap", "Namespace"])
    handler = answering(lambda: web.json_response({"kind": next(kinds), "metadata": {"name": "a"}}))
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

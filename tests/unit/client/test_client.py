"""The live client: what it asks, and what it makes of odd answers."""

import pytest
from aiohttp import web

from asyncctl.client.client import Client
from asyncctl.client.errors import AlreadyExists, Conflict, NamespaceBoundaryExceeded, ServerError
from asyncctl.client.patch import Patch
from asyncctl.objects import ConfigMap, Event, Namespace, ObjectMeta, Unstructured
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


async def test_a_deletion_that_says_it_failed_has_failed_whatever_its_code():
    body = {"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "no"}
    async with http_server(answering(web.json_response(body))) as url, connected(url) as client:
        with pytest.raises(Conflict, match="delete configmaps team/a: 409 Conflict: no"):
            await client.delete(KIND, "a", namespace="team")


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


OUTSIDE = {
    "get": lambda client: client.get(ConfigMap, "a", namespace="other"),
    "get what is in no namespace": lambda client: client.get(Namespace, "team"),
    "list page": lambda client: client.list_page(KIND),
    "list": lambda client: client.list(ConfigMap, namespace="other").all(),
    "list everywhere": lambda client: client.list(ConfigMap).all(),
    "watch": lambda client: opened(client.watch(ConfigMap, namespace="other")),
    "watch everywhere": lambda client: opened(client.watch(KIND)),
    "create": lambda client: client.create(ConfigMap(name="a", namespace="other")),
    "replace": lambda client: client.replace({"metadata": {"name": "a", "namespace": "other"}}, CONFIG),
    "replace of a class": lambda client: client.replace(
        ConfigMap(metadata=ObjectMeta(name="a", namespace="other", resource_version="1"))
    ),
    "update": lambda client: client.update_with_retry(ConfigMap, "a", lambda one: None, namespace="other"),
    "patch": lambda client: client.patch(KIND, "a", {}, patch=Patch.MERGE, namespace="other"),
    "patch of a status": lambda client: client.patch(
        KIND, "a", {}, patch=Patch.MERGE, namespace="other", subresource="status"
    ),
    "apply": lambda client: client.apply(ConfigMap(name="a", namespace="other")),
    "delete": lambda client: client.delete(KIND, "a", namespace="other"),
    "delete all": lambda client: client.delete_all(ConfigMap, namespace="other"),
    "delete all of what is in no namespace": lambda client: client.delete_all(Namespace),
    "scale": lambda client: client.get_scale(KIND, "a", namespace="other"),
    "set scale": lambda client: client.set_scale(KIND, "a", 1, namespace="other"),
    "evict": lambda client: client.evict("a", namespace="other"),
    "token": lambda client: client.create_token("a", namespace="other"),
    "a lease that is not ours": lambda client: client.get(LEASE, "another", namespace="controllers"),
    "an event about something else": lambda client: client.create(Event(name="another.1", namespace="controllers")),
    "a review that is in a namespace": lambda client: client.create(
        {"metadata": {"namespace": "other"}}, Unstructured("authorization.k8s.io/v1", "LocalSubjectAccessReview")
    ),
} | {
    path: lambda client, path=path: client.get_raw(path)
    for path in (
        "/api/v1/namespaces/other/secrets", "/api/v1/namespaces/other/secrets/a", "/apis/apps/v1/deployments/",
        "/api/v1/namespaces/%6fther/secrets/a",
        "/api/v1/watch/namespaces/other/secrets", "/api/v1/secrets",
        "/api/v1/namespaces", "/api/v1/namespaces/team", "/apis/apps/v1/namespaces/other/deployments/a/scale",
    )
}  # fmt: skip
INSIDE = {
    "get": lambda client: client.get(KIND, "a", namespace="team"),
    "the declared": lambda client: client.get(BOXES, "a"),
    "all of the declared": lambda client: client.get_raw("/apis/example.com/v1/boxes"),
    "our lease": lambda client: client.get(LEASE, "db", namespace="controllers"),
    "an event about our lease": lambda client: client.create(Event(name="db.1", namespace="controllers")),
    "a review": lambda client: client.create({"metadata": {}}, REVIEW),
} | {
    path: lambda client, path=path: client.get_raw(path)
    for path in ("/version", "/api", "/apis/apps/v1", "/openapi/v3", "/readyz/ping", "/api/v1/namespaces/team/pods/a")
}  # fmt: skip
CONFIG = Unstructured("v1", "ConfigMap")
LEASE = Unstructured("coordination.k8s.io/v1", "Lease").resource_type
BOXES = Unstructured("example.com/v1", "Box", namespaced=False).resource_type
REVIEW = Unstructured("authorization.k8s.io/v1", "SelfSubjectAccessReview", namespaced=False)


async def opened(watch):
    async with watch:
        pass


@pytest.fixture
async def bounded():
    """A client with a boundary, and what reached its server."""

    async def handler(request):
        bounded.append(request.path)
        kinds = {
            "leases": "Lease",
            "events": "Event",
            "boxes": "Box",
            "selfsubjectaccessreviews": REVIEW.resource_type.kind,
        }
        kind = next((kind for plural, kind in kinds.items() if plural in request.path), "ConfigMap")
        return web.json_response({"kind": kind, "metadata": {"name": "a"}})

    bounded = []
    async with http_server(handler) as url, make_transport(url) as transport:
        client = Client(
            transport, field_manager="x", namespaces=("team",), cluster_kinds=frozenset({BOXES}),
            lease=("controllers", "db"),
        )  # fmt: skip
        yield client.with_audit_id("id"), bounded


@pytest.mark.parametrize("what", OUTSIDE)
async def test_a_request_outside_of_the_namespaces_is_never_sent(bounded, what):
    client, sent = bounded
    with pytest.raises(NamespaceBoundaryExceeded, match="outside of ASYNCCTL_NAMESPACES"):
        await OUTSIDE[what](client)
    assert sent == []


async def test_a_path_of_what_may_be_in_no_namespace_is_refused_with_both_ways_out(bounded):
    client, _ = bounded
    with pytest.raises(NamespaceBoundaryExceeded, match=r"name one of these .*; or, if nodes are in no namespace, let"):
        await client.get_raw("/api/v1/nodes")


@pytest.mark.parametrize("what", INSIDE)
async def test_a_request_inside_of_the_namespaces_or_exempt_is_sent(bounded, what):
    client, sent = bounded
    await INSIDE[what](client)
    assert len(sent) == 1

"""kubernetes-asyncio's APIs over our transport: what is sent, what comes back, what is refused, what is left open."""

import asyncio
import gc
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from http import HTTPStatus

import aiohttp
import pytest
from aiohttp import web
from kubernetes_asyncio import watch
from kubernetes_asyncio.client import (
    ApiException,
    ApiValueError,
    AppsV1Api,
    CoreV1Api,
    CustomObjectsApi,
    V1ConfigMap,
    V1DeleteOptions,
    V1ObjectMeta,
    V1Preconditions,
    VersionApi,
)

from asyncctl.client.api_path import ApiPath, parse_api_path
from asyncctl.client.bridge.errors import as_ours
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    Gone,
    Invalid,
    KubernetesError,
    NamespaceBoundaryExceeded,
    NotFound,
    ServerError,
    StreamError,
    TransportError,
)
from asyncctl.client.transport.transport import Lane
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.metrics import Metrics
from tests.unit.support import Log, connected, http_server, raw_server, status, until

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "team"}, "data": {"k": "v"}}
MAPS = {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [MAP]}


class Server:
    """Answers each request with the next of its answers, then with a ConfigMap; remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, request):
        request.content_bytes = await request.read()
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else MAP
        answer = answer(request) if callable(answer) else answer
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    @property
    def lines(self):
        return [f"{request.method} {request.path_qs}" for request in self.asked]


@pytest.fixture
async def serve():
    """Return a `Server` of these answers, an `ApiClient` to it, and the `Client` behind."""
    async with AsyncExitStack() as stack:

        async def begin(*answers, **options):
            server = Server(*answers)
            url = await stack.enter_async_context(http_server(server))
            client = await stack.enter_async_context(connected(url, **options))
            server.client = client
            api = await stack.enter_async_context(client.kubernetes_asyncio())
            return server, api

        yield begin


def seen_by_transport(client):
    """The requests as the transport gets them."""
    transport, requests = client._transport, []
    send = transport.request

    async def noting(request):
        requests.append(request)
        return await send(request)

    transport.request = noting
    return requests


# What is sent, and what comes back.


async def test_an_object_comes_back_as_its_model(serve):
    server, api = await serve()
    found = await CoreV1Api(api).read_namespaced_config_map("a", "team")
    assert (found.metadata.name, found.data) == ("a", {"k": "v"})
    assert server.lines == ["GET /api/v1/namespaces/team/configmaps/a"]


async def test_a_list_and_its_query(serve):
    server, api = await serve(MAPS)
    found = await CoreV1Api(api).list_namespaced_config_map("team", label_selector="a=b c,d in (e)", limit=5)
    assert [each.metadata.name for each in found.items] == ["a"]
    assert server.asked[0].query == {"labelSelector": "a=b c,d in (e)", "limit": "5"}


async def test_a_write_names_the_manager_the_client_has_unless_the_call_names_one(serve):
    server, api = await serve()
    core = CoreV1Api(api)
    body = V1ConfigMap(metadata=V1ObjectMeta(name="a"), data={"k": "v"})
    await core.create_namespaced_config_map("team", body)
    await core.patch_namespaced_config_map("a", "team", {"data": {}}, field_manager="mine")
    await core.delete_namespaced_config_map("a", "team")
    assert [request.query.get("fieldManager") for request in server.asked] == ["test", "mine", None]
    assert json.loads(server.asked[0].content_bytes) == {"metadata": {"name": "a"}, "data": {"k": "v"}}


async def test_headers_are_the_transports_own_and_the_calls_extra_ones(serve):
    server, api = await serve()
    api.set_default_header("X-More", "1")
    api.user_agent = "somebody else"
    await CoreV1Api(api).read_namespaced_config_map("a", "team", _headers={"X-Once": "2"})
    headers = server.asked[0].headers
    assert (headers["X-More"], headers["X-Once"], headers["Accept"]) == ("1", "2", "application/json")
    assert headers.getall("User-Agent")[0].startswith("asyncctl/")
    assert len(headers.getall("User-Agent")) == 1


async def test_the_audit_id_and_the_caller_go_along(serve):
    server, _ = await serve(web.json_response(MAP, headers={"Warning": '299 - "old"'}))
    client, log = server.client, Log()
    client._transport._warnings._logger = log.logger
    async with client.with_caller("widgets").with_audit_id("id-1").kubernetes_asyncio() as api:
        await CoreV1Api(api).read_namespaced_config_map("a", "team")
    assert server.asked[0].headers["Audit-ID"] == "id-1"
    assert [(line["warning"], line["controller"]) for line in log.lines] == [("old", "widgets")]


@pytest.mark.parametrize(
    "body, content_type, sent",
    [
        ([{"op": "test", "path": "/a", "value": 1}], None, b'[{"op":"test","path":"/a","value":1}]'),
        ({"data": {"k": "v"}}, "application/merge-patch+json", b'{"data":{"k":"v"}}'),
        ({"data": {1: True}}, "application/merge-patch+json", b'{"data":{"1":true}}'),
        ({"kind": "ConfigMap"}, "application/apply-patch+yaml", b'{"kind":"ConfigMap"}'),
        ("kind: ConfigMap\n", "application/apply-patch+yaml", b"kind: ConfigMap\n"),
        (b"\xd9\xd9\xf7", "application/apply-patch+cbor", b"\xd9\xd9\xf7"),
    ],
)
async def test_bodies(serve, body, content_type, sent):
    server, api = await serve()
    more = {"_content_type": content_type} if content_type else {}
    await CoreV1Api(api).patch_namespaced_config_map("a", "team", body, **more)
    assert server.asked[0].content_bytes == sent
    assert server.asked[0].headers["Content-Type"] == content_type or "application/json-patch+json"


@pytest.mark.parametrize(
    "call, lane, repeatable",
    [
        (lambda core: core.read_namespaced_config_map("a", "team"), Lane.READ, True),
        (lambda core: core.create_namespaced_config_map("team", {"data": {}}), Lane.WRITE, False),
        (lambda core: core.replace_namespaced_config_map("a", "team", {"data": {}}), Lane.WRITE, False),
        (
            lambda core: core.replace_namespaced_config_map("a", "team", {"metadata": {"resourceVersion": "1"}}),
            Lane.WRITE,
            True,
        ),
        (
            lambda core: core.replace_namespaced_config_map("a", "team", {"metadata": {"resourceVersion": "0"}}),
            Lane.WRITE,
            False,
        ),
        (
            lambda core: core.patch_namespaced_config_map("a", "team", {"metadata": {"resourceVersion": "0"}}),
            Lane.WRITE,
            False,
        ),
        (
            lambda core: core.patch_namespaced_config_map("a", "team", {"metadata": {"resourceVersion": "1"}}),
            Lane.WRITE,
            True,
        ),
        (
            lambda core: core.create_namespaced_config_map("team", {"metadata": {"resourceVersion": "1"}}),
            Lane.WRITE,
            False,
        ),
        (lambda core: core.patch_namespaced_config_map("a", "team", {"data": {}}), Lane.WRITE, False),
        (
            lambda core: core.patch_namespaced_config_map(
                "a", "team", [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
            ),
            Lane.WRITE,
            True,
        ),
        (
            lambda core: core.patch_namespaced_config_map("a", "team", [{"op": "remove", "path": "/data"}]),
            Lane.WRITE,
            False,
        ),
        (
            lambda core: core.patch_namespaced_config_map(
                "a", "team", {}, _content_type="application/apply-patch+yaml"
            ),
            Lane.WRITE,
            True,
        ),
        (lambda core: core.delete_namespaced_config_map("a", "team"), Lane.WRITE, False),
        (
            lambda core: core.delete_namespaced_config_map(
                "a", "team", body=V1DeleteOptions(preconditions=V1Preconditions(uid="u"))
            ),
            Lane.WRITE,
            True,
        ),
        (
            lambda core: core.delete_namespaced_config_map(
                "a", "team", body=V1DeleteOptions(preconditions=V1Preconditions(resource_version="1"))
            ),
            Lane.WRITE,
            False,
        ),
    ],
)
async def test_the_lane_of_a_call_and_whether_it_may_be_sent_twice(serve, call, lane, repeatable):
    server, api = await serve()
    requests = seen_by_transport(server.client)
    await call(CoreV1Api(api))
    assert [(request.lane, request.repeatable) for request in requests] == [(lane, repeatable)]


def counted(client):
    """Count from now on; return what reads a number of this transport."""
    metrics = Metrics(process=False)
    client._transport._metrics = metrics.requests("h")
    return lambda name, **labels: metrics.registry.get_sample_value(name, {"host": "h"} | labels)


async def test_a_read_is_sent_again_after_a_503_and_counted(serve):
    server, api = await serve(lambda _: status(503, "ServiceUnavailable", "not now"))
    count = counted(server.client)
    await CoreV1Api(api).read_namespaced_config_map("a", "team")
    assert len(server.asked) == 2
    assert count("rest_client_requests_total", code="200", method="GET") == 1
    assert count("rest_client_requests_total", code="503", method="GET") == 1
    assert count("rest_client_request_retries_total", code="503", verb="GET") == 1


async def test_a_create_is_not_sent_again_after_a_503(serve):
    server, api = await serve(lambda _: status(503, "ServiceUnavailable", "not now"))
    with pytest.raises(ApiException):
        await CoreV1Api(api).create_namespaced_config_map("team", {})
    assert len(server.asked) == 1


async def test_the_client_side_limit_holds(serve):
    server, api = await serve(qps=20.0, burst=1)
    count = counted(server.client)
    await asyncio.gather(*[CoreV1Api(api).read_namespaced_config_map("a", "team") for _ in range(3)])
    assert count("rest_client_rate_limiter_duration_seconds_count", verb="GET") == 3
    assert count("rest_client_rate_limiter_duration_seconds_sum", verb="GET") > 0.05


async def test_a_401_reads_the_rotated_token_and_tries_once_more(tmp_path):
    file = tmp_path / "token"
    file.write_text("old")
    given = []

    async def handler(request):
        given.append(request.headers["Authorization"])
        if given[-1] != "Bearer new":
            file.write_text("new")
            return status(401, "Unauthorized", "Unauthorized")
        return web.json_response(MAP)

    config = ClusterConfig
    async with (
        http_server(handler) as url,
        connected(config(server=url, token_file=file)) as client,
        client.kubernetes_asyncio() as api,
    ):
        await CoreV1Api(api).read_namespaced_config_map("a", "team")
        assert given == ["Bearer old", "Bearer new"]
        assert "new" not in repr(vars(api.configuration))


async def test_a_watch_refused_with_401_is_opened_once_more(tmp_path):
    file = tmp_path / "token"
    file.write_text("old")
    given = []

    async def handler(request):
        given.append(request.headers["Authorization"])
        if given[-1] != "Bearer new":
            file.write_text("new")
            return status(401, "Unauthorized", "Unauthorized")
        return web.Response(text=event("ADDED", 1))

    async with (
        http_server(handler) as url,
        connected(ClusterConfig(server=url, token_file=file)) as client,
        client.kubernetes_asyncio() as api,
        watch.Watch() as watching,
    ):
        events = watching.stream(CoreV1Api(api).list_namespaced_config_map, "team", timeout_seconds=1)
        assert [each["type"] async for each in events] == ["ADDED"]
    assert given == ["Bearer old", "Bearer new"]


# Errors.


@pytest.mark.parametrize(
    "answer, code, ours",
    [
        (status(404, "NotFound", "no such thing"), 404, NotFound),
        (status(409, "Conflict", "changed"), 409, Conflict),
        (status(409, "AlreadyExists", "there"), 409, AlreadyExists),
        (status(422, "Invalid", "wrong"), 422, Invalid),
        (status(500, "InternalError", "no"), 500, ServerError),
    ],
)
async def test_an_error_of_the_server_is_an_api_exception_with_its_status_body_and_headers(serve, answer, code, ours):
    answer.headers["Audit-Id"] = "id"
    body = answer.body
    _, api = await serve(answer)
    with pytest.raises(ApiException) as caught:
        await CoreV1Api(api).create_namespaced_config_map("team", {"data": {}})
    error = caught.value
    assert (error.status, error.body, error.headers["audit-id"]) == (code, body.decode(), "id")
    assert error.reason == HTTPStatus(code).phrase
    assert isinstance(error.__cause__, ours)
    assert as_ours(error) is error.__cause__


async def test_an_error_that_is_no_status_keeps_its_body(serve):
    _, api = await serve(web.Response(status=404, body=b"<html>\xff" + b"x" * 500))
    with pytest.raises(ApiException) as caught:
        await CoreV1Api(api).read_namespaced_config_map("a", "team")
    assert caught.value.body == "<html>�" + "x" * 500


async def test_an_error_is_raised_too_where_the_body_is_left_to_the_caller(serve):
    """kubernetes-asyncio hands the answer on; its dynamic client then takes a Status for an object."""
    _, api = await serve(status(404, "NotFound", "no such thing"), status(410, "Expired", "too old"))
    with pytest.raises(ApiException) as caught:
        await CoreV1Api(api).read_namespaced_config_map("a", "team", _preload_content=False)
    assert caught.value.status == 404
    with pytest.raises(ApiException) as caught:
        await CoreV1Api(api).list_namespaced_config_map("team", watch=True, _preload_content=False)
    assert caught.value.status == 410


@pytest.mark.parametrize(
    "page", ["<html>log in</html>", "[]", '{"kind": 5}', '{"apiVersion": "v1"}', "", '{"kind":"ConfigMap"']
)
async def test_a_success_that_is_no_object_is_not_taken_for_one(serve, page):
    _, api = await serve(web.Response(text=page))
    with pytest.raises(ApiException) as caught:
        await CoreV1Api(api).read_namespaced_config_map("a", "team")
    assert isinstance(caught.value.__cause__, ServerError)


async def test_a_log_is_text(serve):
    _, api = await serve(web.Response(text="one\ntwo\n"))
    assert await CoreV1Api(api).read_namespaced_pod_log("p", "team") == "one\ntwo\n"


async def test_a_version_is_no_object_and_comes_back(serve):
    _, api = await serve({"major": "1", "minor": "36", "gitVersion": "v", "gitCommit": "c", "gitTreeState": "clean",
                          "buildDate": "d", "goVersion": "g", "compiler": "gc", "platform": "p"})  # fmt: skip
    assert (await VersionApi(api).get_code()).minor == "36"


async def test_no_answer_is_our_transport_error():
    async with raw_server(None) as url:
        pass
    async with connected(url, tries=1) as client, client.kubernetes_asyncio() as api:
        with pytest.raises(TransportError, match="can't be reached"):
            await CoreV1Api(api).read_namespaced_config_map("a", "team")


async def silent(_):
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    "given", [0.05, (0.02, 0.03), aiohttp.ClientTimeout(total=0.05)], ids=["number", "pair", "ClientTimeout"]
)
async def test_a_request_timeout_ends_the_wait_and_is_a_timeout_error(serve, given):
    _, api = await serve(silent)
    with pytest.raises(TimeoutError, match=r"get configmaps team/a: no answer .*0\.05 s") as caught:
        await CoreV1Api(api).read_namespaced_config_map("a", "team", _request_timeout=given)
    assert isinstance(caught.value, TransportError)


async def test_a_request_timeout_may_be_longer_than_the_transports_own(serve):
    async def slow(_):
        await asyncio.sleep(0.2)
        return MAP

    server, api = await serve(slow, timeout=0.05)
    await CoreV1Api(api).read_namespaced_config_map("a", "team", _request_timeout=5)
    assert len(server.asked) == 1


async def test_the_transports_own_deadline_is_a_timeout_error_too(serve):
    _, api = await serve(silent, timeout=0.05, tries=1)
    with pytest.raises(TimeoutError, match="no answer"):
        await CoreV1Api(api).read_namespaced_config_map("a", "team")


async def test_a_fenced_write_is_refused_and_not_sent(serve):
    def gone():
        raise Fenced("the Lease is gone")

    server, api = await serve(fence=gone)
    core = CoreV1Api(api)
    for call in (
        core.create_namespaced_config_map("team", {}),
        core.replace_namespaced_config_map("a", "team", {}),
        core.patch_namespaced_config_map("a", "team", {}),
        core.delete_namespaced_config_map("a", "team"),
        core.delete_collection_namespaced_config_map("team"),
        core.create_namespaced_config_map("team", {}, dry_run="All", _preload_content=False),
        core.connect_post_namespaced_service_proxy("s", "team"),
        api.call_api("/anything", "POST", body={}),
    ):
        with pytest.raises(Fenced, match="the Lease is gone"):
            await call
    assert server.asked == []
    await core.read_namespaced_config_map("a", "team")


async def test_a_request_timeout_is_no_way_past_the_fence(serve):
    """The Lease is lost while the answer is awaited: the wait ends then, not when the caller's patience does."""
    lost = asyncio.Event()

    def fence():
        if lost.is_set():
            raise Fenced("the Lease is gone")
        return 0.05

    async def lose(_):
        lost.set()
        await asyncio.sleep(3600)

    server, api = await serve(lose, fence=fence)
    with pytest.raises(Fenced, match="may have been made"):
        await CoreV1Api(api).create_namespaced_config_map("team", {}, _request_timeout=60)
    assert len(server.asked) == 1


# The namespace boundary.

NODES = ResourceType(group="", version="v1", kind="Node", plural="nodes", singular="node", list_kind="NodeList",
                     namespaced=False)  # fmt: skip
INSIDE = [
    ("GET", "/api/v1/namespaces/team/pods"),
    ("GET", "/api/v1/namespaces/team/pods/status"),
    ("DELETE", "/apis/apps/v1/namespaces/team/deployments/a"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/nodes/a"),
    ("GET", "/version"),
    ("GET", "/apis/apps/v1"),
]
OUTSIDE = [
    ("GET", "/api/v1/namespaces/other/pods"),
    ("GET", "/api/v1/namespaces/other/pods/team"),
    ("POST", "/apis/apps/v1/namespaces/other/deployments"),
    ("GET", "/api/v1/pods"),
    ("DELETE", "/api/v1/pods"),
    ("GET", "/api/v1/namespaces"),
    ("GET", "/api/v1/namespaces/team"),
    ("PUT", "/api/v1/namespaces/team/finalize"),
    ("PATCH", "/api/v1/namespaces/team/status"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"),
    ("GET", "/api/v1/watch/namespaces/other/pods"),
    ("GET", "/api/v1/watch/pods"),
    ("GET", "/api/v1/namespaces/%6fther/pods"),
    ("GET", "/api/v1/namespaces/TEAM/pods"),
]


@pytest.fixture
async def bounded(serve):
    server, _ = await serve()
    client = Client(
        server.client._transport, field_manager="test", namespaces=("team",), cluster_kinds=frozenset({NODES})
    )
    async with client.kubernetes_asyncio() as api:
        yield server, api


@pytest.mark.parametrize("method, path", INSIDE)
async def test_what_is_inside_of_the_namespaces_is_sent(bounded, method, path):
    server, api = bounded
    await api.call_api(path, method)
    assert len(server.asked) == 1


@pytest.mark.parametrize("method, path", OUTSIDE)
async def test_what_is_outside_of_the_namespaces_is_a_403_and_not_sent(bounded, method, path):
    server, api = bounded
    with pytest.raises(ApiException, match="ASYNCCTL_NAMESPACES") as caught:
        await api.call_api(path, method, body={})
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (403, "NamespaceBoundaryExceeded")
    assert isinstance(caught.value.__cause__, NamespaceBoundaryExceeded)
    assert server.asked == []


async def test_a_list_of_all_namespaces_is_told_as_that(bounded):
    _, api = bounded
    with pytest.raises(ApiException, match="all namespaces is outside of ASYNCCTL_NAMESPACES"):
        await CoreV1Api(api).list_pod_for_all_namespaces()


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/team/configmaps/..",
        "/api/v1/namespaces/team/../other/configmaps",
        "/api/v1/namespaces/team/configmaps/%2e%2e",
        "/api/v1/namespaces/team/configmaps/a%2Fb",
        "/api/v1/namespaces//configmaps",
        "/api/v1//pods",
        "//api/v1/namespaces/team/pods",
        "/apis/./v1/pods",
        "/api/v1%2Fnamespaces%2Fother%2Fsecrets%2Fa",
        "/api/v1%2fnamespaces%2fother%2fsecrets%2fa",
        "/api%2Fv1%2Fnamespaces%2Fother%2Fsecrets%2Fa",
        "/%2Fapi/v1/namespaces/other/secrets/a",
        "/api/v1/namespaces%2Fother/secrets/a",
        "/api/v1%252Fnamespaces%252Fother%252Fsecrets%252Fa",
        "/apis/apps/v1%2Fnamespaces%2Fother%2Fdeployments",
        "/api/v1/namespaces/team%2Fpods/a",
        "/api/v1/namespaces/team/pods/a%2Flog",
        "/api/v1/namespaces/team/pods/a%252Flog",
        "/api/v1/namespaces/team/pods%2F",
        "/api/v1/namespaces/team/pods/a%zz",
        "/api/v1/namespaces/team/services/a/proxy/%2e%2E/other",
    ],
)
async def test_a_path_that_a_server_could_read_otherwise_is_refused(bounded, path):
    server, api = bounded
    with pytest.raises(ApiValueError):
        await api.call_api(path, "GET")
    assert server.asked == []


async def test_a_version_that_is_a_path_reaches_no_other_namespace(bounded):
    server, api = bounded
    with pytest.raises(ApiValueError):
        await CustomObjectsApi(api).get_api_resources("apps", "v1/namespaces/other/deployments")
    assert server.asked == []


async def test_the_old_watch_in_the_path_is_a_watch(serve):
    server, api = await serve(lambda _: web.Response(body=b'{"type":"BOOKMARK"}\n'))
    requests, stream = [], server.client._transport.stream
    server.client._transport.stream = lambda request: requests.append(request) or stream(request)
    path = "/api/v1/watch/namespaces/team/pods"
    answer = await api.rest_client.GET(f"{server.client._transport.config.server}{path}", _preload_content=False)
    assert await answer.read() == b'{"type":"BOOKMARK"}\n'
    assert [(str(request.target), request.lane) for request in requests] == [("watch pods team", Lane.WATCH)]


async def test_a_name_with_dots_in_it_goes_nowhere_else(bounded):
    server, api = bounded
    with pytest.raises(ApiValueError):
        await CoreV1Api(api).read_namespaced_config_map("..", "team")
    with pytest.raises(ApiValueError):
        await CoreV1Api(api).read_namespaced_config_map("../../other/configmaps/x", "team")
    assert server.asked == []


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/api/v1/namespaces/n/pods/p/log", ApiPath("", "v1", "pods", "n", "p", "log")),
        ("/api/v1/namespaces/n/services/s:80/proxy/a/b//", ApiPath("", "v1", "services", "n", "s:80", "proxy")),
        ("/api/v1/namespaces/n/services/s/proxy/a%2Fb%25/c", ApiPath("", "v1", "services", "n", "s", "proxy")),
        ("/api/v1/watch/namespaces/n/pods/p", ApiPath("", "v1", "pods", "n", "p", watch=True)),
        ("/api/v1/watch", None),
        ("/api/%761/namespaces/%6E/pods/%70", ApiPath("", "v1", "pods", "n", "p")),
        ("/api/v1/namespaces/n", ApiPath("", "v1", "namespaces", None, "n")),
        ("/api/v1/namespaces/n/status", ApiPath("", "v1", "namespaces", None, "n", "status")),
        ("/apis/g.io/v2/widgets/", ApiPath("g.io", "v2", "widgets")),
        ("/apis/g.io/v2/namespaces/n/widgets/w/scale", ApiPath("g.io", "v2", "widgets", "n", "w", "scale")),
        ("/api", None),
        ("/apis/", None),
        ("/apis/g.io", None),
        ("/apis/g.io/v2", None),
        ("/api/v1", None),
        ("/openapi/v3", None),
        ("/", None),
    ],
)
def test_paths(path, expected):
    assert parse_api_path(path) == expected


# What can't be asked.


@pytest.mark.parametrize("call", ["connect_get_namespaced_pod_exec", "connect_post_namespaced_pod_attach",
                                  "connect_get_namespaced_pod_portforward"])  # fmt: skip
async def test_a_websocket_is_refused_in_words(serve, call):
    server, api = await serve()
    with pytest.raises(ApiValueError, match="needs a websocket"):
        await getattr(CoreV1Api(api), call)("p", "team")
    with pytest.raises(ApiValueError, match="needs a websocket"):
        _ = api.rest_client.pool_manager
    assert server.asked == []


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer x"}, {"impersonate-user": "x"}, {"X-A": "a\r\nB: c"}, {"X\n": "a"}, {"é": ""}]
)
async def test_a_header_that_would_change_who_or_what_asks_is_refused(serve, headers):
    server, api = await serve()
    with pytest.raises(ApiValueError):
        await CoreV1Api(api).read_namespaced_config_map("a", "team", _headers=headers)
    assert server.asked == []


async def test_no_other_server_is_asked(serve):
    server, api = await serve()
    for host in ("http://elsewhere", api.configuration.host + ".evil.example", api.configuration.host + "@evil"):
        with pytest.raises(ApiValueError, match="which alone is asked"):
            await api.call_api("/version", "GET", _host=host)
    assert server.asked == []


async def test_forms_head_and_unencodable_bodies_are_refused(serve):
    _, api = await serve()
    with pytest.raises(ApiValueError, match="a form"):
        await api.call_api("/api/v1/namespaces/team/configmaps", "POST", post_params={"a": "b"})
    with pytest.raises(ApiValueError, match="HEAD can't be asked"):
        await CoreV1Api(api).connect_head_namespaced_service_proxy("s", "team")
    with pytest.raises(ApiValueError, match="has to be given as bytes"):
        await api.call_api("/x", "POST", header_params={"Content-Type": "text/plain"}, body={"a": 1})


async def test_a_watch_that_is_waited_for_is_refused(serve):
    _, api = await serve()
    with pytest.raises(ApiValueError, match=r"watch\.Watch"):
        await CoreV1Api(api).list_namespaced_config_map("team", watch=True)


# Streams.


def event(kind, version, name="a"):
    obj = MAP | {"metadata": {"name": name, "namespace": "team", "resourceVersion": str(version)}}
    return json.dumps({"type": kind, "object": obj}) + "\n"


def streaming(*pieces, then=None):
    """An answer that sends each piece by itself, then does what `then` says."""

    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece if isinstance(piece, bytes) else piece.encode())
            await asyncio.sleep(0)
        if then is not None:
            await then()
        return response

    return answer


class Open:
    """Streams that stay open until the client gives them up."""

    def __init__(self):
        self.now = 0

    async def __call__(self):
        self.now += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.now -= 1


async def test_a_watch_gives_its_events_wherever_the_chunks_are_cut(serve):
    text = (event("ADDED", 1) + event("MODIFIED", 2) + event("DELETED", 3)).encode()
    _, api = await serve(streaming(*(text[at : at + 7] for at in range(0, len(text), 7))))
    async with watch.Watch() as watching:
        events = watching.stream(CoreV1Api(api).list_namespaced_config_map, "team", timeout_seconds=1)
        got = [(each["type"], each["object"].metadata.resource_version) async for each in events]
    assert got == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "3")]


async def test_a_watch_goes_by_the_lane_for_watches_and_frees_its_connection(serve):
    still = Open()
    server, api = await serve(streaming(event("ADDED", 1), then=still))
    async with watch.Watch() as watching:
        async for _ in watching.stream(CoreV1Api(api).list_namespaced_config_map, "team"):
            break
        assert still.now == 1
    await until(lambda: still.now == 0)
    assert server.asked[0].query["watch"] == "true"


@pytest.mark.parametrize("how", ["stop", "cancel", "close the ApiClient", "forget"])
async def test_a_stream_ends_with_its_reader(serve, how):
    still = Open()
    _, api = await serve(streaming(event("ADDED", 1), then=still))
    core = CoreV1Api(api)
    answer = await core.list_namespaced_config_map("team", watch=True, _preload_content=False)
    assert (await answer.content.readline()).startswith(b"{")
    reading = asyncio.create_task(answer.content.readline(), name="read")
    await until(lambda: still.now == 1)
    if how == "cancel":
        reading.cancel()
        await asyncio.wait([reading])
        assert not answer.closed  # a reader may come again
        answer.close()
    elif how == "stop":
        answer.release()
        with pytest.raises(RuntimeError, match="closed"):
            await reading
    elif how == "close the ApiClient":
        await api.close()
        with pytest.raises(RuntimeError, match="closed"):
            await reading
        with pytest.raises(RuntimeError, match="closed"):
            await core.read_namespaced_config_map("a", "team")
    else:
        reading.cancel()
        await asyncio.wait([reading])
        del answer, reading
        await core.read_namespaced_config_map("a", "team")  # else ApiClient knows it as its last answer
        gc.collect()
    await until(lambda: still.now == 0)
    await until(lambda: not api.rest_client._streams._tasks)


async def test_a_cancelled_read_loses_nothing(serve):
    go = asyncio.Event()
    _, api = await serve(streaming("one\nt", then=go.wait), streaming())
    answer = await CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True, _preload_content=False)
    assert await answer.content.readline() == b"one\n"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer.content.readline(), 0.02)
    go.set()
    assert await answer.content.readline() == b"t"
    assert await answer.content.readline() == b""
    answer.release()


async def test_an_unexpected_error_of_a_stream_is_for_who_opens_it(serve):
    """Such as a header that can't be sent."""
    server, _ = await serve()
    client = server.client.with_audit_id("a\r\nb")
    async with asyncio.timeout(5), client.kubernetes_asyncio() as api:
        with pytest.raises(ValueError, match="can't be sent"):
            await CoreV1Api(api).list_namespaced_config_map("team", watch=True, _preload_content=False)


async def test_a_cancelled_opening_frees_its_connection(serve):
    still = Open()

    async def held(_):
        await still()

    _, api = await serve(held)
    opening = asyncio.create_task(
        CoreV1Api(api).list_namespaced_config_map("team", watch=True, _preload_content=False), name="open"
    )
    await until(lambda: still.now == 1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: still.now == 0)


async def test_a_cancelled_request_frees_its_connection(serve):
    still = Open()

    async def held(_):
        await still()

    _, api = await serve(held)
    core = CoreV1Api(api)
    asking = asyncio.create_task(core.read_namespaced_config_map("a", "team"), name="ask")
    await until(lambda: still.now == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: still.now == 0)
    await core.read_namespaced_config_map("a", "team")


async def test_a_followed_log_is_read_as_it_comes_or_to_its_end(serve):
    _, api = await serve(streaming("one\n", "two"), streaming("one\n", "two"))
    core = CoreV1Api(api)
    async with await core.read_namespaced_pod_log("p", "team", follow=True, _preload_content=False) as answer:
        assert [line async for line in answer.content] == [b"one\n", b"two"]
    assert await core.read_namespaced_pod_log("p", "team", follow=True) == "one\ntwo"


async def test_a_cancelled_wait_for_the_end_of_a_log_frees_its_connection(serve):
    still = Open()
    _, api = await serve(streaming("x\n", then=still))
    waiting = asyncio.create_task(CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True), name="wait")
    await until(lambda: still.now == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not api.rest_client._streams._tasks
    await until(lambda: still.now == 0)


async def test_a_silent_stream_is_given_up_after_the_time_to_read_as_a_timeout_error(serve):
    still = Open()
    _, api = await serve(streaming("x\n", then=still))
    answer = await CoreV1Api(api).read_namespaced_pod_log(
        "p", "team", follow=True, _preload_content=False, _request_timeout=(5, 0.05)
    )
    assert await answer.content.readline() == b"x\n"
    with pytest.raises(TimeoutError) as caught:
        await answer.content.readline()
    assert isinstance(caught.value, TransportError)
    await until(lambda: still.now == 0)
    answer.release()


async def test_a_stream_may_last_no_longer_than_its_request_timeout(serve):
    still = Open()
    _, api = await serve(streaming("x\n", then=still))
    answer = await CoreV1Api(api).read_namespaced_pod_log(
        "p", "team", follow=True, _preload_content=False, _request_timeout=0.1
    )
    with pytest.raises(TimeoutError, match=r"did not end within 0\.1 s"):
        await answer.read()
    answer.release()


async def test_a_quiet_log_is_not_taken_for_dead(serve, monkeypatch):
    monkeypatch.setattr("asyncctl.client.transport.transport.WATCH_IDLE", 0.05)
    go = asyncio.Event()
    _, api = await serve(streaming("x\n", then=go.wait))
    answer = await CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True, _preload_content=False)
    await answer.content.readline()
    asyncio.get_running_loop().call_later(0.2, go.set)
    assert await answer.content.readline() == b""


async def test_a_watch_without_end_connects_anew_when_it_is_silent(serve):
    still = Open()
    server, api = await serve(streaming(event("ADDED", 1), then=still), streaming(event("ADDED", 2)))
    async with watch.Watch() as watching:
        events = watching.stream(CoreV1Api(api).list_namespaced_config_map, "team", _request_timeout=(5, 0.05))
        assert [(await anext(events))["object"].metadata.resource_version for _ in range(2)] == ["1", "2"]
    assert server.asked[1].query["resourceVersion"] == "1"


async def test_a_broken_stream_is_a_transport_error_after_what_had_come():
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\none\ntw\r\n")
        await writer.drain()

    async with raw_server(handler) as url, connected(url) as client, client.kubernetes_asyncio() as api:
        answer = await CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True, _preload_content=False)
        assert await answer.content.readline() == b"one\n"
        for _ in range(2):
            with pytest.raises(TransportError, match="broke"):
                await answer.content.readline()


async def test_a_line_without_end_is_cut_off(serve, monkeypatch):
    monkeypatch.setattr("asyncctl.client.bridge.answer.MAX_LINE", 100)
    still = Open()
    _, api = await serve(streaming("x" * 300, then=still))
    answer = await CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True, _preload_content=False)
    with pytest.raises(StreamError, match="longer than 100 bytes"):
        await answer.content.readline()
    answer.release()


async def test_who_reads_slowly_holds_the_server_up(serve):
    sent = 0

    async def endless(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 2**16)
            sent += 1

    _, api = await serve(endless)
    answer = await CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True, _preload_content=False)
    before = -1
    while before != sent:  # until it stands still
        before = sent
        await asyncio.sleep(0.05)
    assert sent < 1000
    assert len(await answer.content.read(10)) == 10
    answer.release()


async def test_a_body_left_to_the_caller_can_be_read_in_each_way(serve):
    _, api = await serve(*[web.Response(text=json.dumps(MAP)) for _ in range(5)])

    async def ask():
        return await CoreV1Api(api).read_namespaced_config_map("a", "team", _preload_content=False)

    whole = json.dumps(MAP).encode()
    answer = await ask()
    assert (answer.status, answer.reason, answer.getheader("content-type")) == (200, "OK", "text/plain; charset=utf-8")
    assert await answer.read() == whole
    assert await answer.read() == b""
    assert await (await ask()).json() == MAP
    assert await (await ask()).text() == whole.decode()
    assert b"".join([piece async for piece in (await ask()).content.iter_chunked(7)]) == whole
    assert [piece async for piece in (await ask()).content.iter_any()] == [whole]


# The library.


async def test_no_session_is_opened(serve, monkeypatch):
    server, _ = await serve()

    def refuse(*_, **__):
        raise AssertionError("a session was made")

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", refuse)
    api = await server.client.kubernetes_asyncio()
    await CoreV1Api(api).read_namespaced_config_map("a", "team")
    await AppsV1Api(api).read_namespaced_deployment("a", "team", _preload_content=False)
    await api.close()
    await api.close()


async def test_custom_objects_are_plain_dicts(serve):
    server, api = await serve({"kind": "Widget", "apiVersion": "g/v1", "spec": {"size": 1}})
    found = await CustomObjectsApi(api).get_namespaced_custom_object("g", "v1", "team", "widgets", "w")
    assert found["spec"] == {"size": 1}
    assert server.lines == ["GET /apis/g/v1/namespaces/team/widgets/w"]


def test_importing_the_client_imports_no_kubernetes_asyncio():
    program = "import sys, asyncctl.operator; sys.exit('kubernetes_asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


PROGRAM = """
import asyncio, sys, time
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from tests.unit.support import make_transport

async def main():
    longest, before = 0.0, time.monotonic()
    async def tick():
        nonlocal longest, before
        while True:
            now = time.monotonic()
            longest, before = max(longest, now - before), now
            await asyncio.sleep(0)
    async with make_transport("http://127.0.0.1:1") as transport:
        ticking = asyncio.create_task(tick())
        began = time.monotonic()
        api = await Client(transport, field_manager="x").kubernetes_asyncio()
        took = time.monotonic() - began
        ticking.cancel()
        await api.close()
    print(longest / took)

asyncio.run(main())
"""


def test_the_import_does_not_stop_the_event_loop():
    told = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert float(told.stdout) < 0.5  # the interpreter's lock is shared in turns


# The way back.


@pytest.mark.parametrize(
    "error, expected",
    [
        (ApiException(status=409, reason="Conflict"), Conflict),
        (ApiException(status=410, reason="Expired: too old resource version"), Gone),
        (ApiException(status=503, reason="Service Unavailable"), ServerError),
        (ApiException(status=404), NotFound),
    ],
)
def test_an_api_exception_made_elsewhere_is_what_its_status_says(error, expected):
    assert isinstance(as_ours(error), expected)


def test_an_api_exception_made_elsewhere_is_what_its_body_says():
    error = ApiException(status=409)
    error.body = json.dumps({"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "it is there"})
    error.headers = {"Retry-After": "3"}
    ours = as_ours(error)
    assert isinstance(ours, AlreadyExists)
    assert "it is there" in str(ours)
    assert ours.retry_after == 3.0
    assert ours.__cause__ is error


@pytest.mark.parametrize(
    "error", [ApiException(status=0, reason="of the client"), ApiException(), ValueError("x"), ApiValueError("x")]
)
def test_what_stands_for_no_answer_stays_as_it_is(error):
    assert as_ours(error) is error


def test_a_cause_of_ours_is_found_through_other_api_exceptions():
    ours = KubernetesError("x")
    inner, outer = ApiException(status=409), ApiException(status=409)
    inner.__cause__, outer.__cause__ = ours, inner
    assert as_ours(outer) is ours


def test_another_error_is_not_taken_for_its_cause():
    error = ValueError("x")
    error.__cause__ = KubernetesError("y")
    assert as_ours(error) is error

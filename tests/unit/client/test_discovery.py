"""What a server serves, as it tells it in either form, and where a part of it is broken."""

import json
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from asyncctl.apiserver import ApiServer
from asyncctl.client.discovery import AGGREGATED, discover, server_version
from asyncctl.client.errors import ServerError, TransportError, Unauthorized
from asyncctl.objects import ConfigMap, Unstructured
from tests.unit.harness import WIDGETS, Widget
from tests.unit.support import http_server, make_transport, status

HPA = Unstructured("autoscaling/v2", "HorizontalPodAutoscaler").resource_type
GROUPS = {
    "kind": "APIGroupList",
    "groups": [
        {
            "name": "autoscaling",
            "versions": [{"version": "v1"}, {"version": "v2"}],
            "preferredVersion": {"version": "v2"},
        },
        {"name": "metrics.k8s.io", "versions": [{"version": "v1beta1"}], "preferredVersion": {"version": "v1beta1"}},
    ],
}


def resources(*names, kind="HorizontalPodAutoscaler"):
    return {
        "kind": "APIResourceList",
        "resources": [{"name": name, "kind": kind, "namespaced": True, "verbs": ["get", "list"]} for name in names],
    }


def serving(paths, seen=None):
    """A handler that answers a path with JSON, or with a response; else with text 404, as the real server does."""

    async def handler(request):
        if seen is not None:
            seen.append(request.path)
        found = paths.get(request.path)
        if isinstance(found, web.Response):
            return found
        return web.json_response(found) if found else web.Response(status=404, text="404 page not found")

    return handler


async def ask(url, **options):
    async with make_transport(url, tries=1) as transport:
        return await discover(transport, **options)


async def test_what_is_served_is_told_in_one_value():
    async with ApiServer() as server, make_transport(server.url) as transport:
        served = await discover(transport)
    found = served.resource(ConfigMap.resource_type)
    assert (found.kind, found.namespaced, {"list", "watch", "patch"} <= found.verbs) == ("ConfigMap", True, True)
    assert served.resource(Unstructured("apps/v1", "Deployment").resource_type).subresources["scale"] >= {"patch"}
    assert not served.resource(Unstructured("v1", "Namespace").resource_type).namespaced
    assert served.resource(Widget.resource_type) is None
    assert served.groups["apps"].preferred == "v1"
    assert served.problems == {}


async def test_a_definition_is_served_from_its_next_answer_on():
    async with ApiServer() as server, make_transport(server.url) as transport:
        before = await discover(transport, groups={"runtime.example.com"})
        async with aiohttp.ClientSession(server.url) as session:
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            assert (await session.post(path, json=WIDGETS)).status == 201
        served = await discover(transport, groups={"runtime.example.com"})
    assert dict(before.groups) == {}
    assert list(served.groups) == ["runtime.example.com"]
    found = served.resource(Widget.resource_type)
    assert (found.kind, set(found.subresources)) == ("Widget", {"status"})
    assert served.versions_of("runtime.example.com", "Widget") == ("v1",)


async def test_both_forms_tell_the_same():
    async with ApiServer() as server, make_transport(server.url) as transport:
        aggregated = await discover(transport)
        send = transport.request

        async def plain(request):
            return await send(replace(request, accept="application/json"))

        transport.request = plain
        assert await discover(transport) == aggregated


async def test_a_server_without_aggregated_discovery_is_asked_version_by_version():
    seen = []
    paths = {
        "/apis": GROUPS,
        "/apis/autoscaling/v1": resources("horizontalpodautoscalers"),
        "/apis/autoscaling/v2": resources("horizontalpodautoscalers", "horizontalpodautoscalers/status"),
    }
    async with http_server(serving(paths, seen)) as url:
        served = await ask(url, groups={"autoscaling"})
    assert sorted(seen) == ["/apis", "/apis/autoscaling/v1", "/apis/autoscaling/v2"]
    assert served.groups["autoscaling"].preferred == "v2"
    assert served.versions_of("autoscaling", "HorizontalPodAutoscaler") == ("v2", "v1")
    assert served.resource(HPA).subresources == {"status": {"get", "list"}}


@pytest.mark.parametrize("code", [404, 503])
async def test_a_version_that_does_not_answer_is_told_beside_the_others(code):
    broken = status(code, "ServiceUnavailable", "error trying to reach service")
    paths = {"/apis": GROUPS, "/apis/metrics.k8s.io/v1beta1": broken}
    paths |= {f"/apis/autoscaling/{version}": resources("horizontalpodautoscalers") for version in ("v1", "v2")}
    async with http_server(serving(paths)) as url:
        served = await ask(url, groups={"autoscaling", "metrics.k8s.io"})
    assert served.resource(HPA) is not None
    assert served.groups["metrics.k8s.io"].versions[0].resources == ()
    ((path, problem),) = served.problems.items()
    assert path == "/apis/metrics.k8s.io/v1beta1"
    assert problem.startswith("metrics.k8s.io/v1beta1: get /apis/metrics.k8s.io/v1beta1: ")
    assert served.version("metrics.k8s.io", "v1beta1").problem == problem


async def test_a_stale_group_is_told_beside_the_others():
    def group(name, freshness):
        return {"metadata": {"name": name}, "versions": [{"version": "v1", "resources": None, "freshness": freshness}]}

    items = [group("apps", "Current"), group("metrics.k8s.io", "Stale")]
    seen = []

    async def handler(request):
        seen.append(request.headers["Accept"])
        body = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}
        return web.Response(body=json.dumps(body).encode(), content_type="application/json")

    async with http_server(handler) as url:
        served = await ask(url, groups={"apps", "metrics.k8s.io"})
    assert seen == [f"{AGGREGATED},application/json"]
    assert served.version("apps", "v1").problem is None
    problem = served.problems["/apis/metrics.k8s.io/v1"]
    assert problem.startswith("metrics.k8s.io/v1: the API server behind it does not answer now")


async def test_a_server_with_no_core_group_is_told_and_no_error():
    async with http_server(serving({"/apis": {"kind": "APIGroupList", "groups": []}})) as url:
        served = await ask(url)
    assert (dict(served.groups), list(served.problems)) == ({}, ["/api"])
    assert "/api: 404" in served.problems["/api"]


@pytest.mark.parametrize("paths", [{}, {"/apis": GROUPS}])
async def test_a_server_that_can_not_be_reached_is_an_error(paths):
    """Also where that happens in the middle."""

    async def handler(request):
        if request.path in paths:
            return web.json_response(paths[request.path])
        request.transport.abort()
        return web.Response()

    async with http_server(handler) as url:
        with pytest.raises(TransportError):
            await ask(url, groups={"autoscaling"})


async def test_credentials_that_are_not_accepted_are_an_error():
    async with http_server(serving({"/apis": status(401, "Unauthorized", "no")})) as url:
        with pytest.raises(Unauthorized):
            await ask(url, groups={"apps"})


@pytest.mark.parametrize("body", ["<html>", "[]", '{"items": []}'])
async def test_what_is_no_discovery_is_told_with_its_start(body):
    answer = web.Response(text=body, content_type="application/json")
    async with http_server(serving({"/apis": answer})) as url:
        served = await ask(url, groups={"apps"})
    assert body in served.problems["/apis"]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("v1.36.3", (1, 36)),
        ("v1.29.4-gke.1447000", (1, 29)),
        ("v1.31.5+k3s1", (1, 31)),
        ("v1.30.0-rc.2", (1, 30)),
        ("devel", None),
    ],
)
async def test_a_version_is_read_whatever_a_vendor_appends(text, release):
    async with http_server(serving({"/version": {"gitVersion": text}})) as url, make_transport(url) as transport:
        version, reply = await server_version(transport)
    assert (version.text, version.release) == (text, release)
    assert "Date" in reply.headers


async def test_what_is_no_version_is_a_server_error():
    async with http_server(serving({"/version": {"major": "1"}})) as url, make_transport(url) as transport:
        with pytest.raises(ServerError, match="major"):
            await server_version(transport)


async def test_an_answer_that_is_nested_too_deeply_is_an_error_of_ours():
    async def deep(request):
        return web.Response(body=b'{"gitVersion":' + b"[" * 100_000, content_type="application/json")

    async with http_server(deep) as url, make_transport(url, tries=1) as transport:
        with pytest.raises(ServerError):
            await server_version(transport)

"""kubernetes-asyncio's generated APIs over our transport, against an API server, embedded and real."""

import asyncio
import itertools
import json
from contextlib import AsyncExitStack

import pytest
from kubernetes_asyncio import watch
from kubernetes_asyncio.client import (
    ApiException,
    ApiValueError,
    CoreV1Api,
    CustomObjectsApi,
    V1ConfigMap,
    V1DeleteOptions,
    V1Namespace,
    V1ObjectMeta,
    V1Preconditions,
    VersionApi,
)
from kubernetes_asyncio.dynamic import DynamicClient
from kubernetes_asyncio.dynamic.exceptions import NotFoundError

from asyncctl.apiserver import ApiServer
from asyncctl.client.bridge.errors import as_ours
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import AlreadyExists, ApplyConflict, Conflict, Fenced, NamespaceBoundaryExceeded, Target
from asyncctl.client.transport.transport import Lane, Request
from tests.unit.support import connected

_numbers = itertools.count(1)


@pytest.fixture
async def config(backend):
    """Where the server is. The real one is shared; an embedded one is the test's own: its watches end with it."""
    async with AsyncExitStack() as stack:
        url = (await stack.enter_async_context(ApiServer())).url if backend.name == "embedded" else backend.url
        token = f"Bearer {backend.token}" if backend.token else None
        yield ClusterConfig(server=url, ca_file=backend.ca or None, authorization=token)


@pytest.fixture
async def api(config):
    async with connected(config) as client, client.kubernetes_asyncio() as made:
        yield made


@pytest.fixture
async def core(api):
    """`CoreV1Api`, with a namespace of the test's own."""
    made = CoreV1Api(api)
    made.own = f"bridge-{next(_numbers)}"
    await made.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=made.own)))
    return made


def config_map(name, **data):
    return V1ConfigMap(metadata=V1ObjectMeta(name=name), data=data)


async def test_an_object_from_its_making_to_its_end(core):
    made = await core.create_namespaced_config_map(core.own, config_map("a", k="1"))
    assert (made.data, made.metadata.managed_fields[0].manager) == ({"k": "1"}, "test")
    read = await core.read_namespaced_config_map("a", core.own)
    assert read == made
    read.data["k"] = "2"
    replaced = await core.replace_namespaced_config_map("a", core.own, read)
    assert replaced.data == {"k": "2"}
    patched = await core.patch_namespaced_config_map("a", core.own, {"data": {"l": "3"}})
    assert patched.data == {"k": "2", "l": "3"}
    steps = [{"op": "replace", "path": "/data/k", "value": "4"}]
    assert (await core.patch_namespaced_config_map("a", core.own, steps)).data["k"] == "4"
    listed = await core.list_namespaced_config_map(core.own, field_selector="metadata.name=a")
    assert [each.metadata.uid for each in listed.items] == [made.metadata.uid]
    await core.delete_namespaced_config_map("a", core.own)
    with pytest.raises(ApiException) as caught:
        await core.read_namespaced_config_map("a", core.own)
    assert (caught.value.status, caught.value.reason) == (404, "Not Found")


async def test_a_list_comes_in_pages(core):
    for number in range(5):
        await core.create_namespaced_config_map(core.own, config_map(f"c{number}"))
    names, token = [], None
    while True:
        page = await core.list_namespaced_config_map(
            core.own, limit=2, _continue=token, field_selector="metadata.name!=kube-root-ca.crt"
        )
        names += [each.metadata.name for each in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"c{number}" for number in range(5)]


async def test_server_side_apply_under_the_clients_own_name_and_its_conflict(core):
    apply = "application/apply-patch+yaml"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    await core.patch_namespaced_config_map("a", core.own, body, _content_type=apply)
    with pytest.raises(ApiException) as caught:
        await core.patch_namespaced_config_map(
            "a", core.own, body | {"data": {"k": "2"}}, _content_type=apply, field_manager="another"
        )
    assert isinstance(as_ours(caught.value), ApplyConflict)
    taken = await core.patch_namespaced_config_map(
        "a", core.own, body | {"data": {"k": "2"}}, _content_type=apply, field_manager="another", force=True
    )
    assert taken.data == {"k": "2"}


async def test_a_conflict_has_its_status_and_is_our_conflict(core):
    made = await core.create_namespaced_config_map(core.own, config_map("a"))
    await core.patch_namespaced_config_map("a", core.own, {"data": {"k": "1"}})
    with pytest.raises(ApiException) as caught:
        await core.replace_namespaced_config_map("a", core.own, made)
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (409, "Conflict")
    assert caught.value.headers["content-type"].startswith("application/json")
    assert isinstance(as_ours(caught.value), Conflict)
    with pytest.raises(ApiException) as caught:
        await core.create_namespaced_config_map(core.own, config_map("a"))
    assert isinstance(as_ours(caught.value), AlreadyExists)


async def test_a_namesake_is_not_deleted(core):
    await core.create_namespaced_config_map(core.own, config_map("a"))
    with pytest.raises(ApiException) as caught:
        await core.delete_namespaced_config_map(
            "a", core.own, body=V1DeleteOptions(preconditions=V1Preconditions(uid="another"))
        )
    assert isinstance(as_ours(caught.value), Conflict)


async def test_a_watch_tells_what_happens_as_models(core):
    listed = await core.list_namespaced_config_map(core.own)
    async with watch.Watch() as watching, asyncio.timeout(10):
        events = watching.stream(
            core.list_namespaced_config_map, core.own, resource_version=listed.metadata.resource_version,
            field_selector="metadata.name=a",
        )  # fmt: skip
        await core.create_namespaced_config_map(core.own, config_map("a"))
        await core.patch_namespaced_config_map("a", core.own, {"data": {"k": "1"}})
        await core.delete_namespaced_config_map("a", core.own)
        got = [await anext(events) for _ in range(3)]
    assert [each["type"] for each in got] == ["ADDED", "MODIFIED", "DELETED"]
    assert got[1]["object"].data == {"k": "1"}


async def test_a_watch_ends_when_its_time_is_over(core):
    async with watch.Watch() as watching, asyncio.timeout(10):
        events = watching.stream(
            core.list_namespaced_config_map, core.own, timeout_seconds=1, field_selector="metadata.name=none"
        )
        assert [each async for each in events] == []


async def test_a_watch_that_the_server_refuses_is_an_api_exception(core):
    async with watch.Watch() as watching, asyncio.timeout(10):
        events = watching.stream(core.list_namespaced_config_map, core.own, field_selector="data.k=1")
        with pytest.raises(ApiException) as caught:
            await anext(events)
    assert caught.value.status == 400


async def test_two_hundred_watches_do_not_hold_up_a_write(core):
    answers = await asyncio.gather(
        *(core.list_namespaced_config_map(core.own, watch=True, _preload_content=False) for _ in range(200))
    )
    await core.create_namespaced_config_map(core.own, config_map("a"), _request_timeout=5)
    for answer in answers:
        answer.release()


async def test_custom_objects(api, core):
    widgets = CustomObjectsApi(api)
    where = ("conformance.example.com", "v1", core.own, "widgets")
    if "127.0.0.1" in api.configuration.host and not api.configuration.host.startswith("https"):
        from tests.conformance.conftest import WIDGETS

        await api.call_api("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "POST", body=WIDGETS)
    body = {"apiVersion": "conformance.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    made = await widgets.create_namespaced_custom_object(*where, body | {"spec": {"size": 1}})
    assert made["spec"]["color"] == "red"
    with pytest.raises(ApiException) as caught:
        await widgets.create_namespaced_custom_object(*where, body | {"spec": {"size": 99}})
    assert caught.value.status == 422


async def test_the_dynamic_client_reads_and_sees_what_is_missing(api, core):
    await core.create_namespaced_config_map(core.own, config_map("a", k="1"))
    dynamic = await DynamicClient(api)
    maps = await dynamic.resources.get(api_version="v1", kind="ConfigMap")
    assert (await maps.get(name="a", namespace=core.own)).data.k == "1"
    with pytest.raises(NotFoundError):
        await maps.get(name="none", namespace=core.own)


async def test_what_is_no_resource(api):
    assert int((await VersionApi(api).get_code()).major) == 1


async def test_a_fenced_write_is_not_made(config, core):
    def gone():
        raise Fenced("the Lease is gone")

    async with connected(config, fence=gone) as client, client.kubernetes_asyncio() as fenced:
        with pytest.raises(Fenced):
            await CoreV1Api(fenced).create_namespaced_config_map(core.own, config_map("a"))
    with pytest.raises(ApiException):
        await core.read_namespaced_config_map("a", core.own)


async def test_a_namespace_outside_of_the_boundary_is_neither_read_nor_written(config, core):
    async with connected(config, namespaces=("elsewhere",)) as client, client.kubernetes_asyncio() as bounded:
        for call in (
            CoreV1Api(bounded).create_namespaced_config_map(core.own, config_map("a")),
            CoreV1Api(bounded).list_namespaced_config_map(core.own),
            CoreV1Api(bounded).list_config_map_for_all_namespaces(),
            CoreV1Api(bounded).list_namespace(),
        ):
            with pytest.raises(ApiException) as caught:
                await call
            assert caught.value.status == 403
            assert isinstance(as_ours(caught.value), NamespaceBoundaryExceeded)
    with pytest.raises(ApiException):
        await core.read_namespaced_config_map("a", core.own)


def spelled(namespace):
    """One object's path as a server reads it, and as it should be told by none: decoded once, twice, or cleaned."""
    plain = f"/api/v1/namespaces/{namespace}/configmaps/a"
    below = f"namespaces/{namespace}/configmaps/a"
    return (
        plain,
        plain.replace("namespaces", "%6eamespaces"),
        *(f"/api/v1/{below}".replace("v1/", f"v1{slash}") for slash in ("%2F", "%2f", "%252F", "//", "/./", "/x/../")),
        *(f"/api/v1{slash}{below.replace('/', slash)}" for slash in ("%2F", "%2f", "%252f")),
        f"/api%2Fv1%2F{below.replace('/', '%2F')}",
        f"/{plain}",
    )


async def test_no_way_to_write_a_path_leads_out_of_the_boundary(config, core):
    await core.create_namespaced_config_map(core.own, config_map("a", k="v"))
    async with connected(config, namespaces=("elsewhere",)) as client, client.kubernetes_asyncio() as bounded:
        for path in spelled(core.own):
            for method in ("GET", "DELETE"):
                with pytest.raises((ApiException, ApiValueError)) as caught:
                    await bounded.call_api(path, method)
                assert not isinstance(caught.value, ApiException) or caught.value.status == 403, path
            with pytest.raises((NamespaceBoundaryExceeded, ValueError)):
                await client.get_raw(path)
    assert (await core.read_namespaced_config_map("a", core.own)).data == {"k": "v"}


async def test_a_server_reads_an_encoded_slash_as_a_slash(config, core):
    """Why a path is decoded before it is split."""
    await core.create_namespaced_config_map(core.own, config_map("a", k="v"))
    path = f"/api/v1%2Fnamespaces%2f{core.own}%2Fconfigmaps%2Fa"
    request = Request(target=Target("get", "configmaps", core.own, "a"), method="GET", path=path, lane=Lane.READ)
    async with connected(config) as client:
        reply = await client._transport.request(request)
    assert json.loads(reply.body)["data"] == {"k": "v"}

"""What the embedded server has beyond a real one: its own start and stop, and a history one can forget."""

import asyncio
import io
import json
import stat
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import yaml

from asyncctl.apiserver import ApiServer

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def server():
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def session(server):
    async with aiohttp.ClientSession(server.url) as session:
        yield session


async def create(session, name="c", **meta):
    async with session.post(CONFIG_MAPS, json={"metadata": {"name": name, **meta}, "data": {}}) as response:
        assert response.status == 201, await response.text()
        return await response.json()


async def test_the_usual_namespaces_are_there_and_have_uids(session):
    async with session.get("/api/v1/namespaces") as response:
        items = (await response.json())["items"]
    assert [item["metadata"]["name"] for item in items] == ["default", "kube-node-lease", "kube-public", "kube-system"]
    assert len({item["metadata"]["uid"] for item in items}) == 4


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
async def test_it_is_healthy(session, path):
    async with session.get(path) as response:
        assert (response.status, await response.text()) == (200, "ok")


async def test_protobuf_is_refused_with_what_to_do_instead(session):
    kind = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    async with session.post("/api/v1/namespaces", data=b"k8s\0", headers=kind) as response:
        status = await response.json()
    assert (response.status, status["reason"]) == (415, "UnsupportedMediaType")
    assert status["message"].startswith("this API server reads no protobuf yet")
    assert "kubectl apply" in status["message"]


async def test_a_resume_after_compaction_is_expired(server, session):
    old = (await create(session))["metadata"]["resourceVersion"]
    await create(session, "d")
    server.compact()
    async with session.get(f"{CONFIG_MAPS}?watch=true&resourceVersion={old}") as response:
        assert response.status == 200
        event = json.loads(await response.text())
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    async with session.get(f"{CONFIG_MAPS}?resourceVersion={old}&resourceVersionMatch=Exact") as response:
        assert response.status == 410


async def test_a_page_after_compaction_offers_to_go_on_inconsistently(server, session):
    for name in "abc":
        await create(session, name)
    async with session.get(f"{CONFIG_MAPS}?limit=1") as response:
        token = (await response.json())["metadata"]["continue"]
    await create(session, "bb")
    server.compact()
    async with session.get(f"{CONFIG_MAPS}?limit=9&continue={token}") as response:
        assert response.status == 410
        token = (await response.json())["metadata"]["continue"]
    async with session.get(f"{CONFIG_MAPS}?limit=9&continue={token}") as response:
        names = [item["metadata"]["name"] for item in (await response.json())["items"]]
    assert names == ["b", "bb", "c"]


async def test_an_open_watch_outlives_compaction(server, session):
    async with session.get(f"{CONFIG_MAPS}?watch=true") as response:
        await create(session)
        assert json.loads(await response.content.readline())["type"] == "ADDED"
        server.compact()
        await create(session, "d")
        assert json.loads(await response.content.readline())["object"]["metadata"]["name"] == "d"


async def test_bookmarks_come_at_the_interval_and_carry_the_version():
    async with ApiServer(bookmark_interval=0.01) as server, aiohttp.ClientSession(server.url) as session:
        version = (await create(session))["metadata"]["resourceVersion"]
        url = f"{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        async with session.get(url) as response, asyncio.timeout(5):
            event = json.loads(await response.content.readline())
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["resourceVersion"] == version


async def test_watches_without_bookmarks_get_none():
    async with (
        ApiServer(bookmark_interval=0.01) as server,
        aiohttp.ClientSession(server.url) as session,
        session.get(f"{CONFIG_MAPS}?watch=true&timeoutSeconds=1") as response,
    ):
        assert await response.text() == ""


async def test_stopping_ends_every_watch():
    async with ApiServer() as server, aiohttp.ClientSession(server.url) as session:
        watches = [await session.get(f"{CONFIG_MAPS}?watch=true") for _ in range(20)]
        await server.__aexit__(None, None, None)
        for watch in watches:
            assert await watch.text() == ""


async def test_a_taken_port_is_an_error(server):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        async with ApiServer(port=port):
            pass


async def test_the_kubeconfig_is_for_its_owner_alone(server, tmp_path):
    path = tmp_path / "config"
    await asyncio.to_thread(server.write_kubeconfig, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == "asyncctl-apiserver"
    assert config["clusters"][0]["cluster"]["server"] == server.url


async def test_times_come_from_the_clock_it_was_given():
    clock = datetime(2030, 1, 2, tzinfo=UTC)
    async with ApiServer(now=lambda: clock) as server, aiohttp.ClientSession(server.url) as session:
        assert (await create(session))["metadata"]["creationTimestamp"] == "2030-01-02T00:00:00Z"


async def test_an_apply_that_changes_nothing_is_not_written_however_late():
    moments = iter(range(10_000))
    start = datetime(2030, 1, 2, tzinfo=UTC)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    headers = {"Content-Type": "application/apply-patch+yaml"}
    url = f"{CONFIG_MAPS}/c?fieldManager=m"
    clock = ApiServer(now=lambda: start + timedelta(seconds=next(moments)))
    applied = []
    async with clock as server, aiohttp.ClientSession(server.url) as session:
        for _ in range(3):
            async with session.patch(url, data=json.dumps(body), headers=headers) as response:
                applied.append(await response.json())
    assert applied == [applied[0]] * 3
    assert applied[0]["metadata"]["managedFields"][0]["time"].startswith("2030-01-02")


async def test_a_generated_name_has_five_more_characters(session):
    body = {"metadata": {"generateName": "x" * 70}, "data": {}}
    async with session.post(CONFIG_MAPS, json=body) as response:
        name = (await response.json())["metadata"]["name"]
    assert len(name) == 63
    assert name.startswith("x" * 58)


async def test_a_body_over_three_mebibytes_is_refused(session):
    async with session.post(CONFIG_MAPS, data=io.BytesIO(b"x" * (3 * 1024 * 1024 + 1))) as response:
        assert response.status == 413
        assert (await response.json())["reason"] == "RequestEntityTooLarge"


async def test_many_watchers_see_every_change_in_order(session):
    async def collect(count):
        async with session.get(f"{CONFIG_MAPS}?watch=true&resourceVersion={start}") as response:
            return [json.loads(await response.content.readline())["object"]["metadata"]["name"] for _ in range(count)]

    start = (await create(session, "first"))["metadata"]["resourceVersion"]
    names = [f"n{number:03}" for number in range(300)]
    async with asyncio.timeout(120):
        watching = [asyncio.create_task(collect(len(names))) for _ in range(10)]
        for name in names:
            await create(session, name)
        assert await asyncio.gather(*watching) == [names] * 10

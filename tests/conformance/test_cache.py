"""The cache against an API server, embedded and real: streamed lists, lost history, bookmarks, what is large or cut."""

import asyncio
import contextlib
import itertools

import orjson
import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.errors import Gone, StatusError
from asyncctl.generate import crd
from asyncctl.objects import (
    ConfigMap,
    Event,
    Namespace,
    ObjectReference,
    Resource,
    Secret,
    Spec,
    decode,
    field,
    micro_time,
)
from asyncctl.operator import Operator
from tests.conformance.between import between
from tests.conformance.cached import caching
from tests.conformance.script import Backend
from tests.unit.harness import Cluster, working
from tests.unit.support import connected, raw_server, until

PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
WANTED = "you requested PartialObjectMetadata"
STREAM = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
LARGEST = 3 * 2**19 - 200  # bytes as JSON: etcd takes requests of 1.5 MiB, in which there is a little more
_numbers = itertools.count(1)


class BlobSpec(Spec):
    text: str = ""


class Blob(Resource, group="cache.example.com", version="v1"):
    spec: BlobSpec = field(default_factory=BlobSpec)


@pytest.fixture
async def cluster(backend):
    """The backend, as somebody else sees it, with a namespace of the test's own."""
    async with connected(backend.config()) as client:
        cluster = Cluster(backend.config(), client, f"cache-{next(_numbers)}")
        await client.create(Namespace(name=cluster.namespace))
        yield cluster
        await client.delete(Namespace.resource_type, cluster.namespace)


async def event(cluster, name):
    """Make an Event: of all kinds the one that the real server does not hold in a cache of its own."""
    about = ObjectReference(kind="Namespace", name=cluster.namespace, namespace=cluster.namespace)
    return await cluster.create(
        Event, name, event_time=micro_time(cluster.client._clock.now()), type="Normal", reason="Tested", action="Test",
        note="n", regarding=about, reporting_controller="example.com/test", reporting_instance="test",
    )  # fmt: skip


async def test_a_cache_that_was_cut_off_until_its_place_was_compacted_ends_right(backend, cluster):
    """Deleted, deleted and made anew, changed and made while nobody looked: each is told once."""
    for name in ("stays", "goes", "again", "changes"):
        await event(cluster, name)
    async with (
        between(backend) as proxy,
        caching(backend.config(proxy.url), Event, namespaces=(cluster.namespace,)) as cache,
    ):
        await cache.has("stays", "goes", "again", "changes")
        before = dict(cache.listener.known)
        proxy.sever()
        await cluster.delete(Event, "goes")
        await cluster.delete(Event, "again")
        again = await event(cluster, "again")
        await cluster.patch(Event, "changes", {"metadata": {"labels": {"changed": "yes"}}})
        await event(cluster, "new")
        await backend.compact()
        proxy.mend()
        await cache.agrees(cluster.client, cluster.namespace)
        assert cache.restarts("expired") == 1
        assert sorted(cache.gone()) == ["again", "goes"]
        assert {header.key: header for header in cache.listener.gone}.items() <= before.items()
        assert cache.listener.known[cluster.namespace, "again"].uid == again.uid
        await event(cluster, "later")
        await cache.has("stays", "again", "changes", "new", "later")
        assert len(cache.gone()) == 2


async def test_a_cache_that_was_cut_off_for_longer_than_the_embedded_server_remembers_ends_right():
    async with ApiServer(history=5) as server, connected(server.url) as client:
        backend = Backend("embedded", server.url)
        cluster = Cluster(backend.config(), client, "default")
        for name in ("stays", "goes"):
            await cluster.create(Secret, name)
        async with between(backend) as proxy, caching(backend.config(proxy.url), Secret) as cache:
            await cache.has("stays", "goes")
            proxy.sever()
            await cluster.delete(Secret, "goes")
            for number in range(11):  # it cuts its history when there is twice as much of it
                await cluster.patch(Secret, "stays", {"metadata": {"labels": {"n": str(number)}}})
            proxy.mend()
            await cache.has("stays")
            await cache.agrees(client, "default")
            assert cache.restarts("expired") == 1
            assert cache.gone() == ["goes"]


async def test_a_watch_that_fails_at_the_edge_of_what_was_compacted_is_not_tried_for_ever(backend, cluster):
    """Compacted at the very deletion that comes next, etcd has the event and not the object: a 500, and not a 410."""
    for name in ("stays", "goes"):
        await event(cluster, name)
    async with (
        between(backend) as proxy,
        caching(backend.config(proxy.url), Event, namespaces=(cluster.namespace,)) as cache,
    ):
        await cache.has("stays", "goes")
        proxy.sever()
        await cluster.delete(Event, "goes")
        await backend.compact()
        proxy.mend()
        await cache.has("stays")
        assert cache.gone() == ["goes"]


async def test_pages_of_a_list_whose_moment_was_compacted(backend, cluster):
    """They end with 410 and a token that goes on with what there is now; our list begins anew."""
    path = f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events"
    for name in "abcde":
        await event(cluster, name)
    listing = cluster.client.list(Event, namespace=cluster.namespace, limit=2)
    async with backend.session() as session:
        first = await (await session.get(f"{path}?limit=2")).json()
        given = aiter(listing)
        names = [(await anext(given)).name, (await anext(given)).name]
        await cluster.delete(Event, "c")
        await event(cluster, "cc")
        await backend.compact()
        names += [each.name async for each in given]
        assert names == ["a", "b", "cc", "d", "e"]
        async with session.get(path, params={"limit": "2", "continue": first["metadata"]["continue"]}) as reply:
            refused = await reply.json()
        assert (reply.status, refused["reason"], refused["code"]) == (410, "Expired", 410)
        assert refused["message"].startswith("The provided continue parameter is too old to display a consistent list")
        async with session.get(path, params={"limit": "9", "continue": refused["metadata"]["continue"]}) as reply:
            rest = await reply.json()
        assert [item["metadata"]["name"] for item in rest["items"]] == ["cc", "d", "e"]
        assert int(rest["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
        version = first["metadata"]["resourceVersion"]
        async with session.get(path, params={"resourceVersion": version, "resourceVersionMatch": "Exact"}) as reply:
            assert (reply.status, (await reply.json())["message"]) == (
                410, "The resourceVersion for the provided list is too old.",
            )  # fmt: skip


async def test_a_watch_from_what_was_compacted_is_told_so_in_its_first_event(backend, cluster):
    made = await event(cluster, "e")
    await cluster.delete(Event, "e")
    await event(cluster, "later")
    await backend.compact()
    version = made.metadata.resource_version
    async with backend.session() as session:
        path = f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events?watch=1&resourceVersion={version}"
        async with session.get(path) as reply:
            assert (reply.status, orjson.loads(await reply.read())) == (200, {
                "type": "ERROR",
                "object": {
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
                    "code": 410, "message": "The resourceVersion for the provided watch is too old.",
                },
            })  # fmt: skip
    with pytest.raises(Gone):
        async with cluster.client.watch(Event, namespace=cluster.namespace, resource_version=version) as events:
            await anext(events)


async def test_bookmarks_move_the_progress_and_are_nobodys_change(backend, cluster):
    """Nothing of the kind changes, but others do: the last bookmark of a short watch tells how far it has come."""
    await cluster.create(Secret, "s", data={"n": b"0"})
    async with between(backend) as proxy:
        proxy.ask = lambda query: query.update(timeoutSeconds="3")
        async with caching(backend.config(proxy.url), Secret, namespaces=(cluster.namespace,)) as cache:
            store = cache.informer._stores[cluster.namespace]
            began, told = store.progress, dict(cache.listener.known)
            await cluster.create(ConfigMap, "c")
            # A list makes the real server ask etcd how far it is; by itself it knows of no change to other kinds.
            page = await cluster.client.list_page(Secret.resource_type, namespace=cluster.namespace, limit=1)
            there = int(page.resource_version)
            assert began < there
            await until(lambda: store.progress >= there)
            assert cache.listener.known == told
            assert cache.names() == {"s"}
            assert cache.gone() == []
            assert proxy.watches() == proxy.asked  # and no list


async def test_a_stream_of_single_bytes_gives_the_same_events(backend, cluster):
    """The list that begins it and the changes after it come byte by byte where they begin and end, else in morsels."""
    labels = {"cut": "yes"}  # the real server puts a certificate there, which would take its time
    await cluster.create(ConfigMap, "c", data={"text": "ü\n\\"}, labels=labels)
    async with between(backend) as proxy:
        proxy.cut = lambda line: [
            *(line[at : at + 1] for at in range(50)),
            *(line[at : min(at + 13, len(line) - 50)] for at in range(50, len(line) - 50, 13)),
            *(line[at : at + 1] for at in range(len(line) - 50, len(line))),
        ]
        async with caching(
            backend.config(proxy.url), ConfigMap, namespaces=(cluster.namespace,), labels="cut"
        ) as cache:
            await cluster.create(ConfigMap, "n", labels=labels)
            await cache.has("c", "n")
            await cluster.delete(ConfigMap, "n")
            await cache.has("c")
            assert cache.gone() == ["n"]
            await cache.agrees(cluster.client, cluster.namespace, labels="cut")
        assert len(proxy.asked) == 1  # nothing had to be asked for again


async def test_lines_cut_at_any_byte_are_the_same_lines(backend, cluster):
    """What the server sent, its framing included, comes in five pieces, until they have parted everywhere."""
    await cluster.create(ConfigMap, "c", data={"text": "ü\n\\"})
    made = await cluster.get(ConfigMap, "c")
    # Without managedFields, which are long and no other case.
    await cluster.patch(ConfigMap, "c", {"metadata": {"managedFields": [{}]}})
    await cluster.delete(ConfigMap, "c")
    query = f"fieldSelector=metadata.name%3Dc&watch=1&resourceVersion={made.metadata.resource_version}"
    path = f"/api/v1/namespaces/{cluster.namespace}/configmaps?{query}"
    async with backend.session() as session, session.get(path) as reply:
        told = [await reply.content.readline(), await reply.content.readline()]
    assert [orjson.loads(line)["type"] for line in told] == ["MODIFIED", "DELETED"]
    body = b"".join(told)
    sent = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )
    apart = -(-len(sent) // 4)
    cuts = [[at, at + apart, at + 2 * apart, at + 3 * apart] for at in range(apart)]
    assert {at for each in cuts for at in each} >= set(range(len(sent)))
    coming = iter(cuts)

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for start, end in itertools.pairwise([0, *next(coming), len(sent)]):
                    writer.write(sent[start:end])
                    for _ in range(3):  # the client reads it meanwhile
                        await asyncio.sleep(0)

    async with raw_server(serve) as url, connected(url) as client:
        for each in cuts:
            async with client.watch(ConfigMap.resource_type, namespace=cluster.namespace) as batches:
                lines = [line async for batch in batches for line in batch]
            assert lines == [line.removesuffix(b"\n") for line in told], f"cut before {each} of {len(sent)} bytes"


async def watched(client, path, *, lines=100, accept="application/json"):
    """Return the first events of a watch, at most up to the end of a streamed list."""
    events = []
    async with asyncio.timeout(30), client.session.get(client.names.fill(path), headers={"Accept": accept}) as reply:
        assert reply.status == 200
        while len(events) < lines and (line := await reply.content.readline()):
            events.append(orjson.loads(line))
            if b"initial-events-end" in line:
                break
    return events


async def test_a_streamed_list_is_told_alike(client, monkeypatch):
    """Its objects in order of their names, its end, what follows; and what is said where it can't be."""
    monkeypatch.setattr("asyncctl.apiserver.rest._AHEAD", 0.5)  # seconds that a future version is waited for; really 3
    path = "/apis/conformance.example.com/v1/namespaces/$ns/widgets"
    kind = {"apiVersion": "conformance.example.com/v1", "kind": "Widget"}
    for name in "ba":
        await client.send(
            f"POST {path}", kind | {"metadata": {"name": name, "labels": {"l": name}}, "spec": {"size": 1}}
        )
    version = int(orjson.loads((await client.send(f"GET {path}")).body)["metadata"]["resourceVersion"])
    asked = {
        "all": "",
        "old": "&resourceVersion=1",
        "any": "&resourceVersion=0",
        "this": f"&resourceVersion={version}",
        "limited": "&limit=1",
        "label": "&labelSelector=l%3Da",
        "name": "&fieldSelector=metadata.name%3Db",
        "none": "&fieldSelector=metadata.name%3Dc",
    }

    *told, partial, unmarked, later, future = await asyncio.gather(
        *(watched(client, f"{path}?{STREAM}{query}") for query in asked.values()),
        watched(client, f"{path}?{STREAM}", accept=PARTIAL),
        watched(client, f"{path}?{STREAM}".replace("allowWatchBookmarks=true&", ""), lines=2),
        watched(client, f"{path}?{STREAM}&timeoutSeconds=1".replace("Events=true", "Events=false")),
        watched(client, f"{path}?{STREAM}&resourceVersion={version + 10**9}"),
    )

    def said(events):
        return [(event["type"], event["object"]["metadata"].get("name")) for event in events]

    end = [("BOOKMARK", None)]
    both = [("ADDED", "a"), ("ADDED", "b")]
    for name, events in zip(asked, told, strict=True):
        chosen = {"label": both[:1], "name": both[1:], "none": []}.get(name, both)
        assert said(events) == chosen + end, name
        bookmark = events[-1]["object"]
        assert bookmark["metadata"].pop("annotations") == {"k8s.io/initial-events-end": "true"}
        assert int(bookmark["metadata"].pop("resourceVersion")) >= version
        assert bookmark == kind | {"metadata": {}}
        assert [set(event["object"]) for event in events[:-1]] == [{*kind, "metadata", "spec"}] * len(chosen)
    assert said(partial) == both + end
    assert {event["object"]["kind"] for event in partial} == {"PartialObjectMetadata"}
    assert {frozenset(event["object"]) for event in partial} == {frozenset({*kind, "metadata"})}
    assert partial[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert said(unmarked) == both
    assert later == []
    (refused,) = future
    assert refused["type"] == "ERROR"
    assert (
        refused["object"]
        .pop("message")
        .startswith(f"Timeout: Too large resource version: {version + 10**9}, current: ")
    )
    assert refused["object"] == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Timeout", "code": 504,
        "details": {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    }  # fmt: skip


async def define(cluster, kind):
    await cluster.define(await asyncio.to_thread(crd, kind))


async def test_an_object_as_large_as_etcd_takes_passes_unchanged(backend, cluster):
    """By watch, by list and by streamed list the cache has what was written; what is a little larger is refused."""
    await define(cluster, Blob)
    text = "0123456789\u00fc\\\n" * 110_000  # each 16 bytes as JSON

    async def write(size):
        return decode(Blob, await cluster.patch(Blob, "large", {"spec": {"text": text[:size]}}))

    await cluster.client.apply(Blob(name="large", namespace=cluster.namespace))  # a POST would wait: the kind is new
    empty = len(await cluster.get(Blob.resource_type, "large"))
    size = (LARGEST - empty) // 16 * 13
    seen = asyncio.Queue()
    operator = Operator("test")

    @operator.controller(Blob)
    async def reconcile(ctx, given):
        seen.put_nowait((given.spec.text, ctx.get(Blob, given.name).spec.text))

    async with working(operator, cluster), asyncio.timeout(30):
        assert await seen.get() == ("", "")
        written = await write(size)
        assert await seen.get() == (text[:size], text[:size])
        with pytest.raises(StatusError, match="etcdserver: request is too large"):
            await write(size + 400)
    async with caching(backend.config(), Blob, namespaces=(cluster.namespace,)) as cache:
        await cache.agrees(cluster.client, cluster.namespace)
        assert decode(Blob, cache.informer.get((cluster.namespace, "large")).data).spec == written.spec
        await cluster.delete(Blob, "large")
        await cache.has()
        assert [header.version for header in cache.listener.gone] == [int(written.metadata.resource_version)]


async def test_metadata_alone_is_told_alike(client):
    """Of one object, of a list and of a watch; a client that takes whole objects too gets what it named first."""
    path = "/apis/conformance.example.com/v1/namespaces/$ns/widgets"
    kind = {"apiVersion": "conformance.example.com/v1", "kind": "Widget"}
    partial = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"}
    await client.send(f"POST {path}", kind | {"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"size": 1}})
    whole = client.normal(await client.send(f"GET {path}/a"))
    metadata = whole["metadata"]
    for accept in (PARTIAL, f"{PARTIAL},application/json", f"application/json;as=Foo;v=v1;g=meta.k8s.io,{PARTIAL}"):
        reply = await client.send(f"GET {path}/a", accept=accept)
        assert client.normal(reply) == partial | {"metadata": metadata}, accept
        assert reply.headers["Content-Type"] == "application/json"
    assert client.normal(await client.send(f"GET {path}/a", accept=f"application/json,{PARTIAL}")) == whole
    listed = client.normal(await client.send(f"GET {path}?limit=1", accept=f"{PARTIAL_LIST},application/json"))
    assert listed == {
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "now"},
        "items": [partial | {"metadata": metadata}],
    }  # fmt: skip
    (event,) = await watched(client, f"{path}?watch=1", accept=f"{PARTIAL},application/json", lines=1)
    assert client._value(event) == {"type": "ADDED", "object": partial | {"metadata": metadata}}
    assert await watched(client, f"{path}?watch=1&timeoutSeconds=1", accept=PARTIAL_LIST) == []
    maps = "/api/v1/namespaces/$ns/configmaps"
    await client.send(f"POST {maps}", {"metadata": {"name": "c"}})
    for line, accept, code, message in (
        (path, PARTIAL, 406, f"{WANTED}, but the requested object is a list (*unstructured.UnstructuredList)"),
        (maps, PARTIAL, 406, f"{WANTED}, but the requested object is a list (*core.ConfigMapList)"),
        (f"{path}/a", PARTIAL_LIST, 500, "content is not a list"),
        (f"{maps}/c", PARTIAL_LIST, 406, f"{WANTED}List, but the requested object is not a list (*core.ConfigMap)"),
        (f"{path}/b", PARTIAL, 404, 'widgets.conformance.example.com "b" not found'),
    ):
        reply = await client.send(f"GET {line}", accept=accept)
        assert (reply.code, client.normal(reply)["message"]) == (code, message)
    (told,) = (await client.send(f"GET {path}?watch=1&resourceVersion=1", accept=PARTIAL)).body.split("\n")[:-1]
    assert (orjson.loads(told)["type"], orjson.loads(told)["object"]["kind"]) == ("ERROR", "Status")


async def test_one_request_fills_the_cache_and_keeps_it(backend, cluster):
    """The stream of the list goes on as the watch; its objects are there at once, not one by one."""
    for name in "abc":
        await cluster.create(Secret, name)
    seen = []
    async with between(backend) as proxy:
        async with caching(backend.config(proxy.url), Secret, namespaces=(cluster.namespace,), synced=False) as cache:
            proxy.line = lambda line: seen.append(cache.names()) or line
            await cache.has("a", "b", "c")
            await cluster.create(Secret, "d")
            await cache.has("a", "b", "c", "d")
            await cluster.delete(Secret, "a")
            await cache.has("b", "c", "d")
            await cache.agrees(cluster.client, cluster.namespace)
        (asked,) = proxy.asked
    assert "sendInitialEvents=true" in asked
    assert seen == [set(), set(), set(), set(), {"a", "b", "c"}, {"a", "b", "c", "d"}]
    assert cache.gone() == ["a"]


def as_an_old_server(proxy):
    """Before 1.27 nobody knew the option; without it the other one is refused, by new ones too."""
    proxy.ask = lambda query: query.pop("sendInitialEvents", None)


def as_a_proxy_that_swallows_the_end(proxy):
    proxy.line = lambda line: b"" if b"initial-events-end" in line else line


def as_a_proxy_that_loses_annotations(proxy):
    proxy.line = lambda line: line.replace(b'"annotations":{"k8s.io/initial-events-end":"true"},', b"").replace(
        b',"annotations":{"k8s.io/initial-events-end":"true"}', b""
    )


@pytest.mark.parametrize(
    "refusing", [as_an_old_server, as_a_proxy_that_swallows_the_end, as_a_proxy_that_loses_annotations]
)
async def test_a_server_that_does_not_stream_is_listed_in_pages_and_not_asked_again(
    backend, cluster, refusing, monkeypatch
):
    monkeypatch.setattr("asyncctl.cache.reflector.PATIENCE", 0.2)
    for name in ("stays", "goes"):
        await event(cluster, name)
    async with between(backend) as proxy:
        refusing(proxy)
        async with caching(backend.config(proxy.url), Event, namespaces=(cluster.namespace,)) as cache:
            await cache.has("stays", "goes")
            assert cache.restarts("unstreamed") == 1
            await event(cluster, "new")
            await cache.has("stays", "goes", "new")
            proxy.sever()
            await cluster.delete(Event, "goes")
            await event(cluster, "later")
            await backend.compact()
            proxy.mend()
            await cache.has("stays", "new", "later")
            assert cache.gone() == ["goes"]
            assert cache.informer.problem is None
        assert len([line for line in proxy.asked if "sendInitialEvents" in line]) == 1
        assert len([line for line in proxy.asked if "limit=500" in line]) == 2


async def test_a_cache_of_metadata_alone(backend, cluster):
    """What comes by list and by watch has its metadata, and nothing else is asked for."""
    first = await cluster.create(Secret, "a", data={"n": b"0"}, labels={"l": "1"})
    async with (
        between(backend) as proxy,
        caching(backend.config(proxy.url), Secret, namespaces=(cluster.namespace,), metadata_only=True) as cache,
    ):
        await cache.has("a")
        second = await cluster.create(Secret, "b", data={"n": b"0"}, labels={"l": "2"})
        await cache.has("a", "b")
        for made in (first, second):
            entry = cache.informer.get((cluster.namespace, made.name))
            assert (entry.header.uid, entry.header.labels) == (made.metadata.uid, made.labels)
            assert orjson.loads(entry.data).keys() <= {"apiVersion", "kind", "metadata"}
        proxy.sever()
        await cluster.delete(Secret, "a")
        proxy.mend()
        await cache.has("b")
        assert cache.gone() == ["a"]


async def test_a_cache_of_what_a_field_selector_selects(backend, cluster):
    await cluster.create(Secret, "a")
    await cluster.create(Secret, "b")
    async with caching(backend.config(), Secret, namespaces=(cluster.namespace,), fields="metadata.name=b") as cache:
        await cache.has("b")
        await cluster.delete(Secret, "a")
        await cluster.create(Secret, "c")
        await cluster.delete(Secret, "b")
        again = await cluster.create(Secret, "b")
        await until(lambda: {header.uid for header in cache.listener.known.values()} == {again.metadata.uid})
        assert cache.gone() == ["b"]

"""The reflector against an API server, embedded and real: streamed lists, selectors, metadata alone, the future."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Store
from asyncctl.cache.streaming import StreamingSupport
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import SystemClock
from asyncctl.objects import ConfigMap
from asyncctl.observe.metrics import Metrics
from tests.unit.harness import Widget, cluster_at
from tests.unit.support import Log, until


@pytest.fixture
async def cluster(backend):
    token = f"Bearer {backend.token}" if backend.token else None
    config = ClusterConfig(server=backend.url, ca_file=backend.ca or None, authorization=token)
    async with cluster_at(config) as cluster:
        yield cluster


@asynccontextmanager
async def reflecting(cluster, kind, store=None, **options):
    log, store, clock = Log(), store or Store(), SystemClock()
    metrics = Metrics(process=False).informer(kind.resource_type.resource, objects=lambda: 0, size=lambda: 0)
    reflector = Reflector(
        cluster.client, kind.resource_type, store, clock=clock, random=lambda: 0.0, logger=log.logger,
        metrics=metrics, namespace=cluster.namespace, **options,
    )  # fmt: skip
    task = asyncio.create_task(reflector.run(), name="reflector")
    try:
        async with asyncio.timeout(30):
            await reflector.synced.wait()
        yield store, reflector, log
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def versions(store):
    return {entry.header.name: str(entry.header.version) for entry in store.entries()}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "paged"])
async def test_what_a_list_and_the_watch_after_it_bring_is_what_there_is(cluster, streamed):
    streaming = StreamingSupport(SystemClock())
    if not streamed:
        streaming.refused()
    first = [await cluster.create(Widget, name) for name in ("a", "b")]
    async with reflecting(cluster, Widget, streaming=streaming) as (store, reflector, log):
        assert versions(store) == {made.metadata.name: made.metadata.resource_version for made in first}
        await cluster.delete(Widget, "a")
        made = await cluster.create(Widget, "c")
        changed = await cluster.patch(Widget, "b", {"spec": {"size": 2}})
        await until(
            lambda: (
                versions(store)
                == {
                    "b": msgspec.json.decode(changed)["metadata"]["resourceVersion"],
                    "c": made.metadata.resource_version,
                }
            )
        )
        assert reflector.problem is None
        assert streaming.likely == streamed, "the server was not taken for one that does not stream"
        assert log.lines == []


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "paged"])
async def test_of_what_is_selected_the_metadata_alone_is_kept(cluster, streamed):
    streaming = StreamingSupport(SystemClock())
    if not streamed:
        streaming.refused()
    for name in ("a", "b"):
        await cluster.create(ConfigMap, name, data={"text": "of no interest"})
    options = {"fields": "metadata.name=a", "metadata_only": True, "streaming": streaming}
    async with reflecting(cluster, ConfigMap, **options) as (store, _, _):
        (entry,) = store.entries()
        await cluster.patch(ConfigMap, "b", {"metadata": {"labels": {"x": "y"}}})
        await cluster.patch(ConfigMap, "a", {"metadata": {"labels": {"x": "y"}}})
        await until(lambda: store.get(entry.header.key).header.labels == {"x": "y"})
        for each in (entry, store.get(entry.header.key)):
            assert msgspec.json.decode(each.data)["kind"] == "PartialObjectMetadata"
            assert b"of no interest" not in each.data
        assert versions(store).keys() == {"a"}


async def test_a_store_from_the_future_of_a_restored_server_is_brought_back(cluster):
    """A list that is to be as new as what was seen is refused by the server; so it is asked for without."""
    made = await cluster.create(Widget, "a")
    store = Store()
    store.replace([], 10**9)
    asked = []

    class Future(Reflector):
        def _list(self, at_least):
            asked.append(at_least)
            return super()._list(store.progress if len(asked) == 1 else at_least)

    log = Log()
    reflector = Future(
        cluster.client, Widget.resource_type, store, clock=SystemClock(), random=lambda: 0.0, logger=log.logger,
        metrics=Metrics(process=False).informer("w", objects=lambda: 0, size=lambda: 0), namespace=cluster.namespace,
    )  # fmt: skip
    task = asyncio.create_task(reflector.run(), name="reflector")
    try:
        async with asyncio.timeout(30):
            await reflector.synced.wait()
        assert versions(store) == {"a": made.metadata.resource_version}
        assert asked == [None, None]
        assert log.said("Too large resource version", "warning")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

"""One view of many namespaces that come and go, over a real socket."""

import asyncio
import gc
import os
import sys
import threading
from itertools import count

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.cache.header import read_entry
from asyncctl.cache.index import of_header
from asyncctl.cache.informer import Informer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.objects.builtin import ConfigMap, Namespace
from asyncctl.observe.metrics import Metrics
from tests.unit.cache.cluster import KIND, Api, Heard, informing, names, reflectors, shown
from tests.unit.harness import cluster_at
from tests.unit.support import ImpatientClock, Log, until


@pytest.fixture
def api():
    made = Api()
    for namespace in ("a", "b", "c"):
        made.put(namespace, "x")
    return made


async def test_namespaces_come_and_go_on_an_api_server():
    log = Log()
    async with (
        asyncio.timeout(60), ApiServer() as server, cluster_at(ClusterConfig(server=server.url)) as cluster
    ):  # fmt: skip
        for namespace in ("a", "b"):
            await cluster.client.create(Namespace(name=namespace))
            await cluster.client.create(ConfigMap(name="x", namespace=namespace))
        informer = Informer(
            cluster.client, KIND, clock=ImpatientClock(), random=lambda: 0.5, logger=log.logger,
            metrics=Metrics(process=False), namespaces=("a",),
        )  # fmt: skip
        heard = Heard()
        informer.subscribe(heard)
        task = asyncio.create_task(informer.run())
        await informer.wait_synced()
        informer.add_namespace("b")
        await informer.wait_synced()
        assert names(informer.entries()) == ["a/x", "b/x"]
        await cluster.client.create(ConfigMap(name="y", namespace="b"))
        await until(lambda: ("add", "b/y") in heard)
        informer.remove_namespace("b")
        assert names(informer.entries()) == ["a/x"]
        await cluster.client.delete(KIND, "x", namespace="b")
        informer.add_namespace("b")
        await informer.wait_synced()
        assert names(informer.entries("b")) == ["b/y"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert heard == [
        ("add", "a/x"), ("add", "b/x"), ("add", "b/y"), ("delete", "b/x"), ("delete", "b/y"), ("add", "b/y"),
    ]  # fmt: skip
    assert not log.said("", "error")


async def test_a_namespace_that_is_added_is_not_synced_and_the_others_are(api):
    async with informing(api, namespaces=("a",)) as informer:
        await informer.wait_synced()
        api.hold("b")
        informer.add_namespace("b")
        assert (informer.synced, not informer.filling("a"), not informer.filling("b")) == (False, True, False)
        assert informer.was_synced
        assert informer.get(("a", "x")) is not None
        api.put("a", "y")
        await until(lambda: informer.get(("a", "y")))
        api.release("b")
        await until(lambda: not informer.filling("b"))
        assert informer.synced
        assert names(informer.entries()) == ["a/x", "a/y", "b/x"]


async def test_who_waits_for_the_first_lists_waits_for_a_namespace_that_is_added_meanwhile(api):
    api.hold("a")
    api.hold("b")
    async with informing(api, namespaces=("a",)) as informer:
        waiting = asyncio.create_task(informer.wait_synced())
        informer.add_namespace("b")
        api.release("a")
        await until(lambda: not informer.filling("a"))
        assert not waiting.done()
        assert not informer.was_synced
        api.release("b")
        await asyncio.wait_for(waiting, 30)


async def test_a_namespace_that_is_removed_before_its_first_list_has_come_holds_nobody_up(api):
    api.hold("b")
    async with informing(api, namespaces=("a", "b")) as informer:
        await until(lambda: not informer.filling("a"))
        waiting = asyncio.create_task(informer.wait_synced())
        await asyncio.sleep(0)
        informer.remove_namespace("b")
        await asyncio.wait_for(waiting, 30)
        assert informer.synced
        await until(lambda: len(reflectors()) == 1)
        api.release("b")
        informer.add_namespace("b")
        await informer.wait_synced()
        assert informer.heard == [("add", "a/x"), ("add", "b/x")]


async def test_a_namespace_that_is_removed_is_told_as_gone_once_and_nothing_after(api):
    async with informing(api, namespaces=("a", "b")) as informer:
        await informer.wait_synced()
        await until(lambda: api.watches["a"])
        informer.heard.clear()
        api.put("b", "y")
        await until(lambda: informer.get(("b", "y")))
        store = informer._stores["b"]
        informer.remove_namespace("b")
        informer.remove_namespace("b")
        assert informer.heard == [("add", "b/y"), ("delete", "b/x"), ("delete", "b/y")]
        store.upsert(read_entry(b'{"metadata":{"name":"z","namespace":"b","resourceVersion":"99"}}'))  # its last words
        assert informer.get(("b", "z")) is None
        await until(lambda: not api.watches["b"])  # its watch is closed
        assert len(reflectors()) == 1
        assert len(informer.heard) == 3


async def test_the_last_namespace_may_go_and_then_nothing_is_watched(api):
    async with informing(api, namespaces=("a",)) as informer:
        await informer.wait_synced()
        informer.remove_namespace("a")
        await until(lambda: not reflectors())
        assert informer.namespaces == ()
        assert informer.synced
        assert list(informer.entries()) == []
        informer.add_namespace("b")
        await informer.wait_synced()
        assert names(informer.entries()) == ["b/x"]


async def test_one_namespace_of_all_can_not_be_taken_out(api):
    async with informing(api) as informer:
        informer.add_namespace("a")
        assert informer.namespaces is None
        with pytest.raises(ValueError, match="set_namespaces"):
            informer.remove_namespace("a")


async def test_from_all_to_some_and_back_only_what_is_not_watched_any_more_is_told_as_gone(api):
    async with informing(api) as informer:
        await informer.wait_synced()
        informer.wrote(read_entry(b'{"metadata":{"name":"own","namespace":"a","resourceVersion":"900"}}'))
        informer.heard.clear()
        api.hold("a")
        informer.set_namespaces(("a", "b"))
        assert informer.heard == [("delete", "c/x")]
        assert names(informer.entries()) == ["a/own", "a/x", "b/x"]
        api.put("a", "y")  # while nobody watches
        api.release("a")
        await informer.wait_synced()
        assert informer.heard == [("delete", "c/x"), ("add", "a/y")]
        informer.set_namespaces(())
        assert names(informer.entries()) == ["a/own", "a/x", "a/y", "b/x"]
        await informer.wait_synced()
        assert informer.heard == [("delete", "c/x"), ("add", "a/y"), ("add", "c/x")]
        await until(lambda: len(reflectors()) == 1)


async def test_a_kind_in_no_namespace_is_watched_whatever_the_namespaces():
    api = Api()
    async with informing(api, kind=Namespace.resource_type, namespaces=("a",)) as informer:
        informer.set_namespaces(("b",))
        informer.add_namespace("c")
        informer.remove_namespace("c")
        await informer.wait_synced()
        assert informer.namespaces is None
        assert len(reflectors()) == 1


async def test_the_problem_of_a_namespace_goes_with_it(api):
    api.forbidden.add("b")
    async with informing(api, namespaces=("a", "b")) as informer:
        await until(lambda: not informer.filling("a") and informer.problem and "403" in informer.problem)
        assert not informer.synced
        informer.remove_namespace("b")
        assert informer.problem is None
        assert informer.synced


async def test_who_has_unsubscribed_hears_nothing_more_also_not_of_new_namespaces(api):
    async with informing(api, namespaces=("a",)) as informer:
        await informer.wait_synced()
        twice, other = Heard(), Heard()
        once = informer.subscribe(twice)
        informer.subscribe(twice)
        informer.subscribe(other)
        informer.unsubscribe()
        informer.unsubscribe()
        once()
        once()
        informer.heard.clear()
        informer.add_namespace("b")
        await informer.wait_synced()
        assert other == [("add", "a/x"), ("add", "b/x")]
        assert twice == [("add", "a/x"), ("add", "a/x"), ("add", "b/x")]
        assert informer.heard == []


async def test_a_handler_may_unsubscribe_itself_and_the_next_one_hears_all_the_same(api):
    async with informing(api, namespaces=("a",)) as informer:
        await informer.wait_synced()
        heard = []

        def first_only(old, new, initial):
            heard.append(new.name)
            if ends:
                ends.pop()()

        ends = []
        ends.append(informer.subscribe(first_only))
        last = Heard()
        informer.subscribe(last)
        api.put("a", "y")
        api.put("a", "z")
        await until(lambda: ("add", "a/z") in last)
        assert heard == ["x", "y"]
        assert last == [("add", "a/x"), ("add", "a/y"), ("add", "a/z")]


async def test_a_handler_that_raises_costs_the_others_nothing_and_is_logged_once(api):
    def broken(old, new, initial):
        raise KeyError(new.name)

    async with informing(api, namespaces=("a", "b")) as informer:
        informer.subscribe(broken)
        after = Heard()
        informer.subscribe(after)
        await informer.wait_synced()
        assert sorted(after) == [("add", "a/x"), ("add", "b/x")]
        (line,) = informer.log.said("has failed", "error")
        assert (line["function"], line["resource"], line["name"]) == ("a handler", "configmaps", "x")
        assert "in broken" in line["exception"]
        assert informer.metrics.cache_failures("configmaps").value == 2
        assert informer.problem is None


class Unspeakable(Exception):
    def __repr__(self):
        raise ValueError

    __str__ = __repr__


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Unspeakable()], ids=["a cancellation", "no text"])
async def test_whatever_a_handler_or_an_index_raises_the_watch_goes_on(api, error):
    """A task that was cancelled raises `CancelledError` from `result()`, in whoever asks it."""

    def broken(*_):
        raise error

    async with informing(api, namespaces=("a",)) as informer:
        informer.subscribe(broken)
        informer.add_index("broken", of_header(broken))
        await informer.wait_synced()
        assert list(informer.by_index("broken", "x")) == []
        api.put("a", "y")
        await until(lambda: informer.get(("a", "y")))
        assert len(informer.log.said("has failed", "error")) == 1
        assert len(reflectors()) == 1


async def test_what_belongs_to_an_owner_is_found_in_every_namespace(api):
    owner = {"ownerReferences": [{"apiVersion": "v1", "kind": "O", "name": "o", "uid": "o"}]}
    async with informing(api, namespaces=("a", "b")) as informer:
        await informer.wait_synced()
        assert list(informer.by_owner("o")) == []
        api.put("a", "child", **owner)
        api.put("b", "child", **owner)
        await until(lambda: names(informer.by_owner("o")) == ["a/child", "b/child"])
        informer.add_namespace("c")
        api.put("c", "child", **owner)
        await until(lambda: informer.get(("c", "child")))
        informer.remove_namespace("a")
        assert names(informer.by_owner("o")) == ["b/child", "c/child"]


async def test_an_index_is_one_of_all_namespaces_and_of_those_that_come(api):
    async with informing(api, namespaces=("a",)) as informer:
        informer.add_index("first letter", of_header(lambda header: header.name[0]))
        await informer.wait_synced()
        assert names(informer.by_index("first letter", "x")) == ["a/x"]
        informer.add_namespace("b")
        await informer.wait_synced()
        assert names(informer.by_index("first letter", "x")) == ["a/x", "b/x"]
        with pytest.raises(LookupError, match=r"no index 'last letter'.*declared: 'first letter'"):
            informer.by_index("last letter", "x")


async def test_an_index_goes_with_the_last_who_has_added_it_and_its_name_is_free(api):
    def by_name(header):
        return header.name

    async with informing(api, namespaces=("a",)) as informer:
        await informer.wait_synced()
        first = informer.add_index("name", of_header(by_name))
        last = informer.add_index("name", of_header(by_name))
        first()
        first()
        assert names(informer.by_index("name", "x")) == ["a/x"]
        last()
        assert informer._stores["a"]._indexes.built == {}
        with pytest.raises(LookupError, match="no index 'name'"):
            informer.by_index("name", "x")
        informer.add_index("name", of_header(lambda header: header.namespace))
        assert names(informer.by_index("name", "a")) == ["a/x"]


async def test_objects_are_selected_by_namespace_and_labels(api):
    api.put("a", "w", labels={"app": "web", "tier": "1"})
    api.put("b", "w", labels={"app": "web", "tier": "2"})
    for namespaces in ((), ("a", "b")):
        async with informing(api, namespaces=namespaces) as informer:
            await informer.wait_synced()
            assert names(informer.entries("a")) == ["a/w", "a/x"]
            assert names(informer.entries(labels={"app": "web"})) == ["a/w", "b/w"]
            assert names(informer.entries("b", {"app": "web"})) == ["b/w"]
            assert names(informer.entries(labels={"app": "web", "tier": "1"})) == ["a/w"]
            assert names(informer.entries("none", {"app": "web"})) == []


async def test_selectors_and_the_wish_for_metadata_alone_go_with_each_request():
    asked = []

    class Asked(Api):
        async def __call__(self, request):
            alone = "PartialObjectMetadata" in request.headers["Accept"]
            asked.append((request.query.get("labelSelector"), request.query.get("fieldSelector"), alone))
            return await super().__call__(request)

    api = Asked()
    async with informing(api, labels="a=b", fields="metadata.name=x", metadata_only=True):
        await until(lambda: api.watches[None])
    assert set(asked) == {("a=b", "metadata.name=x", True)}


def give_way(*_):
    os.sched_yield()


async def test_a_scrape_in_its_own_thread_goes_well_while_namespaces_come_and_go():
    metrics = Metrics(process=False)
    informer = Informer(
        None, KIND, clock=ImpatientClock(), random=lambda: 0.5, logger=Log().logger, metrics=metrics,
        namespaces=[f"n{number}" for number in range(500)],
    )  # fmt: skip
    seen, interval = [], sys.getswitchinterval()
    scraping = threading.Thread(target=lambda: seen.extend(len(shown(metrics)) for _ in range(50)))
    sys.setswitchinterval(1e-6)
    threshold = gc.get_threshold()
    gc.set_threshold(5)  # wherever a collection may give way to another thread, it does
    gc.callbacks.append(give_way)
    try:
        scraping.start()
        for number in count():
            change = informer.add_namespace if number % 20 < 10 else informer.remove_namespace
            change(f"new{number % 10}")
            if not scraping.is_alive():
                break
    finally:
        scraping.join()
        gc.callbacks.remove(give_way)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert len(seen) == 50


async def test_the_metrics_are_of_what_is_watched_and_gone_with_the_informer(api):
    api.put("b", "y")
    async with informing(api, namespaces=("a", "b")) as informer:
        await informer.wait_synced()
        assert 'asyncctl_cache_objects{resource="configmaps"} 3.0' in shown(informer.metrics)
        informer.remove_namespace("b")
        assert 'asyncctl_cache_objects{resource="configmaps"} 1.0' in shown(informer.metrics)
        metrics = informer.metrics
    assert [line for line in shown(metrics) if "{" in line] == []

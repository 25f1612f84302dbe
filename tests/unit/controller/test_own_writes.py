"""Own writes are seen through what a watch can suffer: a forgotten place, a list from before, silence."""

from contextlib import asynccontextmanager

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.controller.sources import Watch, to_controller_of
from asyncctl.objects import ConfigMap
from asyncctl.queue.backoff import Restarts
from tests.conformance.hands import hands, poke
from tests.unit.forwarder import forwarding
from tests.unit.harness import Widget, cluster_at
from tests.unit.support import informer_of, until

KIND = ConfigMap.resource_type


@pytest.fixture(autouse=True)
def no_backing_off(monkeypatch):
    """What a reflector waits for is a peaceful server; here there is one."""
    monkeypatch.setattr(Restarts, "next", lambda self: 0.0)


@asynccontextmanager
async def server_and_cluster(**options):
    async with ApiServer(**options) as server, cluster_at(ClusterConfig(server=server.url)) as cluster:
        yield server, cluster


@pytest.mark.parametrize("stale", [False, True], ids=["410", "410 and a list from before the writes"])
async def test_own_writes_are_seen_through_a_forgotten_place(stale):
    """The watch says nothing of them, then its place is forgotten; the list that follows may be from before them."""
    async with server_and_cluster() as (server, direct), forwarding(direct) as (cluster, forwarder):
        forwarder.streams = False
        path = KIND.path(cluster.namespace)
        for name in ("changed", "deleted", "replaced"):
            await cluster.create(ConfigMap, name, data={"a": "1"})
        async with hands(cluster) as made:
            informer = informer_of(made.running, ConfigMap.resource_type)
            before = next(found for asked, found in reversed(forwarder.lists) if asked == path)
            assert len(before["items"]) >= 3

            def seen(ctx):
                found = {each.name: each for each in ctx.list(ConfigMap)}
                by_name = {name: ctx.get(ConfigMap, name) for name in ("made", "changed", "deleted", "replaced")}
                assert by_name == {name: found.get(name) for name in by_name}
                return {name: one and (one.uid, one.data) for name, one in by_name.items()}

            forwarder.flowing.clear()
            async with made.taking() as (ctx, _):
                replaced = ctx.get(ConfigMap, "replaced")
                await ctx.delete(replaced)
                await ctx.delete(ctx.get(ConfigMap, "deleted"))
                now = {"deleted": None}
                for name in ("made", "changed", "replaced"):
                    one = await ctx.apply(ConfigMap(name=name, data={"a": "2"}), adopt=True)
                    now[name] = one.uid, {"a": "2"}
                assert now["replaced"][0] != replaced.uid
                assert seen(ctx) == now
            lists = len(forwarder.lists)
            if stale:
                forwarder.stale[path] = before
            server._cluster.store.compact()
            forwarder.cut()
            always = []  # what is seen at each step of the way
            poke(cluster, made)
            async with made.taking() as (ctx, _):
                informer.subscribe(lambda old, new, initial: always.append(seen(ctx)))
                always.clear()
                await until(lambda: [found for asked, found in forwarder.lists[lists:] if asked == path])
                if stale:
                    await until(lambda: sum(asked == path for asked, _ in forwarder.lists[lists:]) >= 2)
                    assert seen(ctx) == now
                    del forwarder.stale[path]
                forwarder.flowing.set()
                await cluster.create(ConfigMap, "marker")
                await until(lambda: informer.get((cluster.namespace, "marker")))
                assert seen(ctx) == now
                assert always
                assert all(each == now for each in always)


async def test_what_a_selector_hides_is_seen_until_a_bookmark_has_passed_it():
    """Of a kind in which nothing happens, no event drops what own writes have laid over the cache."""
    narrow = Watch(ConfigMap, to=to_controller_of(Widget.resource_type), labels="watched=yes")
    async with server_and_cluster(bookmark_interval=0.2) as (_, direct), forwarding(direct) as (cluster, forwarder):
        async with hands(cluster, owns=[narrow]) as made, made.taking() as (ctx, _):
            forwarder.flowing.clear()
            made_map = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
            assert ctx.get(ConfigMap, "c").uid == made_map.uid
            forwarder.flowing.set()
            await until(lambda: ctx.get(ConfigMap, "c") is None)
        assert (await cluster.get(ConfigMap, "c")).data == {"a": "1"}

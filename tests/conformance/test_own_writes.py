"""A pass sees what it and those before it have written, however long the watch takes to tell."""

import asyncio
from contextlib import asynccontextmanager

import orjson
import pytest

from asyncctl.client.transport.transport import Transport
from asyncctl.objects import ConfigMap
from tests.conformance.hands import hands, poke
from tests.unit.harness import Widget
from tests.unit.support import informer_of, until


@pytest.fixture
def watches(monkeypatch):
    """An event; while it is not set, nothing that a watch tells comes through. It is at first."""
    flowing = asyncio.Event()
    flowing.set()
    stream = Transport.stream

    class Held:
        def __init__(self, chunks):
            self._chunks = chunks

        def __getattr__(self, name):
            return getattr(self._chunks, name)

        async def __aiter__(self):
            async for chunk in self._chunks:
                await flowing.wait()
                yield chunk

    @asynccontextmanager
    async def held(self, request):
        async with stream(self, request) as chunks:
            yield Held(chunks)

    monkeypatch.setattr(Transport, "stream", held)
    return flowing


async def test_each_pass_sees_what_was_written_before_it_while_the_watch_is_silent(cluster, watches):
    async with hands(cluster) as made:

        @asynccontextmanager
        async def next_pass():
            poke(cluster, made)
            async with made.taking() as (ctx, widget):
                yield ctx, widget

        key = cluster.namespace, "c"
        informer = informer_of(made.running, ConfigMap.resource_type)
        told = []
        informer.subscribe(lambda old, new, initial: told.append(((new or old).name, informer.get(key))))
        told.clear()
        watches.clear()
        async with next_pass() as (ctx, widget):
            assert ctx.get(ConfigMap, "c") is None
            first = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
            assert ctx.get(ConfigMap, "c").data == {"a": "1"}
            widget.status.parts = 1
        async with next_pass() as (ctx, widget):
            assert widget.status.parts == 1
            assert [each.name for each in ctx.list(ConfigMap, owner=True)] == ["c"]
            await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
            assert ctx.get(ConfigMap, "c").data == {"a": "2"}
        async with next_pass() as (ctx, _):
            found = ctx.get(ConfigMap, "c")
            assert found.data == {"a": "2"}
            await ctx.delete(found)
            assert ctx.get(ConfigMap, "c") is None
        async with next_pass() as (ctx, _):
            assert ctx.get(ConfigMap, "c") is None
            assert list(ctx.list(ConfigMap, owner=True)) == []
            second = await ctx.apply(ConfigMap(name="c", data={"a": "3"}))
            assert ctx.get(ConfigMap, "c").uid == second.uid != first.uid
        async with next_pass() as (ctx, _):
            assert ctx.get(ConfigMap, "c").data == {"a": "3"}
            made.sent.clear()
            await ctx.apply(ConfigMap(name="c", data={"a": "3"}))
            assert made.sent == []
        assert told == []
        await cluster.create(ConfigMap, "marker")
        watches.set()
        await until(lambda: any(name == "marker" for name, _ in told))
        # what the watch tells late, of the first and of its deletion, takes nothing from the second
        seen = [entry.header.uid for name, entry in told if name == "c"]
        assert len(seen) >= 4
        assert set(seen) == {second.uid}
        assert orjson.loads(informer.get(key).data)["data"] == {"a": "3"}
        assert int(second.metadata.resource_version) == informer.get(key).header.version


async def test_a_status_and_a_finalizer_are_known_while_the_watch_is_silent(cluster, watches):
    async with hands(cluster) as made:
        declaration = made.running._declarations[0]
        declaration.finalizers["example.com/one"] = made.reconcile
        watches.clear()
        poke(cluster, made)
        async with made.taking():
            pass  # the one that came with the first list
        for number in range(1, 4):
            poke(cluster, made)
            async with made.taking() as (ctx, widget):
                assert ctx.header.finalizers == ("example.com/one",)
                assert widget.status.parts == (number - 1 or None)
                widget.status.parts = number
        await until(lambda: made.sent.count(("PATCH", "status")) == 4)
        assert made.sent.count(("PATCH", "w")) == 1  # the finalizer
        assert not made.running.log.said("somebody else wrote the object first")  # no write was of an older version
        watches.set()
    await cluster.patch(Widget, "w", {"metadata": {"finalizers": None}})

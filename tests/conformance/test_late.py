"""A write that comes late, when somebody else has written what it was decided upon: it is decided anew, or is none."""

import orjson
import pytest

from asyncctl.cache.header import read_entry
from asyncctl.client.errors import Conflict, Fenced
from asyncctl.controller import finalizer
from asyncctl.objects import ConfigMap
from tests.conformance.hands import hands
from tests.unit.harness import Widget


def before_the_next(running, path, step):
    """Have `step` done between the decision to send a patch to a path that ends so, and its sending."""
    transport = running.client._transport
    request = transport.request

    async def late(asked):
        if asked.method == "PATCH" and asked.path.partition("?")[0].endswith(path):
            transport.request = request
            await step()
        return await request(asked)

    transport.request = late


async def test_an_apply_that_comes_late_is_made_over_what_is_there_then(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        change = {"data": {"b": "theirs"}}
        before_the_next(made.running, "/c", lambda: cluster.patch(ConfigMap, "c", change))
        made.sent.clear()
        found = await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
        assert found.data == {"a": "2", "b": "theirs"}
        assert made.sent == [("PATCH", "c"), ("PATCH", "c")]


async def test_an_apply_beside_a_writer_that_never_rests_is_given_up_and_tried_later(cluster, monkeypatch):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        asked, request = [], made.running.client._transport.request

        async def late(each):
            asked.append(each.method)
            if each.method == "PATCH":
                await cluster.patch(ConfigMap, "c", {"data": {"turn": str(len(asked))}})
            return await request(each)

        monkeypatch.setattr(made.running.client._transport, "request", late)
        with pytest.raises(Conflict):
            await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
        monkeypatch.undo()
        assert asked == ["PATCH", "GET"] * 4 + ["PATCH"]
        assert (await cluster.get(ConfigMap, "c")).data["a"] == "1"


async def test_an_apply_that_comes_after_the_fence_has_closed_changes_nothing(cluster, monkeypatch):
    """As that of a leader which was stopped after its last look at the fence, and goes on when another leads."""
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))

        async def take_over():
            await cluster.patch(ConfigMap, "c", {"data": {"a": "theirs"}})
            passed = iter([5.0])

            def fence():
                for left in passed:
                    return left
                raise Fenced("another one leads")

            monkeypatch.setattr(made.running.client._transport, "_may_write", fence)

        before_the_next(made.running, "/c", take_over)
        with pytest.raises(Fenced):
            await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
        assert (await cluster.get(ConfigMap, "c")).data == {"a": "theirs"}
        monkeypatch.undo()


async def test_a_finalizer_is_taken_off_the_object_as_it_is_then(cluster, monkeypatch):
    name = "example.com/ours"
    await cluster.create(Widget, "w")
    await cluster.patch(Widget, "w", {"metadata": {"finalizers": [name]}})
    await cluster.delete(Widget, "w")
    kind, client = Widget.resource_type, cluster.client
    header = read_entry(await client.get(kind, "w", namespace=cluster.namespace)).header
    await cluster.patch(Widget, "w", {"metadata": {"labels": {"a": "theirs"}}})
    sent, request = [], client._transport.request

    async def noting(asked):
        sent.append(asked.method)
        return await request(asked)

    monkeypatch.setattr(client._transport, "request", noting)
    left = await finalizer.remove(client, kind, header, name)
    assert orjson.loads(left)["metadata"]["labels"] == {"a": "theirs"}
    assert sent == ["PATCH", "GET", "PATCH"]
    monkeypatch.undo()
    assert await cluster.gone(Widget, "w")

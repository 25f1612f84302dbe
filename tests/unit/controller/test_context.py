"""What a pass reads from the cache, and what it leaves behind when it fails."""

import pytest

from asyncctl.client.errors import Conflict, NamespaceBoundaryExceeded
from asyncctl.client.patch import Patch
from asyncctl.controller.outcome import NotOwned
from asyncctl.controller.sources import Watch
from asyncctl.objects import ConfigMap, Namespace, Resource, Secret, Unstructured
from tests.conformance.hands import hands, poke
from tests.unit.controller.stage import Stage, declared
from tests.unit.harness import Widget
from tests.unit.support import informer_of, until

UNTYPED = Unstructured("v1", "ConfigMap")


def names(found):
    return sorted(each["metadata"]["name"] if isinstance(each, dict) else each.name for each in found)


async def test_objects_are_listed_by_label_owner_and_index_own_writes_included(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, widget):
        informer_of(made.running, Secret.resource_type).add_index("type", lambda secret: [secret.type], Secret)
        await cluster.create(Secret, "s", type="example.com/a", labels={"a": "1"})
        await cluster.create(Secret, "t", type="example.com/b", labels={"a": "1"})
        await until(lambda: len(list(ctx.list(Secret))) >= 2)
        for name, labels in (("a", {"l": "1"}), ("b", {"l": "2"}), ("c", {"l": "1"})):
            await ctx.apply(ConfigMap(name=name, labels=labels), owned=name != "c")
        assert {"a", "b", "c"} <= set(names(ctx.list(ConfigMap)))
        assert names(ctx.list(ConfigMap, labels={"l": "1"})) == ["a", "c"]
        for owner in (True, widget, widget.uid, {"metadata": {"uid": widget.uid}}):
            assert names(ctx.list(ConfigMap, owner=owner)) == ["a", "b"]
        assert names(ctx.list(ConfigMap, owner=True, labels={"l": "1"}, namespace=cluster.namespace)) == ["a"]
        assert names(ctx.list(ConfigMap, owner="no such uid")) == []
        assert names(ctx.list(Secret, index=("type", "example.com/a"))) == ["s"]
        assert names(ctx.list(Secret, index=("type", "example.com/a"), labels={"a": "2"})) == []
        assert names(ctx.list(Secret, index=("type", "example.com/a"), owner=True)) == []
        with pytest.raises(LookupError, match="no index 'no such'"):
            ctx.list(Secret, index=("no such", "a"))
        with pytest.raises(ValueError, match="owns nothing"):
            ctx.list(ConfigMap, owner=Widget(name="w"))


async def test_what_the_cache_lacks_is_found_live_and_nothing_else_is_asked_for(cluster):
    narrowed = {"owns": [Watch(UNTYPED, labels="seen")], "reads": [Watch(Secret, labels="seen")]}
    async with hands(cluster, **narrowed) as made, made.taking() as (ctx, _):
        await cluster.create(Secret, "unseen")
        await ctx.apply({"metadata": {"name": "seen", "labels": {"seen": ""}}}, UNTYPED)
        assert ctx.get(Secret, "unseen") is None
        asked = reads(made)
        assert (await ctx.find(UNTYPED, "seen"))["metadata"]["name"] == "seen"
        assert asked == []
        assert (await ctx.find(Secret, "unseen", namespace=cluster.namespace)).name == "unseen"
        assert await ctx.find(Secret, "no such") is None
        assert await ctx.find(UNTYPED, "no such") is None
        assert len(asked) == 3
        with pytest.raises(LookupError, match="Namespace"):
            await ctx.find(Namespace, "x")
        with pytest.raises(NamespaceBoundaryExceeded):
            await ctx.find(Secret, "unseen", namespace="kube-system")
        assert len(asked) == 3


def reads(made):
    """The paths of the objects that are asked for one by one from now on."""
    asked, transport = [], made.running.client._transport
    request = transport.request

    async def noting(each):
        asked.extend([each.path] if each.method == "GET" else [])
        return await request(each)

    transport.request = noting
    return asked


async def test_what_is_read_is_the_readers_own(cluster):
    async with hands(cluster, owns=[UNTYPED], reads=[]) as made, made.taking() as (ctx, _):
        await ctx.apply({"metadata": {"name": "c"}, "data": {"a": "1"}}, UNTYPED)
        ctx.get(UNTYPED, "c")["data"]["a"] = "9"
        for each in ctx.list(UNTYPED, owner=True):
            each["metadata"]["labels"] = {"x": "y"}
        assert ctx.get(UNTYPED, "c")["data"] == {"a": "1"}
        assert "labels" not in ctx.get(UNTYPED, "c")["metadata"]


async def test_a_cache_may_change_while_it_is_listed(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        for number in range(5):
            await ctx.apply(ConfigMap(name=f"c{number}"))
        for each in ctx.list(ConfigMap, owner=True):
            await ctx.delete(each)
            await ctx.apply(ConfigMap(name=f"new-{each.name}"))
        assert names(ctx.list(ConfigMap, owner=True)) == [f"new-c{number}" for number in range(5)]


async def test_dicts_are_deleted_and_pruned_as_objects_are(cluster):
    async with hands(cluster, owns=[UNTYPED], reads=[]) as made, made.taking() as (ctx, _):
        for name in ("a", "b", "c"):
            await ctx.apply({"metadata": {"name": name}}, UNTYPED)
        await ctx.delete(ctx.get(UNTYPED, "a"), UNTYPED)
        assert names(await ctx.prune(UNTYPED, keep=[ctx.get(UNTYPED, "b")])) == ["c"]
        assert names(ctx.list(UNTYPED, owner=True)) == ["b"]
        with pytest.raises(TypeError, match="what kind it is"):
            await ctx.delete(ctx.get(UNTYPED, "b"))
        with pytest.raises(ValueError, match="has no resourceVersion: delete an object that was read"):
            await ctx.delete({"metadata": {"name": "b", "uid": "u"}}, UNTYPED)
        assert ctx.owns(ctx.get(UNTYPED, "b"))
        assert not ctx.owns({"metadata": {"name": "x"}})


async def test_what_is_released_outlives_its_owner_and_stays_its_own(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        mine = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        await ctx.release(mine)
        released = ctx.get(ConfigMap, "c")
        assert released.metadata.owner_references == []
        assert released.data == {"a": "1"}
        assert ctx.owns(released)
        before = released.metadata.resource_version
        await ctx.release(released)
        assert (await cluster.get(ConfigMap, "c")).metadata.resource_version == before
        assert (await ctx.apply(ConfigMap(name="c", data={"a": "1"}))).metadata.owner_references


async def test_what_was_changed_since_it_was_read_is_not_released(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        stale = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
        with pytest.raises(Conflict):
            await ctx.release(stale)


async def test_a_reference_of_somebody_else_stays_when_ours_goes(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply({"metadata": {"name": "c"}}, UNTYPED)
        other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "other"}
        live = await ctx.client.get(UNTYPED, "c", namespace=cluster.namespace)
        both = {"metadata": {"ownerReferences": [*live["metadata"]["ownerReferences"], other]}}
        changed = await ctx.client.patch(UNTYPED, "c", both, patch=Patch.MERGE, namespace=cluster.namespace)
        await ctx.release(changed, UNTYPED)
        assert [each["uid"] for each in ctx.get(UNTYPED, "c")["metadata"]["ownerReferences"]] == ["other"]


async def test_conditions_and_the_generation_go_out_in_one_patch_also_when_the_pass_fails(cluster):
    async with hands(cluster) as made:

        async def fail():
            async with made.taking() as (_, widget):
                widget.status.conditions.set("Zeta", True, "Made")
                widget.status.conditions.set("Alpha", False, "Waiting", "for another")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        found = await cluster.until(Widget, "w", lambda widget: widget.status.observed_generation)
        assert [(each.type, each.status, each.observed_generation) for each in found.status.conditions] == [
            ("Alpha", "False", 1),
            ("Zeta", "True", 1),
        ]
        flipped = {each.type: each.last_transition_time for each in found.status.conditions}
        assert made.sent == [("PATCH", "status")]
        await cluster.patch(Widget, "w", {"spec": {"size": 2}})
        generation = 1
        while generation == 1:  # the failed pass is tried again, before the change is known or after
            async with made.taking() as (_, widget):
                assert widget.status.observed_generation == 1
                generation = widget.metadata.generation
                widget.status.conditions.set("Zeta", True, "MadeAgain")
                widget.status.conditions.set("Alpha", False, "Waiting", "for another")
        found = await cluster.until(Widget, "w", lambda widget: widget.status.observed_generation == 2)
        assert found.status.conditions.get("Zeta").reason == "MadeAgain"
        assert {each.type: each.last_transition_time for each in found.status.conditions} == flipped


async def test_a_terminating_child_is_applied_to_as_it_is_and_made_anew_when_it_is_gone(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (ctx, _):
            first = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
            await cluster.patch(ConfigMap, "c", {"metadata": {"finalizers": ["example.com/theirs"]}})
            await cluster.delete(ConfigMap, "c")
            await until(lambda: ctx.get(ConfigMap, "c").metadata.deletion_timestamp)
            made.sent.clear()
            assert (await ctx.apply(ConfigMap(name="c", data={"a": "1"}))).uid == first.uid
            assert made.sent == []
            await cluster.patch(ConfigMap, "c", {"metadata": {"finalizers": None}})
            await until(lambda: ctx.get(ConfigMap, "c") is None)
        poke(cluster, made)
        async with made.taking() as (ctx, _):
            assert (await ctx.apply(ConfigMap(name="c", data={"a": "1"}))).uid != first.uid


# Whose an object is, and where.


async def test_what_only_refers_to_the_object_is_not_its_own(cluster):
    """Somebody has it collected with the object; another controls it, or nobody."""
    async with hands(cluster) as made, made.taking() as (ctx, widget):
        ours = {"apiVersion": "runtime.example.com/v1", "kind": "Widget", "name": "w", "uid": widget.uid}
        theirs = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "of-a-pod", "controller": True}
        for name, owners in {"theirs": [theirs, ours], "nobodys": [ours]}.items():
            await cluster.create(ConfigMap, name)
            await cluster.patch(ConfigMap, name, {"metadata": {"ownerReferences": owners}})
        await ctx.apply(ConfigMap(name="own"))
        await until(lambda: names(ctx.list(ConfigMap, owner=True)) == ["nobodys", "own", "theirs"])
        assert [each.name for each in ctx.list(ConfigMap) if ctx.owns(each)] == ["own"]
        for name, whose in {"theirs": "Pod p", "nobodys": "nobody we know"}.items():
            with pytest.raises(NotOwned, match=f"exists and belongs to {whose}; it was not touched"):
                await ctx.apply(ConfigMap(name=name))
        assert names(await ctx.prune(ConfigMap, keep=[])) == ["own"]
        await ctx.apply(ConfigMap(name="nobodys"), adopt=True)
        assert ctx.owns(ctx.get(ConfigMap, "nobodys"))


async def test_one_name_is_no_list_of_what_to_keep(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c"))
        with pytest.raises(TypeError, match="each of its letters would be taken for a name: write a list"):
            await ctx.prune(ConfigMap, keep="c")
        assert names(ctx.list(ConfigMap, owner=True)) == ["c"]


class Wide(Resource, group="runtime.example.com", version="v1", scope="Cluster"):
    """A kind in no namespace."""


async def test_of_what_is_in_a_namespace_the_object_of_a_cluster_wide_kind_has_to_say_in_which():
    said = []

    async def reconcile(ctx, wide):
        for call in (lambda: ctx.get(ConfigMap, "c"), lambda: ctx.prune(ConfigMap, keep=["c"])):
            try:
                found = call()
                await found
            except ValueError as error:
                said.append(str(error))
        assert ctx.get(ConfigMap, "c", namespace="team").name == "c"

    stage = Stage(declared(reconcile, Wide, owns=[ConfigMap]))
    stage.there("c", kind=ConfigMap)
    stage.there("a", kind=Wide, metadata={"namespace": ""})
    async with stage.working():
        await stage.clock.settle()
    assert said == ["v1 ConfigMap 'c' is namespaced, and Wide is not: say in which namespace"] * 2
    assert stage.log.lines == []

"""The runtime against an API server, embedded and real: apply, status, finalizers, deletion, what wakes."""

import orjson
import pytest

from asyncctl.client.client import Client
from asyncctl.client.errors import Conflict, Invalid, NotFound
from asyncctl.client.patch import Patch
from asyncctl.controller.outcome import NotOwned, Requeue
from asyncctl.controller.sources import Predicate, Watch, generation_changed
from asyncctl.objects import ConfigMap, Event, Namespace, Secret
from asyncctl.objects.meta import ObjectMeta
from asyncctl.operator import Operator
from tests.conformance.hands import hands, poke, settle
from tests.unit.harness import Widget, working
from tests.unit.support import answered, connected, informer_of, until


async def test_apply_creates_with_owner_and_then_sends_nothing(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (ctx, widget):
            answer = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
            assert answer.data == {"a": "1"}
            assert ctx.get(ConfigMap, "c").data == {"a": "1"}  # before the watch can have shown it
            made.sent.clear()
            await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
            assert made.sent == []
        live = await cluster.get(ConfigMap, "c")
        (owner,) = live.metadata.owner_references
        assert (owner.kind, owner.name, owner.uid, owner.controller) == ("Widget", "w", widget.uid, True)
        await settle(cluster, made)
        poke(cluster, made)
        async with made.taking() as (ctx, _):
            made.sent.clear()
            await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
            assert made.sent == []


async def test_after_a_restart_an_equal_object_costs_no_request(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}, labels={"l": "1"}))
    before = (await cluster.get(ConfigMap, "c")).metadata.resource_version
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}, labels={"l": "1"}))
        assert made.sent == []
    assert (await cluster.get(ConfigMap, "c")).metadata.resource_version == before


async def test_a_key_that_is_no_longer_wanted_goes_and_a_foreign_one_stays(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1", "b": "2"}))
        await cluster.patch(ConfigMap, "c", {"data": {"theirs": "3"}})
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
    assert (await cluster.get(ConfigMap, "c")).data == {"a": "1", "theirs": "3"}


async def test_a_foreign_edit_of_a_wanted_field_is_repaired(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (ctx, _):
            await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        await cluster.patch(ConfigMap, "c", {"data": {"a": "9"}})
        await until(made.asked.qsize)  # the change wakes the owner
        async with made.taking() as (ctx, _):
            await until(lambda: ctx.get(ConfigMap, "c").data == {"a": "9"})
            await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
    assert (await cluster.get(ConfigMap, "c")).data == {"a": "1"}


async def test_a_foreign_edit_of_another_field_is_left_alone_and_costs_nothing(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        await cluster.patch(ConfigMap, "c", {"data": {"theirs": "3"}, "metadata": {"labels": {"x": "y"}}})
        await until(lambda: "theirs" in ctx.get(ConfigMap, "c").data)
        made.sent.clear()
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        assert made.sent == []
    assert (await cluster.get(ConfigMap, "c")).data == {"a": "1", "theirs": "3"}


async def test_what_was_read_can_be_changed_and_applied_again_and_again(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        read = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        read.data["a"] = "2"
        read = await ctx.apply(read)
        assert len(read.metadata.owner_references) == 1
        made.sent.clear()
        for _ in range(3):
            read = await ctx.apply(ctx.get(ConfigMap, "c"))
        assert made.sent == []
    assert (await cluster.get(ConfigMap, "c")).data == {"a": "2"}


@pytest.mark.parametrize("seen", [True, False], ids=["cached", "not cached yet"])
async def test_a_namesake_that_is_not_ours_is_not_touched(cluster, seen):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        theirs = await cluster.create(ConfigMap, "c", data={"theirs": "1"})
        if seen:
            await until(lambda: ctx.get(ConfigMap, "c"))
        else:
            informer = informer_of(made.running, ConfigMap.resource_type)
            informer.get = lambda key: None
        with pytest.raises(NotOwned, match=f"ConfigMap {cluster.namespace}/c exists and belongs to nobody we know"):
            await ctx.apply(ConfigMap(name="c", data={"ours": "1"}))
        now = await cluster.get(ConfigMap, "c")
        assert now.metadata.resource_version == theirs.metadata.resource_version
        if seen:
            await ctx.apply(ConfigMap(name="c", data={"ours": "1"}), adopt=True)
            now = await cluster.get(ConfigMap, "c")
            assert now.data == {"theirs": "1", "ours": "1"}
            assert now.metadata.owner_references[0].name == "w"


async def test_a_namesake_made_since_the_cache_was_read_is_a_conflict_and_not_touched(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        informer = informer_of(made.running, ConfigMap.resource_type)
        stale = informer.get((cluster.namespace, "c"))
        await cluster.delete(ConfigMap, "c")
        theirs = await cluster.create(ConfigMap, "c", data={"theirs": "1"})
        informer.get = lambda key: stale
        with pytest.raises(Conflict):
            await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
        await cluster.delete(ConfigMap, "c")
        with pytest.raises((Conflict, NotFound)):
            await ctx.apply(ConfigMap(name="c", data={"a": "2"}))
        assert await cluster.gone(ConfigMap, "c")
        assert theirs.data == {"theirs": "1"}


async def test_an_owner_in_another_namespace_is_refused(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        with pytest.raises(ValueError, match="an owner must be in the same namespace; apply it with owned=False"):
            await ctx.apply(ConfigMap(name="c", namespace="default", data={}))
        assert made.sent == []


async def test_what_is_not_owned_is_known_by_its_annotation_also_after_a_restart(cluster):
    for _ in range(2):
        async with hands(cluster) as made, made.taking() as (ctx, _):
            await ctx.apply(ConfigMap(name="c", data={"a": "1"}), owned=False)
    assert made.sent == []
    live = await cluster.get(ConfigMap, "c")
    assert live.metadata.owner_references == []
    assert live.annotations["asyncctl/owner"] == f"widgets.runtime.example.com/{cluster.namespace}/w"


async def test_a_lost_answer_of_a_create_makes_no_second_object(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        patch = ctx.client.patch

        async def lose(*args, **kwargs):
            await patch(*args, **kwargs)
            return await patch(*args, **kwargs)  # as the transport repeats what had no answer

        ctx.client.patch = lose
        await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
    assert (await cluster.get(ConfigMap, "c")).data == {"a": "1"}


async def test_delete_hits_what_was_read_and_no_namesake(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        first = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        await cluster.delete(ConfigMap, "c")
        await cluster.create(ConfigMap, "c")
        with pytest.raises(Conflict):
            await ctx.delete(first)
        await cluster.delete(ConfigMap, "c")
        await ctx.delete(first)  # gone already is fine
        with pytest.raises(ValueError, match="has no uid"):
            await ctx.delete(ConfigMap(name="c", namespace=cluster.namespace))
        read = await ctx.apply(ConfigMap(name="d", data={"a": "1"}))
        await cluster.patch(ConfigMap, "d", {"data": {"theirs": "1"}})
        with pytest.raises(Conflict):  # it was changed since
            await ctx.delete(read)
        assert (await cluster.get(ConfigMap, "d")).data == {"a": "1", "theirs": "1"}


async def test_what_was_deleted_is_not_read_any_more(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        made_map = await ctx.apply(ConfigMap(name="c", data={"a": "1"}))
        await ctx.delete(made_map)
        assert ctx.get(ConfigMap, "c") is None
        assert list(ctx.list(ConfigMap, labels={"no": "such"})) == []
        overlay = informer_of(made.running, ConfigMap.resource_type)._stores[cluster.namespace]._overlay
    assert len(overlay) <= 1


async def test_an_undeclared_kind_says_what_to_add(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        with pytest.raises(LookupError, match="has not declared v1 Namespace: add it to owns=, watches= or reads="):
            ctx.get(Namespace, "default")
        with pytest.raises(LookupError, match="controller 'widgets'"):
            await ctx.apply(Namespace(name="x"))


# Status.


async def test_a_status_is_sent_once_and_not_again_when_nothing_changed(cluster):
    async with hands(cluster) as made:
        for _ in range(3):
            async with made.taking() as (_, widget):
                widget.status.parts = 3
                widget.status.conditions.set("Ready", True, "Made", "all three")
            await until(lambda: not made.running._controllers[0].queue.statistics().processing)
            poke(cluster, made)
        widget = await cluster.get(Widget, "w")
        assert (widget.status.parts, widget.status.observed_generation) == (3, 1)
        ready = widget.status.conditions.get("Ready")
        assert (ready.status, ready.observed_generation) == ("True", 1)
        assert ready.last_transition_time is not None
        assert made.sent == [("PATCH", "status")]


async def test_the_status_goes_out_when_the_pass_fails(cluster):
    async with hands(cluster) as made:

        async def fail():
            async with made.taking() as (_, widget):
                widget.status.note = "half way"
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        await cluster.until(Widget, "w", lambda widget: widget.status.note == "half way")


async def test_save_status_is_on_record_at_once_and_read_by_the_next_pass(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (ctx, widget):
            widget.status.note = "mine"
            await ctx.save_status()
            assert (await cluster.get(Widget, "w")).status.note == "mine"
            made.sent.clear()
            await ctx.save_status()
            assert made.sent == []
            poke(cluster, made)
        async with made.taking() as (_, widget):
            assert widget.status.note == "mine"


async def test_a_condition_of_another_writer_is_neither_lost_nor_brought_back(cluster):
    def condition(kind, status="True"):
        return {
            "type": kind, "status": status, "reason": "Theirs", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip

    await cluster.create(Widget, "w")
    await cluster.patch(Widget, "w", {"status": {"conditions": [condition("Old")]}}, subresource="status")
    async with hands(cluster) as made:
        async with made.taking() as (_, widget):
            assert "Old" in widget.status.conditions
            theirs = {"status": {"conditions": [condition("New", "False")], "note": "theirs"}}
            await cluster.patch(Widget, "w", theirs, subresource="status")
            widget.status.conditions.set("Ready", True, "Made")
            widget.status.parts = 1
        widget = await cluster.until(Widget, "w", lambda widget: widget.status.parts == 1)
    assert [each.type for each in widget.status.conditions] == ["New", "Ready"]
    assert widget.status.note == "theirs"


async def test_a_status_field_that_the_class_does_not_know_survives(cluster):
    """`extra` would be pruned by the schema; a label of the object stands for what others keep there."""
    async with hands(cluster) as made:
        async with made.taking() as (_, widget):
            await cluster.patch(Widget, "w", {"metadata": {"labels": {"theirs": "1"}}})
            widget.status.parts = 1
        widget = await cluster.until(Widget, "w", lambda widget: widget.status.parts == 1)
    assert widget.labels == {"theirs": "1"}


async def test_a_field_that_is_set_to_none_goes(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (_, widget):
            widget.status.note = "soon gone"
        await cluster.until(Widget, "w", lambda widget: widget.status.note)
        poke(cluster, made)
        async with made.taking() as (_, widget):
            widget.status.note = None
        await cluster.until(Widget, "w", lambda widget: widget.status.note is None)


async def test_the_status_of_a_deleted_object_is_nobodys_business(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (_, widget):
            await cluster.delete(Widget, "w")
            widget.status.note = "late"
        await until(lambda: not made.running._controllers[0].queue.statistics().processing)
        assert not made.running.log.said("the pass has failed")


async def test_the_status_is_not_written_to_a_namesake(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (_, widget):
            await cluster.delete(Widget, "w")
            await cluster.create(Widget, "w")
            widget.status.note = "of the old one"
        async with made.taking() as (_, widget):
            assert widget.status.note is None
            assert (await cluster.get(Widget, "w")).status.note is None


async def test_a_status_write_does_not_wake_its_own_writer(cluster):
    async with hands(cluster) as made:
        async with made.taking() as (_, widget):
            widget.status.parts = 5
        await cluster.until(Widget, "w", lambda widget: widget.status.parts == 5)
        informer = informer_of(made.running, Widget.resource_type)
        store = informer._stores[cluster.namespace]
        await cluster.create(Widget, "last")
        async with made.taking() as (_, widget):
            assert widget.name == "last"
        assert store._entries[cluster.namespace, "w"].header.version <= store.progress
        assert made.asked.empty()


# Finalizers.


def finalizing(*names):
    """An operator whose finalizers write down what they were called with, and may be told to fail."""
    operator = Operator("test")
    log = []

    @operator.controller(Widget)
    async def reconcile(ctx, widget):
        log.append(("reconcile", tuple(ctx.header.finalizers)))

    operator.failing = set()
    for name in names:

        def declare(name):
            @reconcile.finalizer(name)
            async def clean_up(ctx, widget):
                log.append((name, widget.metadata.deletion_timestamp is not None))
                if name in operator.failing:
                    raise RuntimeError("not yet")

        declare(name)
    operator.log = log
    return operator


async def test_the_finalizer_is_on_before_the_first_pass_and_off_after_the_clean_up(cluster):
    operator = finalizing("example.com/one")
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.log)
        assert (await cluster.get(Widget, "w")).metadata.finalizers == ["example.com/one"]
        assert await cluster.delete(Widget, "w") is False
        await cluster.until_gone(Widget, "w")
        assert operator.log[0] == ("reconcile", ("example.com/one",))
        assert operator.log.count(("example.com/one", True)) == 1


async def test_a_clean_up_that_fails_keeps_the_object(cluster):
    operator = finalizing("example.com/one")
    operator.failing.add("example.com/one")
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.log)
        await cluster.delete(Widget, "w")
        await until(lambda: len(operator.log) > 3)
        assert (await cluster.get(Widget, "w")).metadata.finalizers == ["example.com/one"]
        operator.failing.clear()
        await cluster.until_gone(Widget, "w")


async def test_two_clean_ups_run_in_order_and_one_that_is_done_is_not_run_again(cluster):
    operator = finalizing("example.com/one", "example.com/two")
    operator.failing.add("example.com/two")
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.log)
        await cluster.delete(Widget, "w")
        await until(lambda: operator.log.count(("example.com/two", True)) == 3)
        operator.failing.clear()
        await cluster.until_gone(Widget, "w")
        assert operator.log.count(("example.com/one", True)) == 1


async def test_a_foreign_finalizer_stays_and_is_not_ours_to_wait_for(cluster):
    operator = finalizing("example.com/one")
    await cluster.create(Widget, "w")
    await cluster.patch(Widget, "w", {"metadata": {"finalizers": ["example.com/theirs"]}})
    async with working(operator, cluster):
        await until(lambda: operator.log)
        assert (await cluster.get(Widget, "w")).metadata.finalizers == ["example.com/theirs", "example.com/one"]
        await cluster.delete(Widget, "w")
        await cluster.until(Widget, "w", lambda widget: widget.metadata.finalizers == ["example.com/theirs"])
        seen = len(operator.log)
        await cluster.patch(Widget, "w", {"metadata": {"labels": {"x": "y"}}})
        await cluster.create(Widget, "marker")
        await until(lambda: len(operator.log) > seen)
        assert operator.log[seen:] == [("reconcile", ("example.com/one",))]  # the marker's
        await cluster.patch(Widget, "w", {"metadata": {"finalizers": None}})


def then(operator, name, act):
    """Have `act` happen once, when the clean-up of that name has been done and its finalizer is to go."""
    clean_up, acts = operator.declarations[0].finalizers[name], [act]

    async def clean_up_and_act(ctx, widget):
        await clean_up(ctx, widget)
        if acts:
            await acts.pop()()

    operator.declarations[0].finalizers[name] = clean_up_and_act


async def test_a_finalizer_that_moved_meanwhile_is_still_the_one_that_is_removed(cluster):
    operator = finalizing("example.com/one")
    await cluster.create(Widget, "w")
    await cluster.patch(Widget, "w", {"metadata": {"finalizers": ["example.com/theirs"]}})
    then(operator, "example.com/one", lambda: take_off(cluster, "example.com/theirs", 0))
    async with working(operator, cluster):
        await until(lambda: operator.log)
        await cluster.delete(Widget, "w")
        await cluster.until_gone(Widget, "w")
        assert operator.log.count(("example.com/one", True)) == 1


async def take_off(cluster, name, index):
    path = f"/metadata/finalizers/{index}"
    remove = [{"op": "test", "path": path, "value": name}, {"op": "remove", "path": path}]
    await cluster.patch(Widget, "w", remove, patch=Patch.JSON)


@pytest.mark.parametrize("others", [True, False], ids=["others left", "none left"])
async def test_a_finalizer_that_somebody_else_takes_off_meanwhile_is_off(cluster, others):
    operator = finalizing("example.com/one", "example.com/two")
    await cluster.create(Widget, "w")
    removed = "example.com/one" if others else "example.com/two"
    then(operator, removed, lambda: take_off(cluster, removed, 0))
    async with working(operator, cluster) as running:
        await until(lambda: operator.log)
        await cluster.delete(Widget, "w")
        await cluster.until_gone(Widget, "w")
        await until(lambda: not running._controllers[0].queue.statistics().processing)
        assert operator.log[1:] == [("example.com/one", True), ("example.com/two", True)]
        assert not running.log.said("the pass has failed")


async def test_a_clean_up_that_fails_holds_those_declared_after_it(cluster):
    operator = finalizing("example.com/one", "example.com/two")
    operator.failing.add("example.com/one")
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.log)
        await cluster.delete(Widget, "w")
        await until(lambda: operator.log.count(("example.com/one", True)) == 3)
        assert ("example.com/two", True) not in operator.log
        operator.failing.clear()
        await cluster.until_gone(Widget, "w")
        assert operator.log[-2:] == [("example.com/one", True), ("example.com/two", True)]


async def test_a_clean_up_whose_finalizer_somebody_else_took_off_before_is_not_run(cluster):
    operator = finalizing("example.com/one", "example.com/two")
    operator.failing.add("example.com/one")
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.log)
        await cluster.delete(Widget, "w")
        await until(lambda: operator.log.count(("example.com/one", True)))
        await take_off(cluster, "example.com/one", 0)
        await cluster.until_gone(Widget, "w")
        assert operator.log[-1] == ("example.com/two", True)


async def test_a_finalizers_name_is_refused_when_it_is_declared_if_the_server_would_refuse_it(cluster):
    names = [
        "example.com/a", "a/b", "a.b-c/D_e.f", "1.2/3", "a/" + "b" * 63, "a" * 253 + "/b", "No/a", "a..b/c", "-a/b",
        "a/-b", "a/b-", "a/" + "b" * 64, "a" * 254 + "/b", "a/b/c", "a/", "/a", "a b/c", "a", "",
    ]  # fmt: skip
    declaration = Operator("test").controller(ConfigMap)(counting().declarations[0])

    async def taken(name):
        meta = ObjectMeta(name="c", namespace=cluster.namespace, finalizers=[name])
        try:
            await cluster.client.create(ConfigMap(metadata=meta), dry_run=True)
        except Invalid:
            return False
        return True

    def declared(name):
        try:
            declaration.finalizer(name)
        except ValueError:
            return False
        return True

    assert {name: declared(name) for name in names} == {name: await taken(name) for name in names}
    assert not declared("orphan")  # Kubernetes' own, and so taken


async def test_an_object_that_terminates_without_our_finalizer_is_not_reconciled(cluster):
    operator = finalizing("example.com/one")
    await cluster.create(Widget, "w")
    await cluster.patch(Widget, "w", {"metadata": {"finalizers": ["example.com/theirs"]}})
    await cluster.delete(Widget, "w")
    async with working(operator, cluster):
        await cluster.create(Widget, "marker")
        await until(lambda: operator.log)
        assert len(operator.log) == 1
        assert (await cluster.get(Widget, "w")).metadata.finalizers == ["example.com/theirs"]
        await cluster.patch(Widget, "w", {"metadata": {"finalizers": None}})


# What wakes.


def counting(**options):
    operator = Operator("test")
    seen = []

    @operator.controller(Widget, **options)
    async def reconcile(ctx, widget):
        seen.append(widget.name)

    operator.seen = seen
    return operator


async def test_a_paused_object_is_skipped_until_it_is_not_paused_whatever_the_predicate(cluster):
    operator = counting(when=generation_changed)
    await cluster.create(Widget, "w", annotations={"asyncctl/paused": "true"})
    async with working(operator, cluster):
        await cluster.create(Widget, "other")
        await until(lambda: operator.seen == ["other"])
        await cluster.patch(Widget, "w", {"metadata": {"annotations": {"asyncctl/paused": None}}})
        await until(lambda: operator.seen == ["other", "w"])


async def test_a_predicate_says_what_matters(cluster):
    operator = counting(when=generation_changed)
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.seen == ["w"])
        await cluster.patch(Widget, "w", {"metadata": {"labels": {"a": "b"}}})
        await cluster.create(Widget, "marker")
        await until(lambda: len(operator.seen) == 2)
        assert operator.seen == ["w", "marker"]
        await cluster.patch(Widget, "w", {"spec": {"size": 2}})
        await until(lambda: operator.seen == ["w", "marker", "w"])


async def test_reconcile_at_runs_one_pass(cluster):
    operator = counting()
    await cluster.create(Widget, "w")
    async with working(operator, cluster):
        await until(lambda: operator.seen == ["w"])
        await cluster.patch(Widget, "w", {"metadata": {"annotations": {"asyncctl/reconcile-at": "now"}}})
        await until(lambda: operator.seen == ["w", "w"])


async def test_a_mapper_that_raises_is_told_and_everybody_is_looked_at_again(cluster):
    def broken(header):
        if header.name == "bad":
            raise KeyError("no such label")
        return [(header.namespace, header.name)]

    operator = counting(watches=[Watch(ConfigMap, to=broken)])
    for name in ("w", "x"):
        await cluster.create(Widget, name)
    async with working(operator, cluster) as running:
        await until(lambda: sorted(operator.seen) == ["w", "x"])
        await cluster.create(ConfigMap, "bad")
        await cluster.create(ConfigMap, "w")
        await until(lambda: operator.seen.count("w") > 1 and operator.seen.count("x") > 1)  # whom it names, and all
        assert running.log.said("an author's function has failed", "error")


async def test_a_predicate_that_raises_costs_no_event(cluster):
    def broken(old, new):
        raise KeyError("no such label")

    operator = counting(when=Predicate(broken))
    async with working(operator, cluster):
        await cluster.create(Widget, "w")
        await until(lambda: operator.seen == ["w"])


async def test_an_owner_of_the_core_group_hears_of_what_it_owns(cluster):
    seen = []
    operator = Operator("test")

    @operator.controller(ConfigMap, owns=[Secret])
    async def reconcile(ctx, config):
        if config.name == "c":
            seen.append(sorted(each.name for each in ctx.list(Secret)))
            await ctx.apply(Secret(name="s", data={"k": b"1"}))

    await cluster.create(ConfigMap, "c")
    async with working(operator, cluster):
        await until(lambda: len(seen) == 2)
        await cluster.delete(Secret, "s")
        await until(lambda: len(seen) >= 3)
        await cluster.until(Secret, "s", lambda secret: secret.data == {"k": b"1"})


async def test_events_are_about_the_object_and_what_is_said_again_is_counted(cluster):
    path = f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events"
    async with hands(cluster) as made:
        async with made.taking() as (ctx, widget):
            ctx.normal("Tried", "x" * 5000)
            assert await cluster.until_said("w") == [("Tried", "x" * 1024)]
            for _ in range(3):
                ctx.normal("Tried", "x" * 5000)
        found = await answered(lambda: cluster.send("GET", path), lambda found: "series" in found["items"][0])
        event = found["items"][0]
        assert event["series"]["count"] == 4
        assert event["regarding"]["uid"] == widget.uid
        assert (event["type"], event["reportingController"]) == ("Normal", "asyncctl-test")
    with pytest.raises(NotFound):  # so that a series which the server has forgotten is made anew
        await cluster.patch(Event, "none", {"series": event["series"]})


async def test_requests_of_a_pass_carry_its_id(cluster):
    asked = []
    async with hands(cluster) as made, made.taking() as (ctx, _):
        transport = ctx.client._transport
        request = transport.request

        async def noting(one):
            asked.append(one.audit_id)
            return await request(one)

        transport.request = noting
        await ctx.client.get(Widget, "w", namespace=cluster.namespace)
        assert asked == [ctx.reconcile_id]


async def test_the_client_lists_page_by_page(cluster, monkeypatch):
    for number in range(7):
        await cluster.create(ConfigMap, f"c{number}")
    monkeypatch.setattr(Client.list_page, "__kwdefaults__", Client.list_page.__kwdefaults__ | {"limit": 3})
    names = {each.name async for each in cluster.client.list(ConfigMap, namespace=cluster.namespace)}
    assert {f"c{number}" for number in range(7)} <= names


async def test_a_failed_test_of_a_json_patch_is_a_conflict(cluster):
    await cluster.create(ConfigMap, "c", data={"a": "1"})
    operations = [{"op": "test", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/a"}]
    with pytest.raises(Conflict):
        await cluster.patch(ConfigMap, "c", operations, patch=Patch.JSON)
    with pytest.raises(Conflict):
        await cluster.patch(ConfigMap, "c", [{"op": "remove", "path": "/data/b"}], patch=Patch.JSON)
    assert (await cluster.get(ConfigMap, "c")).data == {"a": "1"}


async def test_deletion_tells_whether_the_object_is_gone(cluster):
    await cluster.create(ConfigMap, "c")
    await cluster.patch(ConfigMap, "c", {"metadata": {"finalizers": ["example.com/x"]}})
    assert await cluster.delete(ConfigMap, "c") is False
    await cluster.patch(ConfigMap, "c", {"metadata": {"finalizers": None}})
    assert await cluster.gone(ConfigMap, "c")
    await cluster.create(ConfigMap, "c")
    assert await cluster.delete(ConfigMap, "c") is True


async def test_the_cache_follows_a_real_watch(cluster):
    """Created, changed, deleted, deleted and made anew: the cache ends where the server is."""
    async with hands(cluster) as made:
        informer = informer_of(made.running, ConfigMap.resource_type)
        for number in range(5):
            await cluster.create(ConfigMap, f"c{number}", data={"n": "0"})
        await cluster.patch(ConfigMap, "c1", {"data": {"n": "1"}})
        await cluster.delete(ConfigMap, "c2")
        await cluster.delete(ConfigMap, "c3")
        again = await cluster.create(ConfigMap, "c3", data={"n": "3"})
        await until(lambda: (entry := informer.get((cluster.namespace, "c3"))) and entry.header.uid == again.uid)
        found = {entry.header.name: orjson.loads(entry.data).get("data") for entry in informer.entries()}
        found.pop("kube-root-ca.crt", None)
        assert found == {"c0": {"n": "0"}, "c1": {"n": "1"}, "c3": {"n": "3"}, "c4": {"n": "0"}}


async def test_requeue_is_exported_for_authors():
    assert Requeue(after=1.5).seconds == 1.5


async def test_a_second_client_sees_what_the_first_wrote(cluster):
    await cluster.create(ConfigMap, "c", data={"a": "1"})
    async with connected(cluster.config) as other:
        assert (await other.get(ConfigMap, "c", namespace=cluster.namespace)).data == {"a": "1"}

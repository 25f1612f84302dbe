"""What an operator caches: narrowed, indexed, shared with background tasks, in namespaces that come and go."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from asyncctl import (
    Operator,
    Patch,
    Requeue,
    Watch,
    labels_changed,
    of_change,
    of_header,
    of_object,
    to_every,
    to_indexed,
)
from asyncctl.cache.reflector import Reflector
from asyncctl.client.errors import NamespaceBoundaryExceeded
from asyncctl.controller import controller
from asyncctl.objects import ConfigMap, Namespace, Secret, Unstructured
from asyncctl.operator import Running
from tests.unit.harness import Widget, WidgetSpec, quick_settings, working
from tests.unit.operator.test_running import declare, nothing, probe
from tests.unit.support import Log, until


class Seen:
    """A controller that notes each pass."""

    def __init__(self):
        self.names = []

    async def reconcile(self, ctx, obj):
        self.names.append(f"{obj.namespace}/{obj.name}")


@pytest.fixture
def seen(cluster):
    return Seen()


def counted(names, prefix):
    return sum(name.endswith(prefix) for name in names)


async def test_the_primary_kind_is_narrowed_and_what_stops_matching_is_left_alone(cluster, seen):
    operator = Operator("test")
    operator.controller(Watch(Widget, labels={"tier": "gold"}))(seen)
    await cluster.create(Widget, "other")
    await cluster.create(Widget, "mine", labels={"tier": "gold"})
    async with working(operator, cluster):
        await until(lambda: seen.names)
        await cluster.patch(Widget, "mine", {"metadata": {"labels": {"tier": "tin"}}})
        await cluster.create(Widget, "late", labels={"tier": "gold"})
        await until(lambda: counted(seen.names, "/late"))
    assert {name.partition("/")[2] for name in seen.names} == {"mine", "late"}
    assert counted(seen.names, "/mine") == 1


async def test_what_is_not_wanted_with_the_settings_is_neither_watched_nor_read(cluster):
    operator, told = Operator("test"), []
    some = Watch(ConfigMap, wanted=lambda settings: settings.workers > 10)

    @operator.controller(Widget, owns=[some], reads=[Watch(Secret, wanted=lambda _: True)])
    async def reconcile(ctx, widget):
        with suppress(LookupError):
            assert list(ctx.list(Secret)) == []
            told.append("secrets")
            assert list(ctx.list(ConfigMap)) == []
            told.append("config maps")

    await cluster.create(Widget, "w")
    for workers, read in ((10, ["secrets"]), (11, ["secrets", "config maps"])):
        told.clear()
        async with working(operator, cluster, workers=workers) as running:
            await until(lambda: told)
            assert told == read
            watched = {str(informer.kind.plural) for informer in running._informers}
            assert watched == {"widgets", "secrets", *(["configmaps"] if workers > 10 else [])}


async def test_an_index_of_the_primary_finds_who_names_a_secret(cluster, seen):
    operator = Operator("test")
    operator.controller(
        Watch(Widget, indexes={"size": lambda widget: [str(widget.spec.size)]}),
        watches=[Watch(Secret, to=to_indexed("size", lambda secret: secret.name.removeprefix("size-")))],
    )(seen)
    for size in (1, 2, 3):
        await cluster.create(Widget, f"w{size}", spec=WidgetSpec(size=size))
    async with working(operator, cluster):
        await until(lambda: len(seen.names) == 3)
        seen.names.clear()
        await cluster.create(Secret, "size-2")
        await until(lambda: seen.names)
        await cluster.create(Secret, "size-9")
        await cluster.create(Secret, "size-3")
        await until(lambda: counted(seen.names, "/w3"))
    assert [name.partition("/")[2] for name in seen.names] == ["w2", "w3"]


async def test_mappers_of_every_sort_wake_whom_they_say(cluster, seen):
    operator = Operator("test")
    config = Unstructured("v1", "ConfigMap")
    operator.controller(
        Widget,
        watches=[
            Watch(Namespace, to=to_every, when=labels_changed),
            Watch(config, to=of_object(lambda one: [(one["metadata"]["namespace"], one["data"]["of"])])),
            Watch(Secret, to=of_change(lambda old, new: [(old.namespace, "a")] if old and not new else [])),
        ],
    )(seen)
    for name in ("a", "b"):
        await cluster.create(Widget, name)
    async with working(operator, cluster):
        await until(lambda: {*seen.names} == {f"{cluster.namespace}/a", f"{cluster.namespace}/b"})
        await until(lambda: len(seen.names) >= 2)
        steps = []

        async def step(names, change):
            seen.names.clear()
            await change
            await until(lambda: {name.partition("/")[2] for name in seen.names} == names)
            steps.append(names)

        await step({"b"}, cluster.create(ConfigMap, "c", data={"of": "b"}))
        await step({"a", "b"}, cluster.patch(ConfigMap, "c", {"data": {"of": "a"}}))
        await cluster.create(Secret, "s")
        await step({"a"}, cluster.delete(Secret, "s"))
        label = {"metadata": {"labels": {"colour": "red"}}}
        await step({"a", "b"}, cluster.client.patch(Namespace, cluster.namespace, label, patch=Patch.MERGE))
        assert len(steps) == 4


async def test_every_event_of_a_first_list_that_concerns_everybody_is_one_walk_over_the_cache(cluster, seen):
    operator = Operator("test")
    operator.controller(Widget, watches=[Watch(ConfigMap, to=to_every)])(seen)
    for number in range(20):
        await cluster.create(ConfigMap, f"c{number}")
    await cluster.create(Widget, "w")
    async with working(operator, cluster) as running:
        await until(lambda: seen.names)
        (controller,) = running._controllers
        walks, entries = [], controller._wiring._primary.entries
        controller._wiring._primary.entries = lambda: walks.append(1) or entries()
        for _ in range(50):
            controller._wiring._wake_everyone_soon()
        await until(lambda: walks)
        await asyncio.sleep(0)
        assert len(walks) == 1


async def test_a_background_task_reads_the_cache_of_the_controllers_and_wakes_an_object(cluster, seen):
    operator, found, go = Operator("test"), {}, asyncio.Event()
    operator.controller(Widget, reads=[ConfigMap])(seen)

    @operator.background
    async def look(running: Running):
        async with running.informer(ConfigMap) as configs, running.informer(Watch(ConfigMap, labels="a=b")) as few:
            found["shared"] = configs.informer is running._controllers[0]._environment.informer(ConfigMap.resource_type)
            found["all"] = {config.name for config in configs.list(namespace=cluster.namespace)}
            found["few"] = [header.name for header in few.headers(labels={"a": "b"})]
            found["one"] = configs.get("plain", namespace=cluster.namespace).data
            found["none"] = configs.get("missing", namespace=cluster.namespace)
            await go.wait()
            running.wake(Widget, "w", namespace=cluster.namespace)
        found["left"] = len(list(running._informers))

    await cluster.create(Widget, "w")
    await cluster.create(ConfigMap, "plain", data={"x": "y"})
    await cluster.create(ConfigMap, "labelled", labels={"a": "b"})
    async with working(operator, cluster) as running:
        await until(lambda: "none" in found and seen.names)
        assert found["shared"] is True
        assert {"plain", "labelled"} <= found["all"]
        assert (found["few"], found["one"], found["none"]) == (["labelled"], {"x": "y"}, None)
        assert len(list(running._informers)) == 3
        seen.names.clear()
        go.set()
        await until(lambda: seen.names and "left" in found)
        assert found["left"] == 2


async def test_an_informers_index_is_of_the_object_or_of_the_header(cluster):
    await cluster.create(ConfigMap, "one", data={"colour": "red"}, labels={"size": "big"})
    await cluster.create(ConfigMap, "two", data={"colour": "blue"})
    watch = Watch(
        ConfigMap,
        indexes={
            "colour": lambda config: config.data.get("colour", ""),
            "size": of_header(lambda header: [header.labels["size"]] if "size" in header.labels else []),
        },
    )
    async with working(declare(nothing), cluster) as running, running.informer(watch) as configs:
        assert [config.name for config in configs.list(index=("colour", "red"))] == ["one"]
        assert [header.name for header in configs.headers(index=("size", "big"), namespace=cluster.namespace)] == [
            "one"
        ]
        assert list(configs.list(index=("colour", "red"), labels={"size": "small"})) == []
        with pytest.raises(LookupError, match="there is no index 'weight'"):
            configs.list(index=("weight", "1"))


async def test_what_can_not_be_asked_of_an_informer_or_woken_is_told(cluster):
    operator = declare(nothing)
    early = []

    @operator.on_startup
    async def too_early(running):
        with pytest.raises(RuntimeError, match="has its caches only after its startup hooks"):
            async with running.informer(ConfigMap):
                early.append(1)

    async with working(operator, cluster) as running:
        with pytest.raises(ValueError, match=r"an informer of v1 ConfigMap wakes nobody: leave out to= and when="):
            await running.informer(Watch(ConfigMap, to=to_every)).__aenter__()
        async with running.informer(ConfigMap) as configs:
            with pytest.raises(ValueError, match="v1 ConfigMap 'x' is namespaced: say in which namespace"):
                configs.get("x")
            with pytest.raises(NamespaceBoundaryExceeded):
                configs.get("x", namespace="elsewhere")
            with pytest.raises(NamespaceBoundaryExceeded):
                configs.list(namespace="elsewhere")
        with pytest.raises(LookupError, match="operator 'test' has no controller of v1 ConfigMap to wake"):
            running.wake(ConfigMap, "x", namespace="y")
        with pytest.raises(ValueError, match="'x' is namespaced: say in which namespace"):
            running.wake(Widget, "x")
    with pytest.raises(RuntimeError, match="and until it ends"):
        running.set_namespaces(["x"])
    assert early == []


async def test_namespaces_come_and_go_while_it_runs(cluster):
    """The boundary and the caches follow; what is waiting of a namespace that went is waited for no more."""
    passes, operator = [], Operator("test")
    other = f"{cluster.namespace}-other"

    @operator.controller(Widget, reads=[ConfigMap])
    async def reconcile(ctx, widget):
        passes.append((widget.namespace, {config.namespace for config in ctx.list(ConfigMap)}))
        return Requeue(after=timedelta(hours=1))

    await cluster.client.create(Namespace(name=other))
    for namespace in (cluster.namespace, other):
        await cluster.client.create(Widget(name="w", namespace=namespace))
        await cluster.client.create(ConfigMap(name="c", namespace=namespace))
    settings = quick_settings(namespaces=(cluster.namespace,))
    log = Log()
    async with operator.running(settings=settings, config=cluster.config, logger=log.logger) as running:
        queue = running._controllers[0].queue
        await until(lambda: passes == [(cluster.namespace, {cluster.namespace})])
        client = running._controllers[0]._environment.client.with_audit_id("of-a-pass")
        with pytest.raises(NamespaceBoundaryExceeded):
            await client.get(Widget, "w", namespace=other)

        running.set_namespaces([cluster.namespace, other])
        await until(lambda: len(passes) == 2)
        assert passes[1][0] == other
        assert (await client.get(Widget, "w", namespace=other)).name == "w"
        assert (await probe(running, "/readyz"))[0] == 200
        await until(lambda: queue.statistics().delayed == 2)

        running.set_namespaces([other])
        assert queue.statistics().delayed == 1
        with pytest.raises(NamespaceBoundaryExceeded, match=f"outside of ASYNCCTL_NAMESPACES .{other}"):
            await client.get(Widget, "w", namespace=cluster.namespace)
        passes.clear()
        for namespace in (cluster.namespace, other):
            change = {"spec": {"size": 5}}
            await cluster.client.patch(Widget, "w", change, patch=Patch.MERGE, namespace=namespace)
        await until(lambda: passes)
        assert passes == [(other, {other})]
        assert running.client.namespaces == (other,)


async def test_a_pass_in_a_new_namespace_waits_until_all_its_caches_have_been_listed(cluster, monkeypatch):
    other = f"{cluster.namespace}-late"
    await cluster.client.create(Namespace(name=other))
    for namespace in (cluster.namespace, other):
        await cluster.client.create(Widget(name="w", namespace=namespace))
        await cluster.client.create(ConfigMap(name="there", namespace=namespace))
    listed, found = asyncio.Event(), {}
    stream = Reflector._stream

    async def held_back(self, state):
        if (self._kind, self._namespace) == (ConfigMap.resource_type, other):
            await listed.wait()
        return await stream(self, state)

    monkeypatch.setattr(Reflector, "_stream", held_back)
    monkeypatch.setattr(controller, "_FILLING", 0.01)

    async def reconcile(ctx, widget):
        found[widget.namespace] = [each.name for each in ctx.list(ConfigMap, namespace=widget.namespace)]

    operator = Operator("test")
    operator.controller(Widget, reads=[ConfigMap])(reconcile)
    settings = quick_settings(namespaces=(cluster.namespace,))
    async with operator.running(settings=settings, config=cluster.config, logger=Log().logger) as running:
        await until(lambda: found)
        running.set_namespaces([cluster.namespace, other])
        queue = running._controllers[0].queue
        await until(lambda: queue.statistics().delayed)  # it has been looked at, and put off
        assert other not in found
        listed.set()
        await until(lambda: other in found)
    assert found == {cluster.namespace: ["there"], other: ["there"]}


async def test_no_namespace_is_not_all_of_them(cluster):
    async with working(declare(nothing), cluster) as running:
        for none in ((), "team"):
            with pytest.raises(ValueError, match="give at least one, none would stand for all"):
                running.set_namespaces(none)
        assert running.client.namespaces == (cluster.namespace,)


async def test_caches_that_are_narrowed_differently_are_shown_apart(cluster):
    operator = Operator("test")
    operator.controller(Widget, reads=[Watch(ConfigMap, labels="a=b", namespaces=[cluster.namespace])])(nothing)
    operator.controller(Watch(ConfigMap, fields={"metadata.name": "x"}), name="configs")(nothing)
    async with working(operator, cluster) as running:
        _, text = await probe(running, "/readyz?verbose")
        for name in (
            f"configmaps-a=b-{cluster.namespace}",
            "configmaps-metadata.name=x",
            "widgets.runtime.example.com",
        ):
            assert f"[+]cache-{name} ok" in text
            assert f"[ ]cache-{name}-current: ok" in text


async def test_interval_and_rate_reach_the_queue(cluster):
    operator = Operator("test")
    operator.controller(Widget, interval=timedelta(seconds=30), rate=5, workers=3)(nothing)
    async with working(operator, cluster) as running:
        queue = running._controllers[0].queue
        assert queue._interval == 30.0
        assert (queue._limit._qps, queue._limit._burst) == (5, 1)


async def test_a_watch_of_the_metadata_alone_keeps_headers_and_wakes_by_them(cluster, seen):
    operator = Operator("test")
    secrets = Watch(Secret, to=lambda secret: [(secret.namespace, secret.labels["widget"])], metadata_only=True)
    operator.controller(Widget, watches=[secrets])(seen)
    await cluster.create(Widget, "w")
    await cluster.create(Secret, "s", labels={"widget": "w"}, data={"password": b"x" * 1000})
    async with working(operator, cluster) as running:
        await until(lambda: seen.names)
        async with running.informer(Watch(Secret, metadata_only=True)) as found:
            assert [header.name for header in found.headers(labels={"widget": "w"})] == ["s"]
            (entry,) = found.informer.entries(cluster.namespace)
            assert b"password" not in entry.data
        seen.names.clear()
        await cluster.patch(Secret, "s", {"data": {"password": "eA=="}})
        await until(lambda: seen.names)


async def test_a_watch_that_reaches_beyond_the_operators_namespaces_is_told_and_holds_up_no_other(cluster, seen):
    operator = Operator("test")
    operator.controller(Widget)(seen)
    operator.controller(Watch(ConfigMap, namespaces=["elsewhere"]), name="configs")(nothing)
    await cluster.create(Widget, "w")
    settings = quick_settings(namespaces=(cluster.namespace,))
    async with operator.running(settings=settings, config=cluster.config, logger=Log().logger) as running:
        await until(lambda: seen.names)
        code, text = await probe(running, "/readyz")
        assert code == 500
        told = f"namespace 'elsewhere' is outside of ASYNCCTL_NAMESPACES ({cluster.namespace})"
        assert told in next(
            line for line in text.splitlines() if line.startswith("[-]cache-configmaps-elsewhere failed")
        )

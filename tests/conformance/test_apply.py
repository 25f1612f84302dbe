"""What `ctx.apply` costs and keeps, with an operator at work: nothing in the steady state, and nobody else's fields."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress

import orjson
import pytest

from asyncctl.client.errors import ApplyConflict, Conflict
from asyncctl.controller.outcome import NotOwned
from asyncctl.objects import ConfigMap, Unstructured
from asyncctl.operator import Operator
from tests.conformance.hands import hands, poke, settle
from tests.unit.harness import Widget, working
from tests.unit.support import informer_of, until

DEPLOYMENT = Unstructured("apps/v1", "Deployment")
SECRET = Unstructured("v1", "Secret")
OBJECTS = 100


def deployment(name, replicas=1):
    """With quantities that the server writes in another way, and lists whose items it completes."""
    container = {
        "name": "main",
        "image": "example.com/main:1",
        "args": ["--size", "1"],
        "ports": [{"containerPort": 80}, {"containerPort": 443, "name": "tls"}],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": None}],
        "resources": {"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"memory": "1024Mi"}},
        "securityContext": None,
    }
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }


class Children:
    """A reconcile that makes a Deployment, a Secret and a ConfigMap; knows how often it did."""

    def __init__(self, cluster):
        self.passes = Counter()
        self.cluster = cluster
        self.operator = Operator("children")
        self.operator.controller(Widget, owns=[DEPLOYMENT, SECRET, ConfigMap])(self)

    async def reconcile(self, ctx, widget):
        await ctx.apply(deployment(widget.name), DEPLOYMENT)
        await ctx.apply({"metadata": {"name": widget.name}, "stringData": {"password": widget.name}}, SECRET)
        await ctx.apply(ConfigMap(name=widget.name, data={"size": "1"}))
        self.passes[widget.name] += 1

    @asynccontextmanager
    async def working(self):
        async with working(self.operator, self.cluster, qps=0.0) as running:
            self.running = running
            yield

    def writes(self):
        """How many requests that write the operator's transport has sent."""
        samples = self.running.metrics.families.requests.collect().samples
        return sum(sample.value for sample in samples if sample.labels["method"] != "GET")

    async def passes_of_each(self, count):
        """Return when each object has had so many passes more."""
        for _ in range(count):
            before = Counter(self.passes)
            for name in self.names:
                self.running._controllers[0].queue.add((self.cluster.namespace, name))
            await until(lambda before=before: all(self.passes[name] > before[name] for name in self.names), 30)

    async def seen(self, name, answer):
        """Return when the cache has the Deployment as this answer, or as it was later."""
        informer, key = informer_of(self.running, DEPLOYMENT.resource_type), (self.cluster.namespace, name)
        version = int(orjson.loads(answer)["metadata"]["resourceVersion"])
        await until(lambda: informer.get(key).header.version >= version)

    async def create(self, count=OBJECTS):
        self.names = [f"w{number:03}" for number in range(count)]
        for start in range(0, count, 20):
            await asyncio.gather(*(self.cluster.create(Widget, name) for name in self.names[start : start + 20]))

    @asynccontextmanager
    async def restless(self):
        """The status of the Deployments changes all the time; yields what the last change of each was answered with."""
        changes = {}

        async def change():
            for replicas in range(1, 1_000_000):
                name = self.names[(7 * replicas) % len(self.names)]
                status = {"status": {"replicas": replicas, "readyReplicas": replicas}}
                changes[name] = await self.cluster.patch(DEPLOYMENT, name, status, subresource="status")

        task = asyncio.create_task(change(), name="restless Deployments")
        try:
            yield changes
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_nothing_is_written_over_a_thousand_passes_while_the_childrens_status_changes(backend, cluster):
    children = Children(cluster)
    await children.create()
    async with children.working():
        await until(lambda: len(children.passes) == OBJECTS, 60)
        await children.passes_of_each(1)
        assert children.writes() == 4 * OBJECTS  # three children and a status
        async with children.restless() as changes:
            for _ in range(10):
                changes.clear()
                await until(lambda: len(changes) >= 5)
                for name, answer in list(changes.items()):
                    await children.seen(name, answer)
                await children.passes_of_each(1)
        assert children.writes() == 4 * OBJECTS
    stored = await cluster.client.get(DEPLOYMENT, "w000", namespace=cluster.namespace)
    container = stored["spec"]["template"]["spec"]["containers"][0]
    if backend.name == "kube":  # in its own form
        assert container["resources"]["requests"]["cpu"] == "1"
    assert container["ports"][0]["protocol"] == "TCP"
    async with children.working():  # a new process, whose cache is empty
        await children.passes_of_each(2)
        first = children.writes()
        assert first <= OBJECTS  # of the Deployments it can't be told from the leaves; of the others it can
        await children.passes_of_each(2)
        assert children.writes() == first


async def test_each_wish_that_is_dropped_goes_and_the_next_pass_is_silent(cluster):
    async with hands(cluster, owns=[ConfigMap, DEPLOYMENT]) as made, made.taking() as (ctx, _):
        await ctx.apply(deployment("d"), DEPLOYMENT)
        less = deployment("d")
        container = less["spec"]["template"]["spec"]["containers"][0]
        del container["resources"]["limits"], container["args"], container["ports"][1]
        await ctx.apply(less, DEPLOYMENT)
        made.sent.clear()
        await ctx.apply(less, DEPLOYMENT)
        assert made.sent == []
    stored = (await cluster.client.get(DEPLOYMENT, "d", namespace=cluster.namespace))["spec"]["template"]["spec"]
    (container,) = stored["containers"]
    assert container["resources"].keys() == {"requests"}
    assert [port["containerPort"] for port in container["ports"]] == [80]
    assert "args" not in container


async def take_over(cluster, manager="other"):
    """Another manager changes what we want, and changes it back: the value is ours again, the field is its own."""
    for size in ("9", "1"):
        wanted = ConfigMap(name="c", namespace=cluster.namespace, data={"size": size})
        await cluster.client.apply(wanted, force=True, field_manager=manager)


@pytest.mark.parametrize("restart", [False, True], ids=["at work", "after a restart"])
async def test_a_field_that_another_manager_has_taken_over_and_put_back_is_taken_back(cluster, restart):
    def owners_of_size(found):
        return {
            each["manager"]
            for each in found["metadata"]["managedFields"]
            if "f:size" in each["fieldsV1"].get("f:data", {})
        }

    wanted = {"metadata": {"name": "c"}, "data": {"size": "1"}}
    kind = Unstructured("v1", "ConfigMap")
    async with hands(cluster, owns=[kind]) as made:
        async with made.taking() as (ctx, _):
            mine = await ctx.apply(wanted, kind)
        if not restart:
            await take_over(cluster)
            informer = informer_of(made.running, kind.resource_type)
            version = int((await cluster.get(kind, "c"))["metadata"]["resourceVersion"])
            await until(lambda: informer.get((cluster.namespace, "c")).header.version == version)
            await apply_once_and_then_not(cluster, made, wanted, kind)
    if restart:
        await take_over(cluster)
        async with hands(cluster, owns=[kind]) as made:
            await apply_once_and_then_not(cluster, made, wanted, kind)
    assert mine["data"] == (await cluster.get(kind, "c"))["data"]
    assert owners_of_size(await cluster.get(kind, "c")) == {"asyncctl-test", "other"}


async def apply_once_and_then_not(cluster, made, wanted, kind):
    for expected in ([("PATCH", "c")], []):
        poke(cluster, made)
        async with made.taking() as (ctx, _):
            made.sent.clear()
            await ctx.apply(wanted, kind)
            assert made.sent == expected


async def test_a_foreign_edit_of_a_wanted_field_is_repaired_in_one_pass_and_of_another_left_alone(cluster):
    children = Children(cluster)
    await children.create(1)
    async with children.working():
        await until(lambda: children.passes["w000"])
        await children.passes_of_each(1)
        before = children.writes()
        theirs = {"metadata": {"annotations": {"theirs": "1"}}, "spec": {"paused": True, "replicas": 7}}
        await cluster.patch(DEPLOYMENT, "w000", theirs)
        await cluster.until(DEPLOYMENT, "w000", lambda found: found["spec"]["replicas"] == 1)
        await children.passes_of_each(2)
        assert children.writes() == before + 1
        theirs["spec"] = {"paused": False, "minReadySeconds": 3}
        await children.seen("w000", await cluster.patch(DEPLOYMENT, "w000", theirs))
        await children.passes_of_each(2)
        assert children.writes() == before + 1
        found = await cluster.get(DEPLOYMENT, "w000")
        assert (found["spec"]["replicas"], found["spec"]["minReadySeconds"]) == (1, 3)
        assert found["metadata"]["annotations"]["theirs"] == "1"


async def test_of_eight_that_race_to_make_one_object_seven_are_told_and_touch_nothing(cluster):
    together, told = asyncio.Barrier(8), {}
    operator = Operator("test")

    @operator.controller(Widget, owns=[ConfigMap], workers=8)
    async def reconcile(ctx, widget):
        if widget.name in told:
            return
        await together.wait()
        try:
            told[widget.name] = await ctx.apply(ConfigMap(name="c", data={"by": widget.name, widget.name: "1"}))
        except NotOwned as error:
            told[widget.name] = error

    for number in range(8):
        await cluster.create(Widget, f"w{number}")
    async with working(operator, cluster):
        await until(lambda: len(told) == 8)
    (winner,) = (name for name, answer in told.items() if isinstance(answer, ConfigMap))
    found = await cluster.get(ConfigMap, "c")
    assert found.data == {"by": winner, winner: "1"}
    assert found.metadata.resource_version == told[winner].metadata.resource_version
    assert all(f"belongs to Widget {winner}" in str(answer) for name, answer in told.items() if name != winner)


async def test_of_eight_that_race_for_a_strangers_name_all_are_told(cluster):
    theirs = await cluster.create(ConfigMap, "c", data={"theirs": "1"})
    together, told = asyncio.Barrier(9), {}  # the test is the ninth
    operator = Operator("test")

    @operator.controller(Widget, owns=[ConfigMap], workers=8)
    async def reconcile(ctx, widget):
        if widget.name not in told:
            await together.wait()
            with pytest.raises(NotOwned) as error:
                await ctx.apply(ConfigMap(name="c", data={"by": widget.name}))
            told[widget.name] = error.value

    for number in range(8):
        await cluster.create(Widget, f"w{number}")
    async with working(operator, cluster) as running:
        informer = informer_of(running, ConfigMap.resource_type)
        informer.get = lambda key: None  # the cache has not seen it
        async with asyncio.timeout(30):
            await together.wait()
        await until(lambda: len(told) == 8)
    assert (await cluster.get(ConfigMap, "c")).metadata.resource_version == theirs.metadata.resource_version


async def test_a_conflict_of_managers_is_retried_slowly(cluster):
    """Who applies without force, by `ctx.client`, may be refused for ever: that must not be a hot loop."""
    tries = []
    operator = Operator("test")

    @operator.controller(Widget)
    async def reconcile(ctx, widget):
        tries.append(ctx.attempt)
        await ctx.client.apply(ConfigMap(name="c", namespace=widget.namespace, data={"size": "1"}))

    theirs = ConfigMap(name="c", namespace=cluster.namespace, data={"size": "9"})
    await cluster.client.apply(theirs, field_manager="other")
    await cluster.create(Widget, "w")
    async with working(operator, cluster, retry_base=5.0, retry_max=60.0) as running:
        await until(lambda: running.log.said("the pass has failed"))
        (line,) = running.log.said("the pass has failed")
        assert '.data.size: conflict with "other"' in line["error"] or "conflict" in line["error"]
        assert line["retry_in"] >= 5.0
        assert running._controllers[0].queue.failures((cluster.namespace, "w")) == 1
        assert tries == [1]
    assert not issubclass(ApplyConflict, Conflict)


async def test_what_an_author_gives_stays_as_it_is_and_needs_a_kind_and_a_name(cluster):
    async with hands(cluster, owns=[SECRET, ConfigMap], reads=[]) as made, made.taking() as (ctx, _):
        secret = {"metadata": {"name": "s", "labels": None}, "stringData": {"a": "1"}, "data": {"b": "Mg=="}}
        given = {**secret, "metadata": {**secret["metadata"]}}
        answer = await ctx.apply(secret, SECRET)
        assert secret == given
        assert answer["data"] == {"a": "MQ==", "b": "Mg=="}
        assert ctx.get(SECRET, "s")["data"] == answer["data"]
        made.sent.clear()
        await ctx.apply({**secret, "data": {"a": "MQ==", "b": "Mg=="}, "stringData": None}, SECRET)  # the same wish
        assert made.sent == []
        with pytest.raises(TypeError, match="what kind it is"):
            await ctx.apply(secret)
        with pytest.raises(ValueError, match="without a name can't be applied"):
            await ctx.apply(ConfigMap(data={"a": "1"}))
        with pytest.raises(TypeError, match="data: a set can't be written as JSON"):
            await ctx.apply({"metadata": {"name": "s", "namespace": ""}, "data": {1, 2}}, SECRET)


async def test_what_is_wanted_another_way_is_sent_and_the_same_in_another_form_is_not(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="c", data={"a": "1", "b": "2"}))
        made.sent.clear()
        await ctx.apply(ConfigMap(name="c", namespace=cluster.namespace, data={"b": "2", "a": "1"}))
        await ctx.apply(ConfigMap(name="c", data={"a": "1", "b": "2"}))
        assert made.sent == []
        await ctx.apply(ConfigMap(name="c", data={"a": "1", "b": "2"}), owned=False)
        assert made.sent == [("PATCH", "c")]
        assert ctx.get(ConfigMap, "c").metadata.owner_references == []
        for data in ({"a": "1"}, {"a": "2"}, {"a": "1", "b": "2"}):
            made.sent.clear()
            assert (await ctx.apply(ConfigMap(name="c", data=data))).data == data
            assert made.sent == [("PATCH", "c")]


# What is no longer wanted.


async def names(cluster, kind=ConfigMap):
    found = {each.name async for each in cluster.client.list(kind, namespace=cluster.namespace)}
    return found - {"kube-root-ca.crt"}


async def test_prune_deletes_what_is_ours_and_not_kept(cluster):
    async with hands(cluster) as made:
        await cluster.create(ConfigMap, "theirs")
        async with made.taking() as (ctx, _):
            for name in ("a", "b", "c"):
                await ctx.apply(ConfigMap(name=name))
            await ctx.apply(ConfigMap(name="d"), owned=False)
            await ctx.apply(ConfigMap(name="e"), owned=False)
            kept = ctx.get(ConfigMap, "a")
            pruned = await ctx.prune(ConfigMap, keep=[kept, "d"])
            assert sorted(each.name for each in pruned) == ["b", "c", "e"]
            assert sorted(each.name for each in ctx.list(ConfigMap) if ctx.owns(each)) == ["a", "d"]
            assert [each.name for each in ctx.list(ConfigMap, owner=True)] == ["a"]
            made.sent.clear()
            assert await ctx.prune(ConfigMap, keep=[kept, "d"]) == []  # its own deletions are known
            assert made.sent == []
        assert await names(cluster) == {"a", "d", "theirs"}
        await settle(cluster, made)
        poke(cluster, made)
        async with made.taking() as (ctx, _):
            made.sent.clear()
            assert await ctx.prune(ConfigMap, keep=["a", "d"]) == []
            assert made.sent == []
            assert len(await ctx.prune(ConfigMap, keep=[])) == 2


async def test_prune_leaves_what_is_another_owners(cluster):
    await cluster.create(Widget, "other")
    async with hands(cluster) as made:
        for name in ("other", "w"):
            poke(cluster, made, name)
            async with made.taking(name) as (ctx, _):
                await ctx.apply(ConfigMap(name=name))
                await ctx.apply(ConfigMap(name=f"{name}-free"), owned=False)
        poke(cluster, made)
        async with made.taking("w") as (ctx, _):
            assert len(await ctx.prune(ConfigMap, keep=[])) == 2
    assert await names(cluster) == {"other", "other-free"}


async def test_prune_leaves_what_is_terminating_to_end(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        await ctx.apply(ConfigMap(name="a"))
        await cluster.patch(ConfigMap, "a", {"metadata": {"finalizers": ["example.com/theirs"]}})
        await until(lambda: ctx.get(ConfigMap, "a").metadata.finalizers)
        assert len(await ctx.prune(ConfigMap, keep=[])) == 1
        assert ctx.get(ConfigMap, "a").metadata.deletion_timestamp is not None  # known from its answer
        made.sent.clear()
        assert await ctx.prune(ConfigMap, keep=[]) == []
        assert made.sent == []
        await cluster.patch(ConfigMap, "a", {"metadata": {"finalizers": None}})


async def test_prune_deletes_what_changes_all_the_time_and_no_namesake(cluster):
    async with hands(cluster) as made, made.taking() as (ctx, _):
        informer = informer_of(made.running, ConfigMap.resource_type)
        stale = []
        for name in ("changed", "replaced", "given away", "gone"):
            made_map = await ctx.apply(ConfigMap(name=name.replace(" ", "-")))
            stale.append(informer.get((cluster.namespace, made_map.name)))
        await cluster.patch(ConfigMap, "changed", {"data": {"theirs": "1"}})
        await cluster.delete(ConfigMap, "replaced")
        await cluster.create(ConfigMap, "replaced")
        await cluster.patch(ConfigMap, "given-away", {"metadata": {"ownerReferences": None}})
        await cluster.delete(ConfigMap, "gone")
        informer.by_owner = lambda uid: iter(stale)  # the cache has seen nothing of it
        pruned = await ctx.prune(ConfigMap, keep=[])
        assert {each.name for each in pruned} <= {"changed", "gone"}
    assert await names(cluster) == {"replaced", "given-away"}


async def test_prune_is_for_kinds_that_are_owned(cluster):
    async with hands(cluster, owns=[ConfigMap], reads=[SECRET]) as made, made.taking() as (ctx, _):
        with pytest.raises(LookupError, match="does not own v1 Secret, and deletes none: add it to owns="):
            await ctx.prune(SECRET, keep=[])
        with pytest.raises(LookupError, match="has not declared apps/v1 Deployment"):
            await ctx.prune(DEPLOYMENT, keep=[])

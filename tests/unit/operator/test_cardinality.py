"""How many series there are depends on what a program declares, and on nothing that anybody does in the cluster."""

from contextlib import suppress
from datetime import timedelta

from aiohttp import ClientSession

from asyncctl.client.errors import AlreadyExists, NotFound
from asyncctl.controller.outcome import Requeue, TerminalError
from asyncctl.controller.sources import Watch
from asyncctl.objects import ConfigMap, Namespace
from asyncctl.operator import Operator
from tests.unit.harness import Widget, working
from tests.unit.support import until

MOMENTARY = {"asyncctl_watch_states", "asyncctl_watch_restarts_total"}  # how a watch fares is in a label of its own
STATES = {"streaming", "paging", "watching", "probing", "backing_off"}
SORTS = ("good", "wrong", "terminal", "again")
CAUSES = {
    *("end", "expired", "silent", "moved", "unstreamed", "refused", "broken", "denied", "missing", "ahead", "probe"),
    "error",
}


def series(running):
    """Every series there is, but what a watch does at the moment."""
    found = set()
    for family in running.metrics.registry.collect():
        for sample in family.samples:
            if sample.name in MOMENTARY:
                assert sample.labels.get("state", "watching") in STATES
                assert sample.labels.get("cause", "end") in CAUSES
            else:
                found.add((sample.name, *sorted(sample.labels.items())))
    return found


class Crowd:
    """Objects that do everything that is counted, each under names and with texts of its own."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.passed = set()
        self.operator = Operator("test")
        self.operator.controller(Widget, reads=[ConfigMap], workers=4)(self.reconcile)

    async def reconcile(self, ctx, widget):
        name = widget.metadata.name
        await self.act(ctx, widget, name)
        self.passed.add((widget.metadata.namespace, name))
        if "wrong" in name:
            raise RuntimeError(f"{name} is wrong")
        if "terminal" in name:
            raise TerminalError(f"{name} is at its end", reason=f"End{len(name)}")
        return Requeue(after=timedelta(hours=1)) if "again" in name else None

    async def act(self, ctx, widget, name):
        for number in range(30):  # more than one object may be spoken of
            ctx.normal(f"Reason{name.title().replace('-', '')}", f"note {number} of {name}")
        with suppress(NotFound):
            await ctx.client.get(ConfigMap, f"none-{name}", namespace=widget.metadata.namespace)
        await ctx.client.list(ConfigMap, namespace=widget.metadata.namespace, labels=f"of={name}").all()
        await ctx.apply(ConfigMap(name=name, data={"of": name}))

    async def come(self, running, namespace, first, last):
        """Have objects `first` to `last` of each sort in a namespace; return when each had a pass, and more."""
        names = [f"{sort}-{number}" for sort in SORTS for number in range(first, last)]
        for name in names:
            with suppress(AlreadyExists):
                await self.cluster.client.create(Widget(name=name, namespace=namespace))
        await until(lambda: {(namespace, name) for name in names} <= self.passed)
        for number in range(first, last):
            async with running.informer(Watch(ConfigMap, labels=f"of={namespace}-{number}")):
                pass
        async with ClientSession() as session:
            for number in range(first, last):
                for path in (f"/objects/{number}", f"/livez?exclude=check-{number}", f"/metrics?{number}", "/readyz"):
                    async with session.get(f"http://127.0.0.1:{running.port}{path}") as answer:
                        await answer.read()


async def test_series_do_not_grow_with_objects_namespaces_errors_selectors_or_callers(cluster):
    crowd = Crowd(cluster)
    await cluster.create(Widget, "good-0")  # of the first list, which has a priority of its own
    async with working(crowd.operator, cluster) as running:
        await crowd.come(running, cluster.namespace, 0, 1)
        await until(lambda: running.metrics.events_dropped.value > 0)
        before = series(running)
        assert ("asyncctl_events_dropped_total",) in before
        for number in range(3):
            namespace = f"crowd-{number}"
            await cluster.client.create(Namespace(name=namespace))
            running.set_namespaces([cluster.namespace, *(f"crowd-{each}" for each in range(number + 1))])
            await crowd.come(running, namespace, 1, 4)
        assert len(crowd.passed) == 4 + 3 * 12
        after = series(running)
    assert sorted(after - before) == []
    assert running.log.said("is wrong")
    assert not running.log.said("TypeError")
    assert len(after) < 700

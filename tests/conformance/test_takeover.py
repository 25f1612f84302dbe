"""Who wins the Lease begins no pass before its caches have what the leader before it has written last."""

import pytest

from asyncctl.objects import ConfigMap
from asyncctl.operator import Operator
from tests.conformance.between import between
from tests.unit.harness import Widget, cluster_at, working
from tests.unit.operator.test_running import electing, probe
from tests.unit.support import Log, answered, until


@pytest.fixture
async def cluster(backend):
    """The backend, which a proxy can stand before."""
    async with cluster_at(backend.config()) as made:
        yield made


def program(cluster, seen):
    """An operator that notes what it knows of ConfigMap `c` in each pass."""
    operator = Operator("test")

    @operator.controller(Widget, reads=[ConfigMap])
    async def reconcile(ctx, widget):
        found = ctx.get(ConfigMap, "c", namespace=cluster.namespace)
        seen.append(found and found.data["by"])

    @operator.background
    async def beside(running):
        seen.append("background")

    return operator


async def test_a_watch_that_is_late_holds_up_the_first_pass_and_nothing_else(backend, cluster):
    lease = electing(lease_name=f"late-{cluster.namespace}")
    seen = []
    await cluster.create(Widget, "w")
    async with working(program(cluster, []), cluster, **lease) as leader, between(backend) as proxy:
        await until(lambda: leader.leading)
        cluster.config, log = backend.config(proxy.url), Log()
        async with working(program(cluster, seen), cluster, log, **lease) as standby:
            assert not standby.leading
            proxy.flow.clear()  # from here on it hears nothing
            await cluster.create(ConfigMap, "c", data={"by": "the leader before"})
            await leader._elector.release()
            await until(lambda: standby.leading)
            await until(lambda: sum("timeoutSeconds=3&" in f"{line}&" for line in proxy.watches()))
            # The widgets' cache, which lacks nothing, is compared with the server beside it.
            code, _ = await answered(
                lambda: probe(standby, "/readyz?verbose"), lambda found: "[ ]caught-up: configmaps: " in found[1]
            )
            assert code == 200
            assert seen == []
            proxy.flow.set()
            await until(lambda: len(seen) == 2)
            assert sorted(seen) == ["background", "the leader before"]
            said = [line["msg"] for line in log.lines]
            assert said.index("became the leader") < said.index("caught up") < said.index("working")
            assert (await probe(standby, "/readyz?verbose"))[1].count("[ ]caught-up: ok") == 1


async def test_where_nothing_is_missing_the_takeover_costs_a_request_for_each_cache(backend, cluster):
    seen, log, lease = [], Log(), electing(lease_name=f"quick-{cluster.namespace}")
    await cluster.create(Widget, "w")
    async with working(program(cluster, []), cluster, **lease) as leader, between(backend) as proxy:
        await until(lambda: leader.leading)
        cluster.config = backend.config(proxy.url)
        async with working(program(cluster, seen), cluster, log, **lease):
            proxy.asked.clear()
            await leader._elector.release()
            await until(lambda: len(seen) == 2)
            lists = [line for line in proxy.asked if "limit=500" in line]
            assert (len(lists), proxy.watches()) == (2, [])
    (line,) = log.said("caught up", "info")
    assert line["caches"] == 2
    print(f"figure: {backend.name}: caught up within {line['seconds']} s")

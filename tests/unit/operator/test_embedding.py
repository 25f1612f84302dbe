"""An operator inside an application: what it takes by default, its hooks, and others beside it."""

import asyncio
import os

import pytest
from aiohttp import ClientSession

from asyncctl import Operator, Settings, setting
from asyncctl.client.errors import CredentialsError, Fenced
from asyncctl.objects import ConfigMap
from asyncctl.operator import hooks as module
from tests.unit.harness import Widget, quick_settings, working
from tests.unit.operator.test_running import LEASE, declare, electing, nothing, probe
from tests.unit.support import Log, until


class OwnSettings(Settings, prefix="WIDGETS_"):
    greeting: str = setting(default="hello", meaning="what is said")


@pytest.fixture
def environment(monkeypatch):
    """No Lease and a free port, as the environment says it."""
    for name in [name for name in os.environ if name.startswith("ASYNCCTL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ASYNCCTL_LEADER_ELECTION", "false")
    monkeypatch.setenv("ASYNCCTL_HTTP_ADDRESS", "127.0.0.1:0")
    monkeypatch.setenv("ASYNCCTL_DEBUG_ADDRESS", "127.0.0.1:0")
    return monkeypatch


async def test_it_runs_as_the_environment_says_and_in_the_cluster_of_a_client(cluster, environment, capsys):
    operator, seen = Operator("test", settings=OwnSettings), []
    environment.setenv("WIDGETS_GREETING", "good day")

    @operator.controller(Widget)
    async def reconcile(ctx, widget):
        seen.append(widget.name)

    await cluster.create(Widget, "w")
    async with operator.running(client=cluster.client) as running:
        await until(lambda: seen == ["w"])
        assert running.settings.greeting == "good day"
        assert running.client is not cluster.client
    assert '"working"' in capsys.readouterr().err


async def test_it_searches_for_a_cluster_where_none_is_given(cluster, environment, tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}],"
        f" clusters: [{{name: c, cluster: {{server: '{cluster.config.server}'}}}}]}}"
    )
    kubeconfig.chmod(0o600)
    environment.setenv("ASYNCCTL_KUBECONFIG", str(kubeconfig))
    async with declare(nothing).running(logger=Log().logger) as running:
        await until(running.ready.is_set)


def test_two_ways_to_say_which_cluster_are_one_too_many(environment):
    with pytest.raises(ValueError, match="client= and config= both say which cluster; give one"):
        Operator("test").running(client=object(), config=object())


def test_settings_of_another_class_are_refused():
    with pytest.raises(TypeError, match="operator 'test' wants its settings as OwnSettings, and was given a Settings"):
        Operator("test", settings=OwnSettings).running(settings=quick_settings())


# Hooks.


def hooked(order, *, fails=None):
    operator = declare(nothing)
    for name in ("first", "second"):

        async def start(running, name=name):
            order.append(f"start {name}")
            if name == fails:
                raise CredentialsError("no password")

        async def stop(running, name=name):
            order.append(f"stop {name}")

        operator.on_startup(start)
        operator.on_shutdown(stop)
    return operator


async def test_what_is_declared_last_starts_last_and_stops_first(cluster):
    order = []
    async with working(hooked(order), cluster):
        assert order == ["start first", "start second"]
    assert order[2:] == ["stop second", "stop first"]


async def test_a_start_that_fails_half_way_is_closed_and_raises_what_failed(cluster):
    order = []
    with pytest.raises(CredentialsError, match="no password"):
        async with working(hooked(order, fails="second"), cluster):
            pytest.fail("it has started")
    assert order == ["start first", "start second", "stop second", "stop first"]


async def test_a_start_that_is_cancelled_is_closed(cluster):
    order, operator, waits = [], Operator("test"), asyncio.Event()

    @operator.on_startup
    async def wait(running):
        waits.set()
        await asyncio.Event().wait()

    @operator.on_shutdown
    async def stop(running):
        await asyncio.sleep(0)
        order.append("stopped")

    async def run():
        async with working(operator, cluster):
            pytest.fail("it has started")

    task = asyncio.create_task(run())
    await waits.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert order == ["stopped"]


async def test_a_shutdown_hook_that_hangs_costs_its_deadline_and_no_other_hook(cluster, monkeypatch):
    monkeypatch.setattr(module, "SHUTDOWN", 0.05)
    order, operator, log = [], declare(nothing), Log()

    @operator.on_shutdown
    async def after(running):
        order.append("after")

    @operator.on_shutdown
    async def hang(running):
        await asyncio.Event().wait()

    async with working(operator, cluster, log):
        pass
    assert order == ["after"]
    (line,) = log.said("a shutdown hook has failed", "error")
    assert line["hook"].endswith("hang")


async def test_a_startup_hook_that_writes_before_the_lease_is_held_is_told_where_to(cluster):
    operator = declare(nothing)

    @operator.on_startup
    async def install(running):
        await running.client.create(ConfigMap(name="c", namespace=cluster.namespace))

    with pytest.raises(Fenced, match=r"hook install wants to write: .* Write in a background task"):
        async with working(operator, cluster, **electing()):
            pytest.fail("it has started")
    async with working(operator, cluster):
        assert (await cluster.get(ConfigMap, "c")).name == "c"


async def await_what_is_cancelled(*_):
    task = asyncio.create_task(asyncio.Event().wait(), name="of the author's own")
    task.cancel()
    await task


async def test_a_shutdown_hook_that_awaits_what_it_has_cancelled_costs_no_other_hook_and_not_the_lease(cluster):
    order, operator, log = [], declare(nothing), Log()

    @operator.on_shutdown
    async def after(running):
        order.append("after")

    operator.on_shutdown(await_what_is_cancelled)
    async with working(operator, cluster, log, **electing()) as running:
        await until(lambda: running.leading)
    assert order == ["after"]
    assert (await cluster.send("GET", LEASE))["spec"].get("holderIdentity") in {None, ""}
    (line,) = log.said("a shutdown hook has failed", "error")
    assert line["hook"] == "await_what_is_cancelled"
    assert log.said("stopped", "info")


async def test_a_startup_hook_that_awaits_what_is_cancelled_is_named(cluster):
    operator = declare(nothing)
    operator.on_startup(await_what_is_cancelled)
    with pytest.raises(RuntimeError, match="startup hook await_what_is_cancelled has awaited what was cancelled"):
        async with working(operator, cluster):
            pytest.fail("it has started")


@pytest.mark.parametrize("which", ["on_startup", "on_shutdown"])
def test_a_hook_that_is_no_coroutine_function_is_refused(which):
    with pytest.raises(TypeError, match=f"operator 'test', {which}: .* is a plain function; write `async def`"):
        getattr(Operator("test"), which)(lambda running: None)


# Others beside it.


async def test_an_operator_whose_controller_fails_is_no_matter_to_another_one(cluster):
    """Two programs in one process: each has its own Lease, port, numbers, log and connections."""
    good, bad, seen, logs = Operator("good"), Operator("bad"), [], {"good": Log(), "bad": Log()}

    @good.controller(Widget, owns=[ConfigMap])
    async def reconcile(ctx, widget):
        await ctx.apply(ConfigMap(name=f"{widget.name}-good", data={"size": str(widget.spec.size)}))
        seen.append(widget.name)

    @bad.controller(Widget)
    async def fail(ctx, widget):
        raise RuntimeError("bad by nature")

    @bad.background
    async def break_down(running):
        raise RuntimeError("bad all the time")

    def metric(running, name, **labels):
        return running.metrics.registry.get_sample_value(name, labels) or 0.0

    async with (
        working(good, cluster, logs["good"], **electing(lease_name="good")) as one,
        working(bad, cluster, logs["bad"], **electing(lease_name="bad")) as two,
    ):
        await until(lambda: one.leading and two.leading)
        await cluster.create(Widget, "w")
        await until(lambda: "w" in seen and metric(two, "reconcile_errors_total", controller="widgets") >= 1)
        await until(lambda: metric(two, "asyncctl_background_failures_total", task="break_down") >= 1)
        assert metric(one, "controller_runtime_reconcile_total", controller="widgets", result="error") == 0
        assert metric(one, "asyncctl_background_failures_total", task="break_down") == 0
        assert {(await probe(each, "/readyz"))[0] for each in (one, two)} == {200}
        assert one.port != two.port
        for name in ("good", "bad"):
            path = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}"
            assert (await cluster.send("GET", path))["spec"]["holderIdentity"].startswith("test_")
    assert "bad by nature" not in str(logs["good"].lines)
    assert logs["bad"].said("bad by nature")


async def test_the_end_of_one_operator_is_not_the_end_of_another(cluster):
    seen = []

    async def note(ctx, widget):
        seen.append(widget.name)

    async with working(declare(note, name="stays"), cluster, **electing(lease_name="stays")) as stays:
        async with working(declare(nothing, name="goes"), cluster, **electing(lease_name="goes")) as goes:
            await until(lambda: goes.leading and stays.leading)
            port = goes.port
        assert stays.leading
        await cluster.create(Widget, "later")
        await until(lambda: seen == ["later"])
        async with ClientSession() as session:
            with pytest.raises(OSError, match="Cannot connect"):
                await session.get(f"http://127.0.0.1:{port}/livez")


@pytest.mark.parametrize("name", [None, "shared"])
async def test_two_programs_have_each_a_lease_of_its_own_unless_they_are_told_otherwise(cluster, name):
    async with (
        working(declare(nothing, name="one"), cluster, **electing(lease_name=name)) as one,
        working(declare(nothing, name="two"), cluster, **electing(lease_name=name)) as two,
    ):
        await until(lambda: one.leading)
        if name is None:
            await until(lambda: two.leading)
            path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/"
            for lease in ("one-leader", "two-leader"):
                assert (await cluster.send("GET", path + lease))["spec"]["holderIdentity"].startswith("test_")
        else:
            assert not two.leading


async def test_what_the_body_raises_comes_out_as_it_is(cluster):
    class MineError(Exception):
        pass

    with pytest.raises(MineError):
        async with working(declare(nothing), cluster):
            raise MineError

"""The life of an operator: what starts in which order, what stops in which order, and what is left."""

import asyncio
import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientSession

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Fenced, NamespaceBoundaryExceeded
from asyncctl.controller.sources import Watch
from asyncctl.ha.probe import Finding, State
from asyncctl.objects import ConfigMap, Namespace, Resource
from asyncctl.operator import LeaseLost, Operator, server_fence
from tests.unit.check.conftest import in_front_of
from tests.unit.harness import Widget, quick_settings, working
from tests.unit.support import Log, until

LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/test-leader"


class Absent(Resource, group="absent.example.com", version="v1"):
    """Its CRD is not installed."""


def declare(reconcile, kind=Widget, name="test", **options):
    operator = Operator(name)
    operator.controller(kind, **options)(reconcile)
    return operator


async def nothing(ctx, obj):
    pass


def electing(**values):
    return {
        "leader_election": True, "lease_namespace": "default", "lease_duration": 3.0, "renew_deadline": 2.5,
        "retry_period": 0.1,
    } | values  # fmt: skip


async def probe(running, path):
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{running.port}{path}") as answer:
        return answer.status, await answer.text()


async def test_it_starts_and_stops_in_order(cluster):
    order = []

    async def reconcile(ctx, widget):
        order.append("pass")

    operator = declare(reconcile)

    @operator.on_startup
    async def start(running):
        order.append("startup hook")
        assert (await probe(running, "/livez"))[0] == 200
        code, text = await probe(running, "/readyz")
        assert code == 500
        assert "[-]startup failed: the startup hook start is running" in text

    @operator.on_shutdown
    async def stop(running):
        order.append("shutdown hook")
        assert (await probe(running, "/livez"))[0] == 200
        assert (await probe(running, "/readyz"))[0] == 500

    await cluster.create(Widget, "w")
    async with working(operator, cluster) as running:
        assert (await probe(running, "/readyz"))[0] == 200
        await until(lambda: "pass" in order)
    assert order == ["startup hook", "pass", "shutdown hook"]
    with pytest.raises(OSError, match="Cannot connect"):
        await probe(running, "/livez")


async def test_nothing_is_pending_after_it(cluster):
    begun = {"pass": asyncio.Event(), "background": asyncio.Event()}

    async def reconcile(ctx, widget):
        begun["pass"].set()
        await asyncio.sleep(3600)

    operator = declare(reconcile)

    @operator.background
    async def beside(running):
        begun["background"].set()
        await asyncio.sleep(3600)

    await cluster.create(Widget, "w")
    before, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with working(operator, cluster, **electing(drain_timeout=0.1)):
        for each in begun.values():
            await each.wait()
    assert {task for task in asyncio.all_tasks() - before if "aiohttp" not in repr(task)} == set()
    await until(lambda: all(each.name.startswith("asyncio_") for each in set(threading.enumerate()) - threads))


async def test_each_step_of_the_stop_says_how_long_it_took(cluster):
    operator, log = declare(nothing), Log()

    @operator.background
    async def beside(running):
        await asyncio.Event().wait()

    @operator.on_shutdown
    async def goodbye(running):
        pass

    async with working(operator, cluster, log, **electing()) as running:
        await until(lambda: running.leading)
    said = [line for line in log.lines if line["msg"].startswith(("stopped", "gave"))]
    assert [line["msg"] for line in said] == [
        "stopped: workers", "stopped: background tasks", "stopped: hooks", "stopped: events", "gave the Lease back",
        "stopped: lease", "stopped: caches", "stopped: transport", "stopped: side server", "stopped",
    ]  # fmt: skip
    assert all(0 <= line["seconds"] < 10 for line in said if line["msg"] != "gave the Lease back")
    assert said[-1]["seconds"] >= max(line.get("seconds", 0) for line in said[:-1])


async def test_a_stop_with_nothing_to_stop_says_little(cluster):
    log = Log()
    async with working(declare(nothing), cluster, log):
        pass
    assert [line["msg"] for line in log.lines if line["msg"].startswith("stopped")] == [
        "stopped: workers", "stopped: events", "stopped: caches", "stopped: transport", "stopped: side server",
        "stopped",
    ]  # fmt: skip


async def test_every_task_and_thread_has_a_name_that_says_what_it_is(cluster):
    operator, before, threads = declare(nothing, owns=[ConfigMap]), asyncio.all_tasks(), threading.enumerate()

    @operator.background
    async def beside(running):
        await asyncio.Event().wait()

    async with working(operator, cluster, **electing()) as running:
        await until(lambda: running.leading and any("beside" in task.get_name() for task in asyncio.all_tasks()))
        ours = [task for task in asyncio.all_tasks() - before if "asyncctl/apiserver" not in repr(task)]
        ours = [task for task in ours if "aiohttp" not in repr(task)]  # of the two servers: one for each connection
        names = {task.get_name() for task in ours}
        assert not [task for task in ours if re.fullmatch(r"Task-\d+|.*<locals>.*", task.get_name())], ours
        assert {"heartbeat", "event-loop lag", "watchdog", "events", "lease", "workers", "widgets"} <= names
        started = {thread.name for thread in threading.enumerate() if thread not in threads}
        assert {"elector", "watchdog"} <= started
        assert not [name for name in started if re.fullmatch(r"Thread-\d+.*", name)]
    left = {thread.name for thread in threading.enumerate() if thread not in threads}
    assert not left & {"elector", "watchdog"}


async def test_whoever_embeds_it_and_is_cancelled_twice_waits_for_the_stop(cluster):
    began, release, ended, log = asyncio.Event(), asyncio.Event(), [], Log()

    async def slow(ctx, widget):
        began.set()
        await release.wait()
        ended.append(1)

    async def run():
        async with working(declare(slow), cluster, log, **electing()):
            await asyncio.Event().wait()

    await cluster.create(Widget, "w")
    task = asyncio.create_task(run(), name="who embeds it")
    await began.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    release.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == [1]
    assert log.said("gave the Lease back")
    assert log.said("stopped: side server")


async def test_leaving_at_once_hangs_nowhere(cluster):
    async with asyncio.timeout(30):
        for settings in ({}, electing()):
            running = declare(nothing).running(
                settings=quick_settings(**settings, drain_timeout=300.0), logger=Log().logger, config=cluster.config
            )
            async with running:
                pass


async def test_the_drain_waits_for_a_pass_that_runs(cluster):
    began, ended = asyncio.Event(), []

    async def slow(ctx, widget):
        began.set()
        await asyncio.sleep(0.2)
        await ctx.client.get(Widget, widget.name, namespace=widget.namespace)
        ended.append(1)

    await cluster.create(Widget, "w")
    async with working(declare(slow), cluster):
        await began.wait()
    assert ended == [1]


async def test_a_pass_that_takes_longer_than_the_drain_is_cancelled(cluster):
    began, cancelled = asyncio.Event(), []

    async def forever(ctx, widget):
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    log = Log()
    await cluster.create(Widget, "w")
    async with asyncio.timeout(30):
        async with working(declare(forever), cluster, log, drain_timeout=0.1):
            await began.wait()
    assert cancelled == [1]
    assert log.said("cancelled", "warning")


async def test_no_pass_begins_after_the_stop(cluster):
    began, release, passes = asyncio.Event(), asyncio.Event(), []

    async def one_at_a_time(ctx, widget):
        passes.append(widget.name)
        began.set()
        await release.wait()

    for name in ("a", "b"):
        await cluster.create(Widget, name)
    async with working(declare(one_at_a_time, workers=1), cluster) as running:
        await began.wait()
        asyncio.get_running_loop().call_later(0.1, release.set)
    assert len(passes) == 1
    assert running.log.said("stopped")


@pytest.mark.parametrize("margin", [1.0, 60.0])
async def test_a_write_that_was_cancelled_may_take_effect_before_the_lease_is_given_back(cluster, margin):
    """By the bound that the settings say; where that is too long to wait for, the Lease is left to lapse."""
    asked, release, log, cancelled = asyncio.Event(), asyncio.Event(), Log(), []

    async def hold(request):
        if request.method == "POST" and request.path.endswith("/configmaps"):
            asked.set()
            await release.wait()

    operator = declare(nothing)

    @operator.background
    async def write(running):
        try:
            await running.client.create(ConfigMap(name="late", namespace=cluster.namespace))
        finally:
            cancelled.append(datetime.now(UTC))

    times = electing(lease_duration=margin + 2.0, renew_deadline=2.0)
    async with in_front_of(cluster.config.server, hold) as url:
        cluster.config = ClusterConfig(server=url)
        async with working(operator, cluster, log, **times):
            await asked.wait()
    release.set()
    holder = (await cluster.send("GET", LEASE))["spec"]["holderIdentity"]
    if margin > 6:
        assert log.said("a write that got no answer may take effect yet: the Lease is not given back", "warning")
        assert holder.startswith("test_")
        assert not log.said("gave the Lease back")
    else:
        (given_back,) = log.said("gave the Lease back", "info")
        assert (datetime.fromisoformat(given_back["ts"]) - cancelled[0]).total_seconds() > margin - 0.1
        assert holder == ""


async def test_a_shutdown_hook_that_fails_keeps_neither_the_lease_nor_the_process(cluster):
    operator = declare(nothing)

    @operator.on_shutdown
    async def fail(running):
        raise RuntimeError("no goodbye")

    log = Log()
    async with working(operator, cluster, log, **electing()) as running:
        await until(lambda: running.leading)
    assert log.said("a shutdown hook has failed", "error")
    assert (await cluster.send("GET", LEASE))["spec"]["holderIdentity"] == ""


async def test_a_standby_is_ready_and_works_only_when_elected(cluster):
    seen = {"a": [], "b": []}

    def reconcile(name):
        async def note(ctx, widget):
            seen[name].append(widget.name)
            await ctx.apply(ConfigMap(name=widget.name, data={"by": name}))

        return declare(note, name="test", owns=[ConfigMap])

    await cluster.create(Widget, "one")
    async with working(reconcile("a"), cluster, **electing()) as first:
        await until(lambda: seen["a"])
        async with working(reconcile("b"), cluster, **electing()) as second:
            assert not second.leading
            assert (await probe(second, "/readyz"))[0] == 200
            with pytest.raises(Fenced):
                await second.client.create(ConfigMap(name="x", namespace=cluster.namespace))
            assert seen["b"] == []
            await first._elector.release()
            await until(lambda: seen["b"])


async def test_a_standby_that_stops_wins_nothing_any_more(cluster):
    operator, log, campaigns = declare(nothing), Log(), []

    @operator.on_shutdown
    async def goodbye(running):
        campaigns.append(not running._elector.over.is_set())

    async with working(declare(nothing), cluster, **electing()) as first:
        await until(lambda: first.leading)
        async with working(operator, cluster, log, **electing()) as second:
            assert not second.leading
    assert campaigns == [False]
    stopped = [line["msg"] for line in log.lines if line["msg"].startswith("stopped")]
    assert stopped[:3] == ["stopped: lease", "stopped: workers", "stopped: hooks"]
    assert stopped.count("stopped: lease") == 1


async def test_who_has_no_cache_filled_leaves_the_lease_to_who_can_work(cluster):
    settings, log = quick_settings(**electing()), Log()
    async with declare(nothing, kind=Absent).running(
        settings=settings, logger=log.logger, config=cluster.config
    ) as unable:
        await until(lambda: "absent.example.com" in str(unable._controllers[0].informers[0].problem))
        async with working(declare(nothing), cluster, **electing()) as able:
            await until(lambda: able.leading)
        assert unable._elector.problem is None
        assert not unable.leading
    assert unable._elector.over.is_set()  # called off before it began


async def test_who_can_never_lead_is_not_ready_and_says_why(cluster):
    async with working(declare(nothing), cluster, **electing(lease_namespace="nowhere")) as running:
        await until(lambda: running._elector.blocked)
        code, text = await probe(running, "/readyz?verbose")
        assert code == 500
        assert "[-]leader-election failed: " in text
        assert "[ ]leader: not leading: " in text
        assert 'namespaces "nowhere" not found; create the namespace first, or set ASYNCCTL_LEASE_NAMESPACE' in text


async def test_who_is_refused_everything_by_the_fence_at_the_server_is_not_ready(cluster, monkeypatch):
    """Else a rollout of pods with a wrong name would replace those that work."""
    found = [Finding(State.WRONG, "bound to pod pod-2")]

    async def look(*_, **__):
        return found[0]

    monkeypatch.setattr(server_fence, "probe", look)
    monkeypatch.setattr(server_fence, "LATER", 0.01)
    async with working(declare(nothing), cluster, **electing()) as running:
        await until(lambda: running.leading and running.ready.is_set() and running._server_fence.refuses)
        code, text = await probe(running, "/readyz")
        assert code == 500
        assert "[-]leader-election failed: bound to pod pod-2" in text
        found[0] = Finding(State.OFF, "not in force")
        await until(lambda: running.probes.readyz().ok)


async def test_a_lost_lease_ends_the_operator_and_seals_it(cluster):
    began = asyncio.Event()
    cancelled = []

    async def busy(ctx, widget):
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(1)
            with pytest.raises(Fenced, match="nothing is written any more: somebody else has changed the Lease"):
                await ctx.client.create(ConfigMap(name="late", namespace=cluster.namespace))
            raise

    await cluster.create(Widget, "w")
    log = Log()

    async def run():
        async with working(declare(busy), cluster, log, **electing()) as running:
            run.running = running
            await began.wait()
            await cluster.send(
                "PATCH", LEASE, {"spec": {"holderIdentity": "other"}}, content_type="application/merge-patch+json"
            )
            await asyncio.sleep(30)

    async with asyncio.timeout(30):
        with pytest.raises(ExceptionGroup) as caught:
            await run()
    assert caught.group_contains(LeaseLost, match="somebody else has changed the Lease")
    assert cancelled == [1]
    said = [line["msg"] for line in log.lines]
    assert "stopped: workers" not in said
    assert said[said.index("the Lease is lost") :] == [
        "the Lease is lost", "stopped: cancelled passes", "stopped: lease", "stopped: caches", "stopped: transport",
        "stopped: side server", "stopped",
    ]  # fmt: skip
    assert (await cluster.send("GET", LEASE))["spec"]["holderIdentity"] == "other"


async def test_a_missing_crd_keeps_its_own_controller_waiting_and_no_other(cluster):
    seen = []

    async def note(ctx, widget):
        seen.append(widget.name)

    operator = declare(note)
    operator.controller(Absent)(nothing)
    await cluster.create(Widget, "w")
    log = Log()
    async with operator.running(settings=quick_settings(), logger=log.logger, config=cluster.config) as running:
        await until(lambda: seen == ["w"])
        code, text = await probe(running, "/readyz?verbose")
        assert code == 500
        assert "[-]cache-absents.absent.example.com failed" in text
        assert "[+]cache-widgets.runtime.example.com ok" in text
        assert len(log.said("absents", "warning")) == 1


async def test_two_operators_in_one_process_share_nothing(cluster):
    seen = {"one": [], "two": []}

    def program(name):
        async def note(ctx, widget):
            seen[name].append(widget.name)

        return declare(note, name=name)

    await cluster.create(Widget, "w")
    async with working(program("one"), cluster) as one, working(program("two"), cluster) as two:
        await until(lambda: seen == {"one": ["w"], "two": ["w"]})
        assert one.port != two.port
        assert one.metrics.registry is not two.metrics.registry


async def test_the_boundary_holds_and_declared_cluster_wide_kinds_are_inside(cluster):
    got = []

    async def look(ctx, widget):
        got.append(ctx.get(Namespace, cluster.namespace))
        try:
            await ctx.client.get(ConfigMap, "x", namespace="default")
        except NamespaceBoundaryExceeded as error:
            got.append(error)

    await cluster.create(Widget, "w")
    async with working(declare(look, reads=[Namespace]), cluster):
        await until(lambda: len(got) == 2)
    assert got[0].name == cluster.namespace
    assert "namespace 'default' is outside of ASYNCCTL_NAMESPACES" in str(got[1])


@pytest.mark.parametrize(
    "read",
    [
        lambda ctx: ctx.get(ConfigMap, "x", namespace="default"),
        lambda ctx: ctx.list(ConfigMap, namespace="default"),
    ],
    ids=["get", "list"],
)
async def test_the_cache_does_not_say_that_there_is_nothing_where_it_may_not_look(cluster, read):
    got = []

    async def look(ctx, widget):
        got.append(list(ctx.list(ConfigMap)))  # of all that may be read
        try:
            got.append(read(ctx))
        except NamespaceBoundaryExceeded as error:
            got.append(str(error))

    await cluster.create(Widget, "w")
    async with working(declare(look, reads=[ConfigMap]), cluster):
        await until(lambda: len(got) == 2)
    assert got[0] == []
    assert "namespace 'default' is outside of ASYNCCTL_NAMESPACES" in str(got[1])


# Declarations.


def test_two_controllers_of_one_name_are_refused():
    operator = declare(nothing)
    with pytest.raises(ValueError, match="has a controller 'widgets' already; give this one a name="):
        operator.controller(Widget)
    operator.controller(ConfigMap, name="other")(nothing)


def test_two_controllers_of_one_kind_are_not_there_yet():
    """They would undo each other's applies, which have one field manager, and each other's `Stalled`."""
    operator = declare(nothing)
    with pytest.raises(ValueError, match=r"not yet: operator 'test' has a controller of \S+ Widget already"):
        operator.controller(Widget, name="other")


def test_two_controllers_of_one_name_are_refused_also_when_both_are_prepared_before_either_is_used():
    operator = Operator("test")
    first, second = operator.controller(Widget), operator.controller(Widget)
    first(nothing)
    with pytest.raises(ValueError, match="has a controller 'widgets' already"):
        second(nothing)
    assert len(operator.declarations) == 1


def test_a_plain_function_is_refused():
    def plain(ctx, obj):
        pass

    class Plain:
        reconcile = plain

    declared = Operator("test").controller(Widget)(nothing)
    for decorator in (Operator("test").controller(Widget), declared.finalizer("example.com/a")):
        with pytest.raises(TypeError, match=r"controller 'widgets'.*plain is a plain function; write `async def`"):
            decorator(plain)
    with pytest.raises(TypeError, match="plain is a plain function"):
        Operator("test").controller(Widget)(Plain())
    assert not declared.finalizers


def test_a_callable_object_is_a_coroutine_function_when_its_call_is():
    class Callable:
        async def __call__(self, ctx, obj):
            return "mine"

    declared = Operator("test").controller(Widget)(Callable())
    assert asyncio.run(declared(None, None)) == "mine"


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"workers": 0}, "controller 'widgets': workers=0, but it takes at least 1"),
        ({"workers": -1}, "workers=-1"),
        ({"timeout": timedelta()}, "controller 'widgets': timeout=0:00:00 is no time"),
        ({"resync": timedelta(seconds=-1)}, "resync=-1 day, 23:59:59 is no time"),
    ],
)
def test_a_number_of_workers_or_a_time_that_is_none_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        Operator("test").controller(Widget, **options)


def test_a_kind_that_is_declared_twice_is_refused():
    with pytest.raises(ValueError, match="declares v1 ConfigMap twice"):
        Operator("test").controller(Widget, owns=[ConfigMap], reads=[ConfigMap])


def test_a_controller_can_not_narrow_its_own_kind_by_the_way():
    with pytest.raises(ValueError, match="can't narrow or index its own kind"):
        Operator("test").controller(Widget, watches=[Watch(Widget, to=lambda header: [], labels="a=b")])


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a" * 64])
def test_an_operators_name_is_checked(name):
    with pytest.raises(ValueError, match="lower-case letters, digits and dashes"):
        Operator(name)


@pytest.mark.parametrize("name", ["", "No", "a/b/c", "a/", "/a", "exa mple.com/a"])
def test_a_finalizers_name_is_checked(name):
    declared = Operator("test").controller(Widget)(nothing)
    with pytest.raises(ValueError, match="finalizer"):
        declared.finalizer(name)


def test_a_finalizers_name_may_be_a_domain_alone():
    declared = Operator("test").controller(Widget)(nothing)
    declared.finalizer("widgets.example.com")(nothing)
    assert [*declared.finalizers] == ["widgets.example.com"]


def test_a_finalizer_that_is_declared_twice_is_refused():
    declared = Operator("test").controller(Widget)(nothing)
    declared.finalizer("example.com/a")(nothing)
    with pytest.raises(ValueError, match="declared twice"):
        declared.finalizer("example.com/a")


def test_an_object_with_a_reconcile_method_serves_as_well():
    class Reconciler:
        async def reconcile(self, ctx, obj):
            return "mine"

    declared = Operator("test").controller(Widget)(Reconciler())
    assert asyncio.run(declared(None, None)) == "mine"

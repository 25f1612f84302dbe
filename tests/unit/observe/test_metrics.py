"""What a scrape shows, under which names, and what handles do to it."""

import asyncio
import random
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from asyncctl.observe import Metrics
from asyncctl.observe.families import CODES
from asyncctl.queue import WorkQueue
from asyncctl.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def metrics(clock):
    return Metrics(clock=clock, process=False)


def value(metrics, metric, /, **labels):
    return metrics.registry.get_sample_value(metric, labels)


def families(metrics):
    return {family.name: family for family in metrics.registry.collect()}


def used(metrics, clock):
    """Touch every handle, so that every family has a sample."""
    queue = WorkQueue(clock=clock, random=random.random, metrics=metrics.queue("databases"))
    queue.add("a")
    controller = metrics.controller("databases", workers=10)
    controller.finished("success", 0.2)
    requests = metrics.requests("10.0.0.1:443")
    requests.answered(200, "GET", 0.1)
    requests.limited("GET", 0.0)
    requests.retried(429, "GET")
    informer = metrics.informer("databases.apps.example.com", objects=lambda: 3, size=lambda: 4000)
    informer.restarted("expired")
    informer.reflector(idle=lambda: 1.0, synced=lambda: True, state=lambda: "watching")
    metrics.cache_failures("databases.apps.example.com").inc()
    metrics.leader("db-controller-leader").set(1)
    metrics.loop_lag.observe(0.001)
    metrics.background("poll").inc()
    metrics.http("/livez").observe(0.001)


# Names that dashboards know: (type, labels)
CONTROLLER_RUNTIME = {
    "controller_runtime_reconcile_total": ("counter", {"controller", "result"}),
    "controller_runtime_reconcile_errors_total": ("counter", {"controller"}),
    "controller_runtime_terminal_reconcile_errors_total": ("counter", {"controller"}),
    "controller_runtime_reconcile_panics_total": ("counter", {"controller"}),
    "controller_runtime_reconcile_timeouts_total": ("counter", {"controller"}),
    "controller_runtime_reconcile_time_seconds": ("histogram", {"controller"}),
    "controller_runtime_active_workers": ("gauge", {"controller"}),
    "controller_runtime_max_concurrent_reconciles": ("gauge", {"controller"}),
    "workqueue_depth": ("gauge", {"name", "controller", "priority"}),
    "workqueue_adds_total": ("counter", {"name", "controller"}),
    "workqueue_queue_duration_seconds": ("histogram", {"name", "controller"}),
    "workqueue_work_duration_seconds": ("histogram", {"name", "controller"}),
    "workqueue_unfinished_work_seconds": ("gauge", {"name", "controller"}),
    "workqueue_longest_running_processor_seconds": ("gauge", {"name", "controller"}),
    "workqueue_retries_total": ("counter", {"name", "controller"}),
    "rest_client_requests_total": ("counter", {"code", "method", "host"}),
    "rest_client_request_duration_seconds": ("histogram", {"verb", "host"}),
    "rest_client_rate_limiter_duration_seconds": ("histogram", {"verb", "host"}),
    "rest_client_request_retries_total": ("counter", {"code", "verb", "host"}),
    "leader_election_master_status": ("gauge", {"name"}),
}
OURS = {
    "reconcile_duration_seconds": ("histogram", {"controller"}),
    "reconcile_errors_total": ("counter", {"controller"}),
    "active_controllers": ("gauge", set()),
    "asyncctl_cache_objects": ("gauge", {"resource"}),
    "asyncctl_cache_bytes": ("gauge", {"resource"}),
    "asyncctl_cache_synced": ("gauge", {"resource"}),
    "asyncctl_cache_unreadable_total": ("counter", {"resource"}),
    "asyncctl_watch_restarts_total": ("counter", {"resource", "cause"}),
    "asyncctl_watch_states": ("gauge", {"resource", "state"}),
    "asyncctl_watch_idle_seconds": ("gauge", {"resource"}),
    "asyncctl_api_warnings_total": ("counter", {"host"}),
    "asyncctl_background_failures_total": ("counter", {"task"}),
    "asyncctl_fenced_writes_total": ("counter", set()),
    "asyncctl_events_dropped_total": ("counter", set()),
    "asyncctl_cache_failures_total": ("counter", {"resource"}),
    "asyncctl_parked_keys": ("gauge", {"controller"}),
    "asyncctl_paused_objects": ("gauge", {"controller"}),
    "asyncctl_event_loop_lag_seconds": ("histogram", set()),
    "asyncctl_http_request_duration_seconds": ("histogram", {"path"}),
    "asyncctl_build_info": ("gauge", {"version", "python"}),
}


def test_every_name_has_its_type_and_labels(metrics, clock):
    used(metrics, clock)
    seen = {}
    for family in parse(generate_latest(metrics.registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        seen[name] = (family.type, set().union(*(sample.labels for sample in family.samples)) - {"le"})
    assert seen == CONTROLLER_RUNTIME | OURS


def test_openmetrics_is_well_formed(metrics, clock):
    used(metrics, clock)
    assert list(parse_openmetrics(generate_openmetrics(metrics.registry).decode()))


def test_the_process_is_shown_beside():
    names = {family.name for family in Metrics().registry.collect()}
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "python_gc_collections"} <= names


def test_nothing_is_registered_globally(metrics):
    Metrics(process=False)
    registry = CollectorRegistry()
    assert Metrics(registry, process=False).registry is registry


def test_a_program_may_add_its_own_but_not_take_our_names(metrics):
    Counter("widgets", "Made.", registry=metrics.registry).inc()
    assert value(metrics, "widgets_total") == 1
    with pytest.raises(ValueError, match="workqueue_adds"):
        Counter("workqueue_adds", "Mine.", registry=metrics.registry)


# Buckets


def edges(metrics, name):
    return [sample.labels["le"] for sample in families(metrics)[name].samples if sample.name.endswith("_bucket")]


def test_queue_buckets_are_gos_with_its_rounding(metrics):
    metrics.queue("q")
    assert edges(metrics, "workqueue_queue_duration_seconds")[:6] == [
        *("1e-08", "1e-07", "1e-06", "9.999999999999999e-06", "9.999999999999999e-05", "0.001")
    ]
    assert edges(metrics, "workqueue_work_duration_seconds")[-4:] == ["10.0", "100.0", "1000.0", "+Inf"]


def test_reconcile_buckets_end_at_a_minute(metrics):
    metrics.controller("c", workers=1)
    for name in ("controller_runtime_reconcile_time_seconds", "reconcile_duration_seconds"):
        assert len(edges(metrics, name)) == 41
        assert edges(metrics, name)[-2:] == ["60.0", "+Inf"]


def test_a_value_on_an_edge_belongs_below_it(metrics):
    metrics.controller("c", workers=1).reconcile_time.observe(0.25)
    bucket = "controller_runtime_reconcile_time_seconds_bucket"
    assert value(metrics, bucket, controller="c", le="0.2") == 0
    assert value(metrics, bucket, controller="c", le="0.25") == 1
    assert value(metrics, bucket, controller="c", le="+Inf") == 1


def test_a_value_past_all_edges_is_counted(metrics):
    metrics.controller("c", workers=1).reconcile_time.observe(3600)
    assert value(metrics, "controller_runtime_reconcile_time_seconds_bucket", controller="c", le="60.0") == 0
    assert value(metrics, "controller_runtime_reconcile_time_seconds_count", controller="c") == 1
    assert value(metrics, "controller_runtime_reconcile_time_seconds_sum", controller="c") == 3600


# Handles


def test_a_controller_shows_all_results_from_the_start(metrics):
    metrics.controller("c", workers=7)
    for result in ("success", "error", "requeue", "requeue_after"):
        assert value(metrics, "controller_runtime_reconcile_total", controller="c", result=result) == 0
    assert value(metrics, "controller_runtime_max_concurrent_reconciles", controller="c") == 7


def test_a_failed_pass_is_counted_under_all_its_names(metrics):
    controller = metrics.controller("c", workers=1)
    controller.finished("error", 2.0)
    assert value(metrics, "controller_runtime_reconcile_total", controller="c", result="error") == 1
    assert value(metrics, "controller_runtime_reconcile_errors_total", controller="c") == 1
    assert value(metrics, "reconcile_errors_total", controller="c") == 1
    assert value(metrics, "reconcile_duration_seconds_sum", controller="c") == 2
    assert value(metrics, "controller_runtime_reconcile_time_seconds_sum", controller="c") == 2


def test_a_good_pass_is_no_error(metrics):
    metrics.controller("c", workers=1).finished("requeue_after", 2.0)
    assert value(metrics, "controller_runtime_reconcile_errors_total", controller="c") == 0


def test_active_controllers_counts_those_whose_workers_run(metrics):
    first, second = metrics.controller("a", workers=1), metrics.controller("b", workers=1)
    first.active.set(1)
    second.active.set(1)
    assert value(metrics, "active_controllers") == 2
    first.active.set(0)
    assert value(metrics, "active_controllers") == 1


async def test_a_queue_is_shown_as_it_is(metrics, clock):
    queue = WorkQueue(clock=clock, random=lambda: 0.0, metrics=metrics.queue("c"))
    for key in "abc":
        queue.add(key)
    queue.add("low", priority=-100)
    await queue.get()
    clock.advance(2)
    await queue.get()
    clock.advance(3)
    queue.retry("a")
    labels = {"name": "c", "controller": "c"}
    assert value(metrics, "workqueue_depth", **labels, priority="0") == 1
    assert value(metrics, "workqueue_depth", **labels, priority="-100") == 1
    assert value(metrics, "workqueue_adds_total", **labels) == 4
    assert value(metrics, "workqueue_retries_total", **labels) == 1
    assert value(metrics, "workqueue_unfinished_work_seconds", **labels) == 8
    assert value(metrics, "workqueue_longest_running_processor_seconds", **labels) == 5
    assert value(metrics, "workqueue_queue_duration_seconds_sum", **labels) == 2
    queue.done("a")
    assert value(metrics, "workqueue_work_duration_seconds_sum", **labels) == 5
    queue.close()


async def test_a_priority_that_was_there_is_shown_as_zero_afterwards(metrics, clock):
    queue = WorkQueue(clock=clock, random=lambda: 0.0, metrics=metrics.queue("c"))
    queue.add("a", priority=7)
    assert value(metrics, "workqueue_depth", name="c", controller="c", priority="7") == 1
    await queue.get()
    assert value(metrics, "workqueue_depth", name="c", controller="c", priority="7") == 0


async def test_many_priorities_are_no_longer_told_apart(metrics, clock):
    queue = WorkQueue(clock=clock, random=lambda: 0.0, metrics=metrics.queue("c"))
    for priority in range(40):
        queue.add(priority, priority=priority)
    samples = families(metrics)["workqueue_depth"].samples
    assert [(sample.labels["priority"], sample.value) for sample in samples] == [("exceeded_cardinality_limit", 40)]


def test_requests_are_counted_by_code_method_and_host(metrics):
    requests = metrics.requests("h:1")
    requests.answered(200, "GET", 0.1)
    requests.answered(200, "GET", 0.3)
    requests.answered("<error>", "PUT", 1)
    requests.retried(503, "GET")
    requests.limited("GET", 0.5)
    requests.warnings.inc()
    assert value(metrics, "rest_client_requests_total", code="200", method="GET", host="h:1") == 2
    assert value(metrics, "rest_client_requests_total", code="<error>", method="PUT", host="h:1") == 1
    assert value(metrics, "rest_client_request_duration_seconds_sum", verb="GET", host="h:1") == pytest.approx(0.4)
    assert value(metrics, "rest_client_request_retries_total", code="503", verb="GET", host="h:1") == 1
    assert value(metrics, "rest_client_rate_limiter_duration_seconds_sum", verb="GET", host="h:1") == 0.5
    assert value(metrics, "asyncctl_api_warnings_total", host="h:1") == 1


def test_a_server_that_makes_up_codes_makes_no_more_series_than_are_allowed(metrics):
    requests = metrics.requests("h:1")
    requests.answered(200, "GET", 0.1)
    for code in range(100, 1000):
        requests.answered(code, "GET", 0.1)
        requests.retried(code, "GET")
    for name, count in (("rest_client_requests", 901), ("rest_client_request_retries", 900)):
        samples = families(metrics)[name].samples
        assert len(samples) <= CODES + 1
        assert "exceeded_cardinality_limit" in {sample.labels["code"] for sample in samples}
        assert sum(sample.value for sample in samples) == count
    assert value(metrics, "rest_client_requests_total", code="200", method="GET", host="h:1") == 2


def test_two_threads_count_on_handles_of_their_own_and_are_shown_as_one(metrics):
    def work():
        requests = metrics.requests("h:1")
        for _ in range(20_000):
            requests.answered(200, "PUT", 0.01)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "rest_client_requests_total", code="200", method="PUT", host="h:1") == 40_000
    assert value(metrics, "rest_client_request_duration_seconds_count", verb="PUT", host="h:1") == 40_000


def test_a_scrape_in_another_thread_goes_well_while_a_queue_changes(metrics):
    async def busy(stop):
        queue = WorkQueue(clock=FakeClock(), random=random.random, metrics=metrics.queue("c"))
        number = 0
        while not stop.is_set():
            number += 1
            queue.add(number, priority=number % 20)
            if number % 3:
                key = await queue.get()
                if number % 2:
                    queue.done(key)

    stop = threading.Event()
    worker = threading.Thread(target=lambda: asyncio.run(busy(stop)))
    worker.start()
    try:
        for _ in range(50):
            assert b"workqueue_depth" in generate_latest(metrics.registry)
    finally:
        stop.set()
        worker.join()


def test_an_informer_is_shown_by_what_it_holds_and_hears(metrics):
    informer = metrics.informer("widgets.example.com", objects=lambda: 3, size=lambda: 4000)
    informer.reflector(idle=lambda: 30.0, synced=lambda: True, state=lambda: "watching")
    informer.restarted("expired")
    informer.unreadable()
    labels = {"resource": "widgets.example.com"}
    assert value(metrics, "asyncctl_cache_objects", **labels) == 3
    assert value(metrics, "asyncctl_cache_bytes", **labels) == 4000
    assert value(metrics, "asyncctl_cache_synced", **labels) == 1
    assert value(metrics, "asyncctl_cache_unreadable_total", **labels) == 1
    assert value(metrics, "asyncctl_watch_idle_seconds", **labels) == 30
    assert value(metrics, "asyncctl_watch_restarts_total", **labels, cause="expired") == 1
    assert value(metrics, "asyncctl_watch_states", **labels, state="watching") == 1


def test_all_that_watch_one_resource_are_shown_as_their_sum_and_their_worst(metrics):
    first = metrics.informer("w", objects=lambda: 3, size=lambda: 30)
    second = metrics.informer("w", objects=lambda: 4, size=lambda: 40)
    first.reflector(idle=lambda: 11.0, synced=lambda: True, state=lambda: "watching")
    first.reflector(idle=lambda: 1.0, synced=lambda: True, state=lambda: "watching")
    close = second.reflector(idle=lambda: 90.0, synced=lambda: False, state=lambda: "backing_off")
    assert value(metrics, "asyncctl_cache_objects", resource="w") == 7
    assert value(metrics, "asyncctl_watch_idle_seconds", resource="w") == 90
    assert value(metrics, "asyncctl_cache_synced", resource="w") == 0
    assert value(metrics, "asyncctl_watch_states", resource="w", state="watching") == 2
    close()
    close()
    assert value(metrics, "asyncctl_watch_idle_seconds", resource="w") == 11
    assert value(metrics, "asyncctl_cache_synced", resource="w") == 1
    assert value(metrics, "asyncctl_watch_states", resource="w", state="backing_off") is None


def test_a_closed_informer_is_gone_but_its_restarts_stay_counted(metrics):
    informer = metrics.informer("w", objects=lambda: 3, size=lambda: 30)
    informer.restarted("end")
    informer.close()
    informer.close()
    assert value(metrics, "asyncctl_cache_objects", resource="w") is None
    assert value(metrics, "asyncctl_watch_restarts_total", resource="w", cause="end") == 1


def test_informers_that_come_and_go_leave_nothing_but_their_counts(metrics):
    families = metrics.families.cache_unreadable, metrics.families.watch_restarts, metrics.families.cache_failures
    for _ in range(3):
        informer = metrics.informer("w", objects=lambda: 3, size=lambda: 30)
        informer.unreadable()
        informer.restarted("end")
        metrics.cache_failures("w").inc()
        informer.close()
    assert [len(family._sources) for family in families] == [1, 1, 1]
    assert value(metrics, "asyncctl_watch_restarts_total", resource="w", cause="end") == 3
    assert value(metrics, "asyncctl_cache_unreadable_total", resource="w") == 3


async def test_the_loops_lag_is_how_late_it_wakes(metrics, clock, monkeypatch):
    async def late(seconds):
        await asyncio.sleep(0)
        clock.advance(seconds + 0.3)

    monkeypatch.setattr(clock, "sleep", late)
    task = asyncio.create_task(metrics.watch_loop())
    await clock.settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert value(metrics, "asyncctl_event_loop_lag_seconds_bucket", le="0.25") == 0
    assert value(metrics, "asyncctl_event_loop_lag_seconds_bucket", le="0.5") >= 2


def test_a_programs_own_metrics_are_shown_beside_the_runtimes(metrics):
    made = metrics.counter("widgets_made_total", "Widgets that were made.", {"size": "1 to 10"})
    made.shared("3").inc()
    made.shared("3").inc(2)
    metrics.gauge("widgets", "Widgets there are.").shared().set(7)
    metrics.histogram("widget_seconds", "How long one takes.", {"how": "`cut`, `cast`"}, (1.0, 2.0)).shared(
        "cut"
    ).observe(1.5)
    assert value(metrics, "widgets_made_total", size="3") == 3
    assert value(metrics, "widgets") == 7
    assert value(metrics, "widget_seconds_bucket", how="cut", le="1.0") == 0
    assert value(metrics, "widget_seconds_bucket", how="cut", le="2.0") == 1
    assert "widgets_made" in {family.name for family in parse(generate_latest(metrics.registry).decode())}


def test_what_a_gauge_asks_for_is_shown_until_it_is_stopped(metrics):
    there = {("big",): 2}
    stop = metrics.gauge("widgets", "Widgets there are.", {"size": "`big`, `small`"}).source(there.items)
    assert value(metrics, "widgets", size="big") == 2
    there.clear()
    assert value(metrics, "widgets", size="big") is None
    there["small",] = 1
    stop()
    assert value(metrics, "widgets", size="small") is None


@pytest.mark.parametrize("name", ["workqueue_depth", "widgets", "widgets_made_total"])
def test_a_name_that_is_taken_is_refused_to_a_program(metrics, name):
    metrics.gauge("widgets", "Widgets there are.")
    metrics.counter("widgets_made_total", "Widgets that were made.")
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.gauge(name, "Something else.")

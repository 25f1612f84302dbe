"""The numbers that a process tells of itself, under controller-runtime's names so that its dashboards work.

`Metrics` is one Prometheus collector on one registry. Who counts asks it once for handles, keeps them, and pays for an
addition; everything else is done when somebody scrapes. A handle belongs to the thread that uses it: two threads ask
for two. No label holds the name of an object.
"""

import platform
from collections.abc import Callable, Iterator
from itertools import accumulate, repeat
from operator import mul
from typing import Literal, NoReturn, get_args

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncctl.clock import Clock, SystemClock
from asyncctl.observe.instruments import Count, Distribution, Distributions, Labels, Numbers, Reading
from asyncctl.queue import QueueMetrics, QueueStatistics
from asyncctl.version import __version__

__all__ = ["ControllerMetrics", "Count", "Distribution", "InformerMetrics", "Metrics", "RequestMetrics"]

# controller-runtime pkg/internal/controller/metrics, pkg/internal/metrics and pkg/metrics, and client-go's.
RECONCILE_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0),
    *(15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0),
)  # fmt: skip
QUEUE_BUCKETS = tuple(accumulate(repeat(10.0, 11), mul, initial=10e-9))  # with Go's rounding: labels must be equal
REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PRIORITIES = 25  # that `workqueue_depth` tells apart, as in controller-runtime; then it stops to be a label


Result = Literal["success", "error", "requeue", "requeue_after"]


class ControllerMetrics:
    """What one controller counts. Call `finished` once for each pass; the rest are handles for what it means."""

    def __init__(self, metrics: "Metrics", controller: str, workers: int) -> None:
        families = metrics.families
        self._results = {result: families.reconcile.handle(controller, result) for result in get_args(Result)}
        self.errors = families.reconcile_errors.handle(controller)
        families.plain_reconcile_errors.reading(lambda: self.errors.value, controller)
        self.terminal_errors = families.terminal_errors.handle(controller)
        self.panics = families.panics.handle(controller)
        """Passes, predicates and mappers that raised what nobody foresaw: a bug, most often."""
        self.timeouts = families.timeouts.handle(controller)
        self.reconcile_time = families.reconcile_time.handle(controller)
        families.plain_reconcile_time.share(self.reconcile_time, controller)
        self.active_workers = families.active_workers.handle(controller)
        self.parked = families.parked.handle(controller)
        """A gauge: keys that are parked now."""
        self.paused = families.paused.handle(controller)
        """A gauge: objects that are annotated as paused."""
        self.active = families.active_controllers.handle()
        """A gauge: 1 while the workers run."""
        families.max_concurrent.handle(controller).set(workers)

    def finished(self, result: Result, seconds: float) -> None:
        """Count a pass that took so many seconds; an `error` is counted among the errors too."""
        self._results[result].inc()
        self.reconcile_time.observe(seconds)
        if result == "error":
            self.errors.inc()


class RequestMetrics:
    """What one transport counts of its requests to one host."""

    def __init__(self, metrics: "Metrics", host: str) -> None:
        self._families = metrics.families
        self._host = host
        self._requests: dict[tuple[int | str, str], Count] = {}
        self._durations: dict[str, Distribution] = {}
        self._limited: dict[str, Distribution] = {}
        self._retries: dict[tuple[int | str, str], Count] = {}
        self.warnings = self._families.api_warnings.handle(host)

    def answered(self, code: int | str, method: str, seconds: float) -> None:
        """Count a request that ended after so many seconds.

        Args:
            code: the status code; `<error>` when there was no answer, as client-go says it.
            method: GET, PUT …
            seconds: from when it was sent.
        """
        count = self._requests.get((code, method))
        if count is None:
            count = self._requests[code, method] = self._families.requests.handle(str(code), method, self._host)
        count.value += 1
        duration = self._durations.get(method)
        if duration is None:
            duration = self._durations[method] = self._families.request_time.handle(method, self._host)
        duration.observe(seconds)

    def limited(self, method: str, seconds: float) -> None:
        """Count a request that waited so many seconds (perhaps none) for our own rate limit."""
        waited = self._limited.get(method)
        if waited is None:
            waited = self._limited[method] = self._families.limiter_time.handle(method, self._host)
        waited.observe(seconds)

    def retried(self, code: int | str, method: str) -> None:
        """Count a request that is sent again because of this answer."""
        count = self._retries.get((code, method))
        if count is None:
            count = self._retries[code, method] = self._families.request_retries.handle(str(code), method, self._host)
        count.value += 1


class InformerMetrics:
    """What one informer counts, and its reflectors. Informers come and go: what they count is their resource's."""

    def __init__(self, metrics: "Metrics", resource: str, objects: Reading, size: Reading) -> None:
        self._families = families = metrics.families
        self._resource = resource
        self._unreadable = families.cache_unreadable.shared(resource)
        self._ends = [families.cache_objects.reading(objects, resource), families.cache_bytes.reading(size, resource)]

    def reflector(self, *, idle: Reading, synced: Callable[[], bool], state: Callable[[], str]) -> Callable[[], None]:
        """Show one reflector, until what is returned here is called.

        Args:
            idle: returns the seconds since the server has last said something, were it a bookmark.
            synced: returns whether there was a first list and it is kept up.
            state: returns what it is doing, in a word.
        """
        families, resource = self._families, self._resource
        ends = [
            families.watch_idle.reading(idle, resource),
            families.cache_synced.reading(synced, resource),
            families.watch_states.source(lambda: [((resource, state()), 1.0)]),
        ]

        def close() -> None:
            while ends:
                ends.pop()()

        return close

    def restarted(self, cause: str) -> None:
        """Count a list or watch that had to be asked for again: `end`, `expired`, `silent` … a word, no message."""
        self._families.watch_restarts.shared(self._resource, cause).inc()

    def unreadable(self) -> None:
        """Count an object that came and could not be read."""
        self._unreadable.inc()

    def close(self) -> None:
        """Show this informer no more; what it has counted stays. Harmless a second time."""
        while self._ends:
            self._ends.pop()()


class _Queue:
    """Feeds `workqueue_*`; see `asyncctl.queue.QueueMetrics`."""

    def __init__(self, metrics: "Metrics", name: str) -> None:
        self._families = metrics.families
        self._labels = (name, name)  # controller-runtime gives a queue the name of its controller, and shows both
        self._adds = self._families.queue_adds.handle(*self._labels)
        self._retries = self._families.queue_retries.handle(*self._labels)
        self._waited = self._families.queue_time.handle(*self._labels)
        self._worked = self._families.work_time.handle(*self._labels)
        self._seen = {0}

    def attach(self, read: Callable[[], QueueStatistics]) -> None:
        self._families.queue_depth.source(lambda: self._depths(read()))
        self._families.unfinished_work.reading(lambda: sum(read().working), *self._labels)
        self._families.longest_work.reading(lambda: max(read().working, default=0.0), *self._labels)

    def added(self) -> None:
        self._adds.value += 1

    def started(self, waited: float) -> None:
        self._waited.observe(waited)

    def finished(self, worked: float) -> None:
        self._worked.observe(worked)

    def delayed(self) -> None:
        self._retries.value += 1

    def _depths(self, statistics: QueueStatistics) -> Iterator[tuple[Labels, float]]:
        self._seen |= statistics.depths.keys()  # one that was there is shown as 0, not left out
        if len(self._seen) > PRIORITIES:
            yield (*self._labels, "exceeded_cardinality_limit"), statistics.queued
            return
        for priority in sorted(self._seen):
            yield (*self._labels, str(priority)), statistics.depths.get(priority, 0)


class _Families:
    """Every name that `Metrics` shows."""

    def __init__(self) -> None:
        counter, gauge, controller = CounterMetricFamily, GaugeMetricFamily, ("controller",)
        queue, resource, http = ("name", "controller"), ("resource",), ("verb", "host")

        self.reconcile = Numbers(
            counter, "controller_runtime_reconcile_total", "Passes, by result.", ("controller", "result")
        )
        self.reconcile_errors = Numbers(
            counter, "controller_runtime_reconcile_errors_total", "Passes that failed.", controller
        )
        self.terminal_errors = Numbers(
            counter,
            "controller_runtime_terminal_reconcile_errors_total",
            "Passes that failed and are not tried again.",
            controller,
        )
        self.panics = Numbers(
            counter,
            "controller_runtime_reconcile_panics_total",
            "Errors that nobody foresaw, of passes, predicates and mappers.",
            controller,
        )
        self.timeouts = Numbers(
            counter, "controller_runtime_reconcile_timeouts_total", "Passes that were cut off.", controller
        )
        self.reconcile_time = Distributions(
            "controller_runtime_reconcile_time_seconds", "How long a pass takes.", controller, RECONCILE_BUCKETS
        )
        self.active_workers = Numbers(gauge, "controller_runtime_active_workers", "Workers in a pass now.", controller)
        self.max_concurrent = Numbers(
            gauge, "controller_runtime_max_concurrent_reconciles", "Workers there are.", controller, max
        )
        self.plain_reconcile_time = Distributions(
            "reconcile_duration_seconds", "How long a pass takes.", controller, RECONCILE_BUCKETS
        )
        self.plain_reconcile_errors = Numbers(counter, "reconcile_errors_total", "Passes that failed.", controller)
        self.active_controllers = Numbers(gauge, "active_controllers", "Controllers whose workers run.")

        self.queue_depth = Numbers(gauge, "workqueue_depth", "Keys that wait for a worker.", (*queue, "priority"))
        self.queue_adds = Numbers(counter, "workqueue_adds_total", "Keys added.", queue)
        self.queue_time = Distributions(
            "workqueue_queue_duration_seconds", "How long a key waits for a worker.", queue, QUEUE_BUCKETS
        )
        self.work_time = Distributions(
            "workqueue_work_duration_seconds", "How long a worker holds a key.", queue, QUEUE_BUCKETS
        )
        self.unfinished_work = Numbers(
            gauge, "workqueue_unfinished_work_seconds", "For how long all keys together have been held by now.", queue
        )
        self.longest_work = Numbers(
            gauge, "workqueue_longest_running_processor_seconds", "For how long the oldest has been held.", queue, max
        )
        self.queue_retries = Numbers(
            counter, "workqueue_retries_total", "Keys added for later: retries, most often.", queue
        )

        self.requests = Numbers(
            counter, "rest_client_requests_total", "Requests to the API server.", ("code", "method", "host")
        )
        self.request_time = Distributions(
            "rest_client_request_duration_seconds", "How long a request takes.", http, REQUEST_BUCKETS
        )
        self.limiter_time = Distributions(
            "rest_client_rate_limiter_duration_seconds",
            "How long a request waits for ASYNCCTL_QPS.",
            http,
            REQUEST_BUCKETS,
        )
        self.request_retries = Numbers(
            counter, "rest_client_request_retries_total", "Requests sent again.", ("code", "verb", "host")
        )
        self.leader = Numbers(
            gauge, "leader_election_master_status", "1 for the holder of the Lease, 0 for a standby.", ("name",), max
        )

        self.cache_objects = Numbers(gauge, "asyncctl_cache_objects", "Objects in the cache.", resource)
        self.cache_bytes = Numbers(gauge, "asyncctl_cache_bytes", "Bytes of objects in the cache.", resource)
        self.cache_synced = Numbers(
            gauge, "asyncctl_cache_synced", "1 when every cache of this resource is kept up.", resource, min
        )
        self.cache_unreadable = Numbers(
            counter, "asyncctl_cache_unreadable_total", "Objects that came and could not be read.", resource
        )
        self.watch_restarts = Numbers(
            counter,
            "asyncctl_watch_restarts_total",
            "Lists and watches asked for again, by cause.",
            (*resource, "cause"),
        )
        self.watch_states = Numbers(
            gauge, "asyncctl_watch_states", "Watches, by what they are doing.", (*resource, "state")
        )
        self.watch_idle = Numbers(
            gauge, "asyncctl_watch_idle_seconds", "Time since the last event or bookmark.", resource, max
        )
        self.api_warnings = Numbers(
            counter, "asyncctl_api_warnings_total", "Warning headers in answers of the API server.", ("host",)
        )
        self.fenced_writes = Numbers(
            counter, "asyncctl_fenced_writes_total", "Writes refused because the Lease was not held."
        )
        self.parked = Numbers(gauge, "asyncctl_parked_keys", "Keys that are not tried again soon.", controller)
        self.background_failures = Numbers(
            counter, "asyncctl_background_failures_total", "Times that a background task has failed.", ("task",)
        )
        self.cache_failures = Numbers(
            counter, "asyncctl_cache_failures_total", "Index functions and handlers that raised.", resource
        )
        self.paused = Numbers(
            gauge, "asyncctl_paused_objects", "Objects that are skipped: asyncctl/paused.", controller
        )
        self.loop_lag = Distributions(
            "asyncctl_event_loop_lag_seconds", "How late the event loop calls a timer.", (), LAG_BUCKETS
        )
        self.http_time = Distributions(
            "asyncctl_http_request_duration_seconds", "How long a probe or scrape takes.", ("path",), REQUEST_BUCKETS
        )
        self.build = Numbers(gauge, "asyncctl_build_info", "Versions; always 1.", ("version", "python"), max)


class Metrics(Collector):
    """All that a program counts, on one registry.

    Args:
        registry: where to register; an own one when not given. A program's own metrics may go there too.
        clock: what ages are measured by.
        process: register the collectors of the process (CPU, memory, open files) and of the garbage collector too.

    Raises:
        ValueError: the registry has metrics of these names already.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, clock: Clock | None = None, process: bool = True
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.families = _Families()
        self._clock: Clock = clock or SystemClock()
        self.fenced_writes = self.families.fenced_writes.handle()
        self.loop_lag = self.families.loop_lag.handle()
        self.families.build.handle(__version__, platform.python_version()).set(1)
        self.registry.register(self)
        if process:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def controller(self, name: str, *, workers: int) -> ControllerMetrics:
        """Return the handles of one controller."""
        return ControllerMetrics(self, name, workers)

    def queue(self, name: str) -> QueueMetrics:
        """Return what a `WorkQueue` wants; `name` is its controller's."""
        return _Queue(self, name)

    def requests(self, host: str) -> RequestMetrics:
        """Return the handles of one transport, which belong to its thread; `host` is `name:port` of the server."""
        return RequestMetrics(self, host)

    def informer(self, resource: str, *, objects: Reading, size: Reading) -> InformerMetrics:
        """Return the handles of one informer.

        Args:
            resource: `<plural>.<group>`, no object's name.
            objects: returns how many objects its store holds.
            size: returns how many bytes they take.
        """
        return InformerMetrics(self, resource, objects, size)

    def cache_failures(self, resource: str) -> Count:
        """Return what counts how often an index function or a handler of a resource's caches has raised."""
        return self.families.cache_failures.shared(resource)

    def leader(self, lease: str) -> Count:
        """Return the gauge of one Lease, by its name: 1 while it is held."""
        return self.families.leader.handle(lease)

    def background(self, task: str) -> Count:
        """Return the counter of a background task's failures; `task` is its declared name."""
        return self.families.background_failures.handle(task)

    def http(self, path: str) -> Distribution:
        """Return what times requests to a path of the side server; prometheus-async's `time` takes it."""
        return self.families.http_time.handle(path)

    async def watch_loop(self, every: float = 0.5) -> NoReturn:
        """Measure, until cancelled, how late the running loop calls a timer. Run it as a task of its own.

        Args:
            every: seconds between two measurements.
        """
        while True:
            due = self._clock.monotonic() + every
            await self._clock.sleep(every)
            self.loop_lag.observe(max(0.0, self._clock.monotonic() - due))

    def describe(self) -> Iterator[Metric]:
        """Yield every family without values, so that a registry can tell that two clash."""
        for family in vars(self.families).values():
            yield family.empty()

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its values; called in the thread that renders a scrape."""
        for family in vars(self.families).values():
            yield family.collect()

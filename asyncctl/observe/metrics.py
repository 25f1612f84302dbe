"""The numbers that a process tells of itself, under controller-runtime's names so that its dashboards work.

`Metrics` is one Prometheus collector on one registry. Who counts asks it once for handles, keeps them, and pays for an
addition; everything else is done when somebody scrapes. A handle belongs to the thread that uses it: two threads ask
for two. No label holds the name of an object.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NoReturn, TypeVar, Unpack, get_args

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncctl.clock import Clock, SystemClock
from asyncctl.observe.families import CODES, EXCEEDED, PRIORITIES, REQUEST_BUCKETS, Families
from asyncctl.observe.instruments import Count, Distribution, Distributions, Labels, Numbers, Reading, Said
from asyncctl.queue import QueueMetrics, QueueStatistics
from asyncctl.version import __version__

__all__ = ["ControllerMetrics", "Count", "Distribution", "InformerMetrics", "Metrics", "RequestMetrics"]

F = TypeVar("F", Numbers, Distributions)
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
        self._codes: set[int | str] = set()
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
            count = self._requests[code, method] = self._counted(self._families.requests, code, method)
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
            count = self._retries[code, method] = self._counted(self._families.request_retries, code, method)
        count.value += 1

    def _counted(self, family: Numbers, code: int | str, method: str) -> Count:
        if code not in self._codes and len(self._codes) >= CODES:
            code = EXCEEDED
        self._codes.add(code)
        return family.handle(str(code), method, self._host)


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
            yield (*self._labels, EXCEEDED), statistics.queued
            return
        for priority in sorted(self._seen):
            yield (*self._labels, str(priority)), statistics.depths.get(priority, 0)


class _Own(Collector):
    """One family of a program's own."""

    def __init__(self, family: Numbers | Distributions) -> None:
        self._family = family

    def describe(self) -> Iterator[Metric]:
        yield self._family.empty()

    def collect(self) -> Iterator[Metric]:
        yield self._family.collect()


class Metrics(Collector):
    """All that a program counts, on one registry.

    Args:
        registry: where to register; an own one when not given. A program's own go there too, by `counter`, `gauge`
            and `histogram`, or as `prometheus_client` makes them.
        clock: what ages are measured by.
        process: register the collectors of the process (CPU, memory, open files) and of the garbage collector too.

    Raises:
        ValueError: the registry has metrics of these names already.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, clock: Clock | None = None, process: bool = True
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.families = Families()
        self._clock: Clock = clock or SystemClock()
        self.fenced_writes = self.families.fenced_writes.handle()
        self.events_dropped = self.families.events_dropped.handle()
        self.loop_lag = self.families.loop_lag.handle()
        self.families.build.handle(__version__, platform.python_version()).set(1)
        self.own: list[tuple[Numbers | Distributions, Mapping[str, str]]] = []
        """What the program has declared beside the runtime's, each with what its labels may hold."""
        self.registry.register(self)
        if process:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def counter(
        self, name: str, text: str, labels: Mapping[str, str] = MappingProxyType({}), **said: Unpack[Said]
    ) -> Numbers:
        """Declare a counter of the program's own, beside the runtime's: `made.shared("big").inc()`.

        Args:
            name: As it is shown, with `_total` at its end.
            text: What it counts.
            labels: Each label, and what it may hold: what bounds how many series there are.
            said: More for the page that `asyncctl.generate.metrics` makes.

        Raises:
            ValueError: The name is taken.
        """
        return self._declare(Numbers(CounterMetricFamily, name, text, tuple(labels), **said), labels)

    def gauge(
        self, name: str, text: str, labels: Mapping[str, str] = MappingProxyType({}), **said: Unpack[Said]
    ) -> Numbers:
        """Declare a gauge, whose values are set (`shared(…).set(3)`), or asked for at each scrape (`source`).

        What is asked for is asked in the scrape's thread; what is gone by then is shown no more.
        """
        return self._declare(Numbers(GaugeMetricFamily, name, text, tuple(labels), **said), labels)

    def histogram(
        self,
        name: str,
        text: str,
        labels: Mapping[str, str] = MappingProxyType({}),
        buckets: Sequence[float] = REQUEST_BUCKETS,
        **said: Unpack[Said],
    ) -> Distributions:
        """Declare a histogram: `taken.shared("read").observe(seconds)`; `buckets` are its upper bounds."""
        return self._declare(Distributions(name, text, tuple(labels), buckets, **said), labels)

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

    def _declare(self, family: F, labels: Mapping[str, str]) -> F:
        self.registry.register(_Own(family))
        self.own.append((family, labels))
        return family

    def describe(self) -> Iterator[Metric]:
        """Yield every family without values, so that a registry can tell that two clash."""
        for family in vars(self.families).values():
            yield family.empty()

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its values; called in the thread that renders a scrape."""
        for family in vars(self.families).values():
            yield family.collect()

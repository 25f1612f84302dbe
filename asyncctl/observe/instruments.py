"""What counting costs little with: numbers that are added to now, and made into Prometheus' families at a scrape.

A handle (`Count`, `Distribution`) is a plain number that its owner's thread adds to: 0.1 µs, where a
`prometheus_client.Counter` takes 0.4 and a `Histogram` 1.0, and seven of them are touched for each key. A family
(`Numbers`, `Distributions`) gives out handles for its labels and merges equal labels on the way out, so that two
threads count on two handles and need no lock.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import add
from typing import TypedDict, Unpack

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

__all__ = ["Count", "Distribution", "Distributions", "Labels", "Numbers", "Reading", "Said"]


class Count:
    """A number that goes up, or up and down, or is set. Has the methods that prometheus-async's decorators want."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.value += amount

    def dec(self, amount: float = 1.0) -> None:
        """Take from it; for what is shown as a gauge."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Set it; for what is shown as a gauge."""
        self.value = value


class Distribution:
    """How often a value fell between two bounds: a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Labels = tuple[str, ...]
Reading = Callable[[], float]
Source = Callable[[], Iterable[tuple[Labels, float]]]


class Said(TypedDict, total=False):
    """What is said of a family to people: which `section` of the page it begins, `advice`, and when it `appears`."""

    section: str
    advice: str
    appears: str


class Numbers:
    """A family of counters or gauges, and where their values are found."""

    def __init__(
        self,
        family: type[CounterMetricFamily | GaugeMetricFamily],
        name: str,
        text: str,
        labels: Labels = (),
        merge: Callable[[float, float], float] = add,
        **said: Unpack[Said],
    ) -> None:
        self._family, self.name, self.text, self.labels = family, name, text, labels
        self._merge = merge
        self.said = said
        self._sources: list[Source] = []
        self._shared: dict[Labels, Count] = {}

    def handle(self, *labels: str) -> Count:
        """Return a number of its own for these labels."""
        made = Count()
        self._sources.append(lambda: [(labels, made.value)])
        return made

    def shared(self, *labels: str) -> Count:
        """Return the one number that all who ask for these labels here share: for who comes and goes, in one thread."""
        made = self._shared.get(labels)
        if made is None:
            made = self._shared[labels] = self.handle(*labels)
        return made

    def reading(self, read: Reading, *labels: str) -> Callable[[], None]:
        """Ask `read` at each scrape, until what is returned here is called."""
        return self.source(lambda: [(labels, read())])

    def source(self, source: Source) -> Callable[[], None]:
        """Ask `source` for labels and values at each scrape, until what is returned here is called."""
        self._sources.append(source)
        return lambda: self._sources.remove(source)

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the family without values."""
        return self._family(self.name, self.text, labels=self.labels)

    def collect(self) -> Metric:
        """Return the family with its values."""
        values: dict[Labels, float] = {}
        for source in list(self._sources):
            for labels, value in source():
                values[labels] = self._merge(values[labels], value) if labels in values else value
        family = self.empty()
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family


class Distributions:
    """A family of histograms."""

    def __init__(self, name: str, text: str, labels: Labels, bounds: Sequence[float], **said: Unpack[Said]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.said = said
        self._bounds = bounds
        self._edges = [*map(floatToGoString, bounds), "+Inf"]
        self._handles: list[tuple[Labels, Distribution]] = []
        self._shared: dict[Labels, Distribution] = {}

    def handle(self, *labels: str) -> Distribution:
        """Return a distribution of its own for these labels."""
        return self.share(Distribution(self._bounds), *labels)

    def shared(self, *labels: str) -> Distribution:
        """Return the one that all who ask for these labels here share: for who comes and goes, in one thread."""
        made = self._shared.get(labels)
        if made is None:
            made = self._shared[labels] = self.handle(*labels)
        return made

    def share(self, made: Distribution, *labels: str) -> Distribution:
        """Show `made`, which another family shows already, here as well."""
        self._handles.append((labels, made))
        return made

    def empty(self) -> HistogramMetricFamily:
        """Return the family without values."""
        return HistogramMetricFamily(self.name, self.text, labels=self.labels)

    def collect(self) -> Metric:
        """Return the family with its values."""
        merged: dict[Labels, tuple[list[int], float]] = {}
        for labels, made in list(self._handles):
            counts, total = merged.get(labels, ([0] * len(self._edges), 0.0))
            merged[labels] = [*map(add, counts, list(made.counts))], total + made.total
        family = self.empty()
        for labels, (counts, total) in merged.items():
            family.add_metric(labels, [*zip(self._edges, accumulate(counts), strict=True)], total)
        return family

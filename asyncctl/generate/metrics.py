"""The page `docs/metrics.md`, made from the definitions: `make docs` writes it, a test compares it.

What there is beside ours, of the process and of Python, is asked of those who show it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from asyncctl.observe.families import LABELS
from asyncctl.observe.instruments import Distributions, Numbers
from asyncctl.observe.metrics import Metrics

__all__ = ["metrics_page"]

_COMMAND = "python -m asyncctl.generate.metrics"
_HEAD = """\
# Metrics

Made by `{command}`
from what {declared}: change that, not this page.

`/metrics` shows them, as Prometheus text or OpenMetrics, whichever is asked for. Names that controller-runtime and
client-go have are theirs, with their labels and buckets, so that dashboards for controllers work as they are; our own
begin with `asyncctl_`. Durations are in seconds, sizes in bytes. A counter is there from the start, at 0, unless its
row says when it appears. A program's own go beside them: by `running.metrics.counter`, `gauge` and `histogram`, see
[authoring.md](authoring.md), or as `prometheus_client` makes them, on `running.metrics.registry`. A name that is taken
is refused.

controller-runtime's metrics of admission webhooks are not here: there are none to count.
"""

_LABELS = """
## Labels

None holds the name of an object, a namespace, a user or a text of somebody else's: the number of series depends on
what a program declares, not on what is in the cluster. A label whose values come from outside is cut off after so many.

| label | holds |
|---|---|
"""

_OTHERS = """
## Of the process, and of Python

As every `prometheus_client` shows them.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def metrics_page(*programs: Callable[[Metrics], object]) -> str:
    """Return the page.

    Args:
        programs: Functions or classes at the top of a module; each is called with the metrics of a program, and
            declares its own there.
    """
    metrics = Metrics(process=False)
    for program in programs:
        program(metrics)
    own = [family for family, _ in metrics.own]
    labels = LABELS | {label: holds for _, labels in metrics.own for label, holds in labels.items()}
    families = [*vars(metrics.families).values(), *own]
    return "".join([_head(programs), *_sections(families), _LABELS, *_labels(labels), _OTHERS, *_others()])


def main(names: Sequence[str]) -> int:
    """Print the page with the metrics of what is named, each as `MODULE:NAME`; returns the exit code."""
    programs = []
    for name in names:
        try:
            module, _, attribute = name.partition(":")
            programs.append(getattr(import_module(module), attribute))
        except (ImportError, AttributeError, ValueError) as error:
            example = "as in asyncctl.database.metrics:DatabaseMetrics"
            sys.stderr.write(f"{_COMMAND}: {name} is not there ({error}); say MODULE:NAME, {example}\n")
            return 2
    sys.stdout.write(metrics_page(*programs))
    return 0


def full_name(family: Numbers | Distributions) -> tuple[str, str]:
    """Return a family's name as it is shown, and its type."""
    empty = family.empty()
    return (f"{empty.name}_total" if empty.type == "counter" else empty.name), empty.type


def _head(programs: Sequence[Callable[[Metrics], object]]) -> str:
    names = [f"{program.__module__}:{program.__qualname__}" for program in programs]
    modules = dict.fromkeys(["asyncctl.observe.families", *(program.__module__ for program in programs)])
    declared = " and ".join(f"`{module}`" for module in modules)
    command = " ".join([_COMMAND, *names])
    return _HEAD.format(command=command, declared=f"{declared} declare{'s' if len(modules) == 1 else ''}")


def _sections(families: Iterable[Numbers | Distributions]) -> Iterator[str]:
    advice: list[str] = []
    for family in families:
        name, kind = full_name(family)
        if title := family.said.get("section"):
            yield from _advice(advice)
            yield f"\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        appears = family.said.get("appears")
        text = f"{family.text} Appears {appears}." if appears else family.text
        yield f"| `{name}` | {kind} | {_code(family.labels)} | {text} |\n"
        if said := family.said.get("advice"):
            advice.append(f"- `{name}`: {said}\n")
    yield from _advice(advice)


def _advice(advice: list[str]) -> Iterator[str]:
    if advice:
        yield "\nWhat to make of it:\n\n"
        yield from advice
    advice.clear()


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    for label, holds in labels.items():
        yield f"| `{label}` | {holds} |\n"


def _others() -> Iterator[str]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels})
        yield f"| `{name}` | {family.type} | {_code(labels)} | {family.documentation.rstrip('.')}. |\n"


def _code(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

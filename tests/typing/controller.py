"""What an author writes about a controller, as type checkers see it."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, assert_type

from asyncctl import (
    Address,
    Checking,
    Client,
    Clock,
    Context,
    Duration,
    Header,
    Key,
    Logger,
    Meta,
    Metrics,
    Operator,
    Problem,
    Requeue,
    Resource,
    Running,
    Settings,
    Spec,
    Status,
    SystemClock,
    Unstructured,
    Watch,
    field,
    labels_changed,
    of_change,
    of_header,
    of_object,
    setting,
    to_every,
    to_indexed,
)
from asyncctl.objects import ConfigMap


class WidgetSpec(Spec):
    size: Annotated[int, Meta(ge=1, le=10)] = 1


class Widget(Resource, group="example.com", version="v1"):
    spec: WidgetSpec


operator = Operator("widgets")


@operator.controller(Widget, owns=[ConfigMap])
async def reconcile(ctx: Context, widget: Widget) -> Requeue | None:
    assert_type(widget.spec.size, int)
    await ctx.apply(ConfigMap(name=widget.name, data={"size": str(widget.spec.size)}))
    return None


@reconcile.finalizer("example.com/widgets")
async def clean_up(ctx: Context, widget: Widget) -> None: ...


operator.needs(ConfigMap, "delete", names=["old"], when=lambda settings: settings.leader_election)


@operator.check("mail server")
async def look(checking: Checking) -> None:
    found = await checking.client.get(ConfigMap, "mail", namespace="team")
    assert_type(found.data, dict[str, str])
    checking.ok("it answers", part="smtp", port=25)


NODE = Unstructured("v1", "Node", namespaced=False)
Keys = list[Key]


def of_header_alone(header: Header) -> Keys:
    assert_type(header.labels.get("widget"), str | None)
    return [(header.namespace, header.name)]


def of_widget(widget: Widget) -> Keys:
    return [(widget.namespace, widget.name)]


def of_dict(node: dict[str, Any]) -> Keys:
    return [("", node["metadata"]["name"])]


def of_both(old: Header | None, new: Header | None) -> Keys:
    return [] if old is None or new is None else [(new.namespace, new.name)]


assert_type(Watch(Widget, of_header_alone), Watch[Widget])
assert_type(Watch(NODE, to=of_object(of_dict), labels={"a": "b"}), Watch[dict[str, Any]])
Watch(Widget, to=of_object(of_widget), namespaces=["team"], fields="metadata.name=a", when=labels_changed)
Watch(ConfigMap, to=of_change(of_both), metadata_only=True)
Watch(ConfigMap, to=to_every)
Watch(ConfigMap, to=to_indexed("config", lambda header: header.labels["widget"]))
Watch(Widget, indexes={"size": lambda widget: [str(widget.spec.size)], "app": of_header(lambda one: [one.uid])})
Watch(ConfigMap, to=of_object(of_widget))  # type: ignore[misc]
Watch(NODE, to=of_object(of_widget))  # type: ignore[arg-type]
Watch(Widget, to=of_both)  # type: ignore[arg-type]
Watch(Widget, indexes={"size": lambda widget: widget.spec.sise})  # type: ignore[attr-defined, unused-ignore]


class Reconcile:
    async def reconcile(self, ctx: Context, widget: Widget) -> Requeue | None: ...


class ReconcileConfig:
    async def reconcile(self, ctx: Context, config: ConfigMap) -> Requeue | None: ...


others = Operator("others")
others.controller(Watch(Widget, labels="a=b"), interval=timedelta(seconds=3), rate=1.5)(Reconcile())
others.controller(Widget)(ReconcileConfig())  # type: ignore[arg-type]
others.controller(Widget, rate="fast")  # type: ignore[call-overload]


@others.background
async def poll(running: Running) -> None:
    async with running.informer(Watch(Widget, labels="a=b")) as widgets, running.informer(NODE) as nodes:
        assert_type(widgets.get("w", namespace="team"), Widget | None)
        assert_type(list(widgets.list(index=("size", "1"))), list[Widget])
        assert_type([header.name for header in nodes.headers(labels={"a": "b"})], list[str])
        assert_type(list(nodes.list()), list[dict[str, Any]])
    async with running.informer(ConfigMap) as configs:
        assert_type(list(configs.list()), list[ConfigMap])
    running.wake(Widget, "w", namespace="team")
    running.set_namespaces(["a", "b"])


async def database_is_there() -> str | None:
    return None


others.on_startup(poll)
others.on_shutdown(poll)
others.ready_check("database", database_is_there)
others.ready_check("mail", lambda: "no answer")
others.ready_check("wrong", lambda: 1)  # type: ignore[arg-type]


async def embedded(client: Client) -> None:
    async with others.running() as running:
        assert_type(running, Running)
    async with others.running(settings=Settings(http_address=Address("127.0.0.1", 0)), client=client):
        ...


class PartsStatus(Status):
    phase: str | None = None

    def summarize(self) -> None:
        ready = self.conditions.get("Ready")
        self.phase = "Running" if ready is not None and ready.status == "True" else "Pending"


class Parts(Resource, group="example.com", version="v1"):
    status: PartsStatus = field(default_factory=PartsStatus)


class PartsSettings(Settings, prefix="PARTS_"):
    wait: Duration = setting(default=3.0, at_least=1, meaning="how long a part takes")

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        if self.wait > self.retry_base:
            yield Problem(("wait",), "PARTS_WAIT is too long")


class Counted:
    def __init__(self, metrics: Metrics, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.made = metrics.counter("parts_made_total", "Parts that were made.", {"size": "1 to 10"}, advice="Good.")
        self.there = metrics.gauge("parts", "Parts there are.", appears="on the process that leads")
        self.taken = metrics.histogram("part_seconds", "How long one takes.", buckets=(0.1, 1.0))
        metrics.counter("wrong_total", "Wrong.", ["size"])  # type: ignore[arg-type]
        metrics.gauge("wrong", "Wrong.", advise="typo")  # type: ignore[call-arg]

    def count(self) -> None:
        self.made.shared("3").inc()
        self.taken.shared().observe(0.2)
        self.there.shared().set(1)
        self.there.source(lambda: [((), 1.0)])()


@others.on_startup
async def count_parts(running: Running) -> None:
    assert_type(running.metrics, Metrics)
    assert_type(running.logger, Logger)
    assert_type(running.clock.now(), datetime)
    Counted(running.metrics, running.clock).count()


if __name__ == "__main__":
    operator.run()

"""What an author writes about a kind, as type checkers see it. An `ignore` asserts an error: unneeded, it is one."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import Annotated, assert_type

from asyncctl.objects import (
    Column,
    Conditions,
    ConfigMap,
    JsonObject,
    Meta,
    ObjectMeta,
    Resource,
    ResourceType,
    Rule,
    Spec,
    Status,
    Unstructured,
    decode,
    field,
    ready_column,
    resource_type_of,
)


class WidgetSpec(Spec):
    size: Annotated[int, Meta(ge=1, le=10, description="How many parts.")] = 1


class WidgetStatus(Status):
    parts: int | None = None


class Widget(
    Resource,
    group="example.com",
    version="v1",
    short_names=["wd"],
    columns=[Column("Size", "integer", ".spec.size"), Column("Ready", "string", ready_column())],
    rules=[Rule("self.size >= oldSelf.size", "size can't shrink", path="spec")],
):
    spec: WidgetSpec = field(default_factory=WidgetSpec)
    status: WidgetStatus = field(default_factory=WidgetStatus)


class Plain(Resource, group="example.com", version="v1"):
    spec: WidgetSpec


class Service(Resource, group="", version="v1"):
    cluster_ip: str | None = field(name="clusterIP", default=None)


def a_kind_is_made_by_keywords() -> None:
    widget = Widget(name="w", namespace="team", labels={"a": "b"}, spec=WidgetSpec(size=3))
    assert_type(widget.spec.size, int)
    assert_type(widget.status.parts, int | None)
    assert_type(widget.status.conditions, Conditions)
    assert_type(widget.name, str)
    assert_type(widget.uid, str)
    assert_type(Widget.resource_type, ResourceType)
    assert_type(Plain(spec=WidgetSpec()), Plain)
    widget.status.conditions.set("Ready", False, "Pulling", "…")
    Widget(metadata=ObjectMeta(name="w"))
    ConfigMap(name=widget.name, data={"size": str(widget.spec.size)})


def mistakes_are_seen() -> None:
    Plain()  # type: ignore[call-arg]
    Widget(spec=1)  # type: ignore[arg-type]
    Widget(WidgetSpec())  # type: ignore[call-arg, arg-type]
    WidgetSpec(sise=1)  # type: ignore[call-arg]
    ConfigMap(name="c", data={"a": 1})  # type: ignore[dict-item]
    Widget(name="w").uid = "x"  # type: ignore[misc]


def both_forms_of_a_kind_are_taken(data: bytes) -> None:
    deployment = Unstructured("apps/v1", "Deployment")
    assert_type(decode(Widget, data), Widget)
    assert_type(decode(deployment, data), JsonObject)
    assert_type(resource_type_of(Widget), ResourceType)
    assert_type(resource_type_of(deployment), ResourceType)

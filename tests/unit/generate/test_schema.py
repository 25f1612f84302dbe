from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import pytest
import yaml

from asyncctl.generate import SchemaError, crd, crd_yaml
from asyncctl.objects import (
    Column,
    ConfigMap,
    IntOrString,
    Json,
    JsonObject,
    Meta,
    Quantity,
    Resource,
    Rule,
    Spec,
    Status,
    field,
    list_map,
    ready_column,
)


class Color(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


def spec_of(**fields):
    """Return the schema of a spec with these fields: name=type, or name=(type, default)."""
    namespace = {"__annotations__": {n: f[0] if isinstance(f, tuple) else f for n, f in fields.items()}}
    namespace |= {name: each[1] for name, each in fields.items() if isinstance(each, tuple)}
    made = type(Spec)("MadeSpec", (Spec,), {**namespace, "__module__": __name__})
    kind = type(Resource)(
        "Made",
        (Resource,),
        {"__annotations__": {"spec": made}, "__module__": __name__},
        group="example.com",
        version="v1",
    )
    return schema_of(kind)["properties"]["spec"]


def schema_of(kind):
    return crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize(
    "type_, schema",
    [
        (bool, {"type": "boolean"}),
        (int, {"type": "integer", "format": "int64"}),
        (float, {"type": "number"}),
        (str, {"type": "string"}),
        (bytes, {"type": "string", "format": "byte"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (str | None, {"type": "string"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}}),
        (JsonObject, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        (Any, {"x-kubernetes-preserve-unknown-fields": True}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"] | None, {"type": "string", "enum": ["a"]}),
        (Color, {"type": "string", "enum": ["Red", "Blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (IntOrString, {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Annotated[int, Meta(ge=1, le=9)], {"type": "integer", "format": "int64", "minimum": 1, "maximum": 9}),
        (
            Annotated[float, Meta(gt=0, lt=1)],
            {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True},
        ),
        (Annotated[int, Meta(multiple_of=8)], {"type": "integer", "format": "int64", "multipleOf": 8}),
        (
            Annotated[str, Meta(pattern="^a", min_length=1, max_length=9)],
            {"type": "string", "pattern": "^a", "minLength": 1, "maxLength": 9},
        ),
        (Annotated[int, Meta(ge=1)] | None, {"type": "integer", "format": "int64", "minimum": 1}),
        (Annotated[list[str], Meta(max_length=3)], {"type": "array", "maxItems": 3, "items": {"type": "string"}}),
        (
            Annotated[dict[str, str], Meta(max_length=3)],
            {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}},
        ),
        (
            Annotated[str, Meta(extra_json_schema={"format": "duration"}, examples=["1h"])],
            {"type": "string", "format": "duration"},
        ),
        (Annotated[str, Meta(description="Said here.")], {"description": "Said here.", "type": "string"}),
    ],
    ids=str,
)
def test_a_type_has_its_schema(type_, schema):
    assert spec_of(it=type_)["properties"] == {"it": schema}


def test_a_quantity_is_a_number_or_a_text_that_looks_like_one():
    found = spec_of(it=Quantity)["properties"]["it"]
    assert found["x-kubernetes-int-or-string"]
    assert found["pattern"].startswith("^([+-]?")


def test_what_has_no_default_is_required():
    assert spec_of(a=str, b=(str, "x"), c=(str | None, None))["required"] == ["a"]
    assert "required" not in spec_of(a=(int, 1))


@pytest.mark.parametrize(
    "type_, default, written",
    [
        (int, 0, 0),
        (bool, False, False),
        (str, "", ""),
        (Color, Color.BLUE, "Blue"),
        (Quantity, Quantity("1Gi"), "1Gi"),
        (list[str], field(default_factory=lambda: ["a"]), ["a"]),
    ],
)
def test_a_default_is_the_classs(type_, default, written):
    assert spec_of(it=(type_, default))["properties"]["it"]["default"] == written


@pytest.mark.parametrize(
    "type_, default",
    [(str | None, None), (bytes, b"x"), (list[str], field(default_factory=list)), (dict[str, str], {})],
)
def test_no_default_is_written_where_it_would_say_nothing(type_, default):
    assert "default" not in spec_of(it=(type_, default))["properties"]["it"]


class PartSpec(Spec, rules=[Rule("self.port > 0", "port must be above 0", reason="FieldValueForbidden")]):
    """One part.

    It has a port.
    """

    name: str
    """What it is called."""
    port: int = 80


class Gizmo(
    Resource,
    group="example.com",
    version="v1beta1",
    scope="Cluster",
    short_names=["gz"],
    categories=["all"],
    columns=[
        Column("Parts", "integer", ".spec.count", description="How many."),
        Column("Why", "string", ready_column(part="reason"), priority=1),
    ],
    rules=[
        Rule("has(self.spec)", "say what you want"),
        Rule("self >= oldSelf", "count can't shrink", path="spec.count"),
        Rule("self.name != 'x'", "x is taken", path="spec.parts[]"),
    ],
):
    """A gizmo."""

    class Spec(Spec):
        count: int = 1
        """How many."""
        parts: Annotated[list[PartSpec], Meta(max_length=4, extra_json_schema=list_map("name"))] = field(
            default_factory=list
        )
        """The parts."""
        main: PartSpec = field(default_factory=lambda: PartSpec(name="m"))

    class Status(Status):
        count: int = 0

    spec: Spec = field(default_factory=Spec)
    """What is wanted."""
    status: Status = field(default_factory=Status)


def test_a_crd_says_what_the_class_line_says():
    found = crd(Gizmo)
    assert (found["apiVersion"], found["kind"]) == ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    assert found["metadata"] == {"name": "gizmos.example.com"}
    spec = found["spec"]
    assert (spec["group"], spec["scope"]) == ("example.com", "Cluster")
    assert spec["names"] == {
        "kind": "Gizmo",
        "listKind": "GizmoList",
        "plural": "gizmos",
        "singular": "gizmo",
        "shortNames": ["gz"],
        "categories": ["all"],
    }
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1beta1", True, True)
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"] == [
        {"name": "Parts", "type": "integer", "jsonPath": ".spec.count", "description": "How many."},
        {
            "name": "Why",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
            "priority": 1,
        },
    ]


def test_a_kind_without_a_status_has_no_subresource():
    (version,) = crd(ConfigMap)["spec"]["versions"]
    assert "subresources" not in version
    assert "additionalPrinterColumns" not in version


def test_metadata_is_left_to_the_server():
    properties = schema_of(Gizmo)["properties"]
    assert list(properties) == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert properties["metadata"] == {"type": "object"}


def test_descriptions_are_the_docstrings_of_classes_and_fields():
    schema = schema_of(Gizmo)
    spec = schema["properties"]["spec"]
    assert schema["description"] == "A gizmo."
    assert spec["description"] == "What is wanted."
    assert spec["properties"]["count"]["description"] == "How many."
    part = spec["properties"]["parts"]["items"]
    assert part["description"] == "One part.\n\nIt has a port."
    assert part["properties"]["name"]["description"] == "What it is called."
    assert "description" not in part["properties"]["port"]
    assert spec["properties"]["main"]["description"] == part["description"]


def test_rules_stand_where_they_say():
    schema = schema_of(Gizmo)
    spec = schema["properties"]["spec"]["properties"]
    of_a_part = {"rule": "self.port > 0", "message": "port must be above 0", "reason": "FieldValueForbidden"}
    rules = "x-kubernetes-validations"
    assert schema[rules] == [{"rule": "has(self.spec)", "message": "say what you want"}]
    assert spec["count"][rules] == [{"rule": "self >= oldSelf", "message": "count can't shrink"}]
    assert spec["main"][rules] == [of_a_part]
    assert spec["parts"]["items"][rules] == [of_a_part, {"rule": "self.name != 'x'", "message": "x is taken"}]


def test_a_rule_is_inherited():
    class Better(PartSpec):
        pass

    assert spec_of(it=Better)["properties"]["it"]["x-kubernetes-validations"][0]["message"] == "port must be above 0"


def test_a_list_map_is_one():
    parts = schema_of(Gizmo)["properties"]["spec"]["properties"]["parts"]
    assert parts["x-kubernetes-list-type"] == "map"
    assert parts["x-kubernetes-list-map-keys"] == ["name"]
    assert parts["maxItems"] == 4


def test_a_default_of_a_part_is_whole():
    spec = schema_of(Gizmo)["properties"]["spec"]
    assert spec["properties"]["main"]["default"] == {"name": "m", "port": 80}
    assert spec["default"] == {"count": 1, "parts": [], "main": {"name": "m", "port": 80}}


def test_a_status_has_no_defaults():
    assert "default" not in str(schema_of(Gizmo)["properties"]["status"])


def test_a_condition_is_told_by_its_type():
    conditions = schema_of(Gizmo)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert conditions["items"]["required"] == ["type", "status", "reason", "message"]


class Tree(Spec):
    children: list["Tree"] = field(default_factory=list)


@pytest.mark.parametrize(
    "type_, said",
    [
        (tuple[str, int], "Made.spec.it: a tuple has no structural schema"),
        (tuple[str, ...], "Made.spec.it: a tuple has no structural schema"),
        (list[tuple[str, int]], r"Made.spec.it\[\]: a tuple has no structural schema"),
        (str | bool, "Made.spec.it: of unions only"),
        (Json, "Made.spec.it: of unions only"),
        (Literal["a", 1], "Made.spec.it: the values of an enum must be all str or all int"),
        (dict[int, str], "Made.spec.it: the keys of a map must be plain str"),
        (Tree, r"Made.spec.it.children\[\]: Tree is inside of itself"),
        (timedelta, "Made.spec.it: timedelta has no form in a CRD"),
        (complex, "Made.spec.it: complex has no form in a CRD"),
    ],
    ids=str,
)
def test_what_has_no_schema_is_refused_by_field_and_reason(type_, said):
    with pytest.raises(SchemaError, match=said):
        spec_of(it=type_)


def test_a_rule_at_a_field_that_is_not_there_is_refused():
    class Astray(Resource, group="example.com", version="v1", rules=[Rule("self > 0", "no", path="spec.sise")]):
        spec: PartSpec

    with pytest.raises(SchemaError, match=r"Astray: the rule 'self > 0' stands at 'spec.sise', which is not there"):
        crd(Astray)


def test_a_base_class_has_no_crd():
    with pytest.raises(TypeError, match="is no kind"):
        crd(Resource)


def test_yaml_says_the_same_as_the_dict():
    assert yaml.safe_load(crd_yaml(Gizmo)) == crd(Gizmo)


def test_yaml_is_the_same_each_time_and_says_where_it_is_from():
    first = crd_yaml(Gizmo)
    assert first == crd_yaml(Gizmo)
    assert first.splitlines()[0] == f"# Made from {__name__}.Gizmo: change the class, not this file."


def test_yaml_is_written_as_people_write_it():
    text = crd_yaml(Gizmo)
    assert "\n  versions:\n    - name: v1beta1\n" in text
    assert "&id" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]

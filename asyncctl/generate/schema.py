"""The CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind, from its class alone.

The schema is structural and says what the class says: types, bounds, patterns, enums, defaults, CEL rules,
and in the docstrings of classes and fields. What has no structural form is refused with the field and the reason.
Nothing under `status` gets a default: the API server would write it into objects before any controller has seen them.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import yaml
from msgspec import inspect as types

from asyncctl.objects import Column, Json, JsonObject, Quantity, Resource, ResourceType, Rule, resource_type_of
from asyncctl.objects.codec import plain
from asyncctl.objects.quantity import PATTERN

_FIRST = ("description", "type", "format", "default")
"""What a reader of a field looks for first."""


class SchemaError(TypeError):
    """A class has a field that no CRD can describe."""


def crd(kind: type[Resource]) -> JsonObject:
    """Return the CustomResourceDefinition of a kind, as a dict of the wire.

    Raises:
        SchemaError: a field has no structural schema, or a rule stands at a field that is not there.
        TypeError: the class names no group and version.
    """
    resource = resource_type_of(kind)
    schema = _struct(types.type_info(kind), _Place((kind.__name__,)))
    properties = schema["properties"]
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **properties,
    }
    version: JsonObject = {"name": resource.version, "served": True, "storage": True}
    if resource.has_status:
        version["subresources"] = {"status": {}}
    if columns := [_column(column) for column in kind.__columns__]:
        version["additionalPrinterColumns"] = columns
    version["schema"] = {"openAPIV3Schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.resource},
        "spec": {
            "group": resource.group,
            "names": _names(resource),
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


def crd_yaml(kind: type[Resource]) -> str:
    """Return the CustomResourceDefinition of a kind as YAML for a repository: the same text for the same class.

    Raises:
        SchemaError: as `crd`.
        TypeError: as `crd`.
    """
    head = f"# Made from {kind.__module__}.{kind.__qualname__}: change the class, not this file.\n"
    return head + yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Sequences indented below their key, no anchors: as people write it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True)
class _Place:
    """Where the walk is: the names down to a field, and the classes it is inside of."""

    names: tuple[str, ...]
    classes: tuple[type, ...] = ()

    @property
    def in_status(self) -> bool:
        return self.names[1:2] == ("status",)

    def at(self, name: str) -> "_Place":
        return replace(self, names=(*self.names, name))

    def inside(self, cls: type) -> "_Place":
        return replace(self, classes=(*self.classes, cls))

    def refuse(self, reason: str) -> SchemaError:
        return SchemaError(f"{'.'.join(self.names).replace('.[', '[')}: {reason}")


def _schema(type_: types.Type, place: _Place) -> JsonObject:
    match type_:
        case types.Metadata(type=inner, extra_json_schema=extra):
            schema = _schema(inner, place) | {k: v for k, v in (extra or {}).items() if k != "examples"}
        case types.UnionType(types=members):
            schema = _union([each for each in members if not isinstance(each, types.NoneType)], place)
        case types.StructType():
            schema = _struct(type_, place)
        case types.ListType(item_type=item):
            schema = {"type": "array", **_lengths(type_, "Items"), "items": _schema(item, place.at("[]"))}
        case types.SetType(item_type=item) | types.FrozenSetType(item_type=item):
            schema = {"type": "array", **_lengths(type_, "Items"), "items": _schema(item, place.at("[]"))}
            schema["x-kubernetes-list-type"] = "set"
        case types.DictType(key_type=key, value_type=value):
            if key not in (types.StrType(), types.AnyType()):  # they can't be hashed
                raise place.refuse("the keys of a map must be plain str: a CRD can say nothing about them")
            schema = {"type": "object", **_lengths(type_, "Properties")}
            if isinstance(value, types.AnyType):
                schema["x-kubernetes-preserve-unknown-fields"] = True
            else:
                schema["additionalProperties"] = _schema(value, place.at("[]"))
        case types.VarTupleType() | types.TupleType():
            raise place.refuse(
                "a tuple has no structural schema, whose lists have items of one type: use a list or a Spec"
            )
        case types.LiteralType(values=values):
            schema = _enum(list(values), place)
        case types.EnumType(cls=cls):
            schema = _enum([member.value for member in cls], place)
        case types.CustomType(cls=cls) if cls is Quantity:
            schema = {**_INT_OR_STRING, "pattern": PATTERN}
        case types.AnyType():
            schema = {"x-kubernetes-preserve-unknown-fields": True}
        case types.BoolType():
            schema = {"type": "boolean"}
        case types.IntType():
            schema = {"type": "integer", "format": "int64", **_bounds(type_)}
        case types.FloatType():
            schema = {"type": "number", **_bounds(type_)}
        case types.StrType(pattern=pattern):
            schema = {"type": "string", **({"pattern": pattern} if pattern else {}), **_lengths(type_, "Length")}
        case types.BytesType():
            schema = {"type": "string", "format": "byte"}
        case types.DateTimeType():
            schema = {"type": "string", "format": "date-time"}
        case _:
            name = getattr(getattr(type_, "cls", None), "__name__", type(type_).__name__.removesuffix("Type").lower())
            raise place.refuse(f"{name} has no form in a CRD: use a Spec, or a type that JSON has")
    return schema


_INT_OR_STRING: JsonObject = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}


def _union(members: Sequence[types.Type], place: _Place) -> JsonObject:
    if len(members) == 1:
        return _schema(members[0], place)
    schemas = [_schema(each, place) for each in members]
    if sorted(each.pop("type", "any") for each in schemas) != ["integer", "string"]:
        raise place.refuse("of unions only `X | None` and `int | str` have a structural schema")
    for each in schemas:
        each.pop("format", None)
    return {**_INT_OR_STRING, **schemas[0], **schemas[1]}


def _struct(type_: types.Type, place: _Place) -> JsonObject:
    assert isinstance(type_, types.StructType)
    if type_.cls in place.classes:
        raise place.refuse(f"{type_.cls.__name__} is inside of itself: a structural schema can't be recursive")
    place = place.inside(type_.cls)
    docs = _field_docs(type_.cls)
    properties = {}
    for each in type_.fields:
        at = place.at(each.encode_name)
        if at.names[1:] == ("metadata",):
            continue
        found = _schema(each.type, at)
        if each.name in docs and "description" not in _extra(each.type):
            found["description"] = docs[each.name]
        if not at.in_status and (default := _default(each)) not in (None, [], {}):
            found["default"] = default
        properties[each.encode_name] = {key: found[key] for key in (*_FIRST, *found) if key in found}
    described = inspect.cleandoc(type_.cls.__dict__.get("__doc__") or "")
    schema: JsonObject = {"description": described} if described else {}
    schema["type"] = "object"
    if required := [each.encode_name for each in type_.fields if each.required]:
        schema["required"] = required
    schema["properties"] = properties
    for base in reversed(type_.cls.__mro__):
        for rule in base.__dict__.get("__cel_rules__", ()):
            _attach(schema, rule, place)
    return schema


def _extra(type_: types.Type) -> JsonObject:
    return (type_.extra_json_schema or {}) if isinstance(type_, types.Metadata) else {}


def _default(each: types.Field) -> Json:
    value = each.default if each.default_factory is msgspec.NODEFAULT else each.default_factory()
    return None if value is msgspec.NODEFAULT or isinstance(value, bytes) else plain(value)


def _enum(values: list[Any], place: _Place) -> JsonObject:
    for type_, name in ((str, "string"), (int, "integer")):
        if all(type(value) is type_ for value in values):
            return {"type": name, "enum": values}
    raise place.refuse("the values of an enum must be all str or all int")


def _bounds(type_: types.IntType | types.FloatType) -> JsonObject:
    # In OpenAPI v3.0 `exclusiveMinimum` is a flag beside `minimum`, in JSON Schema a number of its own.
    schema: JsonObject = {}
    for name, bound, exclusive in (("inimum", type_.ge, type_.gt), ("aximum", type_.le, type_.lt)):
        prefix = "m" + name
        if bound is not None:
            schema[prefix] = bound
        if exclusive is not None:
            schema |= {prefix: exclusive, "exclusiveM" + name: True}
    if type_.multiple_of is not None:
        schema["multipleOf"] = type_.multiple_of
    return schema


def _lengths(type_: types.StrType | types.ListType | types.DictType | types.CollectionType, unit: str) -> JsonObject:
    bounds = {f"min{unit}": type_.min_length, f"max{unit}": type_.max_length}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _attach(schema: JsonObject, rule: Rule, place: _Place) -> None:
    node: Any = schema
    for step in filter(None, rule.path.replace("[]", ".[]").split(".")):
        inner = node.get("items") if step == "[]" else node.get("properties", {}).get(step)
        if inner is None:
            raise place.refuse(f"the rule {rule.rule!r} stands at {rule.path!r}, which is not there")
        node = inner
    written = {"rule": rule.rule, "message": rule.message} | ({"reason": rule.reason} if rule.reason else {})
    node.setdefault("x-kubernetes-validations", []).append(written)


def _field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings of fields: a string below a field. Python does not keep them, its source does."""
    return {name: text for base in reversed(cls.__mro__) for name, text in _own_field_docs(base)}


def _own_field_docs(cls: type) -> Iterator[tuple[str, str]]:
    if not issubclass(cls, msgspec.Struct) or cls is msgspec.Struct:
        return
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError):
        return  # made without a source file: it has no descriptions of fields
    assert isinstance(parsed, ast.ClassDef)
    for statement, below in zip(parsed.body, parsed.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield name, inspect.cleandoc(text)


def _names(resource: ResourceType) -> JsonObject:
    names: JsonObject = {
        "kind": resource.kind,
        "listKind": resource.list_kind,
        "plural": resource.plural,
        "singular": resource.singular,
    }
    if resource.short_names:
        names["shortNames"] = list(resource.short_names)
    if resource.categories:
        names["categories"] = list(resource.categories)
    return names


def _column(column: Column) -> JsonObject:
    written: JsonObject = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.priority:
        written["priority"] = column.priority
    if column.description:
        written["description"] = column.description
    return written

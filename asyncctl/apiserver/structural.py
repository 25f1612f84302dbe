"""Whether a schema is structural (KEP-1177): every place has a type, combinations only add rules, defaults are valid.

Sources: `schema/validation.go`, `schema/complete.go`, `schema/defaulting/validation.go` and the OpenAPI part of
`apis/apiextensions/validation` in `k8s.io/apiextensions-apiserver`. CEL rules are checked for their form only.
"""

from collections.abc import Iterator

from asyncctl.apiserver import causes
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.patterns import InvalidPatternError, UnsupportedPatternError, compile_pattern
from asyncctl.apiserver.rules import deep_equal
from asyncctl.apiserver.schema import Schema, copy_json
from asyncctl.apiserver.wire import JsonObject

_X = "x-kubernetes-"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_UNSUPPORTED = ("id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions")
_NESTED_FORBIDDEN = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    (f"{_X}preserve-unknown-fields", "must be false to be structural"),
    (f"{_X}embedded-resource", "must be false to be structural"),
    (f"{_X}int-or-string", "must be false to be structural"),
    (f"{_X}list-map-keys", "must be empty to be structural"),
    (f"{_X}list-type", "must be undefined to be structural"),
    (f"{_X}map-type", "must be undefined to be structural"),
    (f"{_X}validations", "must be empty to be structural"),
)
# With the status subresource the schema of `status` is used alone, so the root may hold little else.
_ROOT_WITH_STATUS = frozenset(
    {
        *("description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
        *(
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
            "multipleOf",
            "required",
            "items",
        ),
        *("properties", "externalDocs", "example", f"{_X}preserve-unknown-fields", f"{_X}validations"),
    }
)
_ROOT_FIELDS = (
    "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations]"
)


def check_structural(schema: JsonObject, path: str = "openAPIV3Schema", *, status: bool = False) -> list[Cause]:
    """Judge the `openAPIV3Schema` of a version that is found at `path`.

    Args:
        schema: the schema.
        path: how messages name it.
        status: the version has the status subresource.
    """
    found: list[Cause] = []
    if status and (extra := next((key for key in schema if key not in _ROOT_WITH_STATUS), None)):
        text = f"only {_ROOT_FIELDS} fields are allowed at the root of the schema if the status subresource is enabled"
        found.append(causes.invalid(path, {extra: schema[extra]}, text))
    if schema.get("nullable"):
        found.append(causes.forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    structural = [*_invariants(schema, path, "root"), *_completeness(schema, schema, path, path)]
    structural.sort(key=lambda cause: f"{cause.field}: {cause.message}")
    found += structural or _defaults(schema, path)
    found += _openapi(schema, path, root=True)
    return found


def _invariants(schema: JsonObject, path: str, level: str) -> Iterator[Cause]:
    kind = schema.get("type", "")
    preserve, embedded = schema.get(f"{_X}preserve-unknown-fields"), schema.get(f"{_X}embedded-resource")
    int_or_string = schema.get(f"{_X}int-or-string")
    items, properties = schema.get("items"), schema.get("properties") or {}
    if kind == "array" and items is None:
        yield causes.required(f"{path}.items", "must be specified")
    if isinstance(items, dict):
        yield from _invariants(items, f"{path}.items", "item")
    for name, each in properties.items():
        if level != "root" or name != "metadata":
            yield from _invariants(each, f"{path}.properties[{name}]", "field")
    if (additional := schema.get("additionalProperties")) is not None:
        if level == "root":
            yield causes.forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(additional, dict):
            yield from _invariants(additional, f"{path}.additionalProperties", "field")
    for name, on in (("preserve-unknown-fields", preserve), ("embedded-resource", embedded)):
        if int_or_string and on:
            yield causes.invalid(f"{path}.{_X}{name}", True, f"must be false if {_X}int-or-string is true")
    yield from _values(schema, path, skip_types=True)
    if embedded and kind != "object":
        text = f"must be object if {_X}embedded-resource is true"
        yield causes.invalid(f"{path}.type", kind, text) if kind else causes.required(f"{path}.type", text)
    elif not kind and not int_or_string and not preserve:
        where = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
        yield causes.required(f"{path}.type", f"must not be empty {where[level]}")
    if embedded and additional is not None:
        yield causes.forbidden(f"{path}.additionalProperties", f"must not be used if {_X}embedded-resource is set")
    if embedded and not preserve and not properties:
        text = f"must not be empty if {_X}embedded-resource is true without {_X}preserve-unknown-fields"
        yield causes.required(f"{path}.properties", text)
    if level == "root" and kind and kind != "object":
        yield causes.invalid(f"{path}.type", kind, "must be object at the root")
    if level == "root" or embedded:
        yield from _type_meta(properties, path, root=level == "root")


def _type_meta(properties: JsonObject, path: str, *, root: bool) -> Iterator[Cause]:
    for name in ("kind", "apiVersion"):
        if name in properties and properties[name].get("type", "") != "string":
            here = f"{path}.properties[{name}].type"
            yield causes.invalid(here, properties[name].get("type", ""), "must be string")
    if (metadata := properties.get("metadata")) is not None:
        here = f"{path}.properties[metadata]"
        if metadata.get("type", "") != "object":
            yield causes.invalid(f"{here}.type", metadata.get("type", ""), "must be object")
        restricted = set(metadata.get("properties") or ()) <= {"name", "generateName"}
        if root and not (restricted and set(metadata) <= {"type", "properties", "default"}):
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            yield causes.forbidden(here, text)


def _values(schema: JsonObject, path: str, *, skip_types: bool = False) -> Iterator[Cause]:
    """Judge pattern and combinations. `skip_types`: the idiom that spells int-or-string out in them is allowed."""
    if not (skip_types and schema.get("anyOf") == _INT_OR_STRING):
        for index, each in enumerate(schema.get("anyOf") or ()):
            yield from _nested(each, f"{path}.anyOf[{index}]")
    for index, each in enumerate(schema.get("allOf") or ()):
        yield from _nested(each, f"{path}.allOf[{index}]", skip_types=skip_types and index == 0)
    for index, each in enumerate(schema.get("oneOf") or ()):
        yield from _nested(each, f"{path}.oneOf[{index}]")
    if isinstance(schema.get("not"), dict):
        yield from _nested(schema["not"], f"{path}.not")
    if pattern := schema.get("pattern"):
        try:
            compile_pattern(pattern)
        except InvalidPatternError as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            yield causes.invalid(f"{path}.pattern", pattern, text)
        except UnsupportedPatternError:
            pass


def _nested(schema: JsonObject, path: str, *, skip_types: bool = False) -> Iterator[Cause]:
    yield from _values(schema, path, skip_types=skip_types)
    if isinstance(items := schema.get("items"), dict):
        yield from _nested(items, f"{path}.items")
    for name, each in (schema.get("properties") or {}).items():
        yield from _nested(each, f"{path}.properties[{name}]")
    for name, text in _NESTED_FORBIDDEN:
        # `additionalProperties: false` says nothing new and is let pass.
        if schema.get(name) or (name == "default" and name in schema):
            yield causes.forbidden(f"{path}.{name}", text)
    if "metadata" in (schema.get("properties") or {}):
        yield causes.forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _completeness(values: JsonObject, schema: JsonObject | None, path: str, here: str) -> Iterator[Cause]:
    """What a combination speaks of must be declared outside of it."""
    nested = [(f"{here}.not", values["not"])] if isinstance(values.get("not"), dict) else []
    for key in ("allOf", "anyOf", "oneOf"):
        nested += [(f"{here}.{key}[{index}]", each) for index, each in enumerate(values.get(key) or ())]
    for place, each in nested:
        yield from _nested_completeness(each, schema, path, place)


def _nested_completeness(values: JsonObject, schema: JsonObject | None, path: str, here: str) -> Iterator[Cause]:
    if schema is None:
        yield causes.required(path, f"because it is defined in {here}")
        return
    yield from _completeness(values, schema, path, here)
    if isinstance(items := values.get("items"), dict):
        yield from _nested_completeness(items, schema.get("items"), f"{path}.items", f"{here}.items")
    for name, each in (values.get("properties") or {}).items():
        declared = (schema.get("properties") or {}).get(name)
        place = f".properties[{name}]"
        yield from _nested_completeness(each, declared, path + place, here + place)


def _defaults(schema: JsonObject, path: str) -> list[Cause]:
    found: list[Cause] = []
    if (default := schema.get("default")) is not None:
        own = Schema(schema)
        pruned = copy_json({"value": default})
        wrapped = Schema({"type": "object", "properties": {"value": schema}})
        wrapped.prune(pruned)
        if not deep_equal(pruned["value"], default):
            found.append(causes.invalid(f"{path}.default", default, "must not have unknown fields"))
        if own.rules:
            found += own.rules.validate(default, None, f"{path}.default")
    if isinstance(items := schema.get("items"), dict):
        found += _defaults(items, f"{path}.items")
    for name, each in (schema.get("properties") or {}).items():
        found += _defaults(each, f"{path}.properties[{name}]")
    return found


def _openapi(schema: JsonObject, path: str, *, root: bool = False) -> Iterator[Cause]:
    kind = schema.get("type", "")
    if kind and kind not in _TYPES:
        yield causes.not_supported(f"{path}.type", kind, _TYPES)
    for name in _UNSUPPORTED:
        if schema.get(name):
            yield causes.forbidden(f"{path}.{name}", f"{name} is not supported")
    if isinstance(schema.get("items"), list):
        yield causes.forbidden(f"{path}.items", "items must be a schema object and not an array")
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield causes.forbidden(f"{path}.uniqueItems", text)
    additional, properties = schema.get("additionalProperties"), schema.get("properties") or {}
    if properties and additional is not None and additional is not True:
        text = "additionalProperties and properties are mutual exclusive"
        yield causes.forbidden(f"{path}.additionalProperties", text)
    if isinstance(additional, dict):
        yield from _openapi(additional, f"{path}.additionalProperties")
    for name, each in properties.items():
        if root and name in {"metadata", "kind", "apiVersion"} and each.get("default") is not None:
            text = f"must not be set in top-level {name}"
            yield causes.forbidden(f"{path}.properties[{name}].default", text)
        yield from _openapi(each, f"{path}.properties[{name}]")
    for key in ("allOf", "oneOf", "anyOf"):
        for index, each in enumerate(schema.get(key) or ()):
            yield from _openapi(each, f"{path}.{key}[{index}]")
    if isinstance(items := schema.get("items"), dict):
        yield from _openapi(items, f"{path}.items")
    if schema.get(f"{_X}preserve-unknown-fields") is False:
        yield causes.invalid(f"{path}.{_X}preserve-unknown-fields", False, "must be true or undefined")
    yield from _list_types(schema, path)
    for index, rule in enumerate(schema.get(f"{_X}validations") or ()):
        if not rule.get("rule", "").strip():
            yield causes.required(f"{path}.{_X}validations[{index}].rule", "rule is not specified")


def _list_types(schema: JsonObject, path: str) -> Iterator[Cause]:
    kind, items = schema.get("type", ""), schema.get("items") or {}
    list_type, map_type = schema.get(f"{_X}list-type"), schema.get(f"{_X}map-type")
    keys: list[str] = schema.get(f"{_X}list-map-keys") or []
    for name, value, wanted in (("map-type", map_type, "object"), ("list-type", list_type, "array")):
        if value is not None and kind != wanted:
            text = f"must be {wanted} if {_X}{name} is specified"
            yield causes.invalid(f"{path}.type", kind, text) if kind else causes.required(f"{path}.type", text)
    if map_type not in {None, "atomic", "granular"}:
        yield causes.not_supported(f"{path}.{_X}map-type", map_type, ("atomic", "granular"))
    if list_type not in {None, "atomic", "set", "map"}:
        yield causes.not_supported(f"{path}.{_X}list-type", list_type, ("atomic", "set", "map"))
    if keys and list_type != "map":
        text = f"must be map if {_X}list-map-keys is non-empty"
        here = f"{path}.{_X}list-type"
        yield causes.invalid(here, list_type, text) if list_type else causes.required(here, text)
    if list_type in {"set", "map"} and items.get("nullable"):
        yield causes.forbidden(f"{path}.items.nullable", f"cannot be nullable when {_X}list-type is {list_type}")
    if list_type == "set" and items.get("type") == "object" and items.get(f"{_X}map-type") != "atomic":
        text = f"must be atomic as item of a list with {_X}list-type=set"
        yield causes.invalid(f"{path}.items.{_X}map-type", None, text)
    if list_type == "map":
        yield from _map_keys(keys, items, path)


def _map_keys(keys: list[str], items: JsonObject, path: str) -> Iterator[Cause]:
    here = f"{path}.{_X}list-map-keys"
    if not keys:
        yield causes.required(here, f"must not be empty if {_X}list-type is map")
    if not items:
        yield causes.required(f"{path}.items", f"must have a schema if {_X}list-type is map")
        return
    if items.get("type", "") != "object":
        text = f"must be object if parent array's {_X}list-type is map"
        yield causes.invalid(f"{path}.items.type", items.get("type", ""), text)
        return
    if len(set(keys)) < len(keys):
        yield causes.invalid(here, keys, "must not contain duplicate entries")
    for key in keys:
        declared = (items.get("properties") or {}).get(key)
        place = f"{path}.items.properties[{key}]"
        if declared is None:
            yield causes.invalid(here, keys, "entries must all be names of item properties")
            continue
        if declared.get("type") in {"array", "object"}:
            text = f"must be a scalar type if parent array's {_X}list-type is map"
            yield causes.invalid(f"{place}.type", items.get("type", ""), text)
        if key not in (items.get("required") or ()) and declared.get("default") is None:
            text = f"this property is in {_X}list-map-keys, so it must have a default or be a required property"
            yield causes.required(f"{place}.default", text)
        if declared.get("nullable"):
            text = f"this property is in {_X}list-map-keys, so it cannot be nullable"
            yield causes.forbidden(f"{place}.nullable", text)

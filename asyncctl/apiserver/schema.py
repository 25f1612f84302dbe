"""The schema of a kind, compiled once: what it knows, what it fills in, and how its lists and maps are keyed.

A `Node` is one place in the schema; the tree (a graph, where a type contains itself) is what pruning, defaulting and
server-side apply walk. Values are judged by `rules`. A schema comes from a CustomResourceDefinition's `openAPIV3Schema`
or, for a built-in kind, from the API's own type definitions (`Schema.of_type`). CEL rules are counted, not evaluated.
Semantics follow `k8s.io/apiextensions-apiserver/pkg/apiserver/schema`.
"""

from collections.abc import Mapping
from typing import Self

from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.rules import Rules
from asyncctl.apiserver.structure import duplicate_entries, embedded_resources
from asyncctl.apiserver.wire import Json, JsonObject

_TYPE_META = frozenset({"apiVersion", "kind", "metadata"})
_PREFIX = "x-kubernetes-"


class Node:
    """One place in a schema.

    Attributes:
        type: `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty where anything may stand.
        list_type: `atomic`, `set` or `map`; what a list is merged by.
        map_keys: the fields that identify an entry of a list of type `map`, and their defaults in the entries' schema.
        map_type: `granular` (each field has its own owner) or `atomic`.
        patch_strategy: words such as `merge` and `retainKeys`, of strategic merge patch; empty: replace.
        patch_merge_key: the field that identifies an entry there; may differ from `map_keys`.
        go_type: the last part of a built-in type's name, such as `PodSpec`; empty for a custom one.
    """

    __slots__ = (
        "additional",
        "default",
        "embedded",
        "format",
        "go_type",
        "has_additional",
        "has_defaults",
        "int_or_string",
        "items",
        "list_type",
        "map_keys",
        "map_type",
        "nullable",
        "patch_merge_key",
        "patch_strategy",
        "preserve",
        "properties",
        "type",
    )

    def __init__(self) -> None:
        self.type = ""
        self.format = ""
        self.go_type = ""
        self.properties: dict[str, Node] = {}
        self.items: Node | None = None
        self.additional: Node | None = None
        self.has_additional = False
        self.preserve = False
        self.embedded = False
        self.int_or_string = False
        self.nullable = False
        self.default: Json = None
        self.list_type = "atomic"
        self.map_keys: tuple[str, ...] = ()
        self.map_type = "granular"
        self.patch_strategy: tuple[str, ...] = ()
        self.patch_merge_key = ""
        self.has_defaults = False

    def child(self, name: str) -> "Node | None":
        """Return the node of field or key `name`, a node that allows anything, or None if it is not declared."""
        known = self.properties.get(name) or self.additional
        return known or (OPEN if self.preserve or self.has_additional else None)

    def item(self) -> "Node | None":
        """Return the node of a list's entries, with the same fall-back as `child`."""
        return self.items or (OPEN if self.preserve else None)


class _Compiler:
    """Turns schema JSON into nodes. A definition is compiled once, so that recursive types end."""

    def __init__(self, definitions: Mapping[str, JsonObject]) -> None:
        self._definitions = definitions
        self._compiled: dict[str, Node] = {}

    def definition(self, name: str) -> Node:
        if (node := self._compiled.get(name)) is None:
            node = self._compiled[name] = Node()
            node.go_type = name.rpartition(".")[2]
            self.fill(node, self._definitions[name])
        return node

    def node(self, schema: JsonObject) -> Node:
        if reference := _reference(schema):
            return self.definition(reference)
        node = Node()
        self.fill(node, schema)
        return node

    def fill(self, node: Node, schema: JsonObject) -> None:
        node.type = schema.get("type", "")
        node.format = schema.get("format", "")
        node.preserve = schema.get(f"{_PREFIX}preserve-unknown-fields", False)
        node.embedded = schema.get(f"{_PREFIX}embedded-resource", False)
        node.int_or_string = schema.get(f"{_PREFIX}int-or-string", False) or node.format == "int-or-string"
        node.nullable = schema.get("nullable", False)
        node.default = schema.get("default")
        node.list_type = schema.get(f"{_PREFIX}list-type") or "atomic"
        node.map_keys = tuple(schema.get(f"{_PREFIX}list-map-keys") or ())
        node.map_type = schema.get(f"{_PREFIX}map-type") or "granular"
        node.patch_strategy = tuple(filter(None, schema.get(f"{_PREFIX}patch-strategy", "").split(",")))
        node.patch_merge_key = schema.get(f"{_PREFIX}patch-merge-key", "")
        node.properties = {name: self.node(sub) for name, sub in (schema.get("properties") or {}).items()}
        if isinstance(items := schema.get("items"), dict):
            node.items = self.node(items)
        additional = schema.get("additionalProperties")
        node.has_additional = additional is not None
        if isinstance(additional, dict):
            node.additional = self.node(additional)
        if self._definitions and not (node.properties or node.items or node.has_additional):
            # A built-in type without fields is free-form (RawExtension, FieldsV1), unlike a custom one, which is empty.
            node.preserve = node.type in {"", "object"}
        children = [*node.properties.values(), *filter(None, (node.items, node.additional))]
        node.has_defaults = any(each.has_defaults or each.default is not None for each in children)


def _reference(schema: JsonObject) -> str:
    # OpenAPI 3.0 allows no siblings of $ref, so the API server writes allOf with one entry.
    reference = schema.get("$ref") or next((each["$ref"] for each in schema.get("allOf") or () if "$ref" in each), "")
    return str(reference).rpartition("/")[2]


OPEN = Node()
"""Where anything may stand: maps are granular there and lists atomic, as server-side apply deduces them."""
OPEN.preserve = True

_TEXT = {"type": "string"}
_META_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion"), _TEXT),
        **{name: {"type": "string", "format": "date-time"} for name in ("creationTimestamp", "deletionTimestamp")},
        **{name: {"type": "integer", "format": "int64"} for name in ("generation", "deletionGracePeriodSeconds")},
        **{name: {"type": "object", "additionalProperties": _TEXT} for name in ("labels", "annotations")},
        "finalizers": {
            "type": "array",
            "items": _TEXT,
            "x-kubernetes-list-type": "set",
            "x-kubernetes-patch-strategy": "merge",
        },
        "ownerReferences": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "uid",
            "items": {
                "type": "object",
                "x-kubernetes-map-type": "atomic",
                "properties": {
                    **dict.fromkeys(("apiVersion", "kind", "name", "uid"), _TEXT),
                    **{name: {"type": "boolean"} for name in ("controller", "blockOwnerDeletion")},
                },
            },
        },
        "managedFields": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("manager", "operation", "apiVersion", "time", "fieldsType", "subresource"), _TEXT),
                    "fieldsV1": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        },
    },
}


def _metadata() -> Node:
    node = _Compiler({}).node(_META_SCHEMA)
    node.go_type = "ObjectMeta"
    for name, entry in (("ownerReferences", "OwnerReference"), ("managedFields", "ManagedFieldsEntry")):
        items = node.properties[name].items
        assert items is not None
        items.go_type = entry
    return node


METADATA = _metadata()
"""The schema of `metadata`, the same for every kind."""


class Schema:
    """What a kind's objects may hold."""

    def __init__(self, openapi_v3_schema: JsonObject) -> None:
        """Compile the `openAPIV3Schema` of a CustomResourceDefinition's version."""
        self.json = openapi_v3_schema
        self.rules: Rules | None = Rules(openapi_v3_schema)
        self._status_rules = self.rules.properties.get("status")
        self.unchecked_rules = _count_rules(openapi_v3_schema)
        self._take_root(_Compiler({}).node(openapi_v3_schema))

    @classmethod
    def of_type(cls, definitions: Mapping[str, JsonObject], name: str) -> Self:
        """Compile the built-in type `name` of the API's OpenAPI `definitions`. Its values are not judged here."""
        self = cls.__new__(cls)
        self.json = definitions[name]
        self.rules = self._status_rules = None
        self.unchecked_rules = 0
        root = Node()
        compiler = _Compiler(definitions)
        compiler.fill(root, definitions[name])
        root.go_type = name.rpartition(".")[2]
        self._take_root(root)
        return self

    def _take_root(self, root: Node) -> None:
        root.embedded = True
        self.root = root
        for name in ("apiVersion", "kind"):
            root.properties.setdefault(name, _STRING)
        root.properties["metadata"] = METADATA

    def at(self, *path: str) -> Node | None:
        """Return the node at a path of field names; a list's entries are stepped into by `[]`."""
        node: Node | None = self.root
        for name in path:
            if node is None:
                return None
            node = node.item() if name == "[]" else node.child(name)
        return node

    def prune(self, obj: JsonObject) -> list[str]:
        """Remove, in place, what the schema does not know; return the paths removed, such as `spec.list[0].x`."""
        found: list[str] = []
        _prune(obj, self.root, "", found)
        found.sort()
        if isinstance(metadata := obj.get("metadata"), dict):
            unknown: list[str] = []
            _prune(metadata, METADATA, "metadata", unknown)
            found += sorted(unknown)
        return found

    def default(self, obj: JsonObject) -> None:
        """Fill in defaults, in place, where the parent exists; then drop nulls that may not be null."""
        self.fill(obj)
        _drop_nulls(obj, self.root)

    def fill(self, obj: JsonObject) -> None:
        """Fill in defaults alone, in place, as server-side apply does."""
        if self.root.has_defaults:
            _default(obj, self.root)

    def validate(self, obj: JsonObject, old: JsonObject | None = None) -> list[Cause]:
        """Judge the values of `obj`, metadata aside.

        What was already wrong in `old` and did not change is let pass (KEP-4008, ratcheting).
        """
        if not self.rules:
            return []
        found = self.rules.validate(obj, old)
        found += embedded_resources(self.root, obj)
        if old is None or not duplicate_entries(self.root, old):
            found += duplicate_entries(self.root, obj)
        return found

    def validate_status(self, obj: JsonObject, old: JsonObject) -> list[Cause]:
        """Judge `status` alone, as an update of the subresource does; messages then name fields from there."""
        found: list[Cause] = []
        if self._status_rules and "status" in obj:
            found = self._status_rules.validate(obj["status"], old.get("status"), "status")
        if self.rules and (repeated := duplicate_entries(self.root, obj)) and not duplicate_entries(self.root, old):
            found += repeated
        return found


_STRING = _Compiler({}).node(_TEXT)


def copy_json(value: Json) -> Json:
    """Copy a JSON value, deeply."""
    if isinstance(value, dict):
        return {key: copy_json(each) for key, each in value.items()}
    return [copy_json(each) for each in value] if isinstance(value, list) else value


def _count_rules(schema: Json) -> int:
    if isinstance(schema, dict):
        own = schema.get("x-kubernetes-validations")
        return (len(own) if isinstance(own, list) else 0) + sum(map(_count_rules, schema.values()))
    return sum(map(_count_rules, schema)) if isinstance(schema, list) else 0


def _prune(value: Json, node: Node | None, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        for key in list(value):
            if node is not None and node.embedded and key in _TYPE_META:
                continue
            below = f"{path}.{key}" if path else key
            if node is not None and (known := node.properties.get(key)) is not None:
                _prune(value[key], known, below, found)
            elif node is not None and node.has_additional:
                _prune(value[key], node.additional, below, found)
            elif node is None or not node.preserve:
                found.append(below)
                del value[key]
    elif isinstance(value, list):
        items = node.items if node is not None else None
        if items is None and node is not None and node.preserve:
            return
        for index, each in enumerate(value):
            _prune(each, items, f"{path}[{index}]", found)


def _default(value: Json, node: Node) -> None:
    if isinstance(value, dict):
        for key, known in node.properties.items():
            if known.default is not None and value.get(key) is None and (key not in value or not known.nullable):
                value[key] = copy_json(known.default)
        for key in value:
            below = node.properties.get(key) or node.additional
            if below is not None and below.has_defaults:
                _default(value[key], below)
    elif isinstance(value, list) and node.items is not None:
        for index, each in enumerate(value):
            if each is None and not node.items.nullable and node.items.default is not None:
                value[index] = copy_json(node.items.default)
            _default(value[index], node.items)


def _drop_nulls(value: Json, node: Node | None) -> None:
    if isinstance(value, dict):
        for key in list(value):
            known = (node.properties.get(key) or node.additional) if node is not None else None
            if value[key] is None and known is not None and not known.nullable and known.default is None:
                del value[key]
            else:
                _drop_nulls(value[key], known)
    elif isinstance(value, list):
        for each in value:
            _drop_nulls(each, node.items if node is not None else None)

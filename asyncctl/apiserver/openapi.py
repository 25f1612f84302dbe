"""OpenAPI of what is served: enough for `kubectl apply`, `explain` and client-side checks, not a full description.

Version 3 is an index of one document per group and version (KEP-2896); each has the schemas of its kinds and the paths
with their actions and query parameters. Built-in types carry no descriptions. Version 2 has the schemas only.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

import orjson

from asyncctl.apiserver.resources import ResourceKind, builtin_types
from asyncctl.apiserver.wire import Json, JsonObject

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    *("allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion"),
    *("resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch"),
)
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_BOOLEANS = {"allowWatchBookmarks", "force", "orphanDependents", "sendInitialEvents", "watch"}
_NUMBERS = {"gracePeriodSeconds", "limit", "timeoutSeconds"}
_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC = "application/strategic-merge-patch+json"
_INFO = {"title": "asyncctl embedded API server", "version": "unversioned"}


def index(kinds: Iterable[ResourceKind]) -> JsonObject:
    """`/openapi/v3`: where each document is; the hash in its address changes with the document."""
    paths = {}
    for path, members in _by_path(kinds).items():
        digest = document_hash(document(members))
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def document_at(kinds: Iterable[ResourceKind], path: str) -> bytes | None:
    """Return the JSON of the document at `path` (`api/v1`, `apis/GROUP/VERSION`); None if there is none."""
    members = _by_path(kinds).get(path)
    return document(members) if members else None


def document_hash(body: bytes) -> str:
    """Return the hash that stands in the index and in the ETag."""
    return hashlib.sha512(body).hexdigest().upper()


@lru_cache(maxsize=64)
def document(kinds: tuple[ResourceKind, ...]) -> bytes:
    """Return the OpenAPI v3 document of kinds that share group and version, as JSON."""
    schemas = _schemas(kinds, "#/components/schemas/")
    paths: JsonObject = {}
    for kind in kinds:
        paths.update(_paths(kind))
    body = {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def swagger(kinds: Iterable[ResourceKind]) -> JsonObject:
    """`/openapi/v2`, as JSON: the schemas alone."""
    return {"swagger": "2.0", "info": _INFO, "paths": {}, "definitions": _schemas(tuple(kinds), "#/definitions/")}


def _by_path(kinds: Iterable[ResourceKind]) -> dict[str, tuple[ResourceKind, ...]]:
    found: dict[str, list[ResourceKind]] = {}
    for kind in kinds:
        found.setdefault(_root(kind), []).append(kind)
    return {path: tuple(sorted(found[path], key=lambda kind: kind.plural)) for path in sorted(found)}


def _root(kind: ResourceKind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _identity(kind: ResourceKind, name: str) -> JsonObject:
    return {"group": kind.group, "version": kind.version, "kind": name}


def _schemas(kinds: Iterable[ResourceKind], prefix: str) -> JsonObject:
    schemas: JsonObject = {}
    queue = [f"{_META}.ObjectMeta", f"{_META}.ListMeta"]
    for kind in kinds:
        item = {"$ref": prefix + kind.definition}
        schemas[kind.definition] = _expanded(_own_schema(kind), prefix)
        schemas[kind.definition]["x-kubernetes-group-version-kind"] = [_identity(kind, kind.kind)]
        schemas[f"{kind.definition.rpartition('.')[0]}.{kind.list_kind}"] = {
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"allOf": [{"$ref": f"{prefix}{_META}.ListMeta"}]},
                "items": {"type": "array", "items": {"allOf": [item]}},
            },
            "x-kubernetes-group-version-kind": [_identity(kind, kind.list_kind)],
        }
        queue += _references(_own_schema(kind))
    while queue:
        if (name := queue.pop()) not in schemas:
            schema = _LIST_META if name.endswith(".ListMeta") else builtin_types()[name]
            schemas[name] = _expanded(schema, prefix)
            queue += _references(schema)
    return schemas


_LIST_META: JsonObject = {
    "type": "object",
    "properties": {
        "continue": {"type": "string"},
        "remainingItemCount": {"type": "integer", "format": "int64"},
        "resourceVersion": {"type": "string"},
        "selfLink": {"type": "string"},
    },
}


def _own_schema(kind: ResourceKind) -> JsonObject:
    if not kind.custom:
        return builtin_types()[kind.definition]
    own = kind.schema.json if kind.schema else {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    implied = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": f"{_META}.ObjectMeta"},
    }
    return own | {"properties": (own.get("properties") or {}) | implied}


def _expanded(schema: Json, prefix: str) -> Json:
    """Copy a schema with its references written the way OpenAPI wants them; the shipped types have bare names."""
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            return {"allOf": [{"$ref": prefix + reference}]}
        if schema.get("format") == "int-or-string":
            return {**schema, "oneOf": [{"type": "integer"}, {"type": "string"}]}
        if schema.get("format") == "quantity":
            return {"oneOf": [{"type": "string"}, {"type": "number"}]}
        return {key: _expanded(value, prefix) for key, value in schema.items()}
    return [_expanded(each, prefix) for each in schema] if isinstance(schema, list) else schema


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference
        for each in schema.values():
            yield from _references(each)


def _paths(kind: ResourceKind) -> JsonObject:
    base = f"/{_root(kind)}"
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    item = f"{collection}/{{name}}"
    in_path = [_parameter("namespace", "path")] if kind.namespaced else []
    named = [_parameter("name", "path"), *in_path]
    paths: JsonObject = {
        collection: {
            "parameters": in_path,
            "get": _operation(kind, "list", _LIST, kind.list_kind),
            "post": _operation(kind, "post", _WRITE),
        },
        item: {
            "parameters": named,
            "get": _operation(kind, "get", ()),
            "put": _operation(kind, "put", _WRITE),
            "patch": _operation(kind, "patch", (*_WRITE, "force")),
            "delete": _operation(kind, "delete", _DELETE),
        },
    }
    if "deletecollection" in kind.verbs:
        paths[collection]["delete"] = _operation(kind, "deletecollection", _LIST)
    if kind.namespaced:
        paths[f"{base}/{kind.plural}"] = {"get": _operation(kind, "list", _LIST, kind.list_kind)}
    if kind.status:
        paths[f"{item}/status"] = {
            "parameters": named,
            "get": _operation(kind, "get", ()),
            "put": _operation(kind, "put", _WRITE),
            "patch": _operation(kind, "patch", (*_WRITE, "force")),
        }
    return paths


def _operation(kind: ResourceKind, action: str, parameters: Iterable[str], answer: str = "") -> JsonObject:
    name = f"{kind.definition.rpartition('.')[0]}.{answer}" if answer else kind.definition
    schema = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    operation: JsonObject = {
        "parameters": [_parameter(name, "query") for name in parameters],
        "responses": {"200": {"description": "OK", "content": {"application/json": schema}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _identity(kind, kind.kind),
    }
    if action == "patch":
        types = _PATCHES if kind.custom else (*_PATCHES, _STRATEGIC)
        operation["requestBody"] = {"required": True, "content": {each: {} for each in types}}
    elif action in {"post", "put"}:
        operation["requestBody"] = {"required": True, "content": {"application/json": schema}}
    return operation


def _parameter(name: str, place: str) -> JsonObject:
    kind = "boolean" if name in _BOOLEANS else "integer" if name in _NUMBERS else "string"
    parameter: JsonObject = {"name": name, "in": place, "schema": {"type": kind, "uniqueItems": True}}
    return {**parameter, "required": True} if place == "path" else parameter

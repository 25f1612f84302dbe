"""`meta.k8s.io/v1` Tables: what `kubectl get` shows, of lists, single objects and watch events.

A custom kind's cells come from the JSONPath of its printer columns, a built-in kind's from `printers`. Nothing here
reads a clock: ages are told by the `now` that is passed in.
"""

from collections.abc import Iterable
from datetime import datetime

from asyncctl.apiserver import jsonpath, printers
from asyncctl.apiserver.causes import go_float, go_json
from asyncctl.apiserver.errors import bad_request
from asyncctl.apiserver.resources import Column, ResourceKind
from asyncctl.apiserver.wire import Json, JsonObject

_NAME = Column(
    "Name",
    format="name",
    description="Name must be unique within a namespace. Is required when creating resources, although some resources "
    "may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for "
    "creation idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
)


def table(
    kind: ResourceKind,
    objects: Iterable[JsonObject],
    include_object: str,
    now: datetime,
    *,
    meta: JsonObject | None = None,
    headers: bool = True,
) -> JsonObject:
    """Build a Table.

    Args:
        kind: whose objects these are.
        objects: one object, the items of a list, or the object of a watch event (a bookmark's, too).
        include_object: what each row carries: `Metadata` or empty, `Object`, `None`.
        now: an aware time, that ages are counted to.
        meta: the list's metadata (resourceVersion, continue, remainingItemCount); None: the only object's version.
        headers: write the columns; a watch does so in its first event only.

    Raises:
        ApiError: 400, `include_object` is none of these.
    """
    rows = list(objects)
    if meta is None:
        meta = {"resourceVersion": rows[0]["metadata"].get("resourceVersion", "")} if rows else {}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {key: value for key, value in meta.items() if value not in {"", None}},
        "columnDefinitions": [_definition(column) for column in _columns(kind)] if headers else None,
        "rows": [_row(kind, obj, include_object, now) for obj in rows],
    }


def partial_metadata(obj: JsonObject) -> JsonObject:
    """Return the `PartialObjectMetadata` of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _columns(kind: ResourceKind) -> tuple[Column, ...]:
    named = any(column.format == "name" for column in kind.columns) and not kind.custom
    return kind.columns if named else (_NAME, *kind.columns)


def _definition(column: Column) -> JsonObject:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(kind: ResourceKind, obj: JsonObject, include_object: str, now: datetime) -> JsonObject:
    row: JsonObject = {"cells": _cells(kind, obj, now)}
    if kind.definition == "io.k8s.api.core.v1.Pod" and (conditions := printers.pod_conditions(obj)):
        row["conditions"] = conditions
    match include_object:
        case "Object":
            row["object"] = obj
        case "None":
            row["object"] = None
        case "" | "Metadata":
            row["object"] = partial_metadata(obj)
        case _:
            raise bad_request(
                f'Unable to convert to Table as requested: includeObject: Invalid value: "{include_object}": '
                "must be 'Metadata', 'Object', 'None', or empty"
            )
    return row


def _cells(kind: ResourceKind, obj: JsonObject, now: datetime) -> list[Json]:
    if not kind.custom:
        return printers.cells(kind.definition, obj, now)
    return [obj["metadata"].get("name", ""), *(_cell(column, obj, now) for column in kind.columns)]


def _cell(column: Column, obj: JsonObject, now: datetime) -> Json:
    try:
        found = jsonpath.find(column.path, obj)
    except jsonpath.JsonPathError:
        return None
    if not found:
        return None
    # Only one cell has room, so the first result is the one shown.
    value = found[0]
    match column.type, value:
        case "string", _:
            return _text(value)
        case (("integer" | "number" | "boolean"), bool()):
            return value if column.type == "boolean" else None
        case "integer", int() | float():
            return int(value)
        case "number", int() | float():
            return value
        case "date", str():
            return printers.age(value, now)
        case _:
            return None


def _text(value: Json) -> str:
    match value:
        case None:
            return "<no value>"
        case str():
            return value
        case float():
            return go_float(value)
        case _:
            return go_json(value)

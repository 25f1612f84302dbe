"""The three patches that need no ownership: JSON patch, JSON merge patch, strategic merge patch.

Each takes an object of the caller's own and returns the patched one. JSON patch is RFC 6902 (by `jsonpatch`), merge
patch is RFC 7386, strategic merge follows the directives and merge keys of built-in kinds (`community` document
"strategic-merge-patch"), which a kind's schema carries.
"""

import re

import jsonpatch
import orjson

from asyncctl.apiserver import errors
from asyncctl.apiserver.schema import Node
from asyncctl.apiserver.wire import Json, JsonObject


def json_patch(obj: JsonObject, body: bytes) -> JsonObject:
    """Apply a JSON patch; raise 400 when it cannot be read and 422 when it cannot be applied."""
    operations = _loads(body)
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise _wrong_type(operations, "[]handlers.jsonPatchOp")
    try:
        patched: JsonObject = jsonpatch.JsonPatch(operations).apply(obj)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError):
        raise errors.bad_patch() from None
    return patched


def merge_patch(obj: JsonObject, body: bytes) -> JsonObject:
    """Apply a JSON merge patch; raise 400 when it cannot be read."""
    patch = _loads(body)
    if not isinstance(patch, dict):
        raise _wrong_type(patch, "map[string]interface {}")
    merged: JsonObject = _merge(obj, patch)
    return merged


def _merge(target: Json, patch: Json) -> Json:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


def _loads(body: bytes) -> Json:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        text = str(error)
        what = "unexpected end of JSON input"
        if (found := re.search(r"line 1 column (\d+)", text)) and int(found[1]) <= len(body):
            shown = body[int(found[1]) - 1 :][:1].decode("utf-8", "replace")
            what = f"invalid character '{shown}' looking for beginning of value"
        raise errors.bad_request(f"error decoding patch: {what}") from None


def _wrong_type(value: Json, wanted: str) -> errors.ApiError:
    found = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    return errors.bad_request(f"error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}")


def strategic_patch(obj: JsonObject, body: bytes, node: Node | None) -> JsonObject:
    """Apply a strategic merge patch. `node` is the kind's schema. Raise 400 when the patch cannot be read."""
    patch = _loads(body)
    if not isinstance(patch, dict):
        raise _wrong_type(patch, "map[string]interface {}")
    return _strategic_map(obj, patch, node)


def _strategic_map(target: JsonObject, patch: JsonObject, node: Node | None) -> JsonObject:
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(target)
    kept = patch.get("$retainKeys")
    if kept is not None:
        merged = {name: value for name, value in merged.items() if name in kept}
    orders = {name.partition("/")[2]: value for name, value in patch.items() if name.startswith("$setElementOrder/")}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            merged[field] = [entry for entry in merged.get(field) or [] if entry not in value]
        if name.startswith("$"):
            continue
        child = node.child(name) if node else None
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            present = merged.get(name)
            merged[name] = _strategic_map(present if isinstance(present, dict) else {}, value, child)
        elif isinstance(value, list) and child is not None and "merge" in child.patch_strategy:
            merged[name] = _strategic_list(merged.get(name) or [], value, child)
        else:
            merged[name] = value
    for name, order in orders.items():
        child = node.child(name) if node else None
        if isinstance(merged.get(name), list):
            key = child.patch_merge_key if child else ""
            live = target.get(name) or []
            merged[name] = _interleaved(live, merged[name], [entry.get(key) if key else entry for entry in order], key)
    return merged


def _strategic_list(target: list[Json], patch: list[Json], node: Node) -> list[Json]:
    key = node.patch_merge_key
    if not key:
        return _interleaved(target, list(patch) + [entry for entry in target if entry not in patch], patch, "")
    if any(isinstance(entry, dict) and entry.get("$patch") == "replace" for entry in patch):
        return [entry for entry in patch if entry.get("$patch") != "replace"]
    merged = list(target)
    touched: list[Json] = []
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise errors.bad_request(f"map: {entry} does not contain declared merge key: {key}")
        name = entry[key]
        index = next((i for i, have in enumerate(merged) if have.get(key) == name), None)
        if entry.get("$patch") == "delete":
            if index is not None:
                del merged[index]
            continue
        touched.append(name)
        if index is None:
            merged.append(_strategic_map({}, entry, node.item()))
        else:
            merged[index] = _strategic_map(merged[index], entry, node.item())
    return _interleaved(target, merged, touched, key)


def _interleaved(live: list[Json], merged: list[Json], order: list[Json], key: str) -> list[Json]:
    """Put the entries named in `order` into that order, and each other one before the first that follows it in `live`.

    Source: `mergeSortedSlice` of `apimachinery/pkg/util/strategicpatch`.
    """

    def name(entry: Json) -> Json:
        return entry.get(key) if key else entry

    ranks = {name(entry): rank for rank, entry in enumerate(live)}
    placed = sorted((entry for entry in merged if name(entry) in order), key=lambda entry: order.index(name(entry)))
    start = 0
    for entry in (entry for entry in merged if name(entry) not in order):
        rank = ranks.get(name(entry), -1)
        while start < len(placed) and ranks.get(name(placed[start]), -1) < rank:
            start += 1
        placed.insert(start, entry)
        start += 1
    return placed

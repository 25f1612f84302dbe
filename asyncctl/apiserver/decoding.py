"""Why an object's JSON does not fit its Go type: the reason behind a 400 `... cannot be handled as a ...: reason`.

The real server decodes built-in objects, and everyone's metadata, into typed structs, and the first value of a wrong
type fails the request. What is checked: JSON types, integer ranges, `Time` and `MicroTime` (exactly six digits),
base64, quantities.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from asyncctl.apiserver.causes import go_float, go_json
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.schema import METADATA, Node
from asyncctl.apiserver.wire import Json, JsonObject

_LAYOUTS = {"Time": ("2006-01-02T15:04:05Z07:00", ""), "MicroTime": ("2006-01-02T15:04:05.000000Z07:00", ".000000")}
_QUANTITY = r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)"
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_DATE_PARTS = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T"))
_CLOCK_PARTS = (("15", r"\d\d?"), (":", ":"), ("04", r"\d\d"), (":", ":"), ("05", r"\d\d"))


def decode_error(kind: ResourceKind, obj: JsonObject) -> str | None:
    """Return why an object cannot be decoded, or None if it can.

    A custom object is checked in its metadata alone; its schema judges the rest.
    """
    if kind.custom or kind.schema is None:
        return next(_metadata_mismatches(obj.get("metadata")), None)
    return next(_mismatches(obj, kind.schema.root, kind.kind, ""), None)


def _metadata_mismatches(metadata: Json) -> Iterator[str]:
    # Of a custom object the metadata is decoded alone: paths begin there.
    if metadata is not None and not isinstance(metadata, dict):
        yield f"json: cannot unmarshal {_json_type(metadata)} into Go value of type v1.ObjectMeta"
    else:
        yield from _mismatches(metadata, METADATA, "ObjectMeta", "")


def _mismatches(value: Json, node: Node, struct: str, path: str) -> Iterator[str]:
    if value is None:
        return
    match node.type, value:
        case "object", dict():
            # Errors name the innermost struct; maps and lists are none.
            inner = node.go_type or struct
            for key, each in value.items():
                known = node.properties.get(key)
                if known is not None:
                    yield from _mismatches(each, known, inner, f"{path}.{key}" if path else key)
                elif node.additional is not None:
                    yield from _mismatches(each, node.additional, struct, path)
        case "array", list():
            for each in value:
                if node.items is not None:
                    yield from _mismatches(each, node.items, struct, path)
        case "string", str():
            yield from _text_error(value, node)
        case "integer", bool():
            yield _unfit("bool", struct, path, node)
        case "integer", int() | float():
            size = 31 if node.format == "int32" else 63
            if value != int(value) or not -(2**size) <= value < 2**size:
                shown = go_float(value) if isinstance(value, float) else str(value)
                yield _unfit(f"number {shown}", struct, path, node)
        case ("number", int() | float()) | ("boolean", bool()):
            return
        case "", _:
            yield from _special(value, node, struct, path)
        case _:
            yield _unfit(_json_type(value), struct, path, node)


def _special(value: Json, node: Node, struct: str, path: str) -> Iterator[str]:
    if node.format == "int-or-string" and not (isinstance(value, str) or type(value) is int):
        found = f"number {go_float(value)}" if isinstance(value, float) else _json_type(value)
        yield _unfit(found, struct, path, node)
    elif node.format == "quantity" and not re.fullmatch(_QUANTITY, value if isinstance(value, str) else go_json(value)):
        yield f"quantities must match the regular expression '^{_QUANTITY}$'"


def _unfit(found: str, struct: str, path: str, node: Node) -> str:
    return f"json: cannot unmarshal {found} into Go struct field {struct}.{path} of type {_go_type(node)}"


def _json_type(value: Json) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"


def _go_type(node: Node) -> str:
    match node.type:
        case "array":
            return f"[]{_go_type(node.items)}" if node.items else "[]interface {}"
        case "object" if node.additional is not None:
            return f"map[string]{_go_type(node.additional)}"
        case "object":
            return f"v1.{node.go_type}" if node.go_type else "map[string]interface {}"
        case "string":
            return "[]uint8" if node.format == "byte" else "string"
        case "integer":
            return node.format or "int64"
        case "number":
            return "float64"
        case "boolean":
            return "bool"
        case _:
            return "int32" if node.format == "int-or-string" else node.format


def _text_error(text: str, node: Node) -> Iterator[str]:
    if node.format == "byte":
        yield from _base64_error(text)
    elif node.format == "date-time":
        yield from _time_error(text, "MicroTime" if node.go_type == "MicroTime" else "Time")


def _base64_error(text: str) -> Iterator[str]:
    """Find where Go's decoder stops: at a strange character, at wrong padding, or where a cut short group begins."""
    digits = text.replace("\n", "").replace("\r", "")
    length = next((position for position, char in enumerate(digits) if char not in _BASE64), len(digits))
    rest, loose = digits[length:], length % 4
    padding = "=" * (4 - loose) if loose > 1 else ""
    if rest == padding and loose != 1:
        return
    if not rest:
        position = length - loose
    elif rest[0] != "=" or not padding:
        position = length
    elif padding.startswith(rest):
        position = len(digits)
    else:
        position = length + (1 if padding == "==" and rest[1] != "=" else len(padding))
    yield f"illegal base64 data at input byte {position}"


def _time_error(text: str, go_type: str) -> Iterator[str]:
    """Say which part of a timestamp is wrong, as Go's `time.Parse` does."""
    layout, fraction = _LAYOUTS[go_type]
    rest = text
    for wanted, pattern in (*_DATE_PARTS, *_CLOCK_PARTS):
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            yield f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{wanted}"'
            return
        rest = rest[match.end() :]
    digits = re.match(r"[.,]\d{6}" if fraction else r"([.,]\d+)?", rest, re.ASCII)
    if digits is None:
        yield f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{fraction}"'
        return
    rest = rest[digits.end() :]
    if not re.fullmatch(r"Z|[+-]\d\d:\d\d", rest, re.ASCII):
        yield f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "Z07:00"'
        return
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        yield f'parsing time "{text}": {_out_of_range(text)} out of range'


def _out_of_range(text: str) -> str:
    for part, begin, most in (("month", 5, 12), ("hour", 11, 23), ("minute", 14, 59), ("second", 17, 59)):
        if not (1 if part == "month" else 0) <= int(text[begin : begin + 2]) <= most:
            return part
    return "day"

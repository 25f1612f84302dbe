"""Objects to JSON and back.

Encoding always writes `apiVersion` and `kind`, and leaves out only `None` (and, in types of Kubernetes itself, what is
empty). Decoding ignores fields that the class does not know; a wrong type is a `DecodeError` that names object, field
and value, but never a value of a Secret. Integers keep every digit both ways; one of more than 64 bits is read but
can't be written. Of a key that is there twice the last counts, as for Go. What JSON can't say is refused.
"""

import base64
import copy
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from math import isfinite
from typing import Any, TypeVar, overload

import msgspec
import orjson

from asyncctl.objects.base import Part
from asyncctl.objects.json import Json, JsonObject
from asyncctl.objects.quantity import Quantity
from asyncctl.objects.resource import Kind, Resource, Unstructured, resource_type_of

R = TypeVar("R", bound=Resource)
_DEPTH = 253  # levels that orjson writes; it reads 1024, and the API server 10,000
_DEEP = "nested too deeply"
_SURROGATE = re.compile("[\ud800-\udfff]")


class DecodeError(ValueError):
    """An object is not what its class says. Its text names the object, the field and the value.

    Attributes:
        kind: the kind that was wanted.
        namespace: empty for a cluster-scoped kind, or where it could not be read.
        name: empty where it could not be read.
        path: the field, in wire names: `spec.users[0].name`; empty for the object itself.
        reason: what was expected and what was found.
    """

    def __init__(self, kind: str, namespace: str, name: str, path: str, reason: str) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.path = path
        self.reason = reason
        key = "/".join(part for part in (namespace, name) if part)
        super().__init__(f"{kind} {key}".rstrip() + ": " + (f"{path}: " if path else "") + reason)


def to_dict(value: Part) -> JsonObject:
    """Return an object, or a part of one, as it is on the wire.

    Raises:
        TypeError: a value is of a type that JSON has no form for, or a time has no zone.
    """
    try:
        fields = _fields(value)
    except RecursionError:
        raise TypeError(f"{type(value).__name__}: {_DEEP}") from None
    if isinstance(value, Resource):
        kind = resource_type_of(type(value))
        return {"apiVersion": kind.api_version, "kind": kind.kind, **fields}
    return fields


def encode(value: Part) -> bytes:
    """Return an object, or a part of one, as JSON.

    Raises:
        TypeError: as `to_dict`.
    """
    return dump(to_dict(value))


def dump(value: Json) -> bytes:
    """Return a value as JSON.

    Raises:
        TypeError: it has no form there; the text says which part of it. NaN and infinity have none: for Kubernetes the
            `null` that others write instead means "remove".
    """
    try:
        written = orjson.dumps(value)
    except TypeError as error:
        raise TypeError(_unwritable(value) or str(error)) from None
    if b"null" in written and (found := _unwritable(value)):
        raise TypeError(found)
    return written


def _unwritable(value: Json) -> str | None:
    """What of `value` JSON has no form for; None when all is well."""
    waiting: list[tuple[Any, str, int]] = [(value, "", 0)]
    while waiting:
        each, path, depth = waiting.pop()
        where = f"{path.removeprefix('.')}: " if path else ""
        match each:
            case _ if depth > _DEPTH:
                return f"{where[:80]}… {_DEEP}"
            case bool() | None:
                pass
            case int() if not -(2**63) <= each < 2**64:
                return f"{where}the integer {each} has more than 64 bits and can't be written as JSON"
            case float() if not isfinite(each):
                return f"{where}{each} can't be written as JSON"
            case str() if not each.isascii() and _SURROGATE.search(each):
                return f"{where}a string with a lone surrogate can't be written as JSON"
            case dict():
                if odd := next((key for key in each if not isinstance(key, str)), None):
                    return f"{where}a key has to be a string, not {odd!r}"
                waiting += [(below, f"{path}.{key}", depth + 1) for key, below in each.items()]
            case list() | tuple():
                waiting += [(below, f"{path}[{index}]", depth + 1) for index, below in enumerate(each)]
            case str() | int() | float():
                pass
            case _:
                return f"{where}a {type(each).__name__} can't be written as JSON"
    return None


@overload
def decode(kind: type[R], data: bytes) -> R: ...
@overload
def decode(kind: Unstructured, data: bytes) -> JsonObject: ...
def decode(kind: Kind, data: bytes) -> Resource | JsonObject:
    """Read an object of that kind from JSON; a plain dict for an `Unstructured` kind.

    Raises:
        DecodeError: it is not JSON, or not of the kind's types.
    """
    if isinstance(kind, Unstructured):
        return _object(kind, data)
    try:
        decoded: Resource = _decoder(kind).decode(data)
    except RecursionError:
        raise DecodeError(kind.resource_type.kind, "", "", "", _DEEP) from None
    except ValueError as error:
        raise _explain(kind, _object(kind, data), error) from None
    return decoded


@overload
def from_dict(kind: type[R], data: Mapping[str, Json]) -> R: ...
@overload
def from_dict(kind: Unstructured, data: JsonObject) -> JsonObject: ...
def from_dict(kind: Kind, data: Mapping[str, Json]) -> Resource | JsonObject:
    """Read an object of that kind from a dict of the wire; for an `Unstructured` kind, that dict.

    Raises:
        DecodeError: as `decode`.
    """
    if isinstance(kind, Unstructured):
        return dict(data)
    try:
        return msgspec.convert(data, kind, dec_hook=_read)
    except ValueError as error:
        raise _explain(kind, copy.deepcopy(dict(data)), error) from None


@cache
def _decoder(kind: type[Resource]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_read)


def _read(wanted: type, value: object) -> Quantity:
    if issubclass(wanted, Quantity):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"expected a quantity, got {_json_type(value)}")  # noqa: TRY004  # what msgspec adds the path to
        return wanted(value)
    raise NotImplementedError(f"a field of type {wanted.__name__} can't be read from JSON")


_PLAIN = frozenset({str, int, bool, float})  # are on the wire as they are; a subclass, as an enum is, may not be


def _fields(part: msgspec.Struct) -> JsonObject:
    omit_empty = getattr(part, "__omit_empty__", False)
    written = {}
    for name, wire_name in zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True):
        value = getattr(part, name)
        if value is None or (omit_empty and not value and value is not False):
            continue
        written[wire_name] = value if type(value) in _PLAIN else plain(value)
    return written


def plain(value: object) -> Json:
    """Return any value of a field as it is on the wire.

    Raises:
        TypeError: as `to_dict`.
    """
    match value:
        case Enum():
            return plain(value.value)
        case str() | bool() | int() | float() | None:
            return value
        case msgspec.Struct():
            return _fields(value)
        case dict():
            return {key: each if type(each) in _PLAIN else plain(each) for key, each in value.items()}
        case list():
            return [each if type(each) in _PLAIN else plain(each) for each in value]
        case set() | frozenset():
            return sorted(plain(each) for each in value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            if value.tzinfo is None:
                raise TypeError(f"the time {value.isoformat()} has no zone: the API wants one, such as datetime.UTC")
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Quantity():
            return str(value)
        case _:
            raise TypeError(f"a {type(value).__name__} can't be written as JSON")


def _object(kind: Kind, data: bytes) -> JsonObject:
    """Decode without types. Not by orjson: it makes a float of an integer beyond 64 bits. But it has better words."""
    name = kind.resource_type.kind
    try:
        found = msgspec.json.decode(data)
    except RecursionError:
        raise DecodeError(name, "", "", "", _DEEP) from None
    except ValueError as error:
        reason = str(error)
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError as told:
            reason = f"{told.msg} at byte {told.pos}"
        raise DecodeError(name, "", "", "", f"not JSON: {reason}") from None
    if not isinstance(found, dict):
        raise DecodeError(name, "", "", "", f"expected object, got {_json_type(found)}")
    return found


def _explain(kind: type[Resource], data: JsonObject, error: ValueError) -> DecodeError:
    metadata = data.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    steps, value = _locate(kind, data, error)
    reason, _, _ = str(error).partition(" - at `")
    reason = (reason[:1].lower() + reason[1:]).replace("`", "")
    missing = re.fullmatch(r"object missing required field (\S+)", reason)
    if missing:
        steps, reason = [*steps, missing[1]], "missing, but required"
    elif kind.hides_values:
        reason = reason if reason.startswith("expected ") else "invalid value"
    elif isinstance(value, str | int | float):
        if reason.endswith(f", got {_json_type(value)}"):
            reason += f" {_short(value)}"
        elif repr(value) not in reason:
            reason += f", got {_short(value)}"
    path = "".join(f".{step}" if _is_name(step) else f"[{step}]" for step in steps).removeprefix(".")
    return DecodeError(
        kind.resource_type.kind, str(metadata.get("namespace") or ""), str(metadata.get("name") or ""), path, reason
    )


def _locate(kind: type[Resource], data: JsonObject, error: ValueError) -> tuple[list[str | int], Any]:
    """Return the steps to the value that failed, and it. msgspec calls any key of a map `...`: find which."""
    steps: list[str | int] = []
    value: Any = data
    found = re.search(r" - at `(?:key in )?\$(.*)`$", str(error))
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", found[1] if found else ""):
        step: str | int = int(index) if index.isdigit() else name
        if index == "..." and isinstance(value, dict):
            for step, each in list(value.items()):
                value.clear()
                value[step] = each
                if _fails(kind, data):
                    break
        steps.append(step)
        try:
            value = value[step]
        except (LookupError, TypeError):
            return steps, None
    return steps, value


def _is_name(step: str | int) -> bool:
    return isinstance(step, str) and re.fullmatch(r"[\w-]+", step) is not None


def _fails(kind: type[Resource], data: JsonObject) -> bool:
    try:
        msgspec.convert(data, kind, dec_hook=_read)
    except ValueError:
        return True
    return False


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _json_type(value: object) -> str:
    names = {dict: "object", list: "array", type(None): "null"}
    return names.get(type(value), type(value).__name__)

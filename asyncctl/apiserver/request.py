"""What a request asks for: its path, its query, the form of the answer, and its body.

Everything here is parsing and checking of what the client sent, with the real server's words when it is wrong. It does
not know which kinds exist, nor what the verbs do.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson
import yaml

from asyncctl.apiserver import errors
from asyncctl.apiserver.errors import ApiError, Cause
from asyncctl.apiserver.wire import Json, JsonObject

BODY_LIMIT = 3 * 1024 * 1024
PROTOBUF = "application/vnd.kubernetes.protobuf"
READABLE = ("application/json", "application/yaml", PROTOBUF)

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `group` is empty for `/api/v1`; `watch` is the old `/watch/` in front of a resource."""

    group: str
    version: str
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    watch: bool = False


def target(path: str) -> Target | None:
    """Read `/api/VERSION/…` or `/apis/GROUP/VERSION/…`; None for every other path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = bool(rest) and rest[0] == "watch"
    if watch:
        rest = rest[1:]
    namespace = ""
    if len(rest) >= 2 and rest[0] == "namespaces":
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in {"status", "finalize"}:
            rest = rest[2:]
    plural, name, subresource = [*rest, "", "", ""][:3]
    if len(rest) > 3 and subresource != "proxy":
        return None
    return Target(group, version, plural, namespace, name, subresource, watch)


class Query:
    """The query of a request, read as the real server reads it."""

    def __init__(self, values: Mapping[str, str], multiple: Mapping[str, list[str]]) -> None:
        self._values = values
        self._multiple = multiple

    def text(self, name: str) -> str:
        """Return the value of `name`, or nothing."""
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        """Tell whether `name` is there and neither `false` nor `0`."""
        value = self._values.get(name)
        return value is not None and value.lower() not in {"false", "0"}

    def has(self, name: str) -> bool:
        """Tell whether `name` is there at all."""
        return name in self._values

    def number(self, name: str) -> int:
        """Return the value of `name` as a whole number, 0 without one; raise 400 when it is no number."""
        value = self._values.get(name, "")
        if not value:
            return 0
        try:
            return int(value)
        except ValueError:
            raise errors.bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None

    def all(self, name: str) -> list[str]:
        """Return every value of `name`."""
        return self._multiple.get(name, [])


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What the query of a write says. `validation` is `Ignore`, `Warn` or `Strict`."""

    manager: str
    validation: str = "Warn"
    dry_run: bool = False
    force: bool = False


def dry_run_causes(values: Sequence[str]) -> list[Cause]:
    """Check the values of `dryRun`: only `All` is known."""
    if all(value == "All" for value in values):
        return []
    shown = json.dumps(list(values), separators=(",", ":"))
    return [_unsupported("dryRun", shown, ["All"])]


def _unsupported(field: str, shown: str, supported: Iterable[str]) -> Cause:
    names = ", ".join(f'"{name}"' for name in supported)
    return Cause("FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {names}", field)


def write_options(query: Query, options: str, user_agent: str, *, patch: str = "") -> WriteOptions:
    """Read `dryRun`, `fieldManager`, `fieldValidation` and `force`.

    Args:
        query: the request's query.
        options: the name the real server has for them, such as `CreateOptions`.
        user_agent: gives the field manager a name when the query has none.
        patch: the content type of a patch; only an apply may force, and it must name its manager.

    Raises:
        ApiError: 422, with a cause for each thing wrong.
    """
    causes: list[Cause] = []
    if options == "PatchOptions":
        if patch == APPLY_PATCH:
            if not query.text("fieldManager"):
                causes.append(
                    Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
                )
        elif query.has("force"):
            message = "Forbidden: may not be specified for non-apply patch"
            causes.append(Cause("FieldValueForbidden", message, "force"))
    manager = query.text("fieldManager")
    if len(manager) > 128:
        causes.append(Cause("FieldValueTooLong", "Too long: may not be more than 128 bytes", "fieldManager"))
    causes += dry_run_causes(query.all("dryRun"))
    validation = query.text("fieldValidation")
    if validation not in {"", "Ignore", "Warn", "Strict"}:
        causes.append(_unsupported("fieldValidation", f'"{validation}"', ["", "Ignore", "Strict", "Warn"]))
    if causes:
        raise errors.invalid_options(options, causes)
    return WriteOptions(
        manager or user_agent.split("/", 1)[0] or "unknown",
        validation or "Warn",
        dry_run=bool(query.all("dryRun")),
        force=query.flag("force"),
    )


@dataclass(frozen=True, slots=True)
class Form:
    """How the answer is to be written: a media type, and the transformation asked for (`Table` and the like)."""

    media_type: str = "application/json"
    transform: str = ""


TRANSFORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


def form(accept: str, transforms: Iterable[str] = TRANSFORMS, *, custom: bool = False) -> Form:
    """Choose the first form of an `Accept` header that can be written; raise 406 when there is none."""
    for clause in accept.split(",") if accept else ("*/*",):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        if media_type in {"*/*", "application/*"}:
            media_type = "application/json"
        if media_type not in {"application/json", "application/yaml"}:
            continue
        given = {name: value for name, _, value in (parameter.partition("=") for parameter in parameters)}
        transform = given.get("as", "")
        if not transform:
            return Form(media_type)
        if given.get("g") == "meta.k8s.io" and given.get("v") == "v1" and transform in transforms:
            return Form(media_type, transform)
    raise errors.not_acceptable(READABLE, custom=custom)


class _Duplicates:
    """Collects the keys that stand twice in a JSON object while it is parsed."""

    def __init__(self) -> None:
        self.found = False

    def pairs(self, pairs: list[tuple[str, Json]]) -> JsonObject:
        body = dict(pairs)
        self.found = self.found or len(body) != len(pairs)
        return body


def _duplicate_paths(body: bytes) -> list[str]:
    """Return the paths of keys that stand twice. Parsed again only when the cheap look has found any."""
    look = _Duplicates()
    json.loads(body, object_pairs_hook=look.pairs)
    if not look.found:
        return []
    paths: list[str] = []

    def walk(value: Json, path: str) -> None:
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, child in value.pairs:
                where = f"{path}.{key}" if path else key
                if key in seen:
                    paths.append(where)
                seen.add(key)
                walk(child, where)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                walk(child, f"{path}[{index}]")

    walk(json.loads(body, object_pairs_hook=_Pairs), "")
    return paths


class _Pairs:
    def __init__(self, pairs: list[tuple[str, Json]]) -> None:
        self.pairs = pairs


class _StrictLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML as the API server means it: JSON's types only (a date stays text), duplicate keys noted."""

    duplicates: list[str]


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> JsonObject:
    body: JsonObject = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        name = key if isinstance(key, str) else json.dumps(key)
        if name in body:
            loader.duplicates.append(f'line {key_node.start_mark.line + 1}: key "{name}" already set in map')
        body[name] = loader.construct_object(value_node, deep=True)
    return body


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)


@dataclass(slots=True)
class Body:
    """A decoded body, and what strict decoding has against it (duplicate keys)."""

    value: Json
    strict: list[str]


def _json_error(body: bytes) -> str:
    """Say what is wrong with `body` as Go's decoder says it, for the common cases."""
    text = body.decode("utf-8", "replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip()
        if not rest:
            return "unexpected end of JSON input"
        if error.msg.startswith("Expecting property name"):
            return f"invalid character '{rest[0]}' looking for beginning of object key string"
        if error.msg.startswith("Expecting ',' delimiter"):
            return f"invalid character '{rest[0]}' after object key:value pair"
        return f"invalid character '{rest[0]}' looking for beginning of value"
    return "unexpected end of JSON input"


def decode(body: bytes, content_type: str, kind: str, *, validation: str = "Warn") -> Body:
    """Decode an object's body.

    Args:
        body: the bytes.
        content_type: of the request; nothing counts as JSON.
        kind: the Kind that is expected, for messages.
        validation: with `Ignore` no one looks for duplicate keys.

    Raises:
        ApiError: 415 for another type, 400 for a body that cannot be read.
    """
    media_type = content_type.split(";", 1)[0].strip()
    if media_type in {"application/yaml", "text/yaml"}:
        value, strict = load_yaml(body)
        if strict and validation == "Strict":
            strict = [_all_yaml_errors(strict)]
        return Body(_object(value, kind, body), strict)
    if media_type == PROTOBUF:
        raise errors.protobuf_not_served()
    if media_type not in {"application/json", ""}:
        raise errors.unsupported_media_type(READABLE)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise unrecognized(kind, f"json parse error: {_json_error(body)}", body) from None
    strict = []
    if validation != "Ignore":
        strict = [f'duplicate field "{path}"' for path in _duplicate_paths(body)]
    return Body(_object(value, kind, body), strict)


def unrecognized(kind: str, why: str, body: bytes) -> ApiError:
    """400: the body is no object at all."""
    return errors.bad_request(
        f"the object provided is unrecognized (must be of type {kind}): "
        f"couldn't get version/kind; {why} ({_short(body)})"
    )


def without_kind(kind: str, body: bytes) -> ApiError:
    """400: the body does not say what it is."""
    text = body.decode("utf-8", "replace")
    return errors.bad_request(
        f"the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing in '{text}' "
        f"({_short(body)})"
    )


def _short(body: bytes) -> str:
    """Show the beginning of a body: as text when it may be JSON, else as hexadecimal digits."""
    if not body:
        return "<empty>"
    shown = body[:30].decode("utf-8", "replace") if body[:1] == b"{" else body[:30].hex()
    return shown if len(body) <= 30 else f"{shown} ..."


def _all_yaml_errors(lines: Iterable[str]) -> str:
    return "yaml: unmarshal errors:\n" + "\n".join(f"  {line}" for line in lines)


def _object(value: Json, kind: str, body: bytes) -> JsonObject:
    if isinstance(value, dict):
        return value
    shown = {list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    go = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
    raise unrecognized(kind, f"json parse error: json: cannot unmarshal {shown} into Go value of type {go}", body)


def load_config(body: bytes, validation: str) -> tuple[JsonObject, list[str]]:
    """Decode the body of an apply; return it and its warnings. Raise 400 when it is no object, or not strict."""
    config, duplicates = load_yaml(body)
    if not isinstance(config, dict):
        found = {list: "array", str: "string", bool: "bool"}.get(type(config), "number")
        raise errors.bad_request(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{found} into Go value of type map[string]interface {{}}"
        )
    if not duplicates or validation == "Ignore":
        return config, []
    text = f"error converting YAML to JSON: {_all_yaml_errors(duplicates)}"
    if validation == "Strict":
        raise errors.bad_request(f"error strict decoding YAML: {text}")
    return config, [text]


def load_yaml(body: bytes) -> tuple[Json, list[str]]:
    """Decode YAML (or JSON, which is YAML too); return it and its duplicate keys. Raise 400 when it is neither."""
    if body[:1] == b"{":
        try:
            value = orjson.loads(body)
            if not _duplicate_paths(body):
                return value, []
        except orjson.JSONDecodeError:
            pass  # flow style YAML begins like JSON
    loader = _StrictLoader(body)
    loader.duplicates = []
    try:
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        raise errors.bad_request(f"error decoding YAML: {error}") from None
    finally:
        loader.dispose()
    return value, loader.duplicates

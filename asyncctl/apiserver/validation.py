"""Whether an object may be written: metadata, schema and what each built-in kind asks, in the real server's order.

`validate_create` and `validate_update` return every cause at once; an empty list means yes. Objects come here decoded,
pruned and defaulted, with the server's own metadata filled in. Workloads, services and claims are stored with their
metadata checked and little else. Sources: the `validation.go` of each kind in `k8s.io/kubernetes/pkg/apis`.
"""

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from asyncctl.apiserver import causes, names
from asyncctl.apiserver.definitions import validate_definition, validate_definition_update
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.metadata import (
    finalizer_warnings,
    immutable,
    validate_common_meta,
    validate_meta,
    validate_update_meta,
)
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.wire import Json, JsonObject

_Check: TypeAlias = Callable[[ResourceKind, JsonObject], Iterator[Cause]]
_UpdateCheck: TypeAlias = Callable[[ResourceKind, JsonObject, JsonObject], Iterator[Cause]]

_DATA_LIMIT = 1024 * 1024
_IMMUTABLE_DATA = "field is immutable when `immutable` is set"
_LARGEST_REPLICAS = 2**31 - 1
_CORE_EVENT = "io.k8s.api.core.v1.Event"
_EVENT = "io.k8s.api.events.v1.Event"


def prepare(kind: ResourceKind, obj: JsonObject) -> None:
    """Bring a decoded object into the form that is stored, in place.

    A Secret's `stringData` becomes `data`; a Lease loses the fields of a feature that is off by default.
    """
    if kind.definition == "io.k8s.api.coordination.v1.Lease":
        for name in ("strategy", "preferredHolder"):
            (obj.get("spec") or {}).pop(name, None)
    if kind.definition == "io.k8s.api.core.v1.Secret":
        if plain := obj.pop("stringData", None):
            obj["data"] = (obj.get("data") or {}) | {
                key: b64encode(value.encode()).decode() for key, value in plain.items()
            }
        obj.setdefault("type", "Opaque")


def warnings(kind: ResourceKind, obj: JsonObject, old: JsonObject | None = None) -> list[str]:
    """Return the texts of the `Warning` headers that a write earns, once it is accepted."""
    return finalizer_warnings(obj, old) if kind.custom else []


def validate_create(kind: ResourceKind, obj: JsonObject) -> list[Cause]:
    """Return what is wrong with a new object."""
    if kind.custom:
        if wrong := _type_meta(kind, obj):
            return wrong
        found = validate_meta(kind, obj)
        if kind.schema:
            found += kind.schema.validate(obj)
        return _with_unchecked_rules(kind, [*found, *_scale_spec(kind, obj), *_scale_status(kind, obj)])
    if kind.definition in {_CORE_EVENT, _EVENT}:
        return [*_event(kind, obj)] or validate_common_meta(kind, obj)
    found = validate_meta(kind, obj, _definition_name(obj) if _is_definition(kind) else None)
    if check := _CREATE.get(kind.definition):
        found += check(kind, obj)
    return found or validate_common_meta(kind, obj)


def validate_update(kind: ResourceKind, new: JsonObject, old: JsonObject, subresource: str = "") -> list[Cause]:
    """Return what is wrong with an update of the object, or of its `status` or `scale`.

    The real server judges metadata twice, so causes may repeat.
    """
    found = validate_common_meta(kind, new, old)
    if kind.custom:
        if wrong := _type_meta(kind, new):
            return found + wrong
        found += validate_update_meta(kind, new, old)
        if subresource == "status":
            found += kind.schema.validate_status(new, old) if kind.schema else []
        else:
            found += kind.schema.validate(new, old) if kind.schema else []
            found += _scale_spec(kind, new)
        return _with_unchecked_rules(kind, [*found, *_scale_status(kind, new)])
    if kind.definition == _CORE_EVENT:
        return [*found, *_event(kind, new)]
    found += validate_update_meta(kind, new, old)
    if not subresource and (check := _UPDATE.get(kind.definition)):
        found += check(kind, new, old)
    return found


def _type_meta(kind: ResourceKind, obj: JsonObject) -> list[Cause]:
    found = []
    if obj.get("kind") != kind.kind:
        found.append(causes.invalid("kind", obj.get("kind", ""), f"must be {kind.kind}"))
    if obj.get("apiVersion") != kind.api_version:
        found.append(causes.invalid("apiVersion", obj.get("apiVersion", ""), f"must be {kind.api_version}"))
    return found


def _with_unchecked_rules(kind: ResourceKind, found: list[Cause]) -> list[Cause]:
    if kind.schema and kind.schema.unchecked_rules and any(cause.reason in causes.BLOCKING for cause in found):
        found.append(causes.unchecked_rules())
    return found


def _scale_spec(kind: ResourceKind, obj: JsonObject) -> Iterator[Cause]:
    if kind.scale_paths:
        yield from _replicas(obj, kind.scale_paths.spec)


def _scale_status(kind: ResourceKind, obj: JsonObject) -> Iterator[Cause]:
    if kind.scale_paths:
        yield from _replicas(obj, kind.scale_paths.status)
        if selector := kind.scale_paths.selector:
            value, wrong = _nested(obj, selector, str)
            if wrong:
                yield causes.invalid(selector, value or "", wrong)


def _replicas(obj: JsonObject, path: str) -> Iterator[Cause]:
    value, wrong = _nested(obj, path, int)
    if wrong:
        yield causes.invalid(path, 0, wrong)
    elif value is not None and value < 0:
        yield causes.invalid(path, value, "should be a non-negative integer")
    elif value is not None and value > _LARGEST_REPLICAS:
        yield causes.invalid(path, value, f"should be less than or equal to {_LARGEST_REPLICAS}")


def _nested(obj: JsonObject, path: str, wanted: type) -> tuple[Json, str]:
    """Follow a path of fields to a string or an integer; return it, or why that cannot be, as Go's helpers say it."""
    value: Json = obj
    walked: list[str] = []
    for name in path.removeprefix(".").split("."):
        walked.append(name)
        if not isinstance(value, dict):
            return None, _accessor_error(walked, value, "map[string]interface{}")
        if name not in value:
            return None, ""
        value = value[name]
    if type(value) is wanted:
        return value, ""
    return None, _accessor_error(walked, value, "int64" if wanted is int else "string")


def _accessor_error(walked: list[str], value: Json, wanted: str) -> str:
    names_in_go: dict[type, str] = {
        str: "string",
        bool: "bool",
        int: "int64",
        float: "float64",
        list: "[]interface {}",
        dict: "map[string]interface {}",
    }
    path = "." + ".".join(walked)
    shown, kind = _go_text(value), names_in_go.get(type(value), "<nil>")
    return f"{path} accessor error: {shown} is of the type {kind}, expected {wanted}"


def _go_text(value: Json) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return causes.go_float(value)
        case list():
            return f"[{' '.join(map(_go_text, value))}]"
        case dict():
            return f"map[{' '.join(f'{key}:{_go_text(value[key])}' for key in sorted(value))}]"
        case _:
            return str(value)


def _lease(_kind: ResourceKind, obj: JsonObject) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        yield causes.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0")
    if transitions is not None and transitions < 0:
        yield causes.invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0")


def _lease_update(kind: ResourceKind, new: JsonObject, _old: JsonObject) -> Iterator[Cause]:
    return _lease(kind, new)


def _config_map(_kind: ResourceKind, obj: JsonObject) -> Iterator[Cause]:
    data: dict[str, str] = obj.get("data") or {}
    binary: dict[str, str] = obj.get("binaryData") or {}
    for key in data:
        for text in names.data_key(key):
            yield causes.invalid(f"data[{key}]", key, text)
        if key in binary:
            yield causes.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in binary:
        for text in names.data_key(key):
            yield causes.invalid(f"binaryData[{key}]", key, text)
    size = sum(len(value.encode()) for value in data.values()) + sum(map(_decoded_size, binary.values()))
    if size > _DATA_LIMIT:
        # That is how the real server writes the path of the whole object here.
        yield causes.too_long("[]", _DATA_LIMIT)


def _config_map_update(kind: ResourceKind, new: JsonObject, old: JsonObject) -> Iterator[Cause]:
    yield from _frozen(new, old, "data", "binaryData")
    yield from validate_meta(kind, new)
    yield from _config_map(kind, new)


def _frozen(new: JsonObject, old: JsonObject, *fields: str) -> Iterator[Cause]:
    if old.get("immutable"):
        if not new.get("immutable"):
            yield causes.forbidden("immutable", _IMMUTABLE_DATA)
        for name in fields:
            if (new.get(name) or {}) != (old.get(name) or {}):
                yield causes.forbidden(name, _IMMUTABLE_DATA)


def _secret(_kind: ResourceKind, obj: JsonObject) -> Iterator[Cause]:
    data: dict[str, str] = obj.get("data") or {}
    for key in data:
        for text in names.data_key(key):
            yield causes.invalid(f"data[{key}]", key, text)
    if sum(map(_decoded_size, data.values())) > _DATA_LIMIT:
        yield causes.too_long("data", _DATA_LIMIT)
    match obj.get("type", ""):
        case "kubernetes.io/service-account-token":
            account = "kubernetes.io/service-account.name"
            if not (obj["metadata"].get("annotations") or {}).get(account):
                yield causes.required(f"metadata.annotations[{account}]")
        case "kubernetes.io/dockercfg":
            yield from _docker_config(data, ".dockercfg")
        case "kubernetes.io/dockerconfigjson":
            yield from _docker_config(data, ".dockerconfigjson")
        case "kubernetes.io/basic-auth" if not {"username", "password"} & set(data):
            yield causes.required("data[username]")
            yield causes.required("data[password]")
        case "kubernetes.io/ssh-auth" if not data.get("ssh-privatekey"):
            yield causes.required("data[ssh-privatekey]")
        case "kubernetes.io/tls":
            for key in ("tls.crt", "tls.key"):
                if key not in data:
                    yield causes.required(f"data[{key}]")


def _docker_config(data: Mapping[str, str], key: str) -> Iterator[Cause]:
    path = f"data[{key}]"
    if key not in data:
        yield causes.required(path)
        return
    try:
        json.loads(b64decode(data[key]))
    except ValueError as error:
        yield causes.invalid(path, "<secret contents redacted>", str(error))


def _secret_update(kind: ResourceKind, new: JsonObject, old: JsonObject) -> Iterator[Cause]:
    yield from immutable("type", new.get("type", ""), old.get("type", ""))
    yield from _frozen(new, old, "data")
    yield from validate_meta(kind, new)
    yield from _secret(kind, new)


def _decoded_size(text: str) -> int:
    try:
        return len(b64decode(text))
    except binascii.Error:
        return len(text)


def _event(kind: ResourceKind, obj: JsonObject) -> Iterator[Cause]:
    """Judge an event; messages name the fields of core events, whichever group it comes from."""
    core = kind.definition == _CORE_EVENT
    namespace = obj["metadata"].get("namespace", "")
    about = (obj.get("involvedObject") or obj.get("regarding") or {}).get("namespace", "")
    mismatch = causes.invalid("involvedObject.namespace", about, "does not match event.namespace")
    if not obj.get("eventTime"):
        if namespace != about and (about or namespace != "default"):
            yield mismatch
        if not core:
            yield causes.required("eventTime")
    else:
        yield from _timed_event(obj, core=core)
        if not about and namespace not in {"default", "kube-system"}:
            yield mismatch
    if not core:
        if obj.get("type") not in {"Normal", "Warning"}:
            yield causes.invalid("type", "", f"has invalid value: {obj.get('type', '')}")
        series = obj.get("series")
        if series is not None and series.get("count", 0) < 2:
            yield causes.invalid("series.count", "", "should be at least 2")


def _timed_event(obj: JsonObject, *, core: bool) -> Iterator[Cause]:
    """Judge what comes with `eventTime`, the mark of the newer kind of event."""
    controller = obj.get("reportingComponent" if core else "reportingController") or ""
    path = "reportingComponent" if core else "reportingController"
    if not controller:
        yield causes.required(path)
    for text in names.label_key(controller):
        yield causes.invalid(path, controller, text)
    for name in ("reportingInstance", "action", "reason"):
        value = obj.get(name) or ""
        if not value:
            yield causes.required(name)
        if len(value.encode()) > 128:
            yield causes.invalid(name, "", "can have at most 128 characters")
    if len((obj.get("message") or obj.get("note") or "").encode()) > 1024:
        yield causes.invalid("message", "", "can have at most 1024 characters")


def _event_update(kind: ResourceKind, new: JsonObject, old: JsonObject) -> Iterator[Cause]:
    yield from _event(kind, new)
    # The real server judges the reason twice, too.
    for name, path in (
        *(("regarding", "involvedObject"), ("reason", "reason"), ("note", "message"), ("reason", "reason")),
        *(("type", "type"), ("action", "action"), ("related", "related"), ("eventTime", "eventTime")),
        *(("reportingController", "reportingController"), ("reportingInstance", "reportingInstance")),
    ):
        yield from immutable(path, new.get(name), old.get(name))


def _is_definition(kind: ResourceKind) -> bool:
    return kind.group == "apiextensions.k8s.io"


def _definition_name(crd: JsonObject) -> Callable[[str], list[str]]:
    spec = crd.get("spec") or {}
    wanted = f"{(spec.get('names') or {}).get('plural', '')}.{spec.get('group', '')}"

    def check(name: str) -> list[str]:
        found = names.dns_subdomain(name)
        return found if name == wanted else [*found, 'must be spec.names.plural+"."+spec.group']

    return check


_CREATE: Mapping[str, _Check] = MappingProxyType(
    {
        "io.k8s.api.core.v1.ConfigMap": _config_map,
        "io.k8s.api.core.v1.Secret": _secret,
        "io.k8s.api.coordination.v1.Lease": _lease,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition": (
            lambda _kind, obj: validate_definition(obj)
        ),
    }
)
_UPDATE: Mapping[str, _UpdateCheck] = MappingProxyType(
    {
        "io.k8s.api.core.v1.ConfigMap": _config_map_update,
        "io.k8s.api.core.v1.Secret": _secret_update,
        "io.k8s.api.coordination.v1.Lease": _lease_update,
        _EVENT: _event_update,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition": (
            lambda _kind, new, old: validate_definition_update(new, old)
        ),
    }
)

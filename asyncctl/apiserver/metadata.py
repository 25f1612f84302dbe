"""The rules of `metadata`, the same for every kind but for the form of names.

Sources: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, `pkg/apis/meta/v1/validation`; of the warnings,
apiextensions-apiserver's `registry/customresource`. Metadata has the right types here (`decoding` sees to that), its
name is generated already, and `generation` and the timestamps are the server's own. That an update carries a
resourceVersion is the store's business.
"""

from collections.abc import Callable, Iterable, Sequence

from asyncctl.apiserver import causes, names
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.rules import deep_equal
from asyncctl.apiserver.wire import Json, JsonObject

_ANNOTATIONS_LIMIT = 256 * 1024
_LABEL_NAMED = {"Namespace", "Service", "StatefulSet"}
_OLDER_GROUPS = {"", "apps", "events.k8s.io"}
_STANDARD_FINALIZERS = {"orphan", "foregroundDeletion", "kubernetes"}
_OWNER_FIELDS = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def validate_meta(
    kind: ResourceKind, obj: JsonObject, name_check: Callable[[str], Sequence[str]] | None = None
) -> list[Cause]:
    """Judge the metadata of a new object as its kind does; `name_check` replaces the kind's own."""
    meta = obj.get("metadata") or {}
    check = name_check or (names.dns_label if _is_label_named(kind) else names.dns_subdomain)
    return _create(kind, meta, check) + _core_finalizers(kind, meta)


def validate_update_meta(kind: ResourceKind, new: JsonObject, old: JsonObject) -> list[Cause]:
    """Judge the metadata of an update as its kind does."""
    meta = new.get("metadata") or {}
    return _update(meta, old["metadata"]) + _core_finalizers(kind, meta)


def validate_common_meta(kind: ResourceKind, obj: JsonObject, old: JsonObject | None = None) -> list[Cause]:
    """Judge what holds for every kind: the name can at least stand in a URL. Done beside the kind's own rules."""
    meta = obj.get("metadata") or {}
    found = _create(kind, meta, names.path_segment)
    return found + _update(meta, old["metadata"]) if old else found


def _create(kind: ResourceKind, meta: JsonObject, check: Callable[[str], Sequence[str]]) -> list[Cause]:
    found: list[Cause] = []
    if prefix := meta.get("generateName"):
        found += [causes.invalid("metadata.generateName", prefix, text) for text in names.prefix_of(check)(prefix)]
    if name := meta.get("name"):
        found += [causes.invalid("metadata.name", name, text) for text in check(name)]
    else:
        found.append(causes.required("metadata.name", "name or generateName is required"))
    namespace = meta.get("namespace", "")
    if not kind.namespaced:
        found += [causes.forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    elif namespace:
        found += [causes.invalid("metadata.namespace", namespace, text) for text in names.dns_label(namespace)]
    else:
        found.append(causes.required("metadata.namespace"))
    return found + _labels(meta) + _annotations(meta) + _owners(meta) + _finalizers(meta) + _managers(meta)


def _update(meta: JsonObject, was: JsonObject) -> list[Cause]:
    found: list[Cause] = []
    added = sorted(set(meta.get("finalizers") or ()) - set(was.get("finalizers") or ()))
    if was.get("deletionTimestamp") and added:
        text = "no new finalizers can be added if the object is being deleted, found new finalizers "
        quoted = ", ".join(map(causes.go_quote, added))
        found.append(causes.forbidden("metadata.finalizers", f"{text}[]string{{{quoted}}}"))
    for name in _IMMUTABLE:
        value = meta.get(name)
        if not deep_equal(value or None, was.get(name) or None):
            empty = None if name.startswith(("deletion", "creation")) else ""
            found.append(causes.invalid(f"metadata.{name}", empty if value is None else value, "field is immutable"))
    return found + _labels(meta) + _annotations(meta) + _owners(meta) + _managers(meta)


def finalizer_warnings(obj: JsonObject, old: JsonObject | None = None) -> list[str]:
    """Return what is said to who adds a finalizer without a domain to a custom resource."""
    before = set((old or {}).get("metadata", {}).get("finalizers") or ())
    found = []
    for name in sorted(set(obj["metadata"].get("finalizers") or ()) - before):
        subject = f"metadata.finalizers: {causes.go_quote(name)}"
        found += [f"{subject}: {text}" for text in names.label_key(name)]
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            path = " including a path (/)" if "." in name else ""
            found.append(
                f"{subject}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other "
                "finalizer writers"
            )
    return found


def _is_label_named(kind: ResourceKind) -> bool:
    return kind.kind in _LABEL_NAMED and not kind.custom


def _labels(meta: JsonObject) -> list[Cause]:
    found: list[Cause] = []
    for key, value in (meta.get("labels") or {}).items():
        found += [causes.invalid("metadata.labels", key, text) for text in names.label_key(key)]
        found += [causes.invalid("metadata.labels", value, text) for text in names.label_value(value)]
    return found


def _annotations(meta: JsonObject) -> list[Cause]:
    annotations: dict[str, str] = meta.get("annotations") or {}
    found = [
        causes.invalid("metadata.annotations", key, text)
        for key in annotations
        for text in names.label_key(key.lower())
    ]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        found.append(causes.too_long("metadata.annotations", _ANNOTATIONS_LIMIT))
    return found


def _owners(meta: JsonObject) -> list[Cause]:
    path = "metadata.ownerReferences"
    owners: list[JsonObject] = meta.get("ownerReferences") or []
    found: list[Cause] = []
    controller = ""
    for owner in owners:
        group, _, version = owner.get("apiVersion", "").rpartition("/")
        if not version or "/" in group:
            found.append(causes.invalid(f"{path}.apiVersion", owner.get("apiVersion", ""), "version must not be empty"))
        missing = [name for name in ("kind", "name", "uid") if not owner.get(name)]
        found += [causes.invalid(f"{path}.{name}", "", "must not be empty") for name in missing]
        if (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
            found.append(_owner_cause(_owner_json(owner), "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            named = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                text = (
                    f'Only one reference can have Controller set to true. Found "true" in references for {controller}'
                )
                found.append(_owner_cause(f"[{','.join(map(_owner_json, owners))}]", f"{text} and {named}"))
            else:
                controller = named
    return found


def _owner_cause(shown: str, detail: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {detail}", "metadata.ownerReferences")


def _owner_json(owner: JsonObject) -> str:
    # Unlike other objects in messages, an owner reference keeps the order of its type's fields.
    required = {"apiVersion": "", "kind": "", "name": "", "uid": ""}
    values: JsonObject = required | owner
    fields = (f'"{key}":{causes.go_json(values[key])}' for key in _OWNER_FIELDS if key in values)
    return f"{{{','.join(fields)}}}"


def _finalizers(meta: JsonObject) -> list[Cause]:
    path = "metadata.finalizers"
    finalizers: list[str] = meta.get("finalizers") or []
    found = [causes.invalid(path, each, text) for each in finalizers for text in names.label_key(each)]
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        found.append(causes.invalid(path, finalizers, text))
    return found


def _core_finalizers(kind: ResourceKind, meta: JsonObject) -> list[Cause]:
    """Of the older built-in kinds a finalizer must have a domain; others only earn a warning, if that."""
    if kind.custom or kind.group not in _OLDER_GROUPS:
        return []
    text = "name is neither a standard finalizer name nor is it fully qualified"
    return [
        causes.invalid(f"metadata.finalizers[{index}]", each, text)
        for index, each in enumerate(meta.get("finalizers") or ())
        if "/" not in each and each not in _STANDARD_FINALIZERS
    ]


def _managers(meta: JsonObject) -> list[Cause]:
    found: list[Cause] = []
    for index, entry in enumerate(meta.get("managedFields") or ()):
        path = f"metadata.managedFields[{index}]"
        if (operation := entry.get("operation", "")) not in {"Apply", "Update"}:
            found.append(causes.invalid(f"{path}.operation", operation, "must be `Apply` or `Update`"))
        if (fields := entry.get("fieldsType")) and fields != "FieldsV1":
            found.append(causes.invalid(f"{path}.fieldsType", fields, "must be `FieldsV1`"))
        found += validate_manager(entry.get("manager", ""), f"{path}.manager")
    return found


def validate_manager(name: str, path: str) -> list[Cause]:
    """Judge the name of a field manager, in managedFields or in the query of a request."""
    found = [causes.too_long(path, 128)] if len(name.encode()) > 128 else []
    for position, char in enumerate(name):
        if not char.isprintable():
            text = f"invalid character U+{ord(char):04X} (at position {len(name[:position].encode())})"
            found.append(causes.invalid(path, name, text))
    return found


def immutable(path: str, new: Json, old: Json) -> Iterable[Cause]:
    """Yield a cause if a field that may not change has changed."""
    if not deep_equal(new, old):
        yield causes.invalid(path, new, "field is immutable")

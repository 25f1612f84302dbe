"""What a kind does of its own: where it is stored, what its strategy sets, resets and refuses on a write.

One table and small functions that look at it; a kind not named there (each custom resource) has the ordinary behaviour.
The rules are those of `pkg/registry/*/strategy.go` of the real server, as far as the kinds served here need them; pods
and workloads are stored, nothing runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from asyncctl.apiserver import errors
from asyncctl.apiserver.resources import ResourceKind, builtins
from asyncctl.apiserver.schema import copy_json
from asyncctl.apiserver.wire import Json, JsonObject

CRD = "customresourcedefinitions.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How objects of one resource are handled.

    Attributes:
        storage: the name of the collection.
        prefix: the path of the collection in the real server's storage, which some messages show.
        returns_deleted: DELETE answers with the object, not with a Status.
        graceful: deletion has a grace period (pods).
        marks_grace: deletion writes `deletionGracePeriodSeconds`.
        reset_labels: a write to `/status` keeps the labels as they are.
        annotations_count: a change of annotations is a new generation.
    """

    storage: str
    prefix: str
    returns_deleted: bool = False
    graceful: bool = False
    marks_grace: bool = True
    reset_labels: bool = False
    annotations_count: bool = False


_TABLE = {
    found.storage: found
    for found in (
        Behaviour("leases.coordination.k8s.io", "leases"),
        Behaviour("services", "services/specs", returns_deleted=True),
        Behaviour("serviceaccounts", "serviceaccounts", returns_deleted=True),
        Behaviour("persistentvolumeclaims", "persistentvolumeclaims", returns_deleted=True),
        Behaviour("pods", "pods", returns_deleted=True, graceful=True),
        Behaviour("namespaces", "namespaces", returns_deleted=True, marks_grace=False),
        Behaviour("deployments.apps", "deployments", reset_labels=True, annotations_count=True),
        Behaviour("statefulsets.apps", "statefulsets"),
        Behaviour(
            CRD,
            "apiextensions.k8s.io/customresourcedefinitions",
            returns_deleted=True,
            marks_grace=False,
        ),
    )
}


def of(kind: ResourceKind) -> Behaviour:
    """Return the behaviour of a kind."""
    resource = "events" if kind.resource == "events.events.k8s.io" else kind.resource
    if found := _TABLE.get(resource):
        return found
    if kind.custom:
        return Behaviour(resource, f"{kind.group}/{kind.plural}")
    return Behaviour(resource, kind.plural)


def metadata(obj: JsonObject) -> JsonObject:
    """Return an object's metadata, made when there is none, without the fields that are empty."""
    meta = obj.get("metadata")
    kept = {name: value for name, value in meta.items() if value not in _NOTHING} if isinstance(meta, dict) else {}
    obj["metadata"] = kept
    return kept


_NOTHING: tuple[Json, ...] = (None, "", [], {})


def copy(obj: JsonObject) -> JsonObject:
    """Return an object of the caller's own."""
    copied: JsonObject = copy_json(obj)
    return copied


def cannot_handle(kind: ResourceKind, text: str) -> errors.ApiError:
    """400: the body does not decode as this kind."""
    message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {text}'
    return errors.bad_request(message)


_PACKAGES = {"": "core", "coordination.k8s.io": "coordination", "apiextensions.k8s.io": "apiextensions"}
"""Go packages by group, as conversion errors name them."""


def check_type(kind: ResourceKind, obj: JsonObject) -> None:
    """Hold `apiVersion` and `kind` of a body against what the path names; fill them in for a built-in kind."""
    api_version, name = obj.get("apiVersion") or "", obj.get("kind") or ""
    if kind.custom:
        if api_version != kind.api_version:
            raise _other_version(api_version, kind)
        return
    api_version, name = api_version or kind.api_version, name or kind.kind
    if (api_version, name) != (kind.api_version, kind.kind):
        registered = {(known.api_version, known.kind) for known in builtins()}
        _, _, version = api_version.rpartition("/")
        if (api_version, name) not in registered:
            scheme = "pkg/runtime/scheme.go:111"
            text = f'no kind "{name}" is registered for version "{api_version}" in scheme "{scheme}"'
        elif api_version == kind.api_version:
            package = _PACKAGES.get(kind.group, kind.group.split(".")[0])
            text = f"converting ({version}.{name}) to ({package}.{kind.kind}): unknown conversion"
        else:
            raise _other_version(api_version, kind)
        raise errors.bad_request(f'{name} in version "{version}" cannot be handled as a {kind.kind}: {text}')
    obj["kind"], obj["apiVersion"] = name, api_version


def _other_version(api_version: str, kind: ResourceKind) -> errors.ApiError:
    message = (
        f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
    )
    return errors.bad_request(message)


def ordered(kind: ResourceKind, obj: JsonObject) -> JsonObject:
    """Return the object with its fields in the order the real server writes them."""
    if kind.custom:
        return dict(sorted(obj.items()))
    return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": obj["metadata"], **obj}


def default(kind: ResourceKind, obj: JsonObject) -> None:
    """Fill in what the kind's defaulting does while a body is decoded."""
    match kind.resource:
        case "namespaces":
            meta = metadata(obj)
            if meta.get("name"):
                meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
        case "secrets":
            obj.setdefault("type", "Opaque")
        case "customresourcedefinitions.apiextensions.k8s.io":
            spec = obj.get("spec")
            if isinstance(spec, dict) and isinstance(names := spec.get("names"), dict) and names.get("kind"):
                names.setdefault("singular", names["kind"].lower())
                names.setdefault("listKind", f"{names['kind']}List")
                spec.setdefault("conversion", {"strategy": "None"})
        case _:
            pass


def fill(obj: JsonObject, empty: Mapping[str, Json]) -> None:
    """Add, in place, the fields the real server writes even when nothing is set in them."""
    for name, value in empty.items():
        if name not in obj:
            obj[name] = copy_json(value)
        elif isinstance(value, Mapping) and isinstance(obj[name], dict):
            fill(obj[name], value)


def prepare_create(kind: ResourceKind, obj: JsonObject) -> None:
    """Set and reset what a new object may not bring along."""
    if kind.status:
        obj.pop("status", None)
    match kind.resource:
        case "namespaces":
            finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
            if "kubernetes" not in finalizers:
                finalizers.append("kubernetes")
            obj["status"] = {"phase": "Active"}
        case "persistentvolumeclaims":
            obj["status"] = {"phase": "Pending"}
        case "pods":
            obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        case "customresourcedefinitions.apiextensions.k8s.io":
            stored = [version["name"] for version in obj["spec"].get("versions") or [] if version.get("storage")]
            obj["status"] = {
                "conditions": None,
                "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": stored,
            }
        case _:
            fill(obj, kind.empty)


def prepare_update(kind: ResourceKind, obj: JsonObject, old: JsonObject, subresource: str) -> None:
    """Reset, in place, what a write to the resource or to its `/status` may not change."""
    if subresource == "status":
        if kind.custom:
            status, managed = obj.get("status"), obj["metadata"].get("managedFields")
            obj.clear()
            obj.update(old)
            obj["metadata"] = dict(old["metadata"])
            _set(obj, "status", status)
            _set(obj["metadata"], "managedFields", managed)
            return
        for name in old.keys() | obj.keys():
            if name not in {"status", "metadata"}:
                _set(obj, name, old.get(name))
        if of(kind).reset_labels:
            _set(obj["metadata"], "labels", old["metadata"].get("labels"))
        return
    if subresource == "finalize":
        _set(obj, "status", old.get("status"))
        return
    if kind.status:
        _set(obj, "status", old.get("status"))
    if kind.resource == "namespaces":
        _set(obj, "spec", old.get("spec"))
    if kind.resource == CRD:
        stored = list(obj["status"].get("storedVersions") or ())
        storage = [each["name"] for each in obj["spec"].get("versions") or () if each.get("storage")]
        obj["status"] = {**obj["status"], "storedVersions": stored + [name for name in storage if name not in stored]}


def _set(obj: JsonObject, name: str, value: object) -> None:
    if value is None:
        obj.pop(name, None)
    else:
        obj[name] = value


def changes_generation(kind: ResourceKind, obj: JsonObject, old: JsonObject) -> bool:
    """Tell whether an update is a new generation: what the object is meant to be has changed."""
    ignored = {"metadata", "status"} if kind.status else {"metadata"}
    if any(obj.get(name) != old.get(name) for name in (obj.keys() | old.keys()) - ignored):
        return True
    was, now = old["metadata"].get("annotations"), obj["metadata"].get("annotations")
    return of(kind).annotations_count and was != now


def finished(kind: ResourceKind, obj: JsonObject) -> bool:
    """Tell whether nothing holds an object that is being deleted."""
    meta = obj["metadata"]
    return not (meta.get("finalizers") or meta.get("deletionGracePeriodSeconds") or holds(kind, obj))


def holds(kind: ResourceKind, obj: JsonObject) -> bool:
    """Tell whether an object has a second list of finalizers that is not empty: a namespace has."""
    return kind.resource == "namespaces" and bool((obj.get("spec") or {}).get("finalizers"))


def grace(kind: ResourceKind, obj: JsonObject, asked: int | None) -> int:
    """Return the seconds an object is given to end: pods that run somewhere have their own, all others none."""
    if not of(kind).graceful or not obj["spec"].get("nodeName"):
        return 0
    if (obj.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return 0
    own: int = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return own if asked is None else max(asked, 1 if asked < 0 else 0)


def mark_deleted(kind: ResourceKind, obj: JsonObject) -> None:
    """Set what else a deletion that has to wait changes."""
    if kind.resource == "namespaces":
        obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}


_EVENT_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_EVENT_FIELDS = {
    **{f"regarding.{name}": f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "fieldPath")},
    "regarding.apiVersion": "involvedObject.apiVersion",
    "regarding.resourceVersion": "involvedObject.resourceVersion",
    "reportingController": "reportingComponent",
    "source": "source.component",
}
_EVENT_NAMES_BACK = {core: new for new, core in _EVENT_NAMES.items()}


def stored_fields(kind: ResourceKind) -> Mapping[str, str]:
    """Return what the fields a selector may name are called in stored objects, where that is something else."""
    return _EVENT_FIELDS if kind.kind == "Event" and not kind.custom else {}


def to_storage(kind: ResourceKind, obj: JsonObject) -> JsonObject:
    """Convert an object from the version of a request to the one that is stored."""
    if kind.resource == "events.events.k8s.io":
        renamed = {_EVENT_NAMES.get(name, name): value for name, value in obj.items()}
        return {**renamed, "apiVersion": "v1"}
    return obj


def from_storage(kind: ResourceKind, obj: JsonObject) -> JsonObject:
    """Convert an object as it is stored to the version of a request."""
    if obj["apiVersion"] == kind.api_version:
        return obj
    if kind.resource == "events.events.k8s.io":
        unset = {"reportingComponent", "reportingInstance"}
        obj = {_EVENT_NAMES_BACK.get(k, k): value for k, value in obj.items() if value != "" or k not in unset}
    return {**obj, "apiVersion": kind.api_version}

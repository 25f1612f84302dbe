"""The `/scale` subresource: an object's replicas as an `autoscaling/v1` Scale, and back."""

from asyncctl.apiserver import errors
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.wire import Json, JsonObject

_SHOWN = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def read(kind: ResourceKind, obj: JsonObject, *, required: bool = True) -> JsonObject:
    """Return the Scale of an object; raise 500 when a custom resource does not say how many replicas it wants."""
    paths = kind.scale_paths
    assert paths is not None
    replicas = _at(obj, paths.spec)
    if replicas is None and kind.custom and required:
        raise errors.internal(f'the spec replicas field "{paths.spec}" does not exist')
    status: JsonObject = {"replicas": _at(obj, paths.status) or 0}
    selector = _at(obj, paths.selector) if paths.selector else None
    if isinstance(selector, dict):
        selector = _selector(selector)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: obj["metadata"][name] for name in _SHOWN if name in obj["metadata"]},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


_EXPRESSIONS = {"In": "{key} in ({values})", "NotIn": "{key} notin ({values})", "Exists": "{key}"}


def _selector(selector: JsonObject) -> str:
    """Write a LabelSelector as text, in the order of its keys."""
    found = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        form, values = _EXPRESSIONS.get(each["operator"], "!{key}"), ",".join(sorted(each.get("values") or ()))
        found.append((each["key"], form.format(key=each["key"], values=values)))
    return ",".join(text for _, text in sorted(found))


def path(kind: ResourceKind) -> tuple[str, ...]:
    """Return the path of the replicas as `managedFields` has it."""
    assert kind.scale_paths is not None
    return tuple(f"f:{name}" for name in kind.scale_paths.spec.lstrip(".").split("."))


def write(kind: ResourceKind, obj: JsonObject, scale: JsonObject) -> None:
    """Set, in place, an object's replicas and resourceVersion to what a Scale says."""
    paths = kind.scale_paths
    assert paths is not None
    *parents, last = paths.spec.lstrip(".").split(".")
    here = obj
    for name in parents:
        here = here.setdefault(name, {})
    here[last] = (scale.get("spec") or {}).get("replicas", 0)
    version = (scale.get("metadata") or {}).get("resourceVersion")
    if version:
        obj["metadata"]["resourceVersion"] = version


def _at(obj: Json, path: str) -> Json:
    for name in path.lstrip(".").split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj

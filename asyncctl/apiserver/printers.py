"""What `kubectl get` shows of the built-in kinds, cell by cell, and how ages are written.

Source of the rules: Kubernetes' `pkg/printers/internalversion/printers.go`; of the ages:
`k8s.io/apimachinery/pkg/util/duration`. The columns these cells stand in are those of `resources`.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeAlias

from asyncctl.apiserver.wire import Json, JsonObject

_Age: TypeAlias = Callable[[Json], str]
_ACCESS_MODES = (
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
)


def cells(definition: str, obj: JsonObject, now: datetime) -> list[Json]:
    """Return the row of a built-in object, `definition` being its type's OpenAPI name."""
    return _PRINTERS[definition](obj, lambda moment: age(moment, now))


def age(moment: Json, now: datetime) -> str:
    """Return how long ago a timestamp was, as kubectl writes it: `6s`, `2m3s`, `5h`, `3d4h`."""
    if not moment:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(str(moment))
    except ValueError:
        return "<invalid>"
    return human_duration((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())


def human_duration(length: float) -> str:
    """Write a length in seconds with two or three figures; up to two seconds of the future are now."""
    seconds = int(length)
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    minutes, hours = seconds // 60, seconds // 3600
    days = hours // 24
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def pod_conditions(pod: JsonObject) -> list[JsonObject]:
    """Return the conditions of a finished pod's row, by which kubectl greys it out."""
    messages = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    phase = _part(pod, "status").get("phase", "")
    if phase not in messages:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": messages[phase]}]


def _part(obj: JsonObject, *path: str) -> JsonObject:
    for name in path:
        obj = obj.get(name) or {}
    return obj


def _name(obj: JsonObject) -> str:
    return str(obj["metadata"].get("name", ""))


def _created(obj: JsonObject, since: _Age) -> str:
    return since(obj["metadata"].get("creationTimestamp"))


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def _selector(selector: JsonObject) -> str:
    operators = {"In": "in", "NotIn": "notin"}
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        key, operator = term["key"], term["operator"]
        if operator in operators:
            parts.append((key, f"{key} {operators[operator]} ({','.join(sorted(term.get('values') or ()))})"))
        else:
            parts.append((key, key if operator == "Exists" else f"!{key}"))
    return ",".join(text for _, text in sorted(parts, key=lambda part: part[0]))


def _containers(pod_spec: JsonObject) -> tuple[str, str]:
    containers = pod_spec.get("containers") or ()
    return (
        ",".join(each.get("name", "") for each in containers),
        ",".join(each.get("image", "") for each in containers),
    )


def _config_map(obj: JsonObject, since: _Age) -> list[Json]:
    return [_name(obj), len(_part(obj, "data")) + len(_part(obj, "binaryData")), _created(obj, since)]


def _secret(obj: JsonObject, since: _Age) -> list[Json]:
    return [_name(obj), obj.get("type", ""), len(_part(obj, "data")), _created(obj, since)]


def _service_account(obj: JsonObject, since: _Age) -> list[Json]:
    return [_name(obj), _created(obj, since)]


def _namespace(obj: JsonObject, since: _Age) -> list[Json]:
    return [_name(obj), _part(obj, "status").get("phase", ""), _created(obj, since)]


def _lease(obj: JsonObject, since: _Age) -> list[Json]:
    return [_name(obj), _part(obj, "spec").get("holderIdentity") or "", _created(obj, since)]


def _definition(obj: JsonObject, _since: _Age) -> list[Json]:
    return [_name(obj), obj["metadata"].get("creationTimestamp", "")]


def _deployment(obj: JsonObject, since: _Age) -> list[Json]:
    spec, status = _part(obj, "spec"), _part(obj, "status")
    return [
        _name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _created(obj, since),
        *_containers(_part(spec, "template", "spec")),
        _selector(_part(spec, "selector")),
    ]


def _stateful_set(obj: JsonObject, since: _Age) -> list[Json]:
    spec, status = _part(obj, "spec"), _part(obj, "status")
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}"
    return [_name(obj), ready, _created(obj, since), *_containers(_part(spec, "template", "spec"))]


def _service(obj: JsonObject, since: _Age) -> list[Json]:
    spec = _part(obj, "spec")
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    ports = ",".join(
        f"{port.get('port')}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    )
    return [
        _name(obj),
        spec.get("type", ""),
        addresses[0] if addresses else "<none>",
        _external_address(obj),
        ports or "<none>",
        _created(obj, since),
        _pairs(spec.get("selector") or {}) or "<none>",
    ]


def _external_address(service: JsonObject) -> str:
    spec = _part(service, "spec")
    own = ",".join(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return own or "<none>"
        case "LoadBalancer":
            ingress = _part(service, "status", "loadBalancer").get("ingress") or ()
            given = sorted({each.get("ip") or each.get("hostname") or "" for each in ingress} - {""})
            return ",".join(filter(None, (*given, own))) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case _:
            return "<unknown>"


def _claim(obj: JsonObject, since: _Age) -> list[Json]:
    spec, status = _part(obj, "spec"), _part(obj, "status")
    volume = spec.get("volumeName", "")
    modes = set(status.get("accessModes") or ())
    annotated = _part(obj, "metadata", "annotations").get("volume.beta.kubernetes.io/storage-class")
    return [
        _name(obj),
        "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", ""),
        volume,
        str(_part(status, "capacity").get("storage", "0")) if volume else "",
        ",".join(short for mode, short in _ACCESS_MODES if mode in modes) if volume else "",
        annotated if annotated is not None else spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        _created(obj, since),
        spec.get("volumeMode") or "<unset>",
    ]


def _event(obj: JsonObject, since: _Age) -> list[Json]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    first = since(obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime"))
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    count = obj.get("count") or obj.get("deprecatedCount") or 1
    if series := obj.get("series"):
        last, count = series.get("lastObservedTime"), series.get("count", 0)
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    instance = source.get("host") or obj.get("reportingInstance") or ""
    name = about.get("name")
    return [
        since(last) if last or series else first,
        obj.get("type", ""),
        obj.get("reason", ""),
        about.get("kind", "").lower() + (f"/{name}" if name else ""),
        about.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        (obj.get("message") or obj.get("note") or "").strip(),
        first,
        count,
        _name(obj),
    ]


def _pod(obj: JsonObject, since: _Age) -> list[Json]:
    spec, status = _part(obj, "spec"), _part(obj, "status")
    ready, total, reason, restarts = _pod_state(obj, since)
    addresses = status.get("podIPs") or ()
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    gates = [each.get("conditionType") for each in spec.get("readinessGates") or ()]
    return [
        _name(obj),
        f"{ready}/{total}",
        reason,
        restarts,
        _created(obj, since),
        (addresses[0].get("ip") if addresses else "") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        f"{sum(conditions.get(gate) == 'True' for gate in gates)}/{len(gates)}" if gates else "<none>",
    ]


def _pod_state(pod: JsonObject, since: _Age) -> tuple[int, int, str, str]:
    """Return ready and all containers, the reason shown as the status, and the restarts."""
    spec, status = _part(pod, "spec"), _part(pod, "status")
    conditions = status.get("conditions") or ()
    reason = status.get("reason") or status.get("phase", "")
    if any(each.get("type") == "PodScheduled" and each.get("reason") == "SchedulingGated" for each in conditions):
        reason = "SchedulingGated"
    sidecars = {each["name"] for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"}
    ready, statuses = 0, []
    initializing = False
    for index, each in enumerate(status.get("initContainerStatuses") or ()):
        statuses.append(each)
        if _part(each, "state").get("terminated") and each["state"]["terminated"].get("exitCode", 0) == 0:
            continue
        if each.get("name") in sidecars and each.get("started"):
            ready += bool(each.get("ready"))
            continue
        reason = f"Init:{_init_reason(each, index, len(spec.get('initContainers') or ()))}"
        initializing = True
        break
    if not initializing or any(
        each.get("type") == "Initialized" and each.get("status") == "True" for each in conditions
    ):
        statuses = [each for each in statuses if each.get("name") in sidecars]
        main = status.get("containerStatuses") or ()
        statuses += main
        running, reason, failure = _main_reason(main, reason)
        ready += running
        if reason == "Completed":
            is_ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
            reason = "Running" if running and is_ready else failure or ("NotReady" if running else reason)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in {"Succeeded", "Failed"}:
            reason = "Terminating"
    restarts = sum(each.get("restartCount", 0) for each in statuses)
    ended = [_part(each, "lastState", "terminated").get("finishedAt") or "" for each in statuses]
    text = f"{restarts} ({since(max(ended))} ago)" if restarts and max(ended) else str(restarts)
    return ready, len(spec.get("containers") or ()) + len(sidecars), reason, text


def _init_reason(container: JsonObject, index: int, total: int) -> str:
    state = _part(container, "state")
    waiting = _part(state, "waiting").get("reason")
    if state.get("terminated"):
        return _end(state["terminated"])
    return waiting if waiting and waiting != "PodInitializing" else f"{index}/{total}"


def _end(terminated: JsonObject) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    if signal := terminated.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _main_reason(statuses: Json, reason: str) -> tuple[int, str, str]:
    """Return how many containers run and are ready, the first one's reason, and that of one that failed."""
    running, failure = 0, ""
    for each in reversed(statuses):
        state = _part(each, "state")
        if waiting := _part(state, "waiting").get("reason"):
            reason = waiting
        elif terminated := state.get("terminated"):
            reason = _end(terminated)
            failure = reason if terminated.get("exitCode", 0) else failure
        elif each.get("ready") and state.get("running") is not None:
            running += 1
    return running, reason, failure


_PRINTERS: Mapping[str, Callable[[JsonObject, _Age], list[Json]]] = MappingProxyType(
    {
        "io.k8s.api.core.v1.ConfigMap": _config_map,
        "io.k8s.api.core.v1.Event": _event,
        "io.k8s.api.core.v1.Namespace": _namespace,
        "io.k8s.api.core.v1.PersistentVolumeClaim": _claim,
        "io.k8s.api.core.v1.Pod": _pod,
        "io.k8s.api.core.v1.Secret": _secret,
        "io.k8s.api.core.v1.Service": _service,
        "io.k8s.api.core.v1.ServiceAccount": _service_account,
        "io.k8s.api.apps.v1.Deployment": _deployment,
        "io.k8s.api.apps.v1.StatefulSet": _stateful_set,
        "io.k8s.api.coordination.v1.Lease": _lease,
        "io.k8s.api.events.v1.Event": _event,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition": _definition,
    }
)

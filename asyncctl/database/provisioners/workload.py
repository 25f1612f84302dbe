"""What a StatefulSet of ours, its pod, and the events about it say: whether there is a server to talk to, or why not.

Pure functions of objects as they were read. The words of a server that ended are shown only where it names what is
fatal: its log may hold statements of tenants.
"""

import re
from collections.abc import Iterable

from asyncctl.database.provisioners.place import Waiting
from asyncctl.objects import JsonObject

ASPECT = "WorkloadReady"
SOON = 10.0  # seconds after which to look again where no watch tells
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_IMAGE |= {"RegistryUnavailable", "SignatureValidationFailed"}
_STARTING = {"ContainerCreating", "PodInitializing"}
_FATAL = re.compile(r"(?:FATAL|PANIC|error): +(.+)")
_NO_VOLUME = "unbound immediate PersistentVolumeClaims"  # the scheduler's words; whether there is one, the claim says
_LONGEST = 300  # characters of others' words


def not_rolled_out(stateful_set: JsonObject) -> Waiting | None:
    """Whether the controller of StatefulSets has not yet seen what we want."""
    seen = (stateful_set.get("status") or {}).get("observedGeneration", 0)
    if seen >= stateful_set["metadata"]["generation"]:
        return None
    name = stateful_set["metadata"]["name"]
    return _starting(f"StatefulSet {name} waits for the cluster's controller of StatefulSets to see it", after=SOON)


def no_pod(stateful_set: JsonObject, events: Iterable[JsonObject]) -> Waiting:
    """Why there is no pod, from the events about the StatefulSet."""
    name = stateful_set["metadata"]["name"]
    failed = [each for each in events if each.get("reason") == "FailedCreate"]
    if not failed:
        return _starting(f"the pod of StatefulSet {name} is being made", after=SOON)
    said = _words(max(failed, key=_last)["message"])
    reason = "QuotaExceeded" if "exceeded quota" in said else "PodRefused"
    return _trouble(f"the pod of StatefulSet {name} can't be made: {said}", reason, after=SOON)


def not_ready(stateful_set: JsonObject, pod: JsonObject) -> Waiting | None:
    """Why the pod is not one to talk to, of a volume that is there; None where it is Ready, and the newest."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if "deletionTimestamp" in pod["metadata"]:
        return _starting(f"pod {name} is stopping, for another to take its place")
    newest = (stateful_set.get("status") or {}).get("updateRevision")
    stale = newest and (pod["metadata"].get("labels") or {}).get("controller-revision-hash") not in {None, newest}
    container: JsonObject = next(iter(status.get("containerStatuses") or []), {})
    found = _waiting(name, container) or _ended(name, container)
    if stale:
        return _starting(f"pod {name} is about to be replaced by one with the new settings")
    if found is not None:
        return found
    why = unschedulable(pod)
    if why and _NO_VOLUME not in why:
        return _trouble(f"no node takes pod {name}: {why}", "Unschedulable")
    if status.get("phase") == "Failed":
        return _trouble(
            f"pod {name} has failed: {_words(status.get('message') or status.get('reason') or '')}", "Failed"
        )
    if _is_ready(status) and status.get("podIP"):
        return None
    return _starting(f"pod {name} is starting")


def unschedulable(pod: JsonObject) -> str:
    """What the scheduler says, where it finds no node."""
    for each in (pod.get("status") or {}).get("conditions") or []:
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return _words(each.get("message") or each.get("reason") or "")
    return ""


def _is_ready(status: JsonObject) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or [])


def _waiting(pod: str, container: JsonObject) -> Waiting | None:
    """Whether the container can't be started."""
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, said = waiting.get("reason") or "", _words(waiting.get("message") or "")
    if not reason or reason in _STARTING or reason == "CrashLoopBackOff":
        return None
    if reason in _IMAGE:
        return _trouble(f"image {container.get('image')} of pod {pod} can't be had: {reason}: {said}", "ImagePull")
    return _trouble(f"the container of pod {pod} can't be started: {reason}: {said}", "ContainerFailed")


def _ended(pod: str, container: JsonObject) -> Waiting | None:
    """Whether the server has ended, and again; once alone may be a node's doing."""
    state, restarts = container.get("state") or {}, container.get("restartCount", 0)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    backing_off = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
    if container.get("ready") or not (backing_off or (ended and restarts >= 2)):
        return None
    how = f"exit code {ended.get('exitCode')} ({ended.get('reason')})" if ended else "no word"
    fatal = _FATAL.findall((ended or {}).get("message") or "")
    words = f": {_words(fatal[-1])}" if fatal else ""
    return _trouble(
        f"PostgreSQL in pod {pod} has ended {restarts} times, the last time with {how}{words}; "
        f"see `kubectl logs {pod} --previous`",
        "CrashLoop",
    )


def _last(event: JsonObject) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next(filter(None, times), "")


def _words(text: str) -> str:
    """Others' words on one line, and not too many."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _starting(message: str, *, after: float | None = None) -> Waiting:
    return Waiting(message, aspect=ASPECT, reason="Starting", after=after)


def _trouble(message: str, reason: str, *, after: float | None = None) -> Waiting:
    return Waiting(message, aspect=ASPECT, reason=reason, trouble=True, after=after)

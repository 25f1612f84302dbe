"""Subresources that are only ever POSTed to: a pod's `eviction`, a service account's `token`.

Nobody's pods are protected here: there are no PodDisruptionBudgets, so every eviction is a deletion. A token has the
form of a real one and is signed by nobody, since every client may do everything anyway.
"""

import base64
import uuid
from datetime import datetime, timedelta

import orjson

from asyncctl.apiserver import causes as why, errors, wire
from asyncctl.apiserver.registry import DeleteOptions, Registry, Write
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.wire import JsonObject

_ISSUER = "https://kubernetes.default.svc"
_EVICTED: JsonObject = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}


def evict(registry: Registry, write: Write, eviction: JsonObject, options: DeleteOptions) -> JsonObject:
    """Delete a pod; see `pkg/registry/core/pod/storage/eviction.go`. `write.name` is the pod's."""
    if (eviction.get("metadata") or {}).get("name") != write.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    record = registry.find(write.kind, write.namespace, write.name)
    running = (record.object.get("status") or {}).get("phase") not in {"Pending", "Succeeded", "Failed"}
    known = options.uid in {None, record.object["metadata"]["uid"]}
    if running and known and not options.dry_run and "deletionTimestamp" not in record.object["metadata"]:
        _mark(registry, write)
    registry.delete(write, options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _mark(registry: Registry, write: Write) -> None:
    def transform(pod: JsonObject | None) -> JsonObject:
        assert pod is not None
        status = pod.setdefault("status", {})
        kept = [each for each in status.get("conditions") or () if each["type"] != _EVICTED["type"]]
        said = {**_EVICTED, "lastProbeTime": None, "lastTransitionTime": wire.time(registry.now())}
        status["conditions"] = [*kept, said]
        return pod

    registry.update(Write(write.kind, write.namespace, write.name, write.options, "status"), transform)


def issue_token(registry: Registry, kind: ResourceKind, namespace: str, name: str, asked: JsonObject) -> JsonObject:
    """Make a token; see `pkg/registry/core/serviceaccount/storage/token.go`."""
    spec, said = asked.get("spec") or {}, (asked.get("metadata") or {}).get("name") or name
    if said != name:
        text = "must match the service account name if specified"
        raise errors.invalid("authentication.k8s.io", "TokenRequest", name, [why.invalid("metadata.name", said, text)])
    seconds: int = spec.get("expirationSeconds") or 3600
    if not 600 <= seconds <= 2**32:
        text = "less than 10 minutes" if seconds < 600 else "larger than 2^32 seconds"
        cause = why.invalid("spec.expirationSeconds", seconds, f"may not specify a duration {text}")
        raise errors.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
    account = registry.find(kind, namespace, name).object["metadata"]
    audiences, now = spec.get("audiences") or [_ISSUER], registry.now()
    expires = now + timedelta(seconds=seconds)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "uid": account["uid"], "creationTimestamp": wire.time(now)},
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": spec.get("boundObjectRef")},
        "status": {
            "token": _jwt(f"system:serviceaccount:{namespace}:{name}", audiences, now, expires),
            "expirationTimestamp": wire.time(expires),
        },
    }


def _jwt(subject: str, audiences: list[str], now: datetime, expires: datetime) -> str:
    claims = {
        "iss": _ISSUER, "sub": subject, "aud": audiences, "jti": str(uuid.uuid4()),
        "iat": int(now.timestamp()), "exp": int(expires.timestamp()),
    }  # fmt: skip
    parts = (orjson.dumps({"alg": "none", "typ": "JWT"}), orjson.dumps(claims), b"unsigned")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)

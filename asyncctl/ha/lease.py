"""The Lease's record (coordination.k8s.io/v1), as client-go's `leaderelection` reads and writes it.

Pure functions over the JSON object, so that fields which others put there are kept. Times in it are for people:
nobody's clock is ever compared with another's.
"""

from datetime import UTC, datetime

from asyncctl.objects.json import Json, JsonObject
from asyncctl.objects.resource import ResourceType

LEASE = ResourceType(
    group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", singular="lease", list_kind="LeaseList",
    has_status=False, has_generation=False,
)  # fmt: skip


def is_lease(answer: Json) -> bool:
    """Whether `answer` is a Lease as a server has it, and nothing that a proxy made of it."""
    if not isinstance(answer, dict) or answer.get("kind") != LEASE.kind:
        return False
    metadata, spec = answer.get("metadata"), answer.get("spec")
    return isinstance(metadata, dict) and "resourceVersion" in metadata and isinstance(spec, dict | None)


def holder(lease: JsonObject) -> str:
    """Who holds it; empty when nobody does."""
    found = (lease.get("spec") or {}).get("holderIdentity")
    return found if isinstance(found, str) else ""


def duration(lease: JsonObject, default: float) -> float:
    """For how long, in seconds, the holder may be silent, by its own word."""
    found = (lease.get("spec") or {}).get("leaseDurationSeconds")
    return float(found) if isinstance(found, int) and found > 0 else default


def new(namespace: str, name: str) -> JsonObject:
    """A Lease that nobody holds yet."""
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {},
    }


def held_by(lease: JsonObject, identity: str, now: datetime, seconds: int) -> JsonObject:
    """`lease`, taken or renewed by `identity` at `now` for `seconds`. `leaseTransitions` grows with each new holder."""
    spec = dict(lease.get("spec") or {})
    moment = _micro_time(now)
    if holder(lease) != identity:
        spec["acquireTime"] = moment
        if "holderIdentity" in spec:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
    spec.setdefault("leaseTransitions", 0)
    spec |= {"holderIdentity": identity, "renewTime": moment, "leaseDurationSeconds": seconds}
    return lease | {"spec": spec}


def released(lease: JsonObject, now: datetime) -> JsonObject:
    """`lease`, given up at `now`: the next one may take it at once."""
    spec = dict(lease.get("spec") or {})
    spec |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(now)}
    return lease | {"spec": spec}


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

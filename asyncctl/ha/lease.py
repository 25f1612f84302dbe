"""The Lease's record (coordination.k8s.io/v1), as client-go's `leaderelection` reads and writes it.

Pure functions over the JSON object, so that fields which others put there are kept. Times in it are for people:
nobody's clock is ever compared with another's. What makes no sense in a record is taken for what is safe, and told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import TypeGuard

from asyncctl.client.reply import visible
from asyncctl.objects.json import Json, JsonObject
from asyncctl.objects.resource import ResourceType

LEASE = ResourceType(
    group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", singular="lease", list_kind="LeaseList",
    has_status=False, has_generation=False,
)  # fmt: skip
_SHOWN = 100  # characters of what somebody else has put there
_MOST = 2**31 - 1  # what `leaseTransitions` can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Which Lease, and its times in seconds; lease > renew > 1.2 x retry."""

    name: str
    namespace: str
    duration: float
    renew_deadline: float
    retry_period: float


def is_lease(answer: Json) -> bool:
    """Whether `answer` is a Lease as a server has it, and nothing that a proxy made of it."""
    if not isinstance(answer, dict) or answer.get("kind") != LEASE.kind:
        return False
    metadata, spec = answer.get("metadata"), answer.get("spec")
    return isinstance(metadata, dict) and "resourceVersion" in metadata and isinstance(spec, dict | None)


def holder(lease: JsonObject) -> str:
    """Who holds it; empty when nobody does. What is no text stands for somebody, too."""
    found = (lease.get("spec") or {}).get("holderIdentity")
    return "" if found is None else visible(str(found), _SHOWN)


def held_by(lease: JsonObject, identity: str) -> bool:
    """Whether `identity`, and nobody else, holds it."""
    return (lease.get("spec") or {}).get("holderIdentity") == identity


def duration(lease: JsonObject, default: float) -> float:
    """For how long, in seconds, the holder may be silent, by its own word."""
    found = (lease.get("spec") or {}).get("leaseDurationSeconds")
    return float(found) if _is_natural(found) and found > 0 else default


def oddities(lease: JsonObject, default: float) -> Iterator[tuple[str, str]]:
    """What makes no sense in the record, each by its field, and what it is taken for."""
    spec = lease.get("spec") or {}
    if not isinstance(spec.get("holderIdentity"), str | None):
        yield "holderIdentity", "is no text, and is taken for somebody who holds the Lease"
    if holder(lease) and not (_is_natural(found := spec.get("leaseDurationSeconds")) and found > 0):
        yield "leaseDurationSeconds", f"is no number of seconds above zero; {default:g} are taken for it"
    if not _is_natural(spec.get("leaseTransitions") or 0):
        yield "leaseTransitions", "is no number of takeovers, and is counted from zero again"


def new(namespace: str, name: str) -> JsonObject:
    """A Lease that nobody holds yet, and that is not there yet."""
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {},
    }


def exists(lease: JsonObject) -> bool:
    """Whether a server has it."""
    return "resourceVersion" in lease["metadata"]


def taken(lease: JsonObject, identity: str, now: datetime, seconds: float) -> JsonObject:
    """`lease`, taken or renewed by `identity` at `now` for `seconds`.

    `leaseTransitions` grows when somebody takes a Lease that is there already, from another or from nobody; it does not
    when a Lease is made or renewed. Seconds are whole ones, rounded up: others wait too long rather than too short.
    """
    spec = dict(lease.get("spec") or {})
    moment = _micro_time(now)
    before = spec.get("leaseTransitions")
    transitions: int = before if _is_natural(before) else 0
    if spec.get("holderIdentity") != identity:
        spec["acquireTime"] = moment
        transitions = min(transitions + exists(lease), _MOST)
    spec |= {
        "holderIdentity": identity, "renewTime": moment, "leaseDurationSeconds": ceil(seconds),
        "leaseTransitions": transitions,
    }  # fmt: skip
    return lease | {"spec": spec}


def released(lease: JsonObject, now: datetime) -> JsonObject:
    """`lease`, given up at `now`: the next one may take it at once."""
    moment = _micro_time(now)
    spec = dict(lease.get("spec") or {})
    spec |= {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": moment, "renewTime": moment}
    return lease | {"spec": spec}


def _is_natural(found: Json) -> TypeGuard[int]:
    return type(found) is int and found >= 0  # not True


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

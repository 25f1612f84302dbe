"""The status patch: what the author changed in place becomes one merge patch, or nothing.

The resourceVersion guards it. When somebody else wrote meanwhile, the live object is read and the three versions are
merged, conditions by type, so that another writer's condition is neither lost nor brought back.
"""

from typing import Any

import msgspec

from asyncctl.client.client import Client
from asyncctl.client.errors import Conflict
from asyncctl.client.patch import Patch
from asyncctl.objects.json import Json, JsonObject
from asyncctl.objects.resource import ResourceType

TRIES = 5
_ABSENT: Any = object()


def difference(before: JsonObject, after: JsonObject) -> JsonObject:
    """The merge patch (RFC 7386) that turns `before` into `after`."""
    patch: JsonObject = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key, _ABSENT)
        if isinstance(old, dict) and isinstance(value, dict):
            inner = difference(old, value)
            if inner:
                patch[key] = inner
        elif old is _ABSENT or old != value:
            patch[key] = value
    return patch


def merge(before: JsonObject, after: JsonObject, live: JsonObject) -> JsonObject:
    """`live` with what changed from `before` to `after`; conditions one by one, by type."""
    merged = dict(live)
    for key in before.keys() | after.keys():
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if old == new:
            continue
        if new is _ABSENT:
            merged.pop(key, None)
        elif key == "conditions":
            merged[key] = _merge_conditions(old, new, live.get(key))
        elif isinstance(new, dict) and isinstance(live.get(key), dict):
            merged[key] = merge(old if isinstance(old, dict) else {}, new, live[key])
        else:
            merged[key] = new
    return merged


def _merge_conditions(before: Json, after: Json, live: Json) -> list[JsonObject]:
    old, new, merged = _by_type(before), _by_type(after), _by_type(live)
    for kind in old.keys() | new.keys():
        if kind not in new:
            merged.pop(kind, None)
        elif new[kind] != old.get(kind):
            merged[kind] = new[kind]
    return [merged[kind] for kind in sorted(merged)]


def _by_type(conditions: Json) -> dict[str, JsonObject]:
    return {one["type"]: one for one in conditions} if isinstance(conditions, list) else {}


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    uid: str
    resource_version: str
    namespace: str | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata
    status: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Object).decode  # the rest, which is most of it, is skipped


async def write_status(
    client: Client, kind: ResourceType, live: bytes, before: JsonObject, after: JsonObject
) -> bytes | None:
    """Send what changed from `before` to `after`; nothing when the server has it already.

    Args:
        client: The live client.
        kind: What the object is.
        live: The object as it was read last; its resourceVersion guards the write.
        before: Its status when the pass began, or was saved last.
        after: Its status now, its conditions stamped.

    Returns:
        The object as the server has it then, or None when nothing had to be sent.

    Raises:
        NotFound: The object is gone.
        Conflict: Others wrote it each time, five times.
    """
    found = _decode(live)
    uid, name, namespace = found.metadata.uid, found.metadata.name, found.metadata.namespace
    for attempt in range(1, TRIES + 1):
        if found.metadata.uid != uid:  # a namesake, which this status is not about
            return None
        theirs = found.status or {}
        patch = difference(theirs, merge(before, after, theirs))
        if not patch:  # on a later try: it was our own patch whose answer was lost
            return live if attempt > 1 else None
        change: JsonObject = {
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": patch,
        }
        subresource = "status" if kind.has_status else None
        try:
            return await client.patch(
                kind, name, change, patch=Patch.MERGE, namespace=namespace, subresource=subresource
            )
        except Conflict:
            if attempt == TRIES:
                raise
        live = await client.get(kind, name, namespace=namespace)
        found = _decode(live)
    raise AssertionError("the last try returns or raises")

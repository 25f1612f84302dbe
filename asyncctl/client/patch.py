"""The four ways to change an object without sending it whole, and when each is safe to repeat."""

import enum
from collections.abc import Mapping, Sequence

from asyncctl.objects.json import JsonObject


class Patch(enum.Enum):
    """A kind of patch; the value is its content type."""

    MERGE = "application/merge-patch+json"
    """RFC 7386: maps are merged, null removes, lists are replaced."""
    JSON = "application/json-patch+json"
    """RFC 6902: operations, with `test`; a test that fails is raised as `Conflict`."""
    STRATEGIC = "application/strategic-merge-patch+json"
    """Kubernetes' own, for built-in kinds: lists are merged by key."""
    APPLY = "application/apply-patch+yaml"
    """Server-side apply (KEP-555): what this field manager wants, complete."""


def repeatable(patch: Patch, change: JsonObject | Sequence[JsonObject]) -> bool:
    """Whether sending the patch twice has the effect of sending it once: an apply, or one that a version guards.

    A `test` of the resourceVersion guards as `metadata.resourceVersion` does. One of the uid does not: an item that is
    added at the end of a list would be added twice.
    """
    if patch is Patch.APPLY:
        return True
    if isinstance(change, Mapping):
        return pins_version(change)
    return any(
        operation.get("op") == "test" and operation.get("path") == "/metadata/resourceVersion" for operation in change
    )


def pins_version(obj: JsonObject) -> bool:
    """Whether an object, or a patch of one, says which version it is meant for."""
    metadata = obj.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("resourceVersion") not in {None, "", "0"}

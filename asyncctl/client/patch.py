"""The four ways to change an object without sending it whole, and when each is safe to repeat."""

import enum


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

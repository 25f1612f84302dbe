"""Whose an object is: by owner reference, or by an annotation where it is to outlive its owner.

Nothing that is somebody else's is ever written or deleted; what tells is the uid of the owner that controls it, or
kind, namespace and name of one in the annotation. A reference that does not say `controller` is somebody's wish to have
an object collected with its owner; who makes the object is another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from asyncctl.cache.header import Entry, Header, annotations_of
from asyncctl.controller.outcome import NotOwned
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import ResourceType

OWNER = "asyncctl/owner"
"""Annotation of an applied object that has no owner reference: whose it is all the same."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """What makes an object that of one owner, which is of `kind` and has `header`."""

    kind: ResourceType
    header: Header

    @property
    def mark(self) -> str:
        """The value of the annotation: kind, namespace and name of the owner."""
        return "/".join(part for part in (self.kind.resource, self.header.namespace, self.header.name) if part)

    def put_on(self, wanted: JsonObject, kind: ResourceType, *, owned: bool) -> None:
        """Write into `wanted`, an object of `kind` with a name, whose it is; its namespace defaults to the owner's.

        Args:
            wanted: What is to be applied; it is changed.
            kind: What it is.
            owned: By owner reference, so that it goes with its owner; else by annotation.

        Raises:
            ValueError: The owner would be in another namespace.
        """
        metadata, mine = wanted["metadata"], self.header
        if kind.namespaced:
            metadata["namespace"] = metadata.get("namespace") or mine.namespace
        elif owned and mine.namespace:
            name = metadata["name"]
            raise ValueError(f"{kind} {name!r} has no namespace and can't be owned by {mine.namespace}/{mine.name}")
        if not owned:
            metadata.setdefault("annotations", {})[OWNER] = self.mark
            return
        if kind.namespaced and mine.namespace and metadata["namespace"] != mine.namespace:
            raise ValueError(
                f"{kind} {metadata['namespace']}/{metadata['name']} can't be owned by {mine.namespace}/{mine.name}: an "
                "owner must be in the same namespace; apply it with owned=False and clean it up in a finalizer"
            )
        reference = {
            "apiVersion": self.kind.api_version, "kind": self.kind.kind, "name": mine.name, "uid": mine.uid,
            "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        others = [each for each in metadata.get("ownerReferences", []) if each["uid"] != mine.uid]
        metadata["ownerReferences"] = [*others, reference]

    def released(self, metadata: JsonObject) -> JsonObject | None:
        """The merge patch of `metadata`, an object's as it was read, by which it outlives its owner and stays ours.

        None where there is nothing to take off it. It is of this uid and version alone.
        """
        owners = metadata.get("ownerReferences") or []
        others = [each for each in owners if each["uid"] != self.header.uid]
        if len(others) == len(owners):
            return None
        pinned = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        return pinned | {"ownerReferences": others or None, "annotations": {OWNER: self.mark}}

    def has(self, controller: str | None, annotations: Mapping[str, str]) -> bool:
        """Whether an object that the owner of this uid controls, or nobody, and with these annotations, is ours."""
        return self.header.uid == controller or annotations.get(OWNER) == self.mark

    def has_entry(self, entry: Entry) -> bool:
        """Whether a cached object is ours. Its annotations are read only where they can say so."""
        controller = entry.header.controller
        if controller is not None and controller.uid == self.header.uid:
            return True
        return self.mark.encode() in entry.data and annotations_of(entry).get(OWNER) == self.mark

    def check(self, kind: ResourceType, entry: Entry, *, adopt: bool) -> None:
        """Raise `NotOwned` unless a cached object is ours; with `adopt`, one that is nobody's becomes ours."""
        if self.has_entry(entry):
            return
        header, told = entry.header, annotations_of(entry).get(OWNER)
        owner = header.controller
        if adopt and owner is None and told is None:
            return
        whose = f"{owner.kind} {owner.name}" if owner else told or "nobody we know"
        raise NotOwned(
            f"{kind.kind} {'/'.join(part for part in header.key if part)} exists and belongs to {whose}; it was not "
            "touched. Choose another name, or delete it if nobody needs it"
        )

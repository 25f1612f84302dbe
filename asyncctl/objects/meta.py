"""`ObjectMeta` and `OwnerReference` (metav1): whose object it is, and which version of it.

Times are `datetime`s in UTC. Other fields that the API server leaves out are empty here (`""`, 0, `{}`, `[]`), never
`None`, and left out again on the wire; `managedFields` is not kept.
"""

from datetime import datetime

from asyncctl.objects.base import Part, field


class OwnerReference(Part):
    """An object without which this one is to be collected."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Part, omit_empty=True):
    """The metadata of an object. `namespace` is empty for a cluster-scoped one, `generation` 0 for a kind without."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: list[str] = field(default_factory=list)
    owner_references: list[OwnerReference] = field(default_factory=list)


def controller_of(meta: ObjectMeta) -> OwnerReference | None:
    """Return the one owner that controls the object, or `None`."""
    return next((owner for owner in meta.owner_references if owner.controller), None)

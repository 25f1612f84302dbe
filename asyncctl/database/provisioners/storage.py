"""What a volume claim of ours says of itself: whether its volume is there, and as large as it is wanted."""

from asyncctl.database.provisioners.manifests import MAJOR, TAKEN_BY
from asyncctl.database.provisioners.place import PlaceRefused, Waiting
from asyncctl.database.types import StorageSpec
from asyncctl.objects import JsonObject, Quantity

ASPECT = "StorageReady"


def requested(claim: JsonObject) -> Quantity:
    """The size that was asked for last."""
    return Quantity(claim["spec"]["resources"]["requests"]["storage"])


def is_taken(claim: JsonObject, uid: str) -> bool:
    """Whether the `Database` of this uid has its data on it: one that was kept may have been refused."""
    return (claim["metadata"].get("annotations") or {}).get(TAKEN_BY) == uid


def refuse_other_data(claim: JsonObject, wanted: StorageSpec, major: str) -> None:
    """Raise `PlaceRefused` where a claim that was kept can't be what is wanted now."""
    name = claim["metadata"]["name"]
    known = (claim["metadata"].get("annotations") or {}).get(MAJOR, major)
    if known != major:
        raise PlaceRefused(
            f"PersistentVolumeClaim {name} was kept, and has data of PostgreSQL {known}: set spec.inCluster.version to "
            f"{known}, or delete the claim if nobody needs its data",
            aspect=ASPECT,
            reason="VersionMismatch",
        )
    there, asked = claim["spec"].get("storageClassName"), wanted.storage_class_name
    if asked and there and there != asked:
        raise PlaceRefused(
            f"PersistentVolumeClaim {name} was kept, and is of class {there}, not {asked}: a claim's class can't be "
            f"changed; name {there}, or delete the claim if nobody needs its data",
            aspect=ASPECT,
            reason="Invalid",
        )


def going(claim: JsonObject) -> Waiting | None:
    """Whether the claim is being deleted."""
    if "deletionTimestamp" not in claim["metadata"]:
        return None
    return Waiting(
        f"PersistentVolumeClaim {claim['metadata']['name']} is being deleted, and its data goes when no pod uses it any"
        " more: this can't be undone. If it was not meant, take a backup of the database now",
        aspect=ASPECT,
        reason="VolumeTerminating",
        trouble=True,
    )


def pending(claim: JsonObject, why: str) -> Waiting | None:
    """Whether there is no volume yet; `why` is what the scheduler says of the pod that waits for it."""
    phase = (claim.get("status") or {}).get("phase", "Pending")
    name = claim["metadata"]["name"]
    if phase == "Bound":
        return None
    if phase == "Lost":
        return Waiting(
            f"the volume of PersistentVolumeClaim {name} is gone, and its data with it, unless the volume comes back: "
            "restore it, or delete this object",
            aspect=ASPECT,
            reason="VolumeLost",
            trouble=True,
        )
    kind = claim["spec"].get("storageClassName")
    source = f"StorageClass {kind}" if kind else "a StorageClass: there is no default one, and none is named"
    return Waiting(
        f"PersistentVolumeClaim {name} waits for a volume from {source}{f'; {why}' if why else ''}",
        aspect=ASPECT,
        reason="VolumePending",
    )


def growing(claim: JsonObject) -> str:
    """How far a volume is that was asked to grow; empty where it is as large as it was asked to be."""
    status = claim.get("status") or {}
    there = Quantity((status.get("capacity") or {}).get("storage", "0"))
    asked = requested(claim)
    if there >= asked:
        return ""
    said = [
        f"{each['type']}: {each['message']}" if each.get("message") else each["type"]
        for each in status.get("conditions") or []
        if each.get("status") == "True"
    ]
    return f"the volume has {there} and grows to {asked}{'; ' if said else ''}{'; '.join(said)}"

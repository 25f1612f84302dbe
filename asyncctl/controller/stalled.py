"""The condition `Stalled`: an object says of itself that it is parked, and why.

It is kept where the kind's class has a `Status`; there also of an object that the class can't decode, which is a dict
then. Of other kinds nobody knows whether their status has conditions: an event has to do.
"""

from datetime import datetime
from typing import get_args

import msgspec

from asyncctl.objects.codec import to_dict
from asyncctl.objects.conditions import Condition, Conditions, Status
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource

STALLED = "Stalled"


def has_conditions(kind: Kind) -> bool:
    """Whether objects of `kind` have a status with conditions."""
    if not isinstance(kind, type):
        return False
    types = [field.type for field in msgspec.structs.fields(kind) if field.name == "status"]
    return any(isinstance(each, type) and issubclass(each, Status) for one in types for each in (one, *get_args(one)))


def stalled(obj: Resource | JsonObject) -> Condition | None:
    """The condition as it is in the object; None where there is none, or none that can be read."""
    conditions = _conditions(obj)
    return conditions.get(STALLED) if conditions is not None else None


def set_stalled(
    obj: Resource | JsonObject, so: bool, reason: str, message: str, *, now: datetime  # noqa: FBT001 - as `Conditions.set`
) -> bool:  # fmt: skip
    """Set the condition, in an object of a kind that `has_conditions`; False where there is no place for it.

    Args:
        obj: The object as it is in the pass; its status is sent later.
        so: Whether it is parked.
        reason: One CamelCase word.
        message: A sentence for people.
        now: The wall clock. Of a dict nobody stamps the conditions later.
    """
    conditions = _conditions(obj)
    if conditions is None:
        return False
    conditions.set(STALLED, so, reason, message)
    if isinstance(obj, dict):
        conditions.stamp(now, obj["metadata"].get("generation"))
        obj.setdefault("status", {})["conditions"] = [to_dict(each) for each in conditions]
    return True


def _conditions(obj: Resource | JsonObject) -> Conditions | None:
    if isinstance(obj, Resource):
        status = getattr(obj, "status", None)
        return status.conditions if isinstance(status, Status) else None
    found = obj.get("status") or {}
    try:
        return Conditions(msgspec.convert(found.get("conditions") or [], list[Condition]))
    except (AttributeError, msgspec.ValidationError):  # what can't be decoded may be the status itself
        return None

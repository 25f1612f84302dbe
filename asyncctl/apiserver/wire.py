"""What goes over the wire: the JSON aliases every module here uses, and Kubernetes' two time formats.

`Time` has whole seconds, `MicroTime` exactly six digits, both UTC with a `Z`. Nothing here reads a clock.
"""

from datetime import UTC, datetime
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""Any JSON value. Python cannot write the recursive type in a way that lets one walk it."""

JsonObject: TypeAlias = dict[str, Json]


def time(moment: datetime) -> str:
    """Write an aware `moment` as metav1.Time: `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(moment: datetime) -> str:
    """Write an aware `moment` as metav1.MicroTime: `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

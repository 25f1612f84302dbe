"""The values that fields of a `Database` have in common, and the rule of those that never change."""

from typing import Annotated, TypeAlias

from asyncctl.objects import Meta, Quantity

Identifier: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*$", min_length=1, max_length=63)]
LoginName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*$", min_length=1, max_length=50)]
ObjectName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", min_length=1, max_length=253)]
SERVER_NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
"""What a server of the catalogue may be called; without anchors, as RE2 and Python differ on how to write the end."""
LabelValue: TypeAlias = Annotated[str, Meta(pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63)]
QUALIFIED = "([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
"""The key of a label or a taint, and the name of a resource: `example.com/disk`."""
ParameterValue: TypeAlias = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]*$", max_length=1024)]
Amount: TypeAlias = Annotated[Quantity, Meta(extra_json_schema={"maxLength": 32})]
Duration: TypeAlias = Annotated[
    str,
    Meta(
        # Go's durations wrap around without a word; so many digits can't.
        pattern=r"^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$",
        min_length=2,
        max_length=20,
        extra_json_schema={"format": "duration"},
    ),
]
ConnectionLimit: TypeAlias = Annotated[int, Meta(ge=-1, le=2**31 - 1)]


def unchanged(name: str) -> str:
    """Return the expression of an optional field that may neither change, nor come, nor go."""
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"

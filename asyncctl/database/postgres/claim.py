"""Whose database it is: a claim, kept by PostgreSQL as the comment on each role that we make.

On a role and not on the database, since a tenant could rewrite a comment on what he owns.
"""

from dataclasses import dataclass
from typing import Self

_PREFIX = "asyncctl:"


@dataclass(frozen=True)
class Claim:
    """One `Database` object of one cluster; `str()` is the comment."""

    cluster: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{_PREFIX}{self.cluster}/{self.namespace}/{self.name}/{self.uid}"

    @classmethod
    def parse(cls, comment: str | None) -> Self | None:
        """Return the claim that a comment holds, or None where it is no claim."""
        if comment is None or not comment.startswith(_PREFIX):
            return None
        parts = comment.removeprefix(_PREFIX).rsplit("/", 3)  # from the right: a cluster id is free text
        return cls(*parts) if len(parts) == 4 and all(parts) else None

    def same_object(self, other: Self | None) -> bool:
        """Whether both name the same object, though it may have been deleted and made again in between."""
        mine = (self.cluster, self.namespace, self.name)
        return other is not None and mine == (other.cluster, other.namespace, other.name)

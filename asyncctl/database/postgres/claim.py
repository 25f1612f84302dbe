"""Whose database it is: a claim, kept by PostgreSQL as the comment on each role that we make.

On a role and not on the database, since a tenant could rewrite a comment on what he owns.
"""

from dataclasses import dataclass, field
from typing import Self

_PREFIX, _ADOPTED = "asyncctl:", " adopted"


@dataclass(frozen=True)
class Claim:
    """One `Database` object of one cluster; `str()` is the comment.

    `adopted` says of the owner's that the database or the role was there before, and was taken over; it is part of the
    comment, so that it is known after a crash, and of no comparison.
    """

    cluster: str
    namespace: str
    name: str
    uid: str
    adopted: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.prefix}{self.uid}{_ADOPTED if self.adopted else ''}"

    @property
    def prefix(self) -> str:
        """What the comment begins with, whatever the object's uid was."""
        return f"{_PREFIX}{self.cluster}/{self.namespace}/{self.name}/"

    @classmethod
    def parse(cls, comment: str | None) -> Self | None:
        """Return the claim that a comment holds, or None where it is no claim."""
        if comment is None or not comment.startswith(_PREFIX):
            return None
        adopted = comment.endswith(_ADOPTED)
        parts = comment.removeprefix(_PREFIX).removesuffix(_ADOPTED).rsplit("/", 3)  # a cluster id is free text
        if len(parts) != 4 or not all(parts):
            return None
        cluster, namespace, name, uid = parts
        return cls(cluster, namespace, name, uid, adopted)

    def same_object(self, other: Self | None) -> bool:
        """Whether both name the same object, though it may have been deleted and made again in between."""
        mine = (self.cluster, self.namespace, self.name)
        return other is not None and mine == (other.cluster, other.namespace, other.name)

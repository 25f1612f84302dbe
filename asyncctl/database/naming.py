"""The names of what belongs to one `Database`, in PostgreSQL and in the cluster; the same object gets the same ones."""

import hashlib
import re

from asyncctl.database.types import Database

LABEL = "apps.example.com/database"
"""On each Secret: the name of its Database; see `label`."""
MANAGED = "app.kubernetes.io/managed-by"
MANAGER = "asyncctl-database"
_SUFFIX, _LONGEST = "-credentials", 253  # a name in the cluster can be no longer
_LABEL_LONGEST = 63
_ROLE = 61  # of a role's name, without what tells the two logins of a user apart: PostgreSQL cuts at 63
_PREFIX = 41  # characters before the digest; 50 in all, so that `_owner` and a login's suffix fit into PostgreSQL's 63


def database_name(db: Database, cluster: str) -> str:
    """What it is called on its server: what is on record, else what is asked for, else one made from its names.

    Args:
        db: The object.
        cluster: The id of the cluster, so that two clusters on one server do not meet.
    """
    recorded = db.status.database_name or db.spec.database_name
    if recorded:
        return recorded
    readable = re.sub(r"[^a-z0-9_]", "_", f"{db.namespace}_{db.name}".lower())
    if not re.match(r"[a-z_]", readable) or readable.startswith("pg_"):
        readable = f"_{readable}"
    digest = hashlib.sha256(f"{cluster}/{db.namespace}/{db.name}".encode()).hexdigest()[:8]
    return f"{readable[:_PREFIX]}_{digest}"


def logins(database: str, user: str = "") -> tuple[str, str]:
    """The two roles of a user that take turns; of the one owner, where the spec lists no users, with `user` empty."""
    role = f"{database}_{user}" if user else database
    if len(role) > _ROLE:
        digest = hashlib.sha256(f"{database}/{user}".encode()).hexdigest()[:8]
        role = f"{role[: _ROLE - len(digest) - 1]}_{digest}"
    return f"{role}_a", f"{role}_b"


def secret_name(db: Database, user: str = "") -> str:
    """The Secret with a user's credentials, where the spec gives it no name."""
    middle = f"-{user.replace('_', '-')}" if user else ""
    return _fitting(db.name, f"{middle}{_SUFFIX}", _LONGEST)


def label(name: str) -> str:
    """The value of `LABEL` for the Database of that name: the name, where a label can hold it.

    Else only the Secrets of one Database are found by it, and not the Database of a Secret: what somebody changes in
    such a Secret is put right by the resync.
    """
    return _fitting(name, "", _LABEL_LONGEST)


def _fitting(name: str, suffix: str, longest: int) -> str:
    """`name` with `suffix`; what has to be cut off is told apart by a digest."""
    if len(name) + len(suffix) <= longest:
        return f"{name}{suffix}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - len(digest) - len(suffix) - 1].rstrip('.-')}-{digest}{suffix}"

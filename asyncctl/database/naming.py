"""The names of what belongs to one `Database`, in PostgreSQL and in the cluster; the same object gets the same ones."""

import hashlib
import re

from asyncctl.database.types import Database

LABEL = "apps.example.com/database"
"""On each Secret: the name of its Database."""
MANAGED = "app.kubernetes.io/managed-by"
MANAGER = "asyncctl-database"
_SUFFIX, _LONGEST = "-credentials", 253  # a name in the cluster can be no longer
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


def login_name(database: str) -> str:
    """The login of the owner."""
    return f"{database}_a"


def secret_name(db: Database) -> str:
    """The Secret with the owner's credentials."""
    chosen = db.spec.credentials.secret_name if db.spec.credentials else None
    if chosen:
        return chosen
    made = f"{db.name}{_SUFFIX}"
    if len(made) <= _LONGEST:
        return made
    digest = hashlib.sha256(db.name.encode()).hexdigest()[:8]
    return f"{db.name[: _LONGEST - len(digest) - len(_SUFFIX) - 1].rstrip('.-')}-{digest}{_SUFFIX}"

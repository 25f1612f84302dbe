"""The Secret that an application binds to (servicebinding.io), and the password in it."""

import secrets
from urllib.parse import quote

from asyncctl.database.naming import LABEL, MANAGED, MANAGER, secret_name
from asyncctl.database.postgres.connection import Server
from asyncctl.database.types import Database
from asyncctl.objects import Secret

TYPE = "servicebinding.io/postgresql"


def new_password() -> str:
    """192 bits from the system's random source, in characters that need no escaping anywhere."""
    return secrets.token_urlsafe(24)


def known_password(secret: Secret | None, login: str) -> str | None:
    """The password in the Secret, if it is for this login."""
    if secret is None or secret.data.get("username") != login.encode():
        return None
    return secret.data.get("password", b"").decode(errors="ignore") or None


def binding(db: Database, server: Server, database: str, login: str, password: str) -> Secret:
    """The Secret, complete: each client finds the keys that it is used to."""
    place = f"{server.host}:{server.port}/{database}"
    user = f"{quote(login, safe='')}:{quote(password, safe='')}"
    uri = f"postgresql://{user}@{place}?sslmode={server.ssl_mode}"
    values = {
        "type": "postgresql",
        "provider": "asyncctl",
        "host": server.host,
        "port": str(server.port),
        "database": database,
        "username": login,
        "password": password,
        "uri": uri,
        "dbname": database,
        "user": login,
        "pgpass": ":".join(map(_pgpass, (server.host, str(server.port), database, login, password))),
        "jdbc-uri": f"jdbc:postgresql://{place}?user={quote(login, safe='')}&password={quote(password, safe='')}"
        f"&sslmode={server.ssl_mode}",
        "fqdn-uri": uri,
    }
    labels = {MANAGED: MANAGER}
    if len(db.name) <= 63:  # a label's value can be no longer; then only the resync finds a Secret that was changed
        labels[LABEL] = db.name
    return Secret(
        name=secret_name(db),
        namespace=db.namespace,
        labels=labels,
        type=TYPE,
        data={key: value.encode() for key, value in values.items()},
    )


def _pgpass(part: str) -> str:
    return part.replace("\\", "\\\\").replace(":", "\\:")

"""What an application needs to log in: a password, and the content of the Secret that holds it (servicebinding.io)."""

import re
import secrets
from urllib.parse import quote

from asyncctl.database.naming import LABEL, MANAGED, MANAGER, secret_name
from asyncctl.database.postgres.connection import Server
from asyncctl.database.types import Database
from asyncctl.objects import Secret

TYPE = "servicebinding.io/postgresql"
_OURS = re.compile(rb"[A-Za-z0-9_-]{32}")  # as `new_password` makes them


def new_password() -> str:
    """192 bits from the system's random source, in characters that need no escaping anywhere."""
    return secrets.token_urlsafe(24)


def known_password(secret: Secret | None, login: str) -> str | None:
    """The password in the Secret, if it is for this login and one that we made; what a person wrote there is drift."""
    if secret is None or secret.data.get("username") != login.encode():
        return None
    password = secret.data.get("password", b"")
    return password.decode() if _OURS.fullmatch(password) else None


def secret_for(db: Database, server: Server, database: str, login: str, password: str, *, ca: bytes | None) -> Secret:
    """The Secret, complete: each client finds the keys that it is used to.

    Args:
        db: Whose it is.
        server: Where the database is.
        database: Its name there.
        login: The owner's login.
        password: Of that login, made by `new_password`.
        ca: The certificate by which the server is verified, where it is not one of the system's; it goes along as
            `ca.crt`, since no URI can hold it.
    """
    host = f"[{server.host}]" if ":" in server.host else server.host
    place = f"{host}:{server.port}/{quote(database, safe='')}"
    uri = f"postgresql://{quote(login, safe='')}:{password}@{place}?sslmode={server.ssl_mode}"
    pgpass = (server.host, str(server.port), database, login, password)
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
        "pgpass": ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in pgpass),
        "jdbc-uri": f"jdbc:postgresql://{place}?user={quote(login, safe='')}&password={password}"
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
        data={key: value.encode() for key, value in values.items()} | ({"ca.crt": ca} if ca else {}),
    )

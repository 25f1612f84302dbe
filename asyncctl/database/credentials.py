"""What an application needs to log in: a password, and the values of the Secret that holds it (servicebinding.io)."""

import re
import secrets
from collections import Counter
from collections.abc import Mapping
from urllib.parse import parse_qs, quote, unquote, urlsplit

from asyncctl.database.provisioners.place import Place
from asyncctl.objects import Secret

TYPE = "servicebinding.io/postgresql"
_OURS = re.compile(r"[A-Za-z0-9_-]{32}")  # as `new_password` makes them


def new_password() -> str:
    """192 bits from the system's random source, in characters that need no escaping anywhere."""
    return secrets.token_urlsafe(24)


def values(place: Place, database: str, login: str, password: str) -> dict[str, bytes]:
    """The data of a Secret, complete: each client finds the keys that it is used to.

    Args:
        place: Where the database is.
        database: Its name there.
        login: Who logs in.
        password: Of that login, made by `new_password`.
    """
    ssl_mode = place.server.ssl_mode
    host = f"[{place.host}]" if ":" in place.host else place.host
    where = f"{host}:{place.port}/{quote(database, safe='')}"
    uri = f"postgresql://{quote(login, safe='')}:{password}@{where}?sslmode={ssl_mode}"
    pgpass = (place.host, str(place.port), database, login, password)
    found = {
        "type": "postgresql",
        "provider": "asyncctl",
        "host": place.host,
        "port": str(place.port),
        "database": database,
        "username": login,
        "password": password,
        "sslmode": str(ssl_mode),  # who puts a URI together from the other keys would not verify the server
        "uri": uri,
        "dbname": database,
        "user": login,
        "pgpass": ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in pgpass),
        "jdbc-uri": f"jdbc:postgresql://{where}?user={quote(login, safe='')}&password={password}&sslmode={ssl_mode}",
        "fqdn-uri": uri,
    }
    data = {key: value.encode() for key, value in found.items()}
    return data | {"ca.crt": place.ca} if place.ca else data  # no URI can hold it


def known(secret: Secret | None) -> tuple[str, str] | None:
    """The login and the password that most of the Secret's keys agree on; what a person wrote into one is drift.

    None where there is no such majority, or the password is none that we made.
    """
    if secret is None:
        return None
    text = {key: value.decode(errors="replace") for key, value in secret.data.items()}
    read: list[tuple[str | None, ...]] = [
        (text.get("username"), text.get("password")),
        _of_uri(text, "uri"),
        _of_uri(text, "fqdn-uri"),
        _of_jdbc(text),
        tuple(text.get("pgpass", "").rsplit(":", 2)[1:]),
    ]
    pair, count = Counter(read).most_common(1)[0]
    if count <= len(read) // 2 or len(pair) != 2:
        return None
    login, password = pair
    return (login, password) if login and password and _OURS.fullmatch(password) else None


def _of_uri(text: Mapping[str, str], key: str) -> tuple[str | None, str | None]:
    try:
        found = urlsplit(text.get(key, ""))
    except ValueError:
        return None, None
    return unquote(found.username or ""), found.password


def _of_jdbc(text: Mapping[str, str]) -> tuple[str | None, str | None]:
    try:
        query = parse_qs(urlsplit(text.get("jdbc-uri", "").removeprefix("jdbc:")).query)
    except ValueError:
        return None, None
    return query.get("user", [None])[0], query.get("password", [None])[0]

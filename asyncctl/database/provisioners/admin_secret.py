"""A tenant's own server: what his Secrets in the namespace of the `Database` say of it, read live for each pass.

They are his, so nothing in them is believed: the host must be one that the operator allows, each value is looked at,
and no text of an error quotes one. The password goes to that server alone, into no object and no log.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from asyncctl import Client
from asyncctl.client.errors import NotFound
from asyncctl.database.authorities import Authorities
from asyncctl.database.catalogue import ServerRefused
from asyncctl.database.hosts import is_allowed, is_host
from asyncctl.database.naming import LABEL
from asyncctl.database.postgres.connection import Server
from asyncctl.database.types import Database, ExternalSpec, SecretReference, SslMode
from asyncctl.objects import Secret

MAX_CONNECTIONS = 5
"""Of ours to such a server, at once."""
CA_KEY = "ca.crt"
_LONGEST_NAME = 63  # bytes, beyond which PostgreSQL cuts a name off without a word
_LONGEST_PASSWORD = 1024


class SecretMissing(ServerRefused):
    """There is no Secret of that name."""

    reason: ClassVar[str] = "SecretMissing"


class SecretIncomplete(ServerRefused):
    """The Secret lacks a key."""

    reason: ClassVar[str] = "SecretIncomplete"


class SecretInvalid(ServerRefused):
    """The Secret has a value that can't be used."""

    reason: ClassVar[str] = "SecretInvalid"


class HostNotAllowed(ServerRefused):
    """The host is not one that the operator allows."""

    reason: ClassVar[str] = "HostNotAllowed"
    stalled: ClassVar[bool] = True


async def server_of(
    client: Client, db: Database, external: ExternalSpec, *, admin_hosts: Sequence[str], authorities: Authorities
) -> tuple[Server, bytes | None]:
    """Return the server, and the certificates by which it is verified where they are not the machine's.

    Args:
        client: Reads the Secrets.
        db: Whose server it is.
        external: Of its spec; with `adminSecretRef`.
        admin_hosts: The shell patterns of hosts that the operator allows.
        authorities: Keeps the certificates as files.

    Raises:
        ServerRefused: `SecretMissing`, `SecretIncomplete`, `SecretInvalid` or `HostNotAllowed`.
        KubernetesError: The Secret can't be read.
    """
    assert external.admin_secret_ref is not None
    values = _Values(db, await _secret(client, db, external.admin_secret_ref))
    host = values.text("host")
    if not is_host(host):
        raise values.invalid("host", "is neither the name nor the address of one host")
    port = values.text("port", default="5432")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise values.invalid("port", "is not a number from 1 to 65535")
    if not is_allowed(host, admin_hosts):
        raise HostNotAllowed(
            f"{values} names a host that the operator of asyncctl does not allow: ask for it to be added to "
            f"ASYNCCTL_DATABASE_ADMIN_HOSTS ({', '.join(admin_hosts) or 'empty: no host is allowed'}), or use "
            "serverName in a new Database"
        )
    mode = external.ssl_mode or SslMode.VERIFY_FULL
    ca_file, ca = None, None
    if external.ca_secret_ref is not None:
        ca_file, ca = await _authority(client, db, external.ca_secret_ref, authorities)
    server = Server(
        name=f"{db.namespace}/{external.admin_secret_ref.name}",  # no server of the catalogue has a slash in its name
        host=host,
        port=int(port),
        ssl_mode=mode,
        ca_file=ca_file,
        admin_user=values.name("username"),
        admin_password=values.text("password", longest=_LONGEST_PASSWORD),
        maintenance_database=values.name("database", default="postgres"),
        max_connections=MAX_CONNECTIONS,
        tenants=True,
    )
    return server, ca


async def _authority(
    client: Client, db: Database, reference: SecretReference, authorities: Authorities
) -> tuple[Path, bytes]:
    values = _Values(db, await _secret(client, db, reference))
    try:
        return await authorities.file(values.raw(CA_KEY))
    except ValueError as error:
        raise values.invalid(CA_KEY, str(error)) from None


async def _secret(client: Client, db: Database, reference: SecretReference) -> Secret:
    try:
        return await client.get(Secret, reference.name, namespace=db.namespace)
    except NotFound:
        raise SecretMissing(
            f"Secret {reference.name} is not there: make it in namespace {db.namespace}, {_woken(db)}"
        ) from None


def _woken(db: Database) -> str:
    return f"with label {LABEL}: {db.name} if its changes are to count at once"


class _Values:
    """What a Secret holds, each value looked at before it is handed out."""

    def __init__(self, db: Database, secret: Secret) -> None:
        self._db = db
        self._secret = secret

    def __str__(self) -> str:
        return f"Secret {self._secret.name}"

    def raw(self, key: str) -> bytes:
        """The value of a key that has to be there."""
        found = self._secret.data.get(key)
        if not found:
            raise SecretIncomplete(f"{self} lacks the key {key}: add it, {_woken(self._db)}")
        return found

    def text(self, key: str, *, default: str | None = None, longest: int = 1000) -> str:
        """A value of one line; one line end behind it is cut off, as an editor leaves it."""
        if default is not None and not self._secret.data.get(key):
            return default
        try:
            text = self.raw(key).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise self.invalid(key, "is not UTF-8 text") from None
        if not text or any(char in text for char in "\0\n\r"):
            raise self.invalid(key, "is empty, or more than one line")
        if len(text.encode()) > longest:
            raise self.invalid(key, f"is longer than {longest} bytes")
        return text

    def name(self, key: str, *, default: str | None = None) -> str:
        """What PostgreSQL calls something."""
        return self.text(key, default=default, longest=_LONGEST_NAME)

    def invalid(self, key: str, why: str) -> SecretInvalid:
        return SecretInvalid(f"{self}: the value of {key} {why}: correct it, {_woken(self._db)}")

"""The catalogue of servers that `Database` objects of provisioner External may use: a YAML file, from a ConfigMap.

Passwords come from files beside it, never inline. What is wrong is told with file, line and field. The files are read
again when they change; a bad new state keeps the last good one and shows in `problem`. It opens no connection.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar

import anyio.to_thread
import msgspec
import yaml
from msgspec import Meta

from asyncctl.database.authorities import certificates
from asyncctl.database.fields import SERVER_NAME
from asyncctl.database.hosts import HOST
from asyncctl.database.postgres.connection import Server
from asyncctl.database.types import SslMode

_Name = Annotated[str, Meta(pattern=rf"^{SERVER_NAME}\Z", max_length=63)]
_Host = Annotated[str, Meta(pattern=HOST, max_length=253)]
_Text = Annotated[str, Meta(min_length=1)]
_Named = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]+\Z", max_length=63)]  # PostgreSQL cuts off what is longer
_Stamp = tuple[int, int, int] | None


class CatalogueError(Exception):
    """The catalogue, or a file that it names, can't be used; the text names file, line and field."""


class ServerRefused(Exception):
    """A `Database` asks for a server that it can't have."""

    reason: ClassVar[str] = "ServerNotAllowed"
    stalled: ClassVar[bool] = False
    """Trying again soon is useless: someone has to change something first, and that does not wake the object."""


class ServerUnknown(ServerRefused):
    """No server of that name is in the catalogue."""

    reason = "ServerUnknown"


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    name: _Name
    host: _Host
    port: Annotated[int, Meta(ge=1, le=65535)] = 5432
    ssl_mode: SslMode = SslMode.VERIFY_FULL
    ca_file: _Text | None = None
    admin_user: _Named
    admin_password_file: _Text
    maintenance_database: _Named = "postgres"
    max_connections: Annotated[int, Meta(ge=1)] = 5
    allowed_namespaces: Annotated[list[_Text], Meta(min_length=1)]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    servers: list[_Entry]


@dataclass(frozen=True)
class _Known:
    server: Server
    allowed_namespaces: tuple[str, ...]
    ca: bytes | None

    def allows(self, namespace: str) -> bool:
        return any(fnmatchcase(namespace, pattern) for pattern in self.allowed_namespaces)


class Catalogue:
    """The servers by name, as the last good state of the files says.

    Args:
        path: the YAML file; None where no catalogue is configured, which is an empty one.

    """

    def __init__(self, path: Path | None) -> None:
        self.problem: str | None = None
        """Why the files as they are now can't be used; None when they are in use."""
        self._path = path
        self._known: dict[str, _Known] = {}
        self._seen: dict[Path, _Stamp] = {}

    @property
    def warnings(self) -> list[str]:
        """What is allowed and still unwise."""
        return [
            f"server {name} has sslMode disable: passwords' proofs and data go over the network in clear"
            for name, known in self._known.items()
            if known.server.ssl_mode is SslMode.DISABLE and not known.server.is_loopback
        ]

    @property
    def servers(self) -> list[Server]:
        """All of them, in the file's order."""
        return [known.server for known in self._known.values()]

    async def load(self) -> None:
        """Read the files, at the start of the program.

        Raises:
            CatalogueError: they can't be used.

        """
        await self.refresh()
        if self.problem is not None:
            raise CatalogueError(self.problem)

    async def refresh(self) -> bool:
        """Read the files again where one has changed.

        Returns:
            Whether they were read; `problem` says whether what was read is in use.

        """
        return await anyio.to_thread.run_sync(self._refresh)

    def server(self, name: str, namespace: str) -> Server:
        """Return a server for a `Database` of a namespace.

        Raises:
            ServerUnknown: there is none of that name; names those that the namespace may use.
            ServerRefused: the namespace may not use it.

        """
        if self._path is None:
            raise ServerUnknown(f"server {name} is unknown: no catalogue is configured; set ASYNCCTL_DATABASE_SERVERS")
        known = self._known.get(name)
        if known is None:
            names = ", ".join(other for other, entry in self._known.items() if entry.allows(namespace)) or "none"
            raise ServerUnknown(f"server {name} is not in {self._path}; namespace {namespace} may use: {names}")
        if not known.allows(namespace):
            raise ServerRefused(
                f"server {name} is not for namespace {namespace}: add that to its allowedNamespaces in {self._path}"
            )
        return known.server

    def authorities(self, name: str) -> bytes | None:
        """Return the certificates by which a server is verified, for its clients; None where the machine's serve."""
        known = self._known.get(name)
        return known.ca if known else None

    def _refresh(self) -> bool:
        if self._path is None or (self._seen and all(_stamp(path) == stamp for path, stamp in self._seen.items())):
            return False
        seen: dict[Path, _Stamp] = {}
        try:
            known = _read(self._path, seen)
        except CatalogueError as error:
            self.problem = str(error)
        else:
            self.problem, self._known = None, known
        self._seen = seen  # also of a bad state: it is not parsed anew until something changes
        return True


def _stamp(path: Path) -> _Stamp:
    """Return what changes when a file does, a ConfigMap's swapped symlink included; None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _read(path: Path, seen: dict[Path, _Stamp]) -> dict[str, _Known]:
    """Read the catalogue and the files that it names; `seen` gets each file's stamp, taken before it is read."""
    data, lines = _parse(path, _text(path, seen, str(path)))
    try:
        entries = msgspec.convert(data, _Document).servers
    except msgspec.ValidationError as error:
        message, _, where = str(error).rpartition(" - at ")
        message, where = (message, where.strip("`")) if message else (str(error), "$")
        unknown = message.partition("unknown field `")[2].rstrip("`")
        field = f"{where}.{unknown}" if unknown else where
        hint = "; passwords come from files: adminPasswordFile" if "password" in unknown.lower() else ""
        raise CatalogueError(f"{path}:{_line(field, lines)}: {_shown(field)}: {message}{hint}") from None
    known: dict[str, _Known] = {}
    for index, entry in enumerate(entries):
        at = f"$.servers[{index}]"
        if entry.name in known:
            raise CatalogueError(f"{path}:{_line(f'{at}.name', lines)}: {_shown(at)}.name: {entry.name} is there twice")
        field = f"{at}.adminPasswordFile"
        where = f"{path}:{_line(field, lines)}: {_shown(field)}"
        password_file = path.parent / entry.admin_password_file
        password = _text(password_file, seen, where).removesuffix("\n").removesuffix("\r")
        if not password or "\0" in password:
            raise CatalogueError(f"{where}: {password_file} holds no password")
        if "\n" in password or "\r" in password:
            raise CatalogueError(f"{where}: {password_file} has more than one line: it may hold the password alone")
        ca_file, ca, ca_digest = None, None, None
        if entry.ca_file is not None:
            ca_file = path.parent / entry.ca_file
            field = f"{at}.caFile"
            where = f"{path}:{_line(field, lines)}: {_shown(field)}"
            try:
                ca = certificates(_text(ca_file, seen, where).encode())
            except ValueError as error:
                raise CatalogueError(f"{where}: {ca_file} {error}") from None
            ca_digest = hashlib.sha256(ca).hexdigest()
        server = Server(
            name=entry.name,
            host=entry.host,
            port=entry.port,
            ssl_mode=entry.ssl_mode,
            ca_file=ca_file,
            ca_digest=ca_digest,
            admin_user=entry.admin_user,
            admin_password=password,
            maintenance_database=entry.maintenance_database,
            max_connections=entry.max_connections,
        )
        known[entry.name] = _Known(server, tuple(entry.allowed_namespaces), ca)
    return known


def _text(path: Path, seen: dict[Path, _Stamp], where: str) -> str:
    seen[path] = _stamp(path)
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise CatalogueError(f"{where}: can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CatalogueError(f"{where}: {path} is not UTF-8 text") from None


def _parse(path: Path, text: str) -> tuple[object, dict[str, int]]:
    """Return the YAML document and the line of each of its fields, by msgspec's path: `$.servers[0].port`."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise CatalogueError(f"{path}:1: the file is empty; it needs `servers:`")
        lines = {"$": 1}
        for field, line in _fields(node, "$"):
            if field in lines:
                raise CatalogueError(f"{path}:{line}: {_shown(field)} is there twice")
            lines[field] = line
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(f"{path}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a bad character, an impossible date, a loop
        raise CatalogueError(f"{path}:1: not YAML that can be read: {type(error).__name__}") from None


def _fields(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            field = f"{path}.{key.value}"
            yield field, key.start_mark.line + 1
            yield from _fields(value, field)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{path}[{index}]", item.start_mark.line + 1
            yield from _fields(item, f"{path}[{index}]")


def _line(field: str, lines: dict[str, int]) -> int:
    """Return the line of a field, or of what holds it: a merged-in one has none of its own."""
    while field not in lines:
        field = field[: max(field.rfind("."), field.rfind("["))]
    return lines[field]


def _shown(field: str) -> str:
    return field.removeprefix("$.").removeprefix("$") or "the document"

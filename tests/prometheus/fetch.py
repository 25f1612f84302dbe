"""Prometheus and promtool: those on PATH, else those of Debian's package, unpacked once into the cache.

Nothing is installed: `apt-get download` fetches the package, `dpkg-deb` unpacks it. It is also a command,
`python -m tests.prometheus.fetch`, that prints the folder.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.controlplane.build import cache, once

PROGRAMS = ("prometheus", "promtool")
PACKAGE = "prometheus"
DEADLINE = 300  # seconds for the download: 20 MB


class Unavailable(Exception):
    """This machine has neither Prometheus nor a way to fetch it; the text says what is missing."""


def programs(say: Callable[[str], None] = print) -> Path:
    """Return the folder that holds `PROGRAMS`, fetching them first if need be; `say` is told what takes long.

    Raises:
        Unavailable: they are neither there nor can be fetched here.
    """
    found = shutil.which("promtool")
    if found and os.access(Path(found).with_name("prometheus"), os.X_OK):
        return Path(found).parent
    kept = sorted(path for path in cache().parent.glob("prometheus/*") if path.is_dir() and path.suffix == "")
    if kept:
        return kept[-1]
    if missing := [name for name in ("apt-get", "dpkg-deb", "apt-cache") if not shutil.which(name)]:
        raise Unavailable(f"neither promtool nor {', '.join(missing)} to fetch Debian's package is on PATH")
    version = _version()
    return once(
        cache().parent / "prometheus" / re.sub(r"[^\w-]", "_", version), lambda into: _fetch(into, version, say), say
    )


def _version() -> str:
    said = _call(["apt-cache", "policy", PACKAGE])
    found = re.search(r"^\s*Candidate: (\S+)$", said, re.MULTILINE)
    if found is None or found[1] == "(none)":
        raise Unavailable(f"apt knows no package {PACKAGE}; `apt-get update` may be wanting")
    return found[1]


def _fetch(into: Path, version: str, say: Callable[[str], None]) -> None:
    say(f"fetching Debian's {PACKAGE} {version} into {into.parent}: once")
    # As root, apt hands the download to a user who can't write here, and says so; that is no error.
    _call(["apt-get", "download", "-o", "APT::Sandbox::User=root", f"{PACKAGE}={version}"], into)
    (package,) = into.glob("*.deb")
    _call(["dpkg-deb", "-x", str(package), "unpacked"], into)
    for name in PROGRAMS:
        (into / "unpacked" / "usr" / "bin" / name).rename(into / name)
    package.unlink()
    shutil.rmtree(into / "unpacked")


def _call(argv: list[str], folder: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{argv[0]} took longer than {DEADLINE} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Unavailable(f"{' '.join(argv[:2])} failed: {last}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(programs(lambda line: print(line, file=sys.stderr)))
    except Unavailable as problem:
        sys.exit(str(problem))

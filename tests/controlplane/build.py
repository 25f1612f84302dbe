"""Kubernetes' control plane as programs: etcd, kube-apiserver and kube-controller-manager, built once from Go modules.

And, for tests of leader election, a small program of ours that campaigns with client-go (`elector`).

The go.mod files beside this one pin what is built; the programs are kept in the user's cache folder, keyed by version
and pins. Of test runs that start at the same time one builds and the others wait; what a failed or killed build leaves
is never taken for a finished one. It is also a command, `python -m tests.controlplane.build`, that prints the folder.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.controlplane.process import dies_with_us

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
HERE = Path(__file__).parent
BUILD_DEADLINE = 45 * 60  # seconds; nine minutes is the worst seen on two cores


class Unavailable(Exception):
    """This machine has no control plane and no Go to build one; the text says what is missing."""


class BuildFailed(Exception):
    """Go was there and could not build; the text ends with what Go said last."""


def pinned(module: str, folder: str) -> str:
    """Return the version, without its `v`, at which `folder`'s go.mod requires `module`."""
    requirements = (HERE / folder / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", requirements, re.MULTILINE)
    assert found, f"{folder}/go.mod does not require {module}"
    return found[1]


def programs(say: Callable[[str], None] = print) -> Path:
    """Return the folder that holds `PROGRAMS`, building them first if need be; `say` is told what takes minutes.

    Raises:
        Unavailable: they are neither there nor can be built here.
        BuildFailed: the build ran and failed.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        if missing := [name for name in PROGRAMS if not os.access(Path(assets, name), os.X_OK)]:
            raise Unavailable(
                f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}; unset it to build them with Go"
            )
        return Path(assets)
    folder = cache() / f"{pinned('k8s.io/kubernetes', 'kubernetes')}-{pins_digest()}"
    if not folder.is_dir() and not shutil.which("go"):
        raise Unavailable("Go is not on PATH, and KUBEBUILDER_ASSETS names no ready kube-apiserver")
    return once(folder, lambda scratch: go_build(scratch, folder.with_name(f"{folder.name}.log"), say), say)


def elector(say: Callable[[str], None] = print) -> Path:
    """Return the program that campaigns for a Lease as client-go does, building it first if need be.

    Raises:
        Unavailable: it is neither there nor can be built here.
        BuildFailed: the build ran and failed.
    """
    module = HERE / "elector"
    sources = b"".join((module / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    folder = cache() / f"elector-{pinned('k8s.io/client-go', 'elector')}-{hashlib.sha256(sources).hexdigest()[:8]}"
    if not folder.is_dir() and not shutil.which("go"):
        raise Unavailable("Go is not on PATH, and client-go's elector was not built before")

    def make(scratch: Path) -> None:
        log = folder.with_name(f"{folder.name}.log")
        say(f"building client-go's elector: once, seconds; minutes if Go has built no kube-apiserver here (log: {log})")
        log.write_bytes(b"")
        go(["-ldflags=-s -w", "-o", scratch / "elector", "."], module, log)

    return once(folder, make, say) / "elector"


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncctl" / "controlplane"


def pins_digest() -> str:
    files = (HERE / folder / name for folder in ("etcd", "kubernetes") for name in ("go.mod", "go.sum"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def once(folder: Path, make: Callable[[Path], None], say: Callable[[str], None] = print) -> Path:
    """Return `folder`; if it does not exist yet, `make` fills it, under another name until it is done.

    The lock is the kernel's, and so gone with its holder, however that ended.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another run that builds {folder}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                scratch = folder.with_name(f"{folder.name}.unfinished")
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(scratch)
                scratch.mkdir()
                make(scratch)
                scratch.rename(folder)
    return folder


def go_build(into: Path, log: Path, say: Callable[[str], None]) -> None:
    """Build `PROGRAMS` into the folder `into`; what Go prints goes to `log`."""
    kubernetes, etcd = pinned("k8s.io/kubernetes", "kubernetes"), pinned("go.etcd.io/etcd/server/v3", "etcd")
    say(f"building kube-apiserver {kubernetes} and etcd {etcd}: once, 5 to 10 minutes on two cores (Go's log: {log})")
    started = time.monotonic()
    log.write_bytes(b"")
    go(["-ldflags=-s -w", "-o", into / "etcd", "go.etcd.io/etcd/server/v3"], HERE / "etcd", log)
    go([f"-ldflags=-s -w {version_flags(kubernetes)}", "-o", f"{into}/", "tool"], HERE / "kubernetes", log)
    if missing := [name for name in PROGRAMS if not os.access(into / name, os.X_OK)]:
        raise BuildFailed(f"go build ended well but made no {', '.join(missing)}")
    say(f"built in {time.monotonic() - started:.0f} s: {into.with_suffix('')}")


def version_flags(version: str) -> str:
    """Return the linker flags that make `/version` true. A module knows no git commit: its checksum stands for it."""
    sums = (HERE / "kubernetes" / "go.sum").read_text()
    checksum = re.search(rf"^k8s\.io/kubernetes v{re.escape(version)} (\S+)", sums, re.MULTILINE)
    assert checksum, f"kubernetes/go.sum has no k8s.io/kubernetes v{version}"
    major, minor, _ = version.split(".", 2)
    values = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": checksum[1],
        "gitTreeState": "archive",
        "buildDate": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def go(arguments: list[str | Path], module: Path, log: Path) -> None:
    argv = dies_with_us(["nice", "go", "build", "-mod=readonly", *arguments])
    environment = {**os.environ, "GOWORK": "off"}
    how: object
    with log.open("ab") as output:
        try:
            how = subprocess.call(
                argv,
                cwd=module,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=BUILD_DEADLINE,
            )
        except subprocess.TimeoutExpired:
            how = f"not done after {BUILD_DEADLINE} s"
    if how:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise BuildFailed(
            f"go build failed in {module} ({how}); mend that, or point KUBEBUILDER_ASSETS at ready programs. "
            f"The end of {log}:\n{end}"
        )


if __name__ == "__main__":
    try:
        print(programs(lambda line: print(line, file=sys.stderr)))
    except (Unavailable, BuildFailed) as problem:
        sys.exit(str(problem))

"""A process that campaigns for a Lease and says when it leads: by asyncctl, client-go, or kubernetes-asyncio.

All three log JSON lines with `ts` and `msg`, and say `started leading` and `stopped leading`.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from uuid import uuid4

import pytest

from tests.controlplane.process import dies_with_us
from tests.e2e.daemon import ROOT, Daemon

ASYNCCTL, CLIENT_GO, KUBERNETES_ASYNCIO = KINDS = ("asyncctl", "client-go", "kubernetes-asyncio")
USERS = {ASYNCCTL: "a", CLIENT_GO: "b", KUBERNETES_ASYNCIO: "d"}  # as which each comes, so that an audit log tells
NAMESPACE = "controllers"


@dataclass(frozen=True)
class Times:
    """A Lease's, in seconds."""

    duration: int = 15
    deadline: float = 10.0
    retry: float = 2.0


QUICK = Times(duration=2, deadline=1.5, retry=0.3)


class Rival(Daemon):
    """One candidate; its identity begins with its kind and an underscore."""

    def __init__(
        self, kind: str, *, kubeconfig: Path, lease: str, times: Times, log: Path, program: Path | None = None,
    ) -> None:  # fmt: skip
        """Start it. `program` is client-go's elector, needed for that kind."""
        self.kind = kind
        self.log = log
        self.killed_at: datetime | None = None  # when it was surely gone
        environment = {"PATH": os.defpath, "HOME": str(log.parent)}
        flags = [
            f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}", f"--name={lease}",
            f"--identity={kind}_{uuid4()}",
        ]  # fmt: skip
        if kind == ASYNCCTL:
            command = [sys.executable, "-W", "default", "-m", "tests.faults.elect_asyncctl"]
            environment |= {
                "KUBECONFIG": str(kubeconfig),
                "ASYNCCTL_POD_NAME": kind,
                "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
                "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
                "ASYNCCTL_LEASE_NAME": lease,
                "ASYNCCTL_LEASE_NAMESPACE": NAMESPACE,
                "ASYNCCTL_LEASE_DURATION": f"{times.duration}s",
                "ASYNCCTL_RENEW_DEADLINE": f"{times.deadline}s",
                "ASYNCCTL_RETRY_PERIOD": f"{times.retry}s",
            }
        elif kind == CLIENT_GO:
            assert program is not None
            flags += [f"-{name}" for name in (
                f"lease-duration={times.duration}s", f"renew-deadline={times.deadline}s", f"retry-period={times.retry}s"
            )]  # fmt: skip
            command = [str(program), *flags]
        else:
            flags += [f"--lease-duration={times.duration}", f"--retry-period={times.retry}"]
            # It sleeps once more after its deadline, and counts it from a period after its last success.
            flags += [f"--renew-deadline={times.deadline - times.retry}"]
            command = [sys.executable, "-m", "tests.faults.elect_kubernetes_asyncio", *flags]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                dies_with_us(command), env=environment, cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, harmless if repeated; returns when it is gone."""
        super().kill()
        self.killed_at = self.killed_at or datetime.now(UTC)

    @property
    def leading(self) -> bool:
        """Whether it says so."""
        return bool(self.said("started leading")) and not self.said("stopped leading") and self.alive

    @property
    def led(self) -> tuple[datetime, datetime] | None:
        """From when to when it said that it leads, at the longest; None if it never did."""
        started, stopped = self.said("started leading"), self.said("stopped leading")
        if not started:
            return None
        end = instant(stopped[0]) if stopped else self.killed_at or datetime.now(UTC)
        return instant(started[0]), end

    def until_campaigns(self) -> None:
        """Return when it goes for the Lease."""
        self.until_said("ready" if self.kind == ASYNCCTL else "campaigns")

    def until_started(self, deadline: float = 20.0) -> datetime:
        """Return when it began to lead, once it has."""
        return instant(self.until_said("started leading", deadline))


def instant(record) -> datetime:
    return datetime.fromisoformat(record["ts"])


def pause(seconds: float) -> None:
    """Let a random moment come; nothing is waited for."""
    time.sleep(seconds)


@pytest.fixture
def lease():
    """The name of this test's Lease."""
    return f"lease-{token_hex(4)}"


@pytest.fixture
def contend(request, tmp_path, cluster, lease):
    """Start a rival: `contend("client-go")`. None outlives the test, and no log of ours has a blemish."""
    begun = []

    def begin(kind, *, times=QUICK):
        kubeconfig = tmp_path / f"kubeconfig-{kind}"
        if not kubeconfig.exists():
            cluster.plane.kubeconfig(kubeconfig, USERS[kind])
        program = request.getfixturevalue("client_go") if kind == CLIENT_GO else None
        rival = Rival(
            kind, kubeconfig=kubeconfig, lease=lease, times=times, log=tmp_path / f"{len(begun)}-{kind}.log",
            program=program,
        )  # fmt: skip
        begun.append(rival)
        return rival

    yield begin
    for rival in begun:
        rival.kill()
        print(f"--- {rival.log.name}\n{rival.text[-1500:]}")
    blemishes = [line for rival in begun if rival.kind == ASYNCCTL for line in rival.blemishes()]
    assert not blemishes, "\n".join(blemishes)

"""One round of a contest: a namespace with Counters, a Lease, and contenders that are ServiceAccounts in their pods."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from asyncctl.generate import crd
from asyncctl.generate.rbac import rules
from asyncctl.settings import Settings
from tests.e2e.account import Account
from tests.e2e.cluster import CRDS, LEASES, MERGE, Cluster, condition
from tests.e2e.daemon import Daemon
from tests.e2e.waiting import until
from tests.faults.counting import Counter, operator
from tests.faults.gateway import Gateway
from tests.faults.judge import Judge

DURATION, RENEW, RETRY = 2.0, 1.5, 0.3  # seconds, of the Lease
CRASH = DURATION + 2 * RETRY * 1.2 + 0.3  # seconds until the next one leads: two tries, each up to 20 % late
COUNTERS = 4


def install_counters(cluster: Cluster) -> None:
    """Make the CRD; return when it is served."""
    wanted = crd(Counter)
    cluster.call("POST", CRDS, wanted)
    name = wanted["metadata"]["name"]
    until(lambda: condition(cluster.call("GET", f"{CRDS}/{name}"), "Established").get("status") == "True")
    until(lambda: "items" in cluster.call("GET", "/apis/faults.example.com/v1/counters"))


def pause(seconds: float) -> None:
    """Let time pass: where a fault lasts so long, or comes so late."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, deadline=seconds + 5)


class Contender(Daemon):
    """One process that contends; `pod` is what it is called in the Lease and in the audit log."""

    def __init__(self, pod: str, folder: Path, environment: dict[str, str], gateway: Gateway | None) -> None:
        self.pod = pod
        self.folder = folder
        self.gateway = gateway
        super().__init__(environment, folder / "log", program="tests.faults.counting", arguments=())

    def tell(self, what: str, text: str = "") -> Path:
        """Write one of the files that a contender heeds; see `counting.py`."""
        file = self.folder / what
        scratch = file.with_suffix(".new")
        scratch.write_text(text)
        scratch.rename(file)
        return file

    def until_taken(self, what: str, deadline: float = 10.0) -> None:
        """Wait until it has heeded a file that it takes away."""
        until(lambda: not (self.folder / what).exists(), deadline=deadline)


class Contest:
    """What one round is played with."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.name = f"contest-{secrets.token_hex(4)}"
        self.namespace = self.lease = self.name
        self._counters = f"/apis/faults.example.com/v1/namespaces/{self.namespace}/counters"
        self._folder = folder
        self._turn = 0
        self._ends = contextlib.ExitStack()
        self.contenders: list[Contender] = []
        cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._ends.callback(cluster.call, "DELETE", f"/api/v1/namespaces/{self.namespace}")
        self.account = Account(cluster)
        self._ends.callback(self.account.clear)
        self.account.grant(rules(operator(), Settings(lease_name=self.lease), lease_namespace="controllers"))
        self._ends.callback(self.delete_lease)  # last of all but the contenders, which are gone before it
        for number in range(COUNTERS):
            self._make(f"counter-{number}")

    def contend(self, *, gated: bool = False, faketime: str = "", **extra: str) -> Contender:
        """Start one more, each a pod of its own.

        Args:
            gated: It is behind a gateway.
            faketime: A libfaketime that it is loaded with, which heeds the file of that name.
            extra: Goes into its environment.
        """
        pod = f"{self.name}-{len(self.contenders)}"
        folder = self._folder / pod
        folder.mkdir(parents=True)
        kubeconfig = self.account.kubeconfig(folder / "kubeconfig", pod=pod)
        plane = self.cluster.plane
        gateway = self._ends.enter_context(Gateway(urlsplit(plane.url).port, plane.ca_file)) if gated else None
        if gateway is not None:
            config = yaml.safe_load(kubeconfig.read_text())
            config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{gateway.port}"
            kubeconfig.write_text(yaml.safe_dump(config))
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig),
            "CONTENDER_FOLDER": str(folder),
            "ASYNCCTL_NAMESPACES": self.namespace,
            "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
            "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
            "ASYNCCTL_POD_NAME": pod,
            "ASYNCCTL_LEASE_NAME": self.lease,
            "ASYNCCTL_LEASE_DURATION": f"{DURATION}s",
            "ASYNCCTL_RENEW_DEADLINE": f"{RENEW}s",
            "ASYNCCTL_RETRY_PERIOD": f"{RETRY}s",
            "ASYNCCTL_RETRY_BASE": "100ms",
        }
        if faketime:
            (folder / "faketime").write_text("+0")
            environment |= {
                "LD_PRELOAD": faketime,
                "FAKETIME_TIMESTAMP_FILE": str(folder / "faketime"),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        contender = Contender(pod, folder, environment | extra, gateway)
        self.contenders.append(contender)
        self._ends.callback(contender.kill)
        return contender

    def pair(self, *, gated: bool = False, faketime: str = "", **extra: str) -> tuple[Contender, Contender]:
        """Start two; return the one that leads, and has worked on all Counters, and the other, which is ready."""
        pair = [self.contend(gated=gated, faketime=faketime, **extra) for _ in range(2)]
        holder = until(self.holder, deadline=20.0)
        leader, standby = sorted(pair, key=lambda each: each.pod != holder)
        self.turn()
        self.until_done(leader)
        standby.until_ready()
        until(lambda: standby.said("not leading"))
        return leader, standby

    def turn(self, name: str = "") -> int:
        """Give all Counters, or one, their next turn; returns its number."""
        self._turn += 1
        for counter in [name] if name else [f"counter-{number}" for number in range(COUNTERS)]:
            change = {"spec": {"turn": self._turn}}
            self.cluster.call("PATCH", f"{self._counters}/{counter}", change, content_type=MERGE)
        return self._turn

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Turn after turn in the block."""
        ended = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while not ended.is_set():
                    self.turn()
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

        thread = threading.Thread(target=work, name="load")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if failures:
                raise failures[0]

    def until_written(self, by: Contender, deadline: float = 15.0) -> None:
        """Wait until every Counter's last turn is in its ConfigMap, whatever its status says."""
        until(lambda: self._behind(by, status=False), lambda behind: not behind, deadline=deadline)

    def until_done(self, by: Contender, deadline: float = 15.0) -> None:
        """Wait until every Counter's last turn is in its ConfigMap, by this contender, and in its status."""
        until(lambda: self._behind(by), lambda behind: not behind, deadline=deadline)

    def holder(self) -> str:
        return str(self.cluster.lease(self.lease).get("holderIdentity") or "").rpartition("_")[0]

    def until_held(self, by: Contender, deadline: float = 15.0) -> None:
        until(self.holder, lambda holder: holder == by.pod, deadline=deadline)

    def delete_lease(self) -> None:
        self.cluster.call("DELETE", f"{LEASES}/{self.lease}")

    def judge(self) -> Judge:
        """What the audit log says so far."""
        return Judge(self.cluster.audited(), namespace=self.namespace, lease=self.lease)

    def judged(self) -> Judge:
        """What the audit log says when all that was answered before this is in it."""
        mark = {"metadata": {"name": f"mark-{secrets.token_hex(4)}"}}
        self.cluster.call("POST", f"/api/v1/namespaces/{self.namespace}/configmaps", mark)
        until(lambda: any(
            (each.get("responseObject") or {}).get("metadata", {}).get("name") == mark["metadata"]["name"]
            for each in self.cluster.audited()[-100:]
        ))  # fmt: skip
        return self.judge()

    def clear(self) -> None:
        self._ends.close()

    def _make(self, name: str) -> None:
        self.cluster.call("POST", self._counters, {
            "apiVersion": "faults.example.com/v1", "kind": "Counter", "metadata": {"name": name}, "spec": {"turn": 0},
        })  # fmt: skip

    def _behind(self, by: Contender, *, status: bool = True) -> list[str]:
        """The Counters that `by` has not brought up to date."""
        counters = {each["metadata"]["name"]: each for each in self.cluster.call("GET", self._counters)["items"]}
        path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        maps = {each["metadata"]["name"]: each.get("data") for each in self.cluster.call("GET", path)["items"]}
        turns = {name: each["spec"]["turn"] for name, each in counters.items()}
        told = {name: each.get("status", {}).get("turn") for name, each in counters.items()}
        return [
            name for name, turn in turns.items()
            if maps.get(name) != {"turn": str(turn), "by": by.pod} or (status and told[name] != turn)
        ]  # fmt: skip

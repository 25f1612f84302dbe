"""Plays the node, the scheduler and the storage of a cluster for pods of PostgreSQL, with the real programs.

What the pod says is done: the image's entry point is played (`initdb` where there is no cluster), then `postgres`, the
hooks and the probes are run with the pod's own arguments, commands and environment. Other are only the paths, and the
address, which is one of this machine's loopback network.
"""

import base64
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from asyncctl.cli.folder import Watcher
from asyncctl.cli.postgres import _Account, find_binaries
from tests.e2e.cluster import Asking, Cluster

Object = dict[str, Any]
_POLL = 0.05  # seconds
_BACK_OFF = 0.3  # before a container that ended is started again
_MERGE = "application/strategic-merge-patch+json"
_DATA, _SOCKETS, _TEMPORARY = "/var/lib/postgresql/data", "/var/run/postgresql", "/tmp"


class Node:
    """One node; `with` it, the pods of one namespace run.

    Attributes:
        pullable: What an image's name must have in it to be had.
        takes_pods: Whether the scheduler finds it fit.
        gives_volumes: Whether claims are bound, and grow.
        ran: The arguments of every start of a server.
        known_as: Which address a pod has, whose server listens at this one.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.pullable = "postgres"
        self.takes_pods = True
        self.gives_volumes = True
        self.ran: list[list[str]] = []
        self.known_as: Callable[[str], str] = lambda address: address
        self._cluster = Asking(cluster.plane)
        self._namespace = namespace
        self._account = _Account.choose()
        self._containers: dict[str, _Container] = {}  # by the pod's uid
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._cleanup = contextlib.ExitStack()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)

    def __enter__(self) -> Self:
        self.folder, _ = self._account.temporary_folder(self._cleanup)
        self.binaries = self._account.readable(find_binaries(), self.folder)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)
        for container in self._containers.values():
            container.kill()
        self._cluster.close()
        self._cleanup.close()
        assert self._failure is None, self._failure

    def lose(self, pod: str) -> None:
        """The pod is gone at once, and nobody has stopped its server in good order."""
        with self._lock:
            found = self._get("pods", pod)
            self._containers.pop(found["metadata"]["uid"]).kill()
            self._delete_now(found)

    def _run(self) -> None:
        try:
            while not self._stopped.wait(_POLL):
                with self._lock, contextlib.suppress(OSError, HTTPException):
                    self._volumes()
                    self._pods()
        except BaseException as error:
            self._failure = error
            raise

    def _volumes(self) -> None:
        claims = self._list("persistentvolumeclaims")
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for pod in self._list("pods")
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        for claim in claims if self.gives_volumes else ():
            asked = claim["spec"]["resources"]["requests"]["storage"]
            metadata, status = claim["metadata"], claim["status"]
            if status.get("phase") == "Pending":
                kind = self._cluster.call("GET", f"/apis/storage.k8s.io/v1/storageclasses/{_class_of(claim)}")
                waits = kind.get("volumeBindingMode") == "WaitForFirstConsumer"
                if kind and (not waits or metadata["name"] in used):
                    self._make_volume(claim)
            elif status.get("phase") == "Bound" and status.get("capacity", {}).get("storage") != asked:
                volume = f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}"
                self._cluster.call("PATCH", volume, {"spec": {"capacity": {"storage": asked}}}, content_type=_MERGE)
                self._patch_status("persistentvolumeclaims", metadata["name"], {"capacity": {"storage": asked}})
        there = {claim["metadata"]["uid"] for claim in claims}
        for volume in self._cluster.call("GET", "/api/v1/persistentvolumes")["items"]:
            reference = volume["spec"].get("claimRef", {})
            if reference.get("namespace") == self._namespace and reference.get("uid") not in there:
                path = f"/api/v1/persistentvolumes/{volume['metadata']['name']}"
                self._cluster.call("PATCH", path, {"metadata": {"finalizers": None}}, content_type=_MERGE)
                self._cluster.call("DELETE", path)

    def _make_volume(self, claim: Object) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        name = f"pv-{metadata['uid']}"
        if self._cluster.call("GET", f"/api/v1/persistentvolumes/{name}"):
            return
        reference = {"namespace": self._namespace, "name": metadata["name"], "uid": metadata["uid"]}
        volume = {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": _class_of(claim),
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | reference,
            "csi": {"driver": "tests.example.com", "volumeHandle": name},
        }
        self._cluster.call("POST", "/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": volume})

    def _pods(self) -> None:
        pods = self._list("pods")
        for pod in pods:
            metadata = pod["metadata"]
            container = self._containers.get(metadata["uid"])
            if "deletionTimestamp" in metadata:
                if container is not None:
                    self._containers.pop(metadata["uid"]).stop(pod)
                self._delete_now(pod)
            elif not pod["spec"].get("nodeName"):
                self._schedule(pod)
            elif container is None:
                self._start(pod)
            else:
                container.look(pod)
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._containers) - there:
            self._containers.pop(uid).kill()

    def _schedule(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        claims = [each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"] if
                  "persistentVolumeClaim" in each]  # fmt: skip
        bound = all(
            self._get("persistentvolumeclaims", each).get("status", {}).get("phase") == "Bound" for each in claims
        )
        if self.takes_pods and bound:
            binding = {"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": "node"}}
            self._cluster.call("POST", f"{self._path('pods')}/{name}/binding", binding)
            return
        why = "pod has unbound immediate PersistentVolumeClaims" if self.takes_pods else "Insufficient memory"
        message = f"0/1 nodes are available: 1 {why}."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._patch_status("pods", name, {"conditions": [condition]})

    def _start(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        if self.pullable not in container["image"]:
            said = f'Back-off pulling image "{container["image"]}"'
            self.say(pod, state={"waiting": {"reason": "ImagePullBackOff", "message": said}})
            return
        environment = {}
        for each in container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                environment[each["name"]] = each["value"]
                continue
            found = self._get("secrets", reference["name"]).get("data", {}).get(reference["key"])
            if found is None:
                said = f'secret "{reference["name"]}" not found'
                self.say(pod, state={"waiting": {"reason": "CreateContainerConfigError", "message": said}})
                return
            environment[each["name"]] = base64.b64decode(found).decode()
        (claim,) = (each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"] if
                    "persistentVolumeClaim" in each)  # fmt: skip
        volume = self._get("persistentvolumeclaims", claim)["spec"]["volumeName"]
        self._containers[pod["metadata"]["uid"]] = _Container(self, self._account, pod, environment, volume)

    def say(
        self, pod: Object, *, state: Object, address: str | None = None, ready: bool = False, restarts: int = 0,
        last: Object | None = None,
    ) -> None:  # fmt: skip
        """Write the pod's status, as the kubelet does, where it is another than before."""
        image = pod["spec"]["containers"][0]["image"]
        container = {
            "name": "postgres", "image": image, "imageID": "", "ready": ready, "restartCount": restarts, "state": state,
            "lastState": last or {},
        }  # fmt: skip
        truth = "True" if ready else "False"
        running = "running" in state or restarts
        status = {
            "phase": "Running" if running else "Pending",
            "containerStatuses": [container],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": truth},
                {"type": "ContainersReady", "status": truth},
            ],
        }
        status |= {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
        known = pod["status"].get("containerStatuses", [{}])[0]
        if any(known.get(key) != value for key, value in container.items() if key not in {"imageID", "lastState"}):
            self._patch_status("pods", pod["metadata"]["name"], status)

    def _path(self, plural: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/{plural}"

    def _list(self, plural: str) -> list[Object]:
        return self._cluster.call("GET", self._path(plural)).get("items", [])

    def _get(self, plural: str, name: str) -> Object:
        return self._cluster.call("GET", f"{self._path(plural)}/{name}")

    def _patch_status(self, plural: str, name: str, status: Object) -> None:
        path = f"{self._path(plural)}/{name}/status"
        self._cluster.call("PATCH", path, {"status": status}, content_type=_MERGE)

    def _delete_now(self, pod: Object) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        self._cluster.call("DELETE", f"{self._path('pods')}/{pod['metadata']['name']}", options)


class _Container:
    """The server of one pod: started, probed, started again when it has ended, stopped as the pod says."""

    def __init__(self, node: Node, account: _Account, pod: Object, environment: dict[str, str], volume: str) -> None:
        self._node = node
        self._account = account
        self._spec = pod["spec"]["containers"][0]
        self._address = free_address()
        self._known_as = node.known_as(self._address)
        self._restarts = 0
        self._last: Object = {}
        self._ended_at = 0.0
        self._next_probe = 0.0
        self._data = node.folder / volume
        self._run_folder = node.folder / f"run-{pod['metadata']['uid'][:8]}"
        for folder in (self._data, self._run_folder):
            folder.mkdir(exist_ok=True)
            account.own(folder)
        self._watcher = Watcher(self._run_folder)  # stops the server also when this process is killed
        self._environment = {
            "PATH": f"{node.binaries}:{os.defpath}", "LC_ALL": "C", "TZ": "UTC",
            **{name: self._mapped(value) for name, value in environment.items()},
        }  # fmt: skip
        self._begin()

    def _mapped(self, text: str) -> str:
        """The same, with the paths and addresses that these have here."""
        return (
            text.replace(_DATA, str(self._data))
            .replace(_SOCKETS, str(self._run_folder))
            .replace("127.0.0.1", self._address)
        )

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self._environment, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True,
            user=self._account.uid if self._account.name else None,
            group=self._account.gid if self._account.name else None,
            extra_groups=[] if self._account.name else None, **options,
        )  # fmt: skip

    def _begin(self) -> None:
        """What the entry point does: a new cluster where there is none, and then the server in its place."""
        data = Path(self._environment["PGDATA"])
        if not (data / "PG_VERSION").exists():
            self._make_cluster(data)
        arguments = [_expanded(each, self._environment) for each in self._spec["args"]]
        self._node.ran.append(arguments)
        arguments = [self._mapped(each).replace("listen_addresses=*", f"listen_addresses={self._address}")
                     for each in arguments]  # fmt: skip
        with (self._run_folder / "log").open("wb") as log:
            self._process = self._popen([*arguments, "-c", "fsync=off"], stdout=log, stderr=log)
        self._watcher.answer_for(self._process.pid)
        self._next_probe = 0.0
        self._hook: subprocess.Popen[bytes] | None = self._shell(self._spec["lifecycle"]["postStart"])

    def _make_cluster(self, data: Path) -> None:
        """As the entry point does. The second one is a copy of the first: what differs, the hook sets."""
        template = self._node.folder / "template"
        if template.exists():
            subprocess.run(["cp", "-a", template, data], check=True)
            return
        password = self._run_folder / "password"
        password.touch(0o600)
        password.write_text(f"{self._environment['POSTGRES_PASSWORD']}\n")
        self._account.own(password)
        made = self._popen(
            ["initdb", "-D", str(data), "--username=postgres", f"--pwfile={password}", "--no-sync",
             *self._environment["POSTGRES_INITDB_ARGS"].split()],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said, _ = made.communicate(timeout=60)
        assert made.returncode == 0, said.decode()
        password.unlink()
        with (data / "pg_hba.conf").open("a") as access:
            access.write("\nhost all all all scram-sha-256\n")
        subprocess.run(["cp", "-a", data, template], check=True)

    def _shell(self, handler: Object) -> subprocess.Popen[bytes]:
        command = [self._mapped(each) for each in handler["exec"]["command"]]
        return self._popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def look(self, pod: Object) -> None:
        """Do what is to be done for the container now, and say how it is."""
        if self._process.poll() is not None:
            self._gone(pod)
        elif self._hook is not None and self._hook.poll() is None:
            pass  # "ContainerCreating" until the hook has ended
        elif time.monotonic() >= self._next_probe:
            self._hook = None
            ready = self._shell(self._spec["readinessProbe"]).wait(10) == 0
            state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
            self._next_probe = time.monotonic() + (1.0 if ready else 0.0)
            self._say(pod, state, ready=ready)

    def _say(self, pod: Object, state: Object, *, ready: bool = False) -> None:
        self._node.say(pod, state=state, address=self._known_as, ready=ready, restarts=self._restarts, last=self._last)

    def _gone(self, pod: Object) -> None:
        if not self._ended_at:
            self._ended_at = time.monotonic()
            self._end_hook()
            with (self._run_folder / "log").open("rb") as log:
                said = log.read()[-2048:].decode(errors="replace")
            times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
            ended = {
                "exitCode": self._process.returncode % 256, "reason": "Error",
                "message": said,
            }  # fmt: skip
            self._last = {"terminated": ended | times}
            self._restarts += 1
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
            self._say(pod, waiting)
        elif time.monotonic() - self._ended_at > _BACK_OFF:
            self._ended_at = 0.0
            self._begin()

    def stop(self, pod: Object) -> None:
        """As the pod's hook says, and within its grace period."""
        self._end_hook()
        if self._process.poll() is None:
            (shell, option, command) = self._spec["lifecycle"]["preStop"]["exec"]["command"]
            assert command == "kill -INT 1"
            self._popen([shell, option, f"kill -INT {self._process.pid}"]).wait(10)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(pod["spec"]["terminationGracePeriodSeconds"])
        self.kill()

    def kill(self) -> None:
        self._end_hook()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # the postmaster, and with it the session of its children
        self._process.wait(10)
        self._watcher.dismiss()

    def _end_hook(self) -> None:
        if self._hook is not None and self._hook.poll() is None:
            os.killpg(self._hook.pid, signal.SIGKILL)
            self._hook.wait(10)
        self._hook = None


def _class_of(claim: Object) -> str:
    return claim["spec"].get("storageClassName") or ""


def _expanded(text: str, environment: dict[str, str]) -> str:
    """As Kubernetes expands a container's arguments: third_party/forked/golang/expansion/expand.go."""
    return re.sub(
        r"\$(\$|\((\w+)\))",
        lambda found: "$" if found[1] == "$" else environment.get(found[2], found[0]),
        text,
    )


def free_address() -> str:
    """One of the loopback network on which nobody has PostgreSQL's port."""
    for _ in range(100):
        address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, 5432))
            except OSError:
                continue
            return address
    raise AssertionError("no loopback address has port 5432 free")

"""A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager on free loopback ports.

RBAC is on; users are static tokens; of the controllers those run that a controller's author counts on: garbage
collection, namespaces, service accounts and their tokens, the root CA in each namespace. There is no scheduler and no
kubelet: no pod ever runs. All state is in a temporary folder and goes with `stop`. The methods block: an async test
calls them through `asyncio.to_thread`.
"""

import base64
import contextlib
import csv
import http.client
import json
import secrets
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from tests.controlplane.process import Process

START_DEADLINE = 120.0  # seconds; 3 on an idle machine
CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "statefulset-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
)


class ControlPlaneError(Exception):
    """A program of the control plane ended or did not get ready; the text ends with its last words."""


class ControlPlane:
    """One control plane, as a context manager or by `start` and `stop`."""

    def __init__(
        self,
        programs: Path,
        *,
        users: Mapping[str, Sequence[str]] | None = None,
        audit_policy: Path | None = None,
        apiserver_flags: Sequence[str] = (),
    ) -> None:
        """Prepare a control plane of the programs in the folder `programs`; nothing runs yet.

        Args:
            programs: holds etcd, kube-apiserver and kube-controller-manager.
            users: names of further users, each with its groups; `admin` (group system:masters) is always there.
            audit_policy: an audit policy file; the log is then at `audit_log`.
            apiserver_flags: further ones for kube-apiserver, such as `--feature-gates=…`.
        """
        self.programs = programs
        self.users = {
            "admin": ["system:masters"],
            "system:kube-controller-manager": ["system:masters"],
            **(users or {}),
        }
        self.tokens = {user: secrets.token_hex(16) for user in self.users}
        self.audit_policy = audit_policy
        self.apiserver_flags = apiserver_flags
        self.version = ""  # as the server reports it, without its `v`; known when started
        self._processes: dict[str, Process] = {}
        self._ports: dict[str, int] = {}
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._ports['kube-apiserver']}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def admin_token(self) -> str:
        return self.tokens["admin"]

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running program, by its name."""
        return {name: process.pid for name, process in self._processes.items() if process.running}

    def start(self) -> None:
        """Start the programs; return when the API server is ready and the controllers are at work.

        Raises:
            ControlPlaneError: one ended or took longer than `START_DEADLINE`. Nothing is left running then.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="asyncctl-controlplane-", ignore_cleanup_errors=True)
            self.folder = Path(self._resources.enter_context(folder))
            for name in ("etcd", "kube-apiserver"):
                self._ports[name] = self._resources.enter_context(_hold_free_port()).getsockname()[1]
            with (self.folder / "tokens.csv").open("w", newline="") as file:
                rows = ([self.tokens[user], user, user, ",".join(groups)] for user, groups in self.users.items())
                csv.writer(file).writerows(rows)
            self._run("etcd", self._etcd_flags())
            self.start_apiserver()
            self.version = self.request("GET", "/version")[1]["gitVersion"].removeprefix("v")
            self._run("kube-controller-manager", self._controller_manager_flags())
            self._until(self._controllers_work, "kube-controller-manager")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the programs, last started first, and remove the folder. Repeating it does nothing."""
        self._resources.close()
        self._processes.clear()

    def start_apiserver(self) -> None:
        """Start the API server, again at the same `url`; return when it is ready."""
        self._run("kube-apiserver", self._apiserver_flags())
        self._until(self._apiserver_ready, "kube-apiserver")

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """Stop the API server, with SIGKILL if `kill`; until `start_apiserver` connections to `url` are refused."""
        self._processes.pop("kube-apiserver").stop(kill=kill)

    def kubeconfig(self, path: Path, user: str = "admin", namespace: str = "default") -> Path:
        """Write a kubeconfig of `user` to `path`, readable by its owner only, and return `path`."""
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kube", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "kube", "context": {"cluster": "kube", "user": user, "namespace": namespace}}],
            "current-context": "kube",
        }
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    def request(self, method: str, path: str, body: object = None, *, user: str = "admin") -> tuple[int, Any]:
        """Send one JSON request as `user`; return the status code and the decoded answer (text where it is no JSON)."""
        tls = ssl.create_default_context(cafile=self.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", self._ports["kube-apiserver"], timeout=30, context=tls)
        headers = {"Authorization": f"Bearer {self.tokens[user]}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()

    def compact(self) -> int:
        """Have etcd forget all history; return the revision up to which it has.

        The API server then has no more of it than its caches of watches hold: for events, which it does not cache,
        nothing. It does the same itself every five minutes (`etcd3/compact.go`), and means no harm by it.
        """
        key = base64.b64encode(b"compact_rev_key").decode()
        revision = int(self._etcd("/v3/kv/range", {"key": key})["header"]["revision"])
        self._etcd("/v3/kv/compaction", {"revision": revision})
        return revision

    def _etcd(self, path: str, body: object) -> Any:
        """Send one request to etcd's JSON gateway."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["etcd"], timeout=30)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise ControlPlaneError(f"etcd {path}: {response.status} {content.decode()}")
            return json.loads(content)
        finally:
            connection.close()

    def _etcd_flags(self) -> list[str]:
        url = f"http://127.0.0.1:{self._ports['etcd']}"
        return [
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--socket-reuse-port",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _apiserver_flags(self) -> list[str]:
        # The key of the serving certificate, which the server makes itself, also signs service account tokens.
        key = self.ca_file.with_suffix(".key")
        audit = [f"--audit-policy-file={self.audit_policy}", f"--audit-log-path={self.audit_log}"]
        return [
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._ports['kube-apiserver']}",
            "--permit-port-sharing",
            f"--cert-dir={self.ca_file.parent}",
            "--shutdown-watch-termination-grace-period=1s",  # without it an open watch holds up the stop for a minute
            "--endpoint-reconciler-type=none",  # it would refuse a loopback address
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            *(audit if self.audit_policy else []),
            *self.apiserver_flags,
        ]

    def _controller_manager_flags(self) -> list[str]:
        kubeconfig = self.kubeconfig(self.folder / "controller-manager.yaml", "system:kube-controller-manager")
        return [
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self.ca_file.with_suffix('.key')}",
            f"--root-ca-file={self.ca_file}",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def _run(self, name: str, flags: list[str]) -> None:
        assert name not in self._processes, f"{name} runs already"
        self._processes[name] = process = Process([self.programs / name, *flags], self.folder / f"{name}.log")
        self._resources.callback(process.stop)

    def _apiserver_ready(self) -> bool:
        return self.ca_file.exists() and self.request("GET", "/readyz")[0] == 200

    def _controllers_work(self) -> bool:
        made = ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
        return all(self.request("GET", f"/api/v1/namespaces/default/{path}")[0] == 200 for path in made)

    def _until(self, condition: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while True:
            if dead := [process for process in self._processes.values() if not process.running]:
                raise ControlPlaneError("\n".join(f"{process.name} ended:\n{process.tail()}" for process in dead))
            try:
                if condition():
                    return
            except OSError:
                pass  # not listening yet
            if time.monotonic() > deadline:
                last_words = self._processes[name].tail()
                raise ControlPlaneError(f"{name} is not ready after {START_DEADLINE:.0f} s:\n{last_words}")
            time.sleep(0.05)


def _hold_free_port() -> socket.socket:
    """Return a socket that keeps a loopback port for a program of ours, which asks to share it.

    It never listens: while the program is down, its port refuses connections and nobody else can take it.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held

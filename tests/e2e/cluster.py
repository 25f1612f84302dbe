"""The real API server, as a test sees it: objects as plain dicts, and what its audit log says about who wrote what."""

import base64
import contextlib
import http.client
import json
import secrets
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.controlplane.controlplane import ControlPlane
from tests.e2e.waiting import until

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
CRD_FILE = Path(__file__).parents[2] / "manifests/crd/bases/apps.example.com_databases.yaml"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD_PATH = f"{CRDS}/databases.apps.example.com"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/controllers/leases"
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, verbs: [get, list, watch]}
  - {level: Request, resources: [{group: "", resources: [secrets]}]}
  - {level: Request, resources: [{group: events.k8s.io}, {group: apps.example.com}]}
  - level: RequestResponse
    omitManagedFields: true
    resources: [{group: coordination.k8s.io}, {group: "", resources: [configmaps]}, {group: faults.example.com}]
  - {level: Metadata}
"""


@dataclass(frozen=True)
class Write:
    """One write that the API server answered."""

    verb: str
    resource: str  # with its subresource: `databases/status`
    namespace: str
    name: str
    code: int


class Cluster:
    """What tests ask of the control plane, as its admin."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._tls = ssl.create_default_context(cafile=plane.ca_file)
        self.secrets = {*plane.tokens.values(), plane.ca_file.with_suffix(".key").read_text()}  # that anybody has made
        self._audited: list[Object] = []
        self._read = 0  # bytes of the audit log

    def call(self, method: str, path: str, body: object = None, *, content_type: str = "application/json") -> Object:
        """Send one request; returns the answer, {} for 404. Refusals fail the test, unless it is busy."""
        status, content = self.answer(method, path, body, content_type=content_type, token=self.plane.admin_token)
        if status == 404:
            return {}
        if status in {429, 503}:
            raise ConnectionError(content)
        assert status < 300, f"{method} {path}: {status} {content}"
        answer: Object = json.loads(content)
        return answer

    def answer(
        self, method: str, path: str, body: object = None, *, token: str, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Send one request as whoever has the token; returns the status code and the text."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        with self._connection() as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def _connection(self) -> contextlib.AbstractContextManager[http.client.HTTPSConnection]:
        return contextlib.closing(self._new_connection())

    def _new_connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(urlsplit(self.plane.url).netloc, timeout=30, context=self._tls)

    @property
    def id(self) -> str:
        """What claims in PostgreSQL call this cluster."""
        return str(self.call("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"])

    def install_crd(self) -> None:
        """Make the CRD from the file in `manifests`; return when it is served."""
        self.call("POST", CRDS, yaml.safe_load(CRD_FILE.read_text()))
        until(lambda: condition(self.call("GET", CRD_PATH), "Established").get("status") == "True")
        until(self.served)

    def served(self) -> bool:
        """Whether the API server has Databases."""
        return "items" in self.call("GET", "/apis/apps.example.com/v1/databases")

    def remove_crd(self) -> None:
        self.call("DELETE", CRD_PATH)
        until(lambda: not self.call("GET", CRD_PATH) and not self.served())

    def lease(self, name: str) -> Object:
        found: Object = self.call("GET", f"{LEASES}/{name}").get("spec", {})
        return found

    def take_lease(self, name: str, holder: str) -> None:
        self.call("PATCH", f"{LEASES}/{name}", {"spec": {"holderIdentity": holder}}, content_type=MERGE)

    @contextlib.contextmanager
    def admin(self, user: str) -> Iterator[None]:
        """Let a user do everything, for the length of the block."""
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        self.call("POST", path, {"metadata": {"name": f"e2e-{user}"}, "roleRef": role, "subjects": [subject]})
        try:
            yield
        finally:
            self.call("DELETE", f"{path}/e2e-{user}")

    def written_by(self, user: str) -> list[Write]:
        """All writes of a user that got an answer, but those of Leases, in the order of the answers."""
        return [  # one with a token that nobody has is no user's
            Write(
                verb=entry["verb"],
                resource="/".join(filter(None, (about["resource"], about.get("subresource")))),
                namespace=about.get("namespace", ""),
                name=about.get("name", ""),
                code=entry["responseStatus"]["code"],
            )
            for entry in self.audited()
            if entry["user"].get("username") == user and (about := entry["objectRef"])["resource"] != "leases"
        ]

    def passwords_sent(self) -> set[str]:
        """Every password that anybody ever wrote into a Secret."""
        found = set()
        for entry in self.audited():
            if entry.get("objectRef", {}).get("resource") == "secrets" and (wanted := entry.get("requestObject")):
                value = (wanted.get("data") or {}).get("password")
                found |= {base64.b64decode(value).decode()} if value else set()
        return found

    def said_by(self, users: Iterable[str]) -> str:
        """All that these users have sent, but Secrets: events, status, Leases, and what they asked for in all."""
        wanted = set(users)
        return "\n".join(
            json.dumps([entry["requestURI"], entry.get("userAgent"), entry.get("requestObject")])
            for entry in self.audited()
            if entry["user"].get("username") in wanted and entry.get("objectRef", {}).get("resource") != "secrets"
        )

    def audited(self) -> list[Object]:
        """All requests to change something that got an answer, as the audit log has them, in the order of the answers.

        A line comes after its answer: what a test has seen may be told a moment later.
        """
        with self.plane.audit_log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    self._audited.append(json.loads(line))
        return list(self._audited)


class Asking(Cluster):
    """The same for who asks all the time: over one connection. It is one thread's at a time, and to be closed."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane)
        self._kept = self._new_connection()

    def close(self) -> None:
        self._kept.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPSConnection]:
        try:
            yield self._kept
        except BaseException:
            self._kept.close()  # the next request opens it again
            raise


class Team:
    """One namespace, as its tenants see it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = f"team-{secrets.token_hex(4)}"
        self._databases = f"/apis/apps.example.com/v1/namespaces/{self.namespace}/databases"
        self._secrets = f"/api/v1/namespaces/{self.namespace}/secrets"

    def create(self, name: str = "orders", *, server: str = "main", **spec: object) -> Object:
        external = {"provisioner": "External", "external": {"serverName": server}}
        wanted = {
            "apiVersion": "apps.example.com/v1",
            "kind": "Database",
            "metadata": {"name": name},
            "spec": ({} if "provisioner" in spec else external) | spec,
        }
        return self.cluster.call("POST", self._databases, wanted)

    def database(self, name: str = "orders") -> Object:
        return self.cluster.call("GET", f"{self._databases}/{name}")

    def databases(self) -> list[Object]:
        found: list[Object] = self.cluster.call("GET", self._databases).get("items", [])
        return found

    def patch(self, change: Object, name: str = "orders") -> Object:
        return self.cluster.call("PATCH", f"{self._databases}/{name}", change, content_type=MERGE)

    def look_again(self, name: str = "orders") -> None:
        """Ask for a pass now, of an object that may be parked."""
        self.patch({"metadata": {"annotations": {"asyncctl/reconcile-at": secrets.token_hex(4)}}}, name)

    def delete(self, name: str = "orders") -> None:
        self.cluster.call("DELETE", f"{self._databases}/{name}")

    def until_running(self, name: str = "orders", deadline: float = 15.0) -> Object:
        """Return the object when it is Running, and that was said of its newest spec."""
        return until(lambda: self.database(name), is_running, deadline=deadline)

    def until_refused(self, reason: str, name: str = "orders", deadline: float = 10.0) -> Object:
        """Return the condition Ready when it is False for `reason`."""
        seen = until(
            lambda: self.database(name), lambda found: condition(found, "Ready").get("reason") == reason,
            deadline=deadline,
        )  # fmt: skip
        assert condition(seen, "Ready")["status"] == "False"
        return condition(seen, "Ready")

    def until_gone(self, name: str = "orders", deadline: float = 10.0) -> None:
        until(lambda: self.database(name), lambda found: not found, deadline=deadline)

    def secret(self, name: str = "orders-credentials") -> Object:
        return self.cluster.call("GET", f"{self._secrets}/{name}")

    def secrets(self) -> list[Object]:
        found: list[Object] = self.cluster.call("GET", self._secrets)["items"]
        return found

    def binding(self, name: str = "orders-credentials") -> dict[str, str]:
        """The values of a Secret, decoded; none where it is not there."""
        return {key: base64.b64decode(value).decode() for key, value in self.secret(name).get("data", {}).items()}

    def make_secret(self, name: str, **values: str) -> Object:
        wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        return self.cluster.call("POST", self._secrets, wanted)

    def try_secret(self) -> int:
        """The code of the answer to who would make a Secret; none is made."""
        wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "try-"}}
        return self.cluster.answer("POST", f"{self._secrets}?dryRun=All", wanted, token=self.cluster.plane.admin_token)[
            0
        ]

    def patch_secret(self, change: Object, name: str = "orders-credentials") -> Object:
        return self.cluster.call("PATCH", f"{self._secrets}/{name}", change, content_type=MERGE)

    def delete_secret(self, name: str = "orders-credentials") -> None:
        self.cluster.call("DELETE", f"{self._secrets}/{name}")

    def events(self, name: str = "orders") -> list[Object]:
        """All events about one Database."""
        found = self.cluster.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [event for event in found if event.get("regarding", {}).get("name") == name]

    def reasons(self, name: str = "orders") -> list[str]:
        return sorted(event["reason"] for event in self.events(name))

    def versions(self) -> dict[str, str]:
        """The resourceVersion of each Database, Secret and Event."""
        objects = [*self.databases(), *self.secrets(), *(each for db in self.databases() for each in self.events(
            db["metadata"]["name"]
        ))]  # fmt: skip
        return {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in objects}

    def clear(self) -> None:
        """Remove every Database whatever it waits for, and the namespace."""
        for found in until(self.databases, lambda _: True):  # where the API server has just come back, soon
            name = found["metadata"]["name"]
            self.delete(name)
            self.patch({"metadata": {"finalizers": None}}, name)
        until(lambda: not self.databases())
        self.cluster.call("DELETE", f"/api/v1/namespaces/{self.namespace}")


def condition(found: Object, kind: str) -> Object:
    conditions = found.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})


def is_running(found: Object) -> bool:
    status = found.get("status", {})
    return (
        status.get("phase") == "Running"
        and condition(found, "Ready").get("status") == "True"
        and status.get("observedGeneration") == found["metadata"]["generation"]
    )

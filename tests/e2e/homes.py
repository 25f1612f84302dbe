"""Where the database of a life is: on the server that all share, or on an instance of its own in the cluster.

What of a life differs by that is here: how a `Database` asks for it, who looks at the server from outside, and what
else there is in the namespace, told in words that are the same for any other life.
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Protocol

from asyncctl.cli.postgres import PostgresServer
from asyncctl.database.postgres.verifier import fits
from tests.e2e.cluster import Object, Team
from tests.e2e.node import Node
from tests.e2e.server import Superuser, ask_as_tenant
from tests.e2e.waiting import until
from tests.e2e.wires import Wires

_LABEL = "labelSelector=apps.example.com/database"
_KINDS = (
    ("api/v1", "persistentvolumeclaims"), ("api/v1", "secrets"), ("api/v1", "services"), ("api/v1", "pods"),
    ("apis/apps/v1", "statefulsets"),
)  # fmt: skip
# What the API server and the controllers choose.
_CHOSEN = {"volumeName", "clusterIP", "clusterIPs", "nodeName", "schedulerName"}
_TAKEN_BY, _VERIFIER = "apps.example.com/taken-by", "apps.example.com/verifier"


class Home(Protocol):
    """One of the two.

    Attributes:
        spec: What of a Database's spec asks for it.
        admin: The role as which the daemon works on the server.
    """

    spec: Object
    admin: str

    def superuser(self) -> Superuser | None:
        """Who sees all of the server; None where there is none."""

    def log_in(self, binding: dict[str, str]) -> None:
        """Log in as an application does, or fail."""

    def objects(self) -> list[Object]:
        """What else there is in the namespace."""

    def starts(self) -> int:
        """How often a server was started."""


class Shared:
    """The server `main` of the catalogue."""

    def __init__(self, superuser: Superuser, admin: str) -> None:
        self.spec: Object = {"provisioner": "External", "external": {"serverName": "main"}}
        self.admin = admin
        self._superuser = superuser

    def superuser(self) -> Superuser:
        return self._superuser

    def log_in(self, binding: dict[str, str]) -> None:
        assert ask_as_tenant(binding["uri"], "SELECT 1") == [(1,)]

    def objects(self) -> list[Object]:
        return []

    def starts(self) -> int:
        return 0


class Instance:
    """An instance in the cluster, on a node that is played; the daemon's way to its server is a wire."""

    admin = "postgres"

    def __init__(self, team: Team, node: Node, wires: Wires, storage_class: str) -> None:
        storage = {"size": "1Gi", "storageClassName": storage_class}
        self.spec = {"provisioner": "InCluster", "inCluster": {"version": "15", "storage": storage}}
        self._team = team
        self._node = node
        self._wires = wires

    @classmethod
    @contextlib.contextmanager
    def of(cls, team: Team, wires: Wires) -> Iterator["Instance"]:
        """With the node, and a class of volumes that can grow."""
        classes, name = "/apis/storage.k8s.io/v1/storageclasses", f"{team.namespace}-grows"
        wanted = {"metadata": {"name": name}, "provisioner": "tests.example.com", "allowVolumeExpansion": True}
        team.cluster.call("POST", classes, wanted)
        try:
            with Node(team.cluster, team.namespace) as node:
                node.known_as = wires.lead_to
                home = cls(team, node, wires, name)
                yield home
                until(lambda: not home._list("api/v1", "pods"), deadline=60)  # of the node, while it is there
        finally:
            team.cluster.call("DELETE", f"{classes}/{name}")

    def superuser(self) -> Superuser | None:
        pods, (secret,) = self._list("api/v1", "pods"), self._admin_secrets() or [None]
        if not pods or secret is None:
            return None
        values = _values(secret)
        host, port = self._wires.target
        return Superuser(PostgresServer(host, port, values["username"], values["password"], "15"))

    def log_in(self, binding: dict[str, str]) -> None:
        host, port = self._wires.target  # the name's address is known to a cluster's DNS only
        assert (binding["host"], binding["port"]) == (f"orders-postgres.{self._team.namespace}.svc", str(port))
        assert ask_as_tenant(f"{binding['uri']}&hostaddr={host}", "SELECT 1") == [(1,)]

    def objects(self) -> list[Object]:
        known = {}
        for secret in self._admin_secrets():
            values = _values(secret)
            assert fits(values["verifier"], values["password"])
            digest = hashlib.sha256(values["verifier"].encode()).hexdigest()[:16]
            known = {secret["data"][key]: f"${key}" for key in ("password", "verifier")} | {digest: "$digest"}
        found = [_told(plural, each) for group, plural in _KINDS for each in self._list(group, plural)]
        text = json.dumps([each for each in found if each["type"] != "servicebinding.io/postgresql"])
        uid = self._team.database().get("metadata", {}).get("uid")
        for value, shown in (known | ({uid: "$uid"} if uid else {})).items():
            text = text.replace(value, shown)
        told: list[Object] = json.loads(text)
        return told

    def starts(self) -> int:
        return len(self._node.ran)

    def _admin_secrets(self) -> list[Object]:
        return [each for each in self._list("api/v1", "secrets") if each["type"] == "kubernetes.io/basic-auth"]

    def _list(self, group: str, plural: str) -> list[Object]:
        path = f"/{group}/namespaces/{self._team.namespace}/{plural}?{_LABEL}"
        found: list[Object] = self._team.cluster.call("GET", path).get("items", [])
        return found


def _values(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def _told(plural: str, found: Object) -> Object:
    """An object without what is another each time it is made."""
    metadata = found["metadata"]
    noted = {
        key: value if key in {_TAKEN_BY, _VERIFIER} else "…" for key, value in metadata.get("annotations", {}).items()
    }
    labels = {key: value for key, value in metadata["labels"].items() if key != "controller-revision-hash"}
    return {
        "kind": plural,
        "name": metadata["name"],
        "type": found.get("type"),
        "labels": labels,
        "noted": noted,
        "owned": [owner["name"] for owner in metadata.get("ownerReferences", ())],
        "finalizers": metadata.get("finalizers"),
        "generation": metadata.get("generation"),
        "going": "deletionTimestamp" in metadata,
        "spec": _without_chosen(found.get("spec")),
        "data": found.get("data"),
    }


def _without_chosen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_chosen(each) for key, each in value.items() if key not in _CHOSEN}
    return [_without_chosen(each) for each in value] if isinstance(value, list) else value

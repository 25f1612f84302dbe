"""An instance in the cluster: real API server and controllers, a real PostgreSQL in the place of the pod.

The daemon has no more rights than the shipped roles give it, and the namespace is `restricted`.
"""

from pathlib import Path

import psycopg
import pytest
import yaml

from asyncctl.cli.postgres import PostgresUnavailable, find_binaries
from tests.e2e.cluster import LEASES, MERGE, Team, condition, is_running
from tests.e2e.daemon import Daemon
from tests.e2e.node import Node
from tests.e2e.waiting import until

ROLES = Path(__file__).parents[2] / "manifests/rbac/operator.yaml"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASE = "db-controller-leader"  # as the shipped roles name it
VERSION = "15"


@pytest.fixture(scope="module")
def shipped_roles(cluster):
    """User c has what the shipped ServiceAccount has, and nothing else."""
    made = []
    for document in yaml.safe_load_all(ROLES.read_text()):
        kind, metadata = document["kind"], document["metadata"]
        if kind == "ServiceAccount":
            continue
        if kind.endswith("Binding"):
            document["subjects"] = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "c"}]
        place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        path = f"{RBAC}{place}/{kind.lower()}s"
        cluster.call("POST", path, document)
        made.append(f"{path}/{metadata['name']}")
    yield
    for path in made:
        cluster.call("DELETE", path)


@pytest.fixture(scope="module")
def daemon(cluster, plane, shipped_roles, tmp_path_factory):
    """One for all tests here. It looks again after an hour: all else it must be told by watches."""
    folder = tmp_path_factory.mktemp("in-cluster")
    plane.kubeconfig(folder / "kubeconfig", "c")
    cluster.call("DELETE", f"{LEASES}/{LEASE}")
    environment = {
        "KUBECONFIG": str(folder / "kubeconfig"),
        "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_TERMINATION_LOG": str(folder / "termination"),
        "ASYNCCTL_POD_NAME": "daemon-c",
        "ASYNCCTL_DATABASE_RESYNC": "1h",
        "ASYNCCTL_RETRY_BASE": "100ms",
        "ASYNCCTL_RETRY_MAX": "1s",
    }
    daemon = Daemon(environment, folder / "daemon.log")
    daemon.until_working()
    yield daemon
    daemon.kill()
    print(daemon.text[-8000:])
    assert daemon.blemishes() == []


class Instances(Team):
    """A namespace with Databases that have an instance of their own."""

    def make(self, name, *, size="1Gi", storage_class="slow", version=VERSION, in_cluster=None, **spec):
        storage = {"size": size, "storageClassName": f"{self.namespace}-{storage_class}"}
        wanted = {
            "apiVersion": "apps.example.com/v1",
            "kind": "Database",
            "metadata": {"name": name},
            "spec": {
                "provisioner": "InCluster",
                "inCluster": {"version": version, "storage": storage} | (in_cluster or {}),
            } | spec,
        }  # fmt: skip
        return self.cluster.call("POST", self._databases, wanted)

    def get(self, plural, name):
        group = "/apis/apps/v1" if plural == "statefulsets" else "/api/v1"
        return self.cluster.call("GET", f"{group}/namespaces/{self.namespace}/{plural}/{name}")

    def change(self, plural, name, change):
        path = f"/api/v1/namespaces/{self.namespace}/{plural}/{name}"
        return self.cluster.call("PATCH", path, change, content_type=MERGE)

    def remove(self, plural, name):
        group = "/apis/apps/v1" if plural == "statefulsets" else "/api/v1"
        self.cluster.call("DELETE", f"{group}/namespaces/{self.namespace}/{plural}/{name}")

    def pod(self, name):
        return self.get("pods", f"{name}-postgres-0")

    def until(self, name, kind, reason, deadline=15.0):
        """Return the condition `kind` when it has that reason."""
        return until(
            lambda: condition(self.database(name), kind), lambda found: found.get("reason") == reason, deadline=deadline
        )

    def until_runs_anew(self, name, before, deadline=15.0):
        """Return the Database when it is Running in another pod than `before`."""

        def look():
            pod = self.pod(name)
            return self.database(name) if pod and pod["metadata"]["uid"] != before["metadata"]["uid"] else {}

        return until(look, lambda found: found and is_running(found), deadline=deadline)

    def ask(self, name, query="SELECT 1"):
        """Ask as the application, by its Secret; but for the name's address, which only a cluster's DNS knows."""
        binding = self.binding(f"{name}-credentials")
        with psycopg.connect(binding["uri"], hostaddr=self.pod(name)["status"]["podIP"], autocommit=True) as session:
            cursor = session.execute(query)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def team(cluster, daemon, backends):
    try:
        find_binaries()
    except PostgresUnavailable as error:
        backends.lack("postgres", str(error))
    team = Instances(cluster)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": team.namespace, "labels": restricted}})
    classes = {"slow": {}, "late": {"volumeBindingMode": "WaitForFirstConsumer"}, "none": {}}
    for name, more in classes.items():
        wanted = {"metadata": {"name": f"{team.namespace}-{name}"}, "provisioner": "tests.example.com"} | more
        cluster.call("POST", "/apis/storage.k8s.io/v1/storageclasses", wanted)
    yield team
    team.clear()
    for name in classes:
        cluster.call("DELETE", f"/apis/storage.k8s.io/v1/storageclasses/{team.namespace}-{name}")


@pytest.fixture(scope="module")
def node(cluster, team):
    with Node(cluster, team.namespace) as node:
        yield node


@pytest.fixture(scope="module")
def orders(team, node):
    """A Database that every test leaves running, and with the row that is in it."""
    team.make("orders", in_cluster={"parameters": {"work_mem": "5MB"}})
    team.until_running("orders")
    team.ask("orders", "CREATE TABLE kept AS SELECT 42 AS answer")
    return "orders"


def test_it_is_made_and_its_secret_works(team, orders):
    found = team.database(orders)
    assert found["status"]["host"] == f"orders-postgres.{team.namespace}.svc"
    assert found["status"]["replicas"] == 1
    assert team.binding()["host"] == found["status"]["host"]
    assert team.ask(orders, "SELECT answer FROM kept") == [(42,)]
    for kind in ("StorageReady", "WorkloadReady", "DatabaseReady", "CredentialsReady", "Ready"):
        assert condition(found, kind)["status"] == "True", kind

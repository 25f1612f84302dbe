"""An instance in the cluster: real API server and controllers, a real PostgreSQL in the place of the pod.

The daemon has no more rights than the shipped roles give it, and the namespace is `restricted`.
"""

import secrets
from pathlib import Path

import psycopg
import pytest
import yaml

from asyncctl.cli.postgres import PostgresUnavailable, find_binaries
from tests.e2e.cluster import LEASES, MERGE, Team, condition, is_running
from tests.e2e.daemon import Daemon
from tests.e2e.node import Node
from tests.e2e.test_deletion import GARBAGE
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

    def failed_creates(self, name):
        found = self.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return [each for each in found if each["reason"] == "FailedCreate" and each["involvedObject"]["name"] == name]

    def nudge(self, name):
        path = f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{name}"
        change = {"metadata": {"annotations": {"tests.example.com/nudge": "1"}}}
        self.cluster.call("PATCH", path, change, content_type=MERGE)

    def until_running(self, name="orders", deadline=60.0):
        return super().until_running(name, deadline)

    def until_gone(self, name="orders", deadline=60.0):
        super().until_gone(name, deadline)

    def until(self, name, kind, reason, deadline=60.0):
        """Return the condition `kind` when it has that reason."""
        return until(
            lambda: condition(self.database(name), kind), lambda found: found.get("reason") == reason, deadline=deadline
        )

    def until_runs_anew(self, name, before, deadline=60.0):
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


def test_restricted_pod_security_admits_the_pod_and_nothing_looser(cluster, team, orders):
    template = team.get("statefulsets", "orders-postgres")["spec"]["template"]
    pod = {"metadata": {"name": "like-it"}, "spec": template["spec"]}
    path = f"/api/v1/namespaces/{team.namespace}/pods?dryRun=All"
    cluster.call("POST", path, pod)
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    code, answer = cluster.answer("POST", path, pod, token=cluster.plane.admin_token)
    assert code == 403
    assert "violates PodSecurity" in answer


def test_the_pod_is_given_a_verifier_and_never_the_password(team, node, orders):
    admin = team.binding("orders-postgres-admin")
    address = team.pod(orders)["status"]["podIP"]
    assert admin["password"] not in str(team.get("statefulsets", "orders-postgres"))
    assert admin["verifier"].startswith("SCRAM-SHA-256$")
    place = {"host": address, "user": admin["username"], "dbname": "postgres"}
    with psycopg.connect(**place, password=admin["password"]) as session:
        stored = session.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").fetchone()
    assert stored == (admin["verifier"],)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(**place, password=admin["verifier"])


def test_a_settled_instance_is_only_looked_at(cluster, daemon, team, orders):
    done = daemon.metric("controller_runtime_reconcile_total", result="requeue_after")
    before = cluster.written_by("c")
    team.look_again(orders)
    until(lambda: daemon.metric("controller_runtime_reconcile_total", result="requeue_after") > done)
    assert cluster.written_by("c") == before


def test_a_pod_that_is_lost_comes_back_with_its_data(team, node, orders):
    before = team.pod(orders)
    node.takes_pods = False
    node.lose("orders-postgres-0")
    refused = team.until(orders, "WorkloadReady", "Unschedulable")
    assert "Insufficient memory" in refused["message"]
    assert condition(team.database(orders), "Ready")["status"] == "False"
    assert team.database(orders)["status"]["replicas"] == 0
    node.takes_pods = True
    team.until_runs_anew(orders, before)
    assert team.ask(orders, "SELECT answer FROM kept") == [(42,)]


def test_another_parameter_starts_the_pod_anew(team, node, orders):
    before = team.pod(orders)
    team.patch({"spec": {"inCluster": {"parameters": {"work_mem": "6MB", "cluster_name": "$(PGDATA) $x"}}}}, orders)
    team.until_runs_anew(orders, before)
    assert team.ask(orders, "SHOW work_mem") == [("6MB",)]
    assert team.ask(orders, "SHOW cluster_name") == [("$(PGDATA) $x",)]


def test_a_minor_upgrade_is_another_image(team, orders):
    before = team.pod(orders)
    team.patch({"spec": {"inCluster": {"version": f"{VERSION}.99"}}}, orders)
    team.until_runs_anew(orders, before)
    assert team.pod(orders)["spec"]["containers"][0]["image"] == f"postgres:{VERSION}.99"
    assert team.ask(orders, "SELECT answer FROM kept") == [(42,)]


def test_an_image_that_can_not_be_had_is_told_and_corrected(team, orders):
    before = team.pod(orders)
    team.patch({"spec": {"inCluster": {"image": "registry.example.com/nothing:1"}}}, orders)
    told = team.until(orders, "WorkloadReady", "ImagePull")
    assert "registry.example.com/nothing:1" in told["message"]
    assert "ImagePull" in team.reasons(orders)
    team.patch({"spec": {"inCluster": {"image": None}}}, orders)
    team.until_runs_anew(orders, before)


def test_a_server_that_does_not_start_says_why(team, orders):
    before = team.pod(orders)
    team.patch({"spec": {"inCluster": {"parameters": {"max_connections": "many"}}}}, orders)
    told = team.until(orders, "WorkloadReady", "CrashLoop")
    assert 'invalid value for parameter "max_connections": "many"' in told["message"]
    team.patch({"spec": {"inCluster": {"parameters": {"max_connections": "30"}}}}, orders)
    team.until_runs_anew(orders, before)
    assert team.ask(orders, "SHOW max_connections") == [("30",)]


def test_no_replica_is_a_stopped_instance_that_keeps_its_data(team, orders):
    before = team.pod(orders)
    team.patch({"spec": {"inCluster": {"replicas": 0}}}, orders)
    told = team.until(orders, "Ready", "Stopped")
    assert "orders-postgres-data" in told["message"]
    until(lambda: team.pod(orders) == {})
    assert team.database(orders)["status"]["phase"] == "Suspended"
    assert team.database(orders)["status"]["replicas"] == 0
    team.patch({"spec": {"inCluster": {"replicas": 1}}}, orders)
    team.until_runs_anew(orders, before)
    assert team.ask(orders, "SELECT answer FROM kept") == [(42,)]


def test_a_volume_that_can_not_grow_is_told_and_grows_when_its_class_may(cluster, team, orders):
    before = team.pod(orders)
    team.patch({"spec": {"inCluster": {"storage": {"size": "2Gi"}}}}, orders)
    told = team.until(orders, "StorageReady", "ResizeUnsupported")
    assert "stays at 1Gi" in told["message"]
    assert condition(team.until_running(orders), "Ready")["status"] == "True"
    assert "ResizeUnsupported" in team.reasons(orders)
    path = f"/apis/storage.k8s.io/v1/storageclasses/{team.namespace}-slow"
    cluster.call("PATCH", path, {"allowVolumeExpansion": True}, content_type=MERGE)
    team.look_again(orders)
    team.until(orders, "StorageReady", "Bound")
    claim = team.get("persistentvolumeclaims", "orders-postgres-data")
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert team.pod(orders)["metadata"]["uid"] == before["metadata"]["uid"]
    by_hand = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
    team.change("persistentvolumeclaims", "orders-postgres-data", by_hand)
    until(lambda: "has 3Gi" in condition(team.database(orders), "StorageReady")["message"])


@pytest.mark.parametrize(
    "change",
    [
        {"version": "16"},
        {"storage": {"size": "1Mi"}},
        {"storage": {"storageClassName": "other"}},
        {"replicas": 2},
        {"parameters": {"archive_command": "rm -rf /"}},
    ],
)
def test_the_api_server_refuses_what_can_not_be_changed(cluster, team, orders, change):
    path = f"/apis/apps.example.com/v1/namespaces/{team.namespace}/databases/{orders}"
    wanted, token = {"spec": {"inCluster": change}}, cluster.plane.admin_token
    code, _ = cluster.answer("PATCH", path, wanted, token=token, content_type=MERGE)
    assert code == 422


def test_another_password_in_the_admin_secret_becomes_the_servers(team, orders):
    before, password = team.pod(orders), secrets.token_hex(8)
    team.patch_secret({"stringData": {"password": password}}, "orders-postgres-admin")
    team.until_runs_anew(orders, before)
    place = {"host": team.pod(orders)["status"]["podIP"], "user": "postgres", "dbname": "postgres"}
    psycopg.connect(**place, password=password).close()


def test_an_admin_secret_that_is_lost_is_made_again_and_the_server_takes_it(team, orders):
    before = team.pod(orders)
    team.remove("secrets", "orders-postgres-admin")
    team.until_runs_anew(orders, before)
    assert team.ask(orders, "SELECT answer FROM kept") == [(42,)]


def test_a_password_that_was_changed_in_the_server_is_told_and_set_again_at_its_next_start(team, orders):
    before, admin = team.pod(orders), team.binding("orders-postgres-admin")
    place = {"host": before["status"]["podIP"], "user": "postgres", "dbname": "postgres"}
    with psycopg.connect(**place, password=admin["password"], autocommit=True) as session:
        session.execute("ALTER ROLE postgres PASSWORD 'another'")
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    team.look_again(orders)
    told = team.until(orders, "DatabaseReady", "AuthenticationFailed")
    assert "delete pod orders-postgres-0" in told["message"]
    assert condition(team.database(orders), "WorkloadReady")["reason"] == "PodReady"
    team.remove("pods", "orders-postgres-0")
    team.until_runs_anew(orders, before)


@pytest.mark.parametrize(
    ("plural", "name", "kind"),
    [
        ("services", "mine-postgres", "WorkloadReady"),
        ("secrets", "mine-postgres-admin", "CredentialsReady"),
        ("persistentvolumeclaims", "mine-postgres-data", "StorageReady"),
    ],
)
def test_a_namesake_of_somebody_else_is_told_and_not_touched(cluster, team, node, plural, name, kind):
    storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"}
    spec = {"services": {"ports": [{"port": 80}]}, "persistentvolumeclaims": storage}.get(plural, {})
    path = f"/api/v1/namespaces/{team.namespace}/{plural}"
    made = cluster.call("POST", path, {"metadata": {"name": name}, "spec": spec})
    team.make("mine", reclaimPolicy="Delete")
    told = team.until("mine", kind, "NotOwned")
    assert name in told["message"]
    assert team.database("mine")["status"]["phase"] == "Failed"
    team.delete("mine")
    team.until_gone("mine")
    found = cluster.call("GET", f"{path}/{name}")
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    cluster.call("DELETE", f"{path}/{name}")
    until(lambda: not cluster.call("GET", f"{path}/{name}"))


def test_the_superusers_secret_is_not_for_an_application(team, orders):
    team.patch({"spec": {"credentials": {"secretName": "orders-postgres-admin"}}}, orders)
    told = team.until(orders, "CredentialsReady", "Invalid")
    assert "choose another secretName" in told["message"]
    assert "verifier" in team.binding("orders-postgres-admin")
    team.patch({"spec": {"credentials": None}}, orders)
    team.until_running(orders)


@pytest.fixture
def kept(team, node):
    """A Database with the row that is in it; a test may end it."""
    if not team.database("kept"):
        team.make("kept")
        team.until_running("kept")
        team.ask("kept", "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    return "kept"


def test_what_was_retained_is_taken_up_by_a_database_of_the_same_version(team, kept):
    uri, admin = team.binding("kept-credentials")["uri"], team.binding("kept-postgres-admin")
    team.delete(kept)
    team.until_gone(kept)
    until(lambda: not team.get("statefulsets", "kept-postgres") and not team.pod(kept), deadline=GARBAGE)
    assert team.get("services", "kept-postgres") == {}
    team.make(kept, version="16")
    told = team.until(kept, "StorageReady", "VersionMismatch")
    assert "set spec.inCluster.version to 15" in told["message"]
    team.delete(kept)
    team.until_gone(kept)
    team.make(kept)
    team.until_running(kept)
    assert team.ask(kept, "SELECT answer FROM kept") == [(42,)]
    assert team.binding("kept-credentials")["uri"] == uri
    assert team.binding("kept-postgres-admin") == admin


def test_a_volume_that_was_deleted_is_told_and_no_empty_one_takes_its_place(team, node, kept):
    team.remove("persistentvolumeclaims", "kept-postgres-data")
    team.until(kept, "StorageReady", "VolumeTerminating")
    assert team.ask(kept) == [(1,)]
    node.lose("kept-postgres-0")
    told = team.until(kept, "StorageReady", "VolumeMissing")
    assert "no empty one is made" in told["message"]
    assert team.database(kept)["status"]["phase"] == "Failed"
    assert team.get("persistentvolumeclaims", "kept-postgres-data") == {}
    team.delete(kept)


@pytest.fixture
def alone(team, node):
    """A Database whose data goes with it; a test may end it."""
    if not team.database("alone"):
        team.make("alone", reclaimPolicy="Delete")
        team.until_running("alone")
    return "alone"


def test_an_orphan_runs_on_and_is_taken_up_as_it_is(team, alone):
    before = team.pod(alone)
    team.patch({"metadata": {"annotations": {"apps.example.com/on-delete": "orphan"}}}, alone)
    team.delete(alone)
    team.until_gone(alone)
    for plural, name in (("statefulsets", "alone-postgres"), ("services", "alone-postgres"),
                         ("services", "alone-postgres-pods"), ("secrets", "alone-postgres-admin")):  # fmt: skip
        assert "ownerReferences" not in team.get(plural, name)["metadata"], name
    assert team.ask(alone) == [(1,)]
    team.make(alone, reclaimPolicy="Delete")
    team.until_running(alone)
    assert team.pod(alone)["metadata"]["uid"] == before["metadata"]["uid"]


def test_delete_leaves_nothing(cluster, team, alone):
    assert "ownerReferences" not in team.get("persistentvolumeclaims", "alone-postgres-data")["metadata"]
    team.delete(alone)
    team.until_gone(alone)
    assert team.get("persistentvolumeclaims", "alone-postgres-data") == {}
    assert "Deleted" in team.reasons(alone)
    label = "labelSelector=apps.example.com/database%3Dalone"
    kinds = ("api/v1", "secrets"), ("api/v1", "services"), ("api/v1", "pods"), ("apis/apps/v1", "statefulsets")
    paths = [f"/{group}/namespaces/{team.namespace}/{plural}?{label}" for group, plural in kinds]
    until(lambda: all(cluster.call("GET", path)["items"] == [] for path in paths))


def test_a_volume_that_is_not_there_yet_is_waited_for(team, node):
    node.gives_volumes = False
    team.make("late", storage_class="late")
    told = team.until("late", "StorageReady", "VolumePending")
    until(lambda: "0/1 nodes" in condition(team.database("late"), "StorageReady")["message"])
    assert "late-postgres-data" in told["message"]
    node.gives_volumes = True
    team.until("late", "StorageReady", "Bound")


def test_a_pod_that_a_quota_forbids_is_told(cluster, team, node):
    path = f"/api/v1/namespaces/{team.namespace}/resourcequotas"
    cluster.call("POST", path, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    status = {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}
    cluster.call("PATCH", f"{path}/none/status", status, content_type=MERGE)
    team.make("poor", storage_class="none")
    until(lambda: team.failed_creates("poor-postgres"))
    team.look_again("poor")  # else it would after ten seconds: of an event that it waits for, nobody tells it
    told = team.until("poor", "WorkloadReady", "QuotaExceeded")
    assert "exceeded quota: none" in told["message"]
    cluster.call("DELETE", f"{path}/none")
    team.nudge("poor-postgres")  # else its controller would try again after growing delays
    until(lambda: condition(team.database("poor"), "WorkloadReady")["reason"] != "QuotaExceeded")

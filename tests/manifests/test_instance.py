"""The objects of an instance in the cluster, as a real API server takes them: strictly, and under `restricted`."""

import base64

import pytest

from asyncctl.database.postgres.verifier import verifier
from asyncctl.database.provisioners.manifests import admin_secret, services, stateful_set, volume_claim
from asyncctl.database.types import Database, DatabaseSpec, InClusterSpec, Provisioner, StorageSpec
from asyncctl.objects import Quantity, from_dict, to_dict

NAMESPACE = "instances"
GROUPS = {
    "StatefulSet": "/apis/apps/v1",
    "Service": "/api/v1",
    "PersistentVolumeClaim": "/api/v1",
    "Secret": "/api/v1",
}
PLAIN = InClusterSpec(version="17", storage=StorageSpec(size=Quantity("1Gi")))
FULL = from_dict(
    InClusterSpec,
    {
        "version": "18.1",
        "image": "registry.example.com/postgres:18.1-alpine",
        "replicas": 0,
        "storage": {"size": "10Gi", "storageClassName": "fast"},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2G"}},
        "parameters": {"max_connections": "50", "a.b": "$(HOME) 'x' \\ é"},
        "scheduling": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "db", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "priorityClassName": "system-cluster-critical",
        },
    },
)


@pytest.fixture(scope="module")
def namespace(kube):
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    code, answer = kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
    assert code == 201, answer
    yield NAMESPACE
    kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def objects(name, wanted):
    db = Database(
        name=name, namespace=NAMESPACE, spec=DatabaseSpec(provisioner=Provisioner.IN_CLUSTER, in_cluster=wanted)
    )
    known = verifier("secret")
    yield "Secret", to_dict(admin_secret(db, "secret", known))
    yield "PersistentVolumeClaim", volume_claim(db, wanted.storage.size)
    yield from (("Service", each) for each in services(db))
    yield "StatefulSet", stateful_set(db, repository="postgres", verifier=known)


@pytest.mark.parametrize("wanted", [PLAIN, FULL], ids=["plain", "full"])
@pytest.mark.parametrize("name", ["orders", "a" * 253, "0.a"])
def test_a_real_server_takes_each_object_and_the_pod_as_it_is(kube, namespace, name, wanted):
    for kind, body in objects(name, wanted):
        path = f"{GROUPS.get(kind, '/api/v1')}/namespaces/{namespace}/{kind.lower()}s?dryRun=All&fieldValidation=Strict"
        code, answer = kube.request("POST", path, body)
        assert code == 201, answer
    template = body["spec"]["template"]
    pod = {"metadata": {"name": "it"} | template["metadata"], "spec": template["spec"]}
    code, answer = kube.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", pod)
    assert code == 201, answer


def test_the_secret_is_what_the_pod_asks_for():
    made = dict(objects("orders", PLAIN))
    (container,) = made["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    references = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]
    assert references == [{"name": made["Secret"]["metadata"]["name"], "key": "verifier"}]
    assert base64.b64decode(made["Secret"]["data"]["verifier"]).startswith(b"SCRAM-SHA-256$")

"""The CRD of `Database`: the file is what the types say, and a real API server takes it and refuses what it should."""

import copy
import json
import time
import uuid
from pathlib import Path

import pytest
import yaml

from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Provisioner
from asyncctl.generate import crd, crd_yaml
from asyncctl.objects import from_dict

MANIFESTS = Path(__file__).parents[2] / "manifests"
BASES = MANIFESTS / "crd" / "bases"


def external(**block):
    return {"provisioner": "External", "external": block}


def in_cluster(**block):
    return {"provisioner": "InCluster", "inCluster": {"version": "17.5", "storage": {"size": "10Gi"}} | block}


def rotated(**rotation):
    return external(serverName="main") | {"credentials": {"rotation": rotation}}


def named(*names):
    return [{"name": name} for name in names]


FORTY = [f"n{number}" for number in range(40)]
EXTERNAL = external(serverName="main")
OWN_SERVER = external(adminSecretRef={"name": "admin"}, sslMode="verify-ca", caSecretRef={"name": "ca"})
IN_CLUSTER = in_cluster()
EVERYTHING = {
    **IN_CLUSTER,
    "databaseName": "orders_1",
    "reclaimPolicy": "Delete",
    "deletionProtection": True,
    "adoptionPolicy": "IfUnowned",
    "suspend": True,
    "encoding": "LATIN1",
    "locale": "en_US.UTF-8",
    "connectionLimit": 20,
    "schemas": [{"name": "app"}, {"name": "public"}],
    "extensions": [{"name": "uuid-ossp", "version": "1.1", "schema": "app"}],
    "users": [{"name": "reader", "privileges": "ReadOnly", "secretName": "reader.pw", "connectionLimit": 2}],
    "credentials": {
        "secretName": "orders",
        "rotation": {"trigger": "2026-01-02T03:04:05Z", "interval": "720h30m", "gracePeriod": "90s"},
    },
    "inCluster": {
        "version": "17.5",
        "image": "registry.example.com/postgres:17.5",
        "replicas": 0,
        "storage": {"size": "10Gi", "storageClassName": "fast"},
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2G"}},
        "parameters": {"max_connections": "50"},
        "scheduling": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "db", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 60}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "priorityClassName": "high",
        },
    },
}

BLOCKS = "set the block of the provisioner and no other: inCluster with InCluster, external with External"
ONE_SERVER = "set exactly one of serverName (a server of the operator's catalogue) and adminSecretRef (your own server)"
TLS = "sslMode and caSecretRef go with adminSecretRef: for a serverName the operator's catalogue has them"
RESERVED = "pg_*, postgres, template0 and template1 belong to PostgreSQL: choose another databaseName"
RESERVED_SCHEMA = "pg_* and information_schema belong to PostgreSQL: choose another schema name"
INTERVAL = "interval must be 24h or more; for a rotation now, change trigger"
SIZE = "size must be more than 0, such as 10Gi"
MOVE = "make a new Database and move the data"
NAME_FIXED = "databaseName is immutable, and can't be set or removed later: make a new Database"
VERSION_FIXED = "the major version is immutable: make a new Database of that version and move the data"
CLASS_FIXED = f"storageClassName is immutable: {MOVE}"
SHRINKS = "size can only grow: a volume can't shrink"

# What is asked for; the field that the server complains of, and how.
REFUSED = [
    ({}, "spec.provisioner", "Required value"),
    ({"provisioner": "Cloud"}, "spec.provisioner", 'supported values: "InCluster", "External"'),
    ({"provisioner": "External"}, "spec", BLOCKS),
    ({"provisioner": "InCluster"}, "spec", BLOCKS),
    (IN_CLUSTER | {"external": {"serverName": "main"}}, "spec", BLOCKS),
    (EXTERNAL | {"inCluster": IN_CLUSTER["inCluster"]}, "spec", BLOCKS),
    (EXTERNAL | {"databaseName": "pg_orders"}, "spec.databaseName", RESERVED),
    (EXTERNAL | {"databaseName": "postgres"}, "spec.databaseName", RESERVED),
    (EXTERNAL | {"databaseName": "template0"}, "spec.databaseName", RESERVED),
    (EXTERNAL | {"databaseName": "template1"}, "spec.databaseName", RESERVED),
    (EXTERNAL | {"databaseName": "Orders"}, "spec.databaseName", "should match '^[a-z_][a-z0-9_]*$'"),
    (EXTERNAL | {"databaseName": "1st"}, "spec.databaseName", "should match '^[a-z_][a-z0-9_]*$'"),
    (EXTERNAL | {"databaseName": ""}, "spec.databaseName", "should be at least 1 chars long"),
    (EXTERNAL | {"databaseName": "a" * 51}, "spec.databaseName", "may not be more than 50 bytes"),
    (EXTERNAL | {"reclaimPolicy": "Recycle"}, "spec.reclaimPolicy", 'supported values: "Retain", "Delete"'),
    (EXTERNAL | {"adoptionPolicy": "Always"}, "spec.adoptionPolicy", 'supported values: "Never", "IfUnowned"'),
    (EXTERNAL | {"encoding": "UTF8'; --"}, "spec.encoding", "should match"),
    (EXTERNAL | {"locale": "C'; --"}, "spec.locale", "should match"),
    (EXTERNAL | {"connectionLimit": -2}, "spec.connectionLimit", "should be greater than or equal to -1"),
    (EXTERNAL | {"schemas": [{"name": "pg_mine"}]}, "spec.schemas[0].name", RESERVED_SCHEMA),
    (EXTERNAL | {"schemas": [{"name": "information_schema"}]}, "spec.schemas[0].name", RESERVED_SCHEMA),
    (EXTERNAL | {"schemas": named("a", "a")}, "spec.schemas[1]", "Duplicate value"),
    (EXTERNAL | {"schemas": named(*FORTY)}, "spec.schemas", "must have at most 32 items"),
    (EXTERNAL | {"extensions": named("a", "a")}, "spec.extensions[1]", "Duplicate value"),
    (EXTERNAL | {"extensions": named(*FORTY)}, "spec.extensions", "must have at most 32 items"),
    (EXTERNAL | {"extensions": [{}]}, "spec.extensions[0].name", "Required value"),
    (EXTERNAL | {"users": named("a", "a")}, "spec.users[1]", "Duplicate value"),
    (EXTERNAL | {"users": named(*FORTY)}, "spec.users", "must have at most 16 items"),
    (EXTERNAL | {"users": [{"name": "a", "privileges": "Admin"}]}, "spec.users[0].privileges", "Unsupported value"),
    (EXTERNAL | {"users": [{"name": "a", "connectionLimit": -2}]}, "spec.users[0].connectionLimit", "or equal to -1"),
    (EXTERNAL | {"credentials": {"secretName": "No/Such"}}, "spec.credentials.secretName", "should match"),
    (rotated(interval="23h59m"), "spec.credentials.rotation.interval", INTERVAL),
    (rotated(interval="1 day"), "spec.credentials.rotation.interval", "Invalid value"),
    (rotated(trigger="now"), "spec.credentials.rotation.trigger", "Invalid value"),
    (external(), "spec.external", ONE_SERVER),
    (external(serverName="main", adminSecretRef={"name": "x"}), "spec.external", ONE_SERVER),
    (external(serverName="main", sslMode="require"), "spec.external", TLS),
    (external(serverName="main", caSecretRef={"name": "ca"}), "spec.external", TLS),
    (external(adminSecretRef={"name": "x"}, sslMode="prefer"), "spec.external.sslMode", "Unsupported value"),
    ({"provisioner": "InCluster", "inCluster": {}}, "spec.inCluster.version", "Required value"),
    (in_cluster(version="13"), "spec.inCluster.version", "should match"),
    (in_cluster(replicas=2), "spec.inCluster.replicas", "should be less than or equal to 1"),
    (in_cluster(storage={}), "spec.inCluster.storage.size", "Required value"),
    (in_cluster(storage={"size": "0"}), "spec.inCluster.storage.size", SIZE),
    (in_cluster(storage={"size": "ten"}), "spec.inCluster.storage.size", "should match"),
]

# What was asked for, and a change to it; the field that the server complains of, and how.
FIXED = [
    (EXTERNAL, IN_CLUSTER | {"external": None}, "spec.provisioner", f"provisioner is immutable: {MOVE}"),
    (EXTERNAL, {"databaseName": "later"}, "spec", NAME_FIXED),
    (EVERYTHING, {"databaseName": "other"}, "spec", NAME_FIXED),
    (EVERYTHING, {"databaseName": None}, "spec", NAME_FIXED),
    (EXTERNAL, {"encoding": "LATIN1"}, "spec.encoding", f"encoding is immutable: {MOVE}"),
    (EXTERNAL, {"locale": "C"}, "spec", f"locale is immutable: {MOVE}"),
    (EVERYTHING, {"locale": "C"}, "spec", f"locale is immutable: {MOVE}"),
    (EVERYTHING, {"locale": None}, "spec", f"locale is immutable: {MOVE}"),
    (EXTERNAL, external(serverName="other"), "spec.external", f"external is immutable: {MOVE}"),
    (EXTERNAL, OWN_SERVER, "spec.external", f"external is immutable: {MOVE}"),
    (IN_CLUSTER, in_cluster(version="18"), "spec.inCluster.version", VERSION_FIXED),
    (IN_CLUSTER, in_cluster(storage={"size": "10239Mi"}), "spec.inCluster.storage.size", SHRINKS),
    (IN_CLUSTER, in_cluster(storage={"size": "10Gi", "storageClassName": "x"}), "spec.inCluster.storage", CLASS_FIXED),
]

ALLOWED = [
    (IN_CLUSTER, {"inCluster": {"version": "17.6", "storage": {"size": "11000Mi"}, "replicas": 0}}),
    (EXTERNAL, {"reclaimPolicy": "Delete", "connectionLimit": 5, "suspend": True, "schemas": [{"name": "app"}]}),
    (EVERYTHING, {"schemas": [], "extensions": [], "users": [], "credentials": None}),
]


def test_the_committed_file_is_what_the_types_say():
    assert (BASES / "apps.example.com_databases.yaml").read_text() == crd_yaml(Database), "say `make manifests`"


def test_nothing_but_crds_stands_in_the_folder_that_kubectl_applies():
    documents = [each for file in BASES.iterdir() for each in yaml.safe_load_all(file.read_text())]
    assert {each["kind"] for each in documents} == {"CustomResourceDefinition"}


def test_the_kustomization_names_every_crd():
    named = yaml.safe_load((MANIFESTS / "crd" / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(f"bases/{file.name}" for file in BASES.iterdir())


def test_each_rule_is_tried_below():
    assert set(messages(crd(Database))) <= {said for *_, said in (*REFUSED, *FIXED)}


def messages(node):
    match node:
        case dict():
            yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
            for each in node.values():
                yield from messages(each)
        case list():
            for each in node:
                yield from messages(each)


class Databases:
    """The collection of one namespace of a real API server."""

    def __init__(self, kube, namespace):
        self.kube = kube
        self.path = Database.resource_type.path(namespace)

    def create(self, spec, name, *, dry_run=False):
        body = {"apiVersion": "apps.example.com/v1", "kind": "Database", "metadata": {"name": name}, "spec": spec}
        return self.kube.request("POST", self._at("", dry_run), body)

    def replace(self, database, *, dry_run=False, subresource=""):
        return self.kube.request("PUT", self._at(f"/{database['metadata']['name']}{subresource}", dry_run), database)

    def _at(self, name, dry_run):
        return f"{self.path}{name}?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")


@pytest.fixture(scope="module")
def databases(kube):
    """The committed CRD, accepted and served, and a namespace of its own."""
    at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    wanted = yaml.safe_load((BASES / "apps.example.com_databases.yaml").read_text())
    status, answer = kube.request("POST", f"{at}?fieldValidation=Strict", wanted)
    if status == 409:
        version = kube.request("GET", f"{at}/{wanted['metadata']['name']}")[1]["metadata"]["resourceVersion"]
        wanted["metadata"]["resourceVersion"] = version
        status, answer = kube.request("PUT", f"{at}/{wanted['metadata']['name']}?fieldValidation=Strict", wanted)
    assert status in {200, 201}, answer
    namespace = f"crd-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    assert kube.request("POST", "/api/v1/namespaces", body)[0] == 201
    found = Databases(kube, namespace)
    # A changed schema reaches the handler a moment after the CRD was written: served is what refuses `{}`.
    until(lambda: kube.request("GET", found.path)[0] == 200 and found.create({}, "x", dry_run=True)[0] == 422)
    yield found
    kube.request("DELETE", f"/api/v1/namespaces/{namespace}")


def until(condition, deadline=30):
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(0.05)


def changed(database, change):
    """Return the object with top-level fields of its spec replaced, or removed where the change says None."""
    after = copy.deepcopy(database)
    after["spec"] = {key: value for key, value in (after["spec"] | change).items() if value is not None}
    return after


def name_of(value):
    return json.dumps(value)[:60]


def test_the_server_finds_no_fault_with_the_schema(kube, databases):
    name = Database.resource_type.resource
    found = kube.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")[1]
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def complaints(answer, field):
    return [cause["message"] for cause in answer["details"]["causes"] if cause["field"] == field]


@pytest.mark.parametrize(("spec", "field", "said"), REFUSED, ids=name_of)
def test_a_bad_spec_is_refused_with_what_to_do(databases, spec, field, said):
    code, answer = databases.create(spec, "bad", dry_run=True)
    assert code == 422, answer
    assert any(said in complaint for complaint in complaints(answer, field)), answer["message"]


def test_a_misspelt_field_is_refused(databases):
    code, answer = databases.create(EXTERNAL | {"databasename": "x"}, "bad", dry_run=True)
    assert code == 400
    assert 'unknown field "spec.databasename"' in answer["message"]


@pytest.mark.parametrize("spec", [EXTERNAL, OWN_SERVER, IN_CLUSTER, EVERYTHING], ids=name_of)
def test_a_good_spec_is_accepted(databases, spec):
    code, answer = databases.create(spec, "good", dry_run=True)
    assert code == 201, answer


@pytest.mark.parametrize("sample", sorted((MANIFESTS / "samples").iterdir()), ids=lambda file: file.stem)
def test_a_sample_is_accepted(databases, sample):
    for document in yaml.safe_load_all(sample.read_text()):
        code, answer = databases.kube.request("POST", databases._at("", dry_run=True), document)
        assert code == 201, answer


@pytest.fixture(scope="module")
def existing(databases):
    """Return the object with that spec as it stands on the server, created once."""
    made = {}

    def get(spec):
        key = json.dumps(spec)
        if key not in made:
            code, made[key] = databases.create(spec, f"existing-{len(made)}")
            assert code == 201, made[key]
        return made[key]

    return get


@pytest.mark.parametrize(("before", "change", "field", "said"), FIXED, ids=name_of)
def test_a_forbidden_change_is_refused_with_what_to_do(databases, existing, before, change, field, said):
    code, answer = databases.replace(changed(existing(before), change), dry_run=True)
    assert code == 422, answer
    assert any(said in complaint for complaint in complaints(answer, field)), answer["message"]


@pytest.mark.parametrize(("before", "change"), ALLOWED, ids=name_of)
def test_an_allowed_change_is_accepted(databases, existing, before, change):
    code, answer = databases.replace(changed(existing(before), change), dry_run=True)
    assert code == 200, answer


def test_the_server_fills_in_the_same_defaults_as_the_types(existing):
    expected = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="main"))
    on_server = existing(EXTERNAL)
    assert from_dict(Database, on_server).spec == expected
    assert on_server["spec"]["reclaimPolicy"] == "Retain"


def test_the_server_adds_nothing_to_a_status(existing):
    assert "status" not in existing(EXTERNAL)


def test_a_full_status_is_accepted_and_read_back(databases, existing):
    status = {
        "observedGeneration": 1,
        "phase": "Running",
        "replicas": 1,
        "databaseName": "team_orders_12345678",
        "ownerRole": "team_orders_12345678_owner",
        "host": "pg.example.com",
        "port": 5432,
        "serverVersion": "18.0",
        "binding": {"name": "orders"},
        "extensions": [{"name": "pgcrypto", "ready": True, "version": "1.3"}],
        "schemas": [{"name": "app", "ready": False, "reason": "Forbidden", "message": "no"}],
        "credentials": {"activeUsers": ["a"], "lastRotationTime": "2026-01-02T03:04:05Z"},
        "claim": {"systemIdentifier": "7300000000000000000", "databaseOID": 16384, "adopted": False},
        "lastReconcileTime": "2026-01-02T03:04:05Z",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Provisioned",
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    }
    code, answer = databases.replace(existing(EXTERNAL) | {"status": status}, subresource="/status")
    assert code == 200, answer
    assert answer["status"] == status
    assert from_dict(Database, answer).status.conditions.get("Ready") is not None

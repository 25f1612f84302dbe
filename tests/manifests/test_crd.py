"""The CRD of `Database`: the file is what the types say, and a real API server takes it and refuses what it should."""

import copy
import json
import ssl
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
import yaml

from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Provisioner
from asyncctl.generate import crd, crd_yaml
from asyncctl.objects import Secret, from_dict
from tests.manifests.rules import (
    ALLOWED,
    EVERYTHING,
    EXTERNAL,
    FIXED,
    IN_CLUSTER,
    OWN_SERVER,
    Refused,
    demands,
    put,
    refused_by_rule,
    refused_by_schema,
    tried,
)

MANIFESTS = Path(__file__).parents[2] / "manifests"
BASES = MANIFESTS / "crd" / "bases"


def test_the_committed_file_is_what_the_types_say():
    assert (BASES / "apps.example.com_databases.yaml").read_text() == crd_yaml(Database), "say `make manifests`"


def test_nothing_but_crds_stands_in_the_folder_that_kubectl_applies():
    documents = [each for file in BASES.iterdir() for each in yaml.safe_load_all(file.read_text())]
    assert {each["kind"] for each in documents} == {"CustomResourceDefinition"}


def test_the_kustomization_names_every_crd():
    named = yaml.safe_load((MANIFESTS / "crd" / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(f"bases/{file.name}" for file in BASES.iterdir())


def test_every_demand_of_the_schema_has_an_example_that_it_refuses():
    demanded = set(demands(crd(Database)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]))
    assert demanded == tried()


STATUS = {
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
    "credentials": {
        "activeUsers": ["a"],
        "lastRotationTime": "2026-01-02T03:04:05Z",
        "users": [
            {"login": "a", "user": "app", "secretName": "orders", "lastRotationTime": "2026-01-02T03:04:05Z"},
        ],
    },
    "claim": {"systemIdentifier": "7300000000000000000", "databaseOID": 16384, "adopted": False, "uid": "5f0c"},
    "lastReconcileTime": "2026-01-02T03:04:05Z",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Provisioned",
            "message": "all is well",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
    ],
}


class Databases:
    """The collection of one namespace of a real API server."""

    def __init__(self, kube, namespace):
        self.kube = kube
        self.path = Database.resource_type.path(namespace)
        self.path_of_secrets = Secret.resource_type.path(namespace)

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


def with_spec(database, path, value):
    return database | {"spec": put(database["spec"], path, value) if path else value}


def name_of(value):
    return f"{value.field}: {value.keyword}" if isinstance(value, Refused) else json.dumps(value)[:60]


def test_the_server_finds_no_fault_with_the_schema(kube, databases):
    name = Database.resource_type.resource
    found = kube.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")[1]
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def complaints(answer, field):
    return [cause["message"] for cause in answer["details"]["causes"] if cause["field"] == field]


@pytest.mark.parametrize("case", [*refused_by_schema(), *refused_by_rule()], ids=name_of)
def test_a_bad_spec_is_refused_with_what_to_do_and_the_nearest_good_one_is_not(databases, case):
    code, answer = databases.create(case.bad, "bad", dry_run=True)
    assert code == 422, answer
    assert any(case.said in complaint for complaint in complaints(answer, case.field)), answer["message"]
    code, answer = databases.create(case.good, "good", dry_run=True)
    assert code == 201, answer


def test_a_misspelt_field_is_refused(databases):
    code, answer = databases.create(EXTERNAL | {"databasename": "x"}, "bad", dry_run=True)
    assert code == 400
    assert 'unknown field "spec.databasename"' in answer["message"]


@pytest.mark.parametrize("spec", [EXTERNAL, OWN_SERVER, IN_CLUSTER, EVERYTHING], ids=name_of)
def test_a_good_spec_is_accepted(databases, spec):
    code, answer = databases.create(spec, "good", dry_run=True)
    assert code == 201, answer


@pytest.mark.parametrize("sample", sorted((MANIFESTS / "samples").iterdir()), ids=lambda file: file.stem)
def test_a_sample_is_accepted_with_nothing_that_the_server_does_not_know(databases, sample):
    documents = list(yaml.safe_load_all(sample.read_text()))
    assert "Database" in {document["kind"] for document in documents}
    for document in documents:
        path = databases.path if document["kind"] == "Database" else databases.path_of_secrets
        query = "?fieldValidation=Strict&dryRun=All"
        code, answer = databases.kube.request("POST", f"{path}{query}", document)
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


@pytest.mark.parametrize(("before", "field", "said", "bad", "good"), FIXED, ids=name_of)
def test_a_forbidden_change_is_refused_with_what_to_do_and_the_nearest_is_not(
    databases, existing, before, field, said, bad, good
):
    there = existing(before)
    for path, value in bad:
        code, answer = databases.replace(with_spec(there, path, value), dry_run=True)
        assert code == 422, answer
        named = f"spec.{field}" if field else "spec"
        assert any(said in complaint for complaint in complaints(answer, named)), answer["message"]
    code, answer = databases.replace(with_spec(there, *good), dry_run=True)
    assert code == 200, answer


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
    code, answer = databases.replace(existing(EXTERNAL) | {"status": STATUS}, subresource="/status")
    assert code == 200, answer
    assert answer["status"] == STATUS
    assert from_dict(Database, answer).status.conditions.get("Ready") is not None


def table(databases, name):
    """What `kubectl get` shows of an object: its columns in order, with their priority and the cell."""
    url, tls = f"{databases.kube.url}{databases.path}/{name}", ssl.create_default_context(cafile=databases.kube.ca_file)
    headers = {
        "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
        "Authorization": f"Bearer {databases.kube.admin_token}",
    }
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=tls) as answer:
        found = json.load(answer)
    (row,) = found["rows"]
    columns = found["columnDefinitions"]
    return [(column["name"], column["priority"], cell) for column, cell in zip(columns, row["cells"], strict=True)]


def test_the_list_of_databases_says_how_they_are_and_where_the_secret_is(databases, existing):
    name = existing(OWN_SERVER)["metadata"]["name"]
    rows = table(databases, name)
    assert [cell for _, _, cell in rows][:-3] == [name, None, None, "External", None, None]
    code, answer = databases.replace(existing(OWN_SERVER) | {"status": STATUS}, subresource="/status")
    assert code == 200, answer
    rows = table(databases, name)
    age = rows.pop(6)
    assert age[:2] == ("Age", 0)
    assert rows == [
        ("Name", 0, name),
        ("Phase", 0, "Running"),
        ("Ready", 0, "True"),
        ("Provisioner", 0, "External"),
        ("Database", 0, "team_orders_12345678"),
        ("Secret", 0, "orders"),
        ("Host", 1, "pg.example.com"),
        ("Message", 1, "all is well"),
    ]

"""Deletion protection at a real API server: what it refuses, in which words, and how the protected one goes in the end.

The shipped policy is tried on Databases; objects that no schema would let in, on a kind of the test's own.
"""

import secrets
import time
from pathlib import Path

import pytest
import yaml

from asyncctl.check.protection import check_protection
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.database.types import Database
from asyncctl.generate import crd, protection_yaml
from asyncctl.objects import ConfigMap, Resource, Spec
from asyncctl.operator.checking import State
from tests.manifests.rules import EXTERNAL, IN_CLUSTER
from tests.unit.support import make_transport

FILE = Path(__file__).parents[2] / "manifests" / "protection" / "apps.example.com_databases.yaml"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class VaultSpec(Spec):
    deletion_protection: bool = False


class Vault(Resource, group="protection.example.com", version="v1", scope="Cluster"):
    spec: VaultSpec


def until(condition, deadline=30):
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(0.05)
    return found


class Objects:
    """The objects of one kind, in one namespace or in none."""

    def __init__(self, kube, kind, namespace=None):
        self.kube, self.kind, self.namespace = kube, kind, namespace
        self.path = kind.resource_type.path(namespace)

    def make(self, name, spec, *, labels=None):
        kind = self.kind.resource_type
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, "labels": labels or {}}}
        code, answer = self.kube.request("POST", self.path, body | {"spec": spec})
        assert code == 201, answer
        return answer

    def delete(self, name, query=""):
        code, answer = self.kube.request("DELETE", f"{self.path}/{name}{query}")
        return code, answer.get("message", "")

    def is_there(self, name):
        return self.kube.request("GET", f"{self.path}/{name}")[0] == 200

    def unprotect(self, name):
        found = self.kube.request("GET", f"{self.path}/{name}")[1]
        found["spec"] = {**(found["spec"] if isinstance(found["spec"], dict) else {}), "deletionProtection": False}
        code, answer = self.kube.request("PUT", f"{self.path}/{name}", found)
        assert code == 200, answer


def install(kube, definition, policy, in_force):
    """Make definition and policy; return what takes the policy away, once `in_force` says that it is."""
    code, answer = kube.request("POST", CRDS, definition)
    assert code in {201, 409}, answer
    documents = list(yaml.safe_load_all(policy))
    for document in documents:
        code, answer = kube.request("POST", f"{PATHS[document['kind']]}?fieldValidation=Strict", document)
        assert code == 201, answer
    until(in_force)

    def remove():
        for document in documents:
            kube.request("DELETE", f"{PATHS[document['kind']]}/{document['metadata']['name']}")
        until(lambda: not in_force())  # other tests of the run delete protected objects too

    return remove


def refuses(objects, protected):
    """Whether a deletion of an object with this spec is refused; what was made for that stays no longer."""
    if objects.kube.request("GET", objects.path)[0] != 200:
        return False
    name = f"probe-{secrets.token_hex(4)}"
    objects.make(name, protected)
    code, _ = objects.delete(name)
    if code == 403:
        objects.unprotect(name)
        objects.delete(name)
    return code == 403


@pytest.fixture(scope="module")
def databases(kube):
    namespace = f"protected-{secrets.token_hex(3)}"
    assert kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})[0] == 201
    found = Objects(kube, Database, namespace)
    protected = EXTERNAL | {"deletionProtection": True}
    remove = install(kube, crd(Database), FILE.read_text(), lambda: refuses(found, protected))
    yield found
    remove()
    kube.request("DELETE", found.path)
    kube.request("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.fixture(scope="module")
def vaults(kube):
    """Objects whose schema lets in anything."""
    definition = crd(Vault)
    schema = {"type": "object", "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}}
    definition["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": schema}
    found = Objects(kube, Vault)
    remove = install(kube, definition, protection_yaml(Vault), lambda: refuses(found, {"deletionProtection": True}))
    yield found
    remove()
    kube.request("DELETE", f"{CRDS}/{Vault.resource_type.resource}")


async def look(kube, kind, token):
    config = ClusterConfig(server=kube.url, ca_file=kube.ca_file, authorization=f"Bearer {token}")
    async with make_transport(config) as transport:
        (row,) = await check_protection(transport, [ConfigMap, kind], "me")
    return row


async def test_the_check_tells_whether_it_is_in_force(vaults):
    kube, name = vaults.kube, "deletion-protection.vaults.protection.example.com"
    policy, binding = (f"{path}/{name}" for path in PATHS.values())
    assert (await look(kube, Vault, kube.admin_token)).state is State.OK
    before = kube.request("GET", binding)[1]
    for change, said in (
        ({"validationActions": ["Audit"]}, "Binding deletion-protection.vaults.protection.example.com is another"),
        ({"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}, "is another than this program's"),
        (None, "ValidatingAdmissionPolicyBinding deletion-protection.vaults.protection.example.com is not there"),
    ):
        if change is None:
            kube.request("DELETE", binding)
        else:
            changed = before | {"spec": before["spec"] | change}
            changed["metadata"] = kube.request("GET", binding)[1]["metadata"]
            assert kube.request("PUT", binding, changed)[0] == 200
        row = await look(kube, Vault, kube.admin_token)
        assert row.state is State.WARNING
        assert said in row.message
        assert "may delete an object that has spec.deletionProtection" in row.message
    del before["metadata"]["resourceVersion"]
    assert kube.request("POST", PATHS["ValidatingAdmissionPolicyBinding"], before)[0] == 201
    assert (await look(kube, Vault, kube.admin_token)).state is State.OK
    whole = kube.request("GET", policy)[1]["spec"]
    constraints = whole["matchConstraints"]
    (rule,) = constraints["resourceRules"]
    exempt = rule | {"resourceNames": ["scratch"]}
    for change in (
        {"failurePolicy": "Ignore"},
        {"matchConditions": [{"name": "few", "expression": "oldObject.metadata.name.startsWith('a')"}]},
        {"matchConstraints": constraints | {"namespaceSelector": {"matchLabels": {"kept": "yes"}}}},
        {"matchConstraints": constraints | {"objectSelector": {"matchLabels": {"kept": "yes"}}}},
        {"matchConstraints": constraints | {"excludeResourceRules": [exempt]}},
        {"matchConstraints": constraints | {"resourceRules": [exempt]}},
    ):
        changed = kube.request("GET", policy)[1] | {"spec": whole | change}
        assert kube.request("PUT", policy, changed)[0] == 200
        row = await look(kube, Vault, kube.admin_token)
        assert row.state is State.WARNING, change
        assert "ValidatingAdmissionPolicy deletion-protection" in row.message
    assert kube.request("PUT", policy, kube.request("GET", policy)[1] | {"spec": whole})[0] == 200
    assert (await look(kube, Vault, kube.admin_token)).state is State.OK
    until(lambda: refuses(vaults, {"deletionProtection": True}))


async def test_who_may_not_read_it_can_not_tell(kube):
    row = await look(kube, Vault, kube.tokens["nobody"])
    assert (row.state, row.message.partition(";")[0]) == (
        State.SKIPPED,
        "can't tell as me, who may not read admission policies",
    )


def test_the_committed_file_is_what_the_types_say():
    assert FILE.read_text().partition("\n")[2] == protection_yaml(Database), "say `make manifests`"


def test_the_kustomization_names_every_file():
    named = yaml.safe_load((FILE.parent / "kustomization.yaml").read_text())["resources"]
    assert named == [file.name for file in FILE.parent.iterdir() if file.name != "kustomization.yaml"]


def test_a_kind_without_the_field_can_not_be_protected():
    with pytest.raises(ValueError, match="ConfigMap can't be protected: its spec has no field deletion_protection"):
        protection_yaml(ConfigMap)


@pytest.mark.parametrize("spec", [EXTERNAL, IN_CLUSTER], ids=["External", "InCluster"])
def test_a_protected_database_can_be_deleted_once_it_is_not_protected_any_more(databases, spec):
    databases.make("orders", spec | {"deletionProtection": True})
    for query in ("", "?dryRun=All", "?propagationPolicy=Orphan", "?gracePeriodSeconds=0"):
        code, said = databases.delete("orders", query)
        assert code == 403
        assert (
            f"Database {databases.namespace}/orders is protected from deletion: set spec.deletionProtection to false, "
            "then delete it"
        ) in said
    assert databases.is_there("orders")
    databases.unprotect("orders")
    assert databases.delete("orders")[0] == 200
    assert not databases.is_there("orders")


def test_one_that_asks_for_no_protection_has_none(databases):
    databases.make("open", EXTERNAL)
    assert databases.delete("open")[0] == 200


def test_of_a_collection_only_the_protected_one_stays(databases):
    labels = {"app": "shop"}
    databases.make("a-open", EXTERNAL, labels=labels)
    databases.make("kept", EXTERNAL | {"deletionProtection": True}, labels=labels)
    code, answer = databases.kube.request("DELETE", f"{databases.path}?labelSelector=app=shop")
    assert code == 403
    assert "/kept is protected from deletion" in answer["message"]
    assert databases.is_there("kept")
    databases.unprotect("kept")
    assert databases.kube.request("DELETE", f"{databases.path}?labelSelector=app=shop")[0] == 200
    until(lambda: not databases.is_there("kept") and not databases.is_there("a-open"))


def test_a_namespace_waits_for_the_protected_one_and_says_so(databases):
    namespace = f"leaving-{secrets.token_hex(3)}"
    path, kube = f"/api/v1/namespaces/{namespace}", databases.kube
    assert kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})[0] == 201
    inside = Objects(kube, Database, namespace)
    inside.make("kept", EXTERNAL | {"deletionProtection": True})
    assert kube.request("DELETE", path)[0] == 200

    def told():
        status = kube.request("GET", path)[1]["status"]
        return [each for each in status.get("conditions", ()) if "is protected from deletion" in each["message"]]

    (condition,) = until(told)
    assert condition["type"] == "NamespaceDeletionContentFailure"
    assert f"Database {namespace}/kept is protected" in condition["message"]
    assert inside.is_there("kept")
    inside.unprotect("kept")
    until(lambda: not inside.is_there("kept"))  # the namespace's controller tries again by itself


@pytest.mark.parametrize(
    "spec", [{"deletionProtection": "yes"}, {"deletionProtection": 1}, {"deletionProtection": {}}], ids=str
)
def test_a_value_that_can_not_be_read_protects(vaults, spec):
    vaults.make("odd", spec)
    code, said = vaults.delete("odd")
    assert (code, "Vault odd is protected from deletion" in said) == (403, True)
    vaults.unprotect("odd")
    assert vaults.delete("odd")[0] == 200


@pytest.mark.parametrize("spec", ["text", [], 7, {}, {"deletionProtection": False}], ids=str)
def test_what_says_nothing_of_protection_can_be_deleted_whatever_it_is(vaults, spec):
    vaults.make("odd", spec)
    code, said = vaults.delete("odd")
    assert code == 200, said


def test_the_end_of_the_definition_is_the_end_of_the_protected_ones(vaults):
    """Last of all: as the docs say, who may delete a CRD is not asked."""
    vaults.make("gone", {"deletionProtection": True})
    path = f"{CRDS}/{Vault.resource_type.resource}"
    assert vaults.kube.request("DELETE", path)[0] == 200
    until(lambda: vaults.kube.request("GET", path)[0] == 404)

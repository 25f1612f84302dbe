"""The RBAC of the shipped operator: the file is what the code declares, and a real API server takes it."""

from pathlib import Path

import pytest
import yaml

from asyncctl.cli.manifests import manifests

MANIFESTS = Path(__file__).parents[2] / "manifests"
DOCUMENTS = list(yaml.safe_load_all((MANIFESTS / "rbac" / "operator.yaml").read_text()))
PLURALS = {"Role": "roles", "RoleBinding": "rolebindings", "ServiceAccount": "serviceaccounts"}
PLURALS |= {f"Cluster{kind}": f"cluster{plural}" for kind, plural in PLURALS.items()}


def test_the_committed_files_are_what_the_code_says():
    for name, text in manifests().items():
        assert (MANIFESTS / name).read_text() == text, "say `make manifests`"


@pytest.mark.parametrize("folder", ["rbac", "rbac-external", "fence"])
def test_the_kustomization_names_each_file(folder):
    named = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text())["resources"]
    files = {file.name for file in (MANIFESTS / folder).iterdir()}
    assert sorted(named) == sorted(files - {"kustomization.yaml"})


def test_the_rules_of_external_alone_are_fewer_and_none_of_them_another():
    alone = (MANIFESTS / "rbac-external" / "operator.yaml").read_text()
    fewer = [rule for each in yaml.safe_load_all(alone) for rule in each.get("rules", ())]
    rules = [rule for each in DOCUMENTS for rule in each.get("rules", ())]
    instance = {"statefulsets", "services", "persistentvolumeclaims", "pods"}
    left_out = [rule for rule in rules if instance & set(rule["resources"]) or rule["verbs"] == ["list"]]
    assert sorted(fewer + left_out, key=str) == sorted(rules, key=str)
    assert len(left_out) == len(instance) + 1  # the events that tell why an instance has no pod


def test_each_role_is_bound_to_the_account():
    roles = {(each["kind"], each["metadata"]["name"]) for each in DOCUMENTS if each["kind"].endswith("Role")}
    bindings = [each for each in DOCUMENTS if each["kind"].endswith("Binding")]
    assert {(each["roleRef"]["kind"], each["roleRef"]["name"]) for each in bindings} == roles
    (account,) = (each["metadata"] for each in DOCUMENTS if each["kind"] == "ServiceAccount")
    assert all(each["subjects"] == [{"kind": "ServiceAccount", **account}] for each in bindings)


def test_no_rule_says_all():
    rules = [rule for each in DOCUMENTS for rule in each.get("rules", ())]
    assert rules
    assert not any("*" in values for rule in rules for values in rule.values())


def test_no_rule_lets_it_take_the_fence_away():
    """The policy fences itself as little as any: who may change it, or delete the Lease that it asks, is unfenced."""
    rules = [rule for each in DOCUMENTS for rule in each.get("rules", ())]
    assert not any("admissionregistration.k8s.io" in rule["apiGroups"] for rule in rules)
    leases = [rule for rule in rules if "leases" in rule["resources"]]
    assert leases
    assert not {verb for rule in leases for verb in rule["verbs"]} & {"delete", "deletecollection", "patch"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each["kind"])
def test_a_real_server_takes_each_document(kube, document):
    code, answer = kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": "controllers"}})
    assert code in {201, 409}, answer
    namespace = document["metadata"].get("namespace")
    prefix = f"/api{'s' if '/' in document['apiVersion'] else ''}/{document['apiVersion']}"
    where = f"/namespaces/{namespace}" if namespace else ""
    path = f"{prefix}{where}/{PLURALS[document['kind']]}?dryRun=All&fieldValidation=Strict"
    code, answer = kube.request("POST", path, document)
    assert code == 201, answer

import json

import pytest

from asyncctl.apiserver import openapi
from asyncctl.apiserver.resources import from_crd
from tests.unit.apiserver.golden import definition, kinds


def document(path):
    return json.loads(openapi.document_at(kinds(), path))


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


PATHS = ["api/v1", "apis/apps/v1", "apis/coordination.k8s.io/v1", "apis/probe.example.com/v1"]


@pytest.mark.parametrize("path", [*PATHS, "apis/apiextensions.k8s.io/v1", "apis/events.k8s.io/v1"])
def test_every_reference_leads_to_a_schema(path):
    body = document(path)
    named = {f"#/components/schemas/{name}" for name in body["components"]["schemas"]}
    assert set(references(body)) <= named


@pytest.mark.parametrize("path", PATHS)
def test_patches_take_field_validation_and_dry_run(path):
    # kubectl looks for the patch of a kind, by group, version and kind, and for these of its parameters.
    patches = [each["patch"] for each in document(path)["paths"].values() if "patch" in each]
    assert patches
    for patch in patches:
        assert {"dryRun", "fieldValidation", "fieldManager"} <= {each["name"] for each in patch["parameters"]}
        assert set(patch["x-kubernetes-group-version-kind"]) == {"group", "version", "kind"}
        assert patch["x-kubernetes-action"] == "patch"


def test_only_built_in_kinds_take_strategic_merge_patches():
    strategic = "application/strategic-merge-patch+json"
    for path, wanted in (("apis/apps/v1", True), ("apis/probe.example.com/v1", False)):
        item = next(each["patch"] for each in document(path)["paths"].values() if "patch" in each)
        assert (strategic in item["requestBody"]["content"]) is wanted


def test_a_custom_kind_is_described_by_its_own_schema_and_the_metadata_of_all():
    schema = document("apis/probe.example.com/v1")["components"]["schemas"]["com.example.probe.v1.Thing"]
    assert schema["properties"]["spec"]["properties"]["size"] == {"maximum": 10, "minimum": 1, "type": "integer"}
    assert schema["properties"]["metadata"]["allOf"][0]["$ref"].endswith(".ObjectMeta")
    wanted = [{"group": "probe.example.com", "version": "v1", "kind": "Thing"}]
    assert schema["x-kubernetes-group-version-kind"] == wanted


def test_the_index_changes_with_a_kind():
    before = openapi.index(kinds())["paths"]
    crd = definition()
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["new"] = {
        "type": "string"
    }
    others = [kind for kind in kinds() if not kind.custom]
    after = openapi.index([*others, *from_crd(crd)])["paths"]
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {"apis/probe.example.com/v1"}


def test_the_hash_of_the_index_is_that_of_the_document():
    url = openapi.index(kinds())["paths"]["apis/apps/v1"]["serverRelativeURL"]
    assert url == f"/openapi/v3/apis/apps/v1?hash={openapi.document_hash(openapi.document_at(kinds(), 'apis/apps/v1'))}"


def test_there_is_no_document_of_what_is_not_served():
    assert openapi.document_at(kinds(), "apis/nope/v1") is None


def test_version_two_defines_every_kind():
    body = openapi.swagger(kinds())
    assert set(references(body)) <= {f"#/definitions/{name}" for name in body["definitions"]}
    assert {kind.definition for kind in kinds()} <= set(body["definitions"])

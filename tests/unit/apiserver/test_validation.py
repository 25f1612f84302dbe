import copy
import json

import pytest

from asyncctl.apiserver import names, validation
from asyncctl.apiserver.decoding import decode_error
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.metadata import finalizer_warnings, validate_manager, validate_update_meta
from asyncctl.apiserver.resources import builtins, from_crd
from tests.unit.apiserver.golden import cases, definition, kind_at, merged, rows

CONFIG_MAP = kind_at("/api/v1/namespaces/x/configmaps")
SECRET = kind_at("/api/v1/namespaces/x/secrets")
THING = from_crd(definition())[0]
DEFINITION = next(kind for kind in builtins() if kind.kind == "CustomResourceDefinition")
# What the server itself does, before or after these functions, or the real one says of Go's types.
ELSEWHERE = (
    "the namespace of the provided object does not match",
    "does not match the expected API version",
    "[]v1.PersistentVolumeAccessMode",
)


def prepared(kind, obj):
    obj = copy.deepcopy(obj)
    kind.schema.default(obj)
    kind.schema.prune(obj)
    validation.prepare(kind, obj)
    return obj


def stored(kind, obj):
    """What the server fills in before it judges a new object."""
    obj = prepared(kind, obj)
    meta = obj["metadata"]
    if kind.namespaced:
        meta.setdefault("namespace", "default")
    if kind.kind == "Namespace":
        meta["labels"] = {"kubernetes.io/metadata.name": meta["name"]}
    if meta.get("generateName") and not meta.get("name"):
        meta["name"] = f"{meta['generateName']}abcde"
    if kind.status:
        obj.pop("status", None)
    return obj


def case_id(case):
    return json.dumps(case.get("patch") or case["body"])[-70:]


@pytest.mark.parametrize(
    "case",
    [case for case in cases("creates") if not any(text in case.get("message", "") for text in ELSEWHERE)],
    ids=case_id,
)
def test_a_new_object_gets_the_answer_of_the_real_server(case):
    kind = kind_at(case["path"])
    error = decode_error(kind, case["body"])
    if case["code"] == 400:
        assert f'{kind.kind} in version "v1" cannot be handled as a {kind.kind}: {error}' == case["message"]
        return
    assert error is None
    obj = stored(kind, case["body"])
    assert rows(validation.validate_create(kind, obj)) == sorted(case.get("causes", []))


@pytest.mark.parametrize("case", cases("updates"), ids=case_id)
def test_an_update_gets_the_answer_of_the_real_server(case):
    kind = kind_at(case["path"])
    old = {"apiVersion": kind.api_version, "kind": kind.kind, **case["old"]}
    new = prepared(kind, merged(old, case["patch"]))
    meta = old["metadata"]
    # What the server takes from the stored object, whatever the client sent.
    own = {name: meta[name] for name in ("generation", "creationTimestamp", "deletionTimestamp") if name in meta}
    new["metadata"] = {key: value for key, value in new["metadata"].items() if key != "generation"} | own
    if "versions" in case["patch"].get("spec", {}):
        new["status"]["storedVersions"] = ["v1", "v2"]
    subresource = "status" if case["path"].endswith("/status") else ""
    assert rows(validation.validate_update(kind, new, old, subresource)) == sorted(case.get("causes", []))


@pytest.mark.parametrize("case", cases("definitions"), ids=case_id)
def test_a_definition_gets_the_answer_of_the_real_server(case):
    obj = prepared(DEFINITION, case["body"])
    spec = obj["spec"]
    given = spec["names"]
    given["singular"] = given.get("singular") or given.get("kind", "").lower()
    versions = [version["name"] for version in spec["versions"] if version.get("storage")]
    obj["status"] = {"storedVersions": list(dict.fromkeys(versions))}
    assert rows(validation.validate_create(DEFINITION, obj)) == sorted(case.get("causes", []))


def test_large_annotations_and_data_are_refused():
    big = {"a": "x" * (256 * 1024)}
    found = validation.validate_create(
        CONFIG_MAP, {"metadata": {"name": "a", "namespace": "b", "annotations": big}, "data": {"k": "x" * 2**20 + "x"}}
    )
    assert [(cause.field, cause.message) for cause in found] == [
        ("metadata.annotations", "Too long: may not be more than 262144 bytes"),
        ("[]", "Too long: may not be more than 1048576 bytes"),
    ]


def test_rules_that_were_skipped_are_told_where_there_are_any():
    crd = definition()
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-validations"] = [{"rule": "true"}]
    thing = from_crd(crd)[0]
    obj = {
        "apiVersion": thing.api_version,
        "kind": thing.kind,
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"size": "x"},
    }
    last = validation.validate_create(thing, obj)[-1]
    assert last == Cause(
        "FieldValueInvalid",
        "Invalid value: null: some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation",
        "<nil>",
    )
    obj["spec"] = {"size": 99}
    assert [cause.field for cause in validation.validate_create(thing, obj)] == ["spec.size"]


def test_a_finalizer_without_a_domain_earns_a_warning_when_it_is_new():
    obj = {"metadata": {"finalizers": ["noslash", "a.b", "x.io/y", "orphan"]}}
    words = "to avoid accidental conflicts with other finalizer writers"
    assert finalizer_warnings(obj) == [
        f'metadata.finalizers: "a.b": prefer a domain-qualified finalizer name including a path (/) {words}',
        f'metadata.finalizers: "noslash": prefer a domain-qualified finalizer name {words}',
    ]
    assert finalizer_warnings(obj, copy.deepcopy(obj)) == []
    assert validation.warnings(CONFIG_MAP, obj) == []


def test_plain_data_of_a_secret_is_laid_over_its_data():
    obj = {"metadata": {"name": "s"}, "data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "ü"}}
    validation.prepare(SECRET, obj)
    assert obj == {"metadata": {"name": "s"}, "data": {"a": "w7w=", "b": "eQ=="}, "type": "Opaque"}


def test_the_uid_of_an_object_may_not_change():
    old = {"metadata": {"name": "a", "namespace": "b", "uid": "1"}}
    new = {"metadata": {"name": "a", "namespace": "b", "uid": "2"}}
    assert rows(validate_update_meta(CONFIG_MAP, new, old)) == [
        ["FieldValueInvalid", 'Invalid value: "2": field is immutable', "metadata.uid"]
    ]


def test_the_name_of_a_manager_is_printable_and_short():
    assert [cause.message for cause in validate_manager("a\n", "fieldManager")] == [
        'Invalid value: "a\\n": invalid character U+000A (at position 1)'
    ]
    assert [cause.reason for cause in validate_manager("x" * 129, "fieldManager")] == ["FieldValueTooLong"]


def test_lengths_count_bytes():
    assert names.label_value("ü" * 31 + "xx")[0] == "must be no more than 63 bytes"


@pytest.mark.parametrize(
    ("text", "position"), [("", None), ("YWJj", None), ("YW==", None), ("Y", 0), ("YWJjZ", 4), ("YQ=", 3), ("a*bc", 1)]
)
def test_base64_errors_name_the_byte_where_go_stops(text, position):
    obj = {"kind": "Secret", "metadata": {}, "data": {"a": text}}
    error = decode_error(SECRET, obj)
    assert error == (None if position is None else f"illegal base64 data at input byte {position}")

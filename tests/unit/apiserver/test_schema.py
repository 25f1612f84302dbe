import copy
import json

import pytest
from hypothesis import given, settings, strategies as st

from asyncctl.apiserver import causes
from asyncctl.apiserver.formats import FORMATS
from asyncctl.apiserver.patterns import InvalidPatternError, UnsupportedPatternError, compile_pattern
from asyncctl.apiserver.resources import builtins, from_crd
from asyncctl.apiserver.schema import OPEN, Schema
from tests.unit.apiserver.golden import cases, definition, rows

THING = from_crd(definition())[0]


def schema_of(**properties):
    return Schema({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})


@pytest.mark.parametrize("case", cases("specs"), ids=lambda case: json.dumps(case["spec"])[:60])
def test_a_spec_gets_the_answer_of_the_real_server(case):
    obj = {"apiVersion": THING.api_version, "kind": THING.kind, "metadata": {"name": "x"}, "spec": case["spec"]}
    THING.schema.default(obj)
    unknown = THING.schema.prune(obj)
    found = THING.schema.validate(obj)
    if case["code"] == 201:
        assert found == []
        assert obj.get("spec") == case["stored"]
        assert [f'299 - "unknown field \\"{path}\\""' for path in unknown] == case.get("warnings", [])
    else:
        # What the paths of the scale subresource point to is judged by `validation`.
        assert rows(found) == sorted(cause for cause in case["causes"] if cause[2] != ".spec.replicas")


def test_messages_of_a_status_update_name_fields_from_status_on():
    found = THING.schema.validate_status({"status": {"phase": "x", "n": "y"}}, {})
    assert rows(found) == [
        ["FieldValueTypeInvalid", 'Invalid value: "string": n in body must be of type integer: "string"', "status.n"]
    ]


def test_prune_reports_fields_of_lists_and_maps_by_path():
    obj = {"spec": {"size": 1, "items": [{"name": "a"}, {"name": "b", "z": 1}], "nope": {}}, "metadata": {"odd": 1}}
    assert THING.schema.prune(obj) == ["spec.items[1].z", "spec.nope", "metadata.odd"]
    assert obj == {"spec": {"size": 1, "items": [{"name": "a"}, {"name": "b"}]}, "metadata": {}}


def test_prune_keeps_what_may_be_unknown_but_prunes_what_is_declared_inside():
    schema = schema_of(
        free={
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }
    )
    obj = {"spec": {"free": {"any": {"thing": 1}, "known": {"a": "x", "b": "y"}}}}
    assert schema.prune(obj) == ["spec.free.known.b"]
    assert obj == {"spec": {"free": {"any": {"thing": 1}, "known": {"a": "x"}}}}


def test_defaults_are_copies_of_their_own():
    schema = schema_of(list={"type": "array", "items": {"type": "string"}, "default": ["a"]})
    one, other = {"spec": {}}, {"spec": {}}
    schema.default(one)
    one["spec"]["list"].append("b")
    schema.default(other)
    assert other == {"spec": {"list": ["a"]}}


def test_defaults_do_not_make_their_parent():
    obj = {}
    schema_of(x={"type": "string", "default": "a"}).default(obj)
    assert obj == {}


def test_what_was_wrong_before_and_did_not_change_is_let_pass():
    schema = schema_of(a={"type": "integer", "maximum": 3}, b={"type": "integer", "maximum": 3})
    old = {"spec": {"a": 9, "b": 1}}
    assert schema.validate({"spec": {"a": 9, "b": 2}}, old) == []
    assert [cause.field for cause in schema.validate({"spec": {"a": 8, "b": 1}}, old)] == ["spec.a"]


def test_entries_of_a_keyed_list_are_compared_with_their_old_selves():
    schema = schema_of(
        items={
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "v": {"type": "integer", "maximum": 3}},
            },
        }
    )
    old = {"spec": {"items": [{"name": "a", "v": 9}]}}
    assert schema.validate({"spec": {"items": [{"name": "new", "v": 1}, {"name": "a", "v": 9}]}}, old) == []


def test_repeated_entries_are_let_pass_where_there_were_some_before():
    schema = schema_of(s={"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}})
    repeated = {"spec": {"s": ["a", "a"]}}
    assert [cause.reason for cause in schema.validate(repeated)] == ["FieldValueDuplicate"]
    assert schema.validate({"spec": {"s": ["a", "a", "b"]}}, repeated) == []


def test_cel_rules_are_counted():
    schema = schema_of(a={"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}, {"rule": "true"}]})
    assert schema.unchecked_rules == 2


def test_nodes_tell_how_lists_and_maps_are_owned():
    items = THING.schema.at("spec", "items")
    assert (items.list_type, items.map_keys) == ("map", ("name",))
    assert THING.schema.at("spec", "set").list_type == "set"
    assert THING.schema.at("spec", "l").list_type == "atomic"
    assert THING.schema.at("spec", "items", "[]", "v").type == "string"
    assert THING.schema.at("spec", "free", "any", "thing") is OPEN
    assert THING.schema.at("spec", "nope") is None
    assert THING.schema.at("metadata", "ownerReferences").map_keys == ("uid",)
    assert THING.schema.at("metadata", "finalizers").list_type == "set"


def test_nodes_of_built_in_kinds_have_patch_keys():
    pod = next(kind for kind in builtins() if kind.kind == "Pod").schema
    containers = pod.at("spec", "containers")
    assert (containers.patch_strategy, containers.patch_merge_key) == (("merge",), "name")
    ports = pod.at("spec", "containers", "[]", "ports")
    assert (ports.patch_merge_key, ports.map_keys) == ("containerPort", ("containerPort", "protocol"))
    assert ports.item().child("protocol").default == "TCP"


def test_recursive_types_end():
    crd = next(kind for kind in builtins() if kind.kind == "CustomResourceDefinition").schema
    schema = crd.at("spec", "versions", "[]", "schema", "openAPIV3Schema")
    assert schema.child("properties").additional is schema


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("^a$", "a\n", False),  # in Python `$` would match before the newline
        (r"^\d$", "٣", False),  # digits are ASCII in Go
        ("^[[:alpha:]]+$", "abc", True),
        ("^[[:alpha:]]+$", "ab1", False),
        (r"\Qa.b\E", "axb", False),
        (r"a\z", "a", True),
        ("[$]", "$", True),
        (r"[]a]", "]", True),
    ],
)
def test_patterns_mean_what_they_mean_in_go(pattern, text, matches):
    assert bool(compile_pattern(pattern).search(text)) is matches


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)", r"(a)\1", "(", "[a", "a{2,1}", "*"])
def test_patterns_that_go_refuses_are_refused(pattern):
    with pytest.raises(InvalidPatternError):
        compile_pattern(pattern)


def test_unicode_classes_are_not_known_and_let_values_pass():
    with pytest.raises(UnsupportedPatternError):
        compile_pattern(r"^\p{L}$")
    assert schema_of(x={"type": "string", "pattern": r"^\p{L}$"}).validate({"spec": {"x": "1"}}) == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("datetime", "2024-02-29T23:59:59.5+01:00", "2024-02-30T00:00:00Z"),
        ("date", "2024-02-29", "2024-2-29"),
        ("duration", "1h2m", "1 fortnight"),
        ("byte", "YQ==", "YQ="),
        ("uuid", "123E4567-e89b-12d3-a456-426614174000", "123"),
        ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "fe80::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("mac", "00:1b:44:11:3a:b7", "00:1b:44"),
        ("hostname", "a-b.example.com", "-a"),
        ("email", "a@b", "a"),
        ("uri", "https://x/y", "x y"),
        ("hexcolor", "#fff", "#ff"),
        ("isbn10", "0321751043", "0321751044"),
        ("isbn13", "978-0321751041", "978-0321751042"),
        ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("k8sshortname", "a-1", "A"),
    ],
)
def test_formats(name, good, bad):
    assert FORMATS[name](good)
    assert not FORMATS[name](bad)


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.0, "1"), (0.5, "0.5"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-5, "1e-05"), (-0.0, "-0")],
)
def test_floats_are_written_as_go_writes_them(number, text):
    assert causes.go_float(number) == text


def test_json_in_messages_is_sorted_and_escaped_as_in_go():
    assert causes.go_json({"b": [1, None], "a": "<&>"}) == '{"a":"\\u003c\\u0026\\u003e","b":[1,null]}'


# Specs made of the fields of the golden definition, right and wrong, and of some it does not know.
_LEAVES = st.none() | st.booleans() | st.integers(-5, 15) | st.floats(-2, 2) | st.sampled_from(["", "a", "red", "x"])
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "name", "v", "x", "y", "deep"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = sorted(definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
_OBJECTS = st.fixed_dictionaries(
    {"metadata": st.just({"name": "x"})},
    optional={"spec": st.dictionaries(st.sampled_from([*_FIELDS, "bogus"]), _VALUES, max_size=6) | _VALUES},
)


@settings(deadline=None)  # a busy machine is not a defect
@given(_OBJECTS)
def test_prune_is_idempotent(obj):
    THING.schema.prune(obj)
    once = copy.deepcopy(obj)
    assert THING.schema.prune(obj) == []
    assert obj == once


@settings(deadline=None)  # a busy machine is not a defect
@given(_OBJECTS)
def test_default_is_idempotent(obj):
    THING.schema.default(obj)
    once = copy.deepcopy(obj)
    THING.schema.default(obj)
    assert obj == once


@settings(deadline=None)  # a busy machine is not a defect
@given(_OBJECTS)
def test_a_valid_object_stays_valid_with_its_defaults_and_without_unknown_fields(obj):
    if THING.schema.validate(obj) == []:
        THING.schema.default(obj)
        THING.schema.prune(obj)
        assert THING.schema.validate(obj) == []


@settings(deadline=None)  # a busy machine is not a defect
@given(_OBJECTS)
def test_an_unchanged_object_is_never_refused(obj):
    if isinstance(obj.get("spec"), dict):
        obj["spec"].pop("emb", None)  # objects inside objects are judged anew each time, by the real server too
    assert THING.schema.validate(obj, copy.deepcopy(obj)) == []

from hypothesis import given, strategies as st

from asyncctl.apiserver import fields
from asyncctl.apiserver.fields import MISSING, Comparison
from asyncctl.apiserver.schema import Schema

ROOT = Schema(
    {
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "words": {"type": "array", "items": {"type": "string"}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "items": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "string"}}},
            },
            "limits": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
).root

VALUES = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(0, 3),
        "words": st.lists(st.sampled_from("ab"), max_size=2),
        "tags": st.lists(st.sampled_from("abc"), max_size=3, unique=True),
        "items": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"v": st.sampled_from("xy")}),
            max_size=3,
            unique_by=lambda entry: entry["name"],
        ),
        "limits": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
    },
)


def test_keyed_lists_are_owned_entry_by_entry():
    assert fields.encode(
        fields.paths_of({"items": [{"name": "x", "v": "1"}], "tags": ["t"], "words": ["w"]}, ROOT)
    ) == {
        "f:items": {'k:{"name":"x"}': {".": {}, "f:name": {}, "f:v": {}}},
        "f:tags": {'v:"t"': {}},
        "f:words": {},
    }


def test_conflicts_show_paths_as_people_write_them():
    assert fields.shown(("f:spec", 'k:{"name":"x"}', "f:v")) == '.spec[name="x"].v'
    assert fields.shown(("f:tags", 'v:"t"')) == '.tags[="t"]'


@given(VALUES)
def test_a_set_of_fields_survives_the_wire(value):
    paths = fields.paths_of(value, ROOT)
    assert fields.decode(fields.encode(paths)) == paths


@given(VALUES)
def test_a_value_does_not_differ_from_itself(value):
    difference = Comparison(value, fields.copy(value), ROOT)
    assert not difference.changed
    assert not difference.removed


@given(VALUES, VALUES)
def test_what_one_comparison_adds_the_other_removes(old, new):
    there, back = Comparison(old, new, ROOT), Comparison(new, old, ROOT)
    assert there.added == back.removed
    assert there.modified == back.modified


@given(VALUES, VALUES)
def test_a_merge_holds_all_that_was_applied(live, config):
    merged = fields.merge(live, config, ROOT)
    assert fields.paths_of(config, ROOT) <= fields.paths_of(merged, ROOT) | {("f:limits",)}
    assert fields.merge(merged, config, ROOT) == merged


@given(VALUES)
def test_removing_every_field_leaves_nothing(value):
    left = fields.remove(value, fields.with_parents(fields.paths_of(value, ROOT), ROOT), ROOT)
    assert left is MISSING or not any(left.values())


def test_merged_lists_follow_the_applied_order():
    live = {"items": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}
    merged = fields.merge(live, {"items": [{"name": "c"}, {"name": "a"}]}, ROOT)
    assert [entry["name"] for entry in merged["items"]].index("c") < [entry["name"] for entry in merged["items"]].index(
        "a"
    )
    assert sorted(entry["name"] for entry in merged["items"]) == ["a", "b", "c"]

"""What a class changed, laid over what the server has."""

import copy

import orjson
import pytest
from hypothesis import given, strategies as st

from asyncctl.client.overlay import overlay, same
from asyncctl.objects import Resource, Spec, decode, encode, field, to_dict


class Port(Spec):
    number: int = 0


class Container(Spec):
    name: str
    image: str = ""
    ports: list[Port] = field(default_factory=list)


class PodSpec(Spec):
    containers: list[Container] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    host: str | None = None


class Thing(Resource, group="example.com", version="v1"):
    spec: PodSpec = field(default_factory=PodSpec)


def changed(spec, change):
    """The spec that is put after `change` of the object whose spec the server has."""
    live = {"metadata": {"name": "a"}, "spec": spec}
    thing = decode(Thing, orjson.dumps(live))
    before = to_dict(thing)
    change(thing.spec)
    return overlay(copy.deepcopy(live), before, to_dict(thing))["spec"]


def containers(*names):
    return [{"name": name, "image": "i", "secret": name} for name in names]


def test_what_the_class_does_not_know_stays():
    spec = {"host": "h", "unknown": {"a": [1]}, "containers": containers("a")}
    got = changed(spec, lambda spec: setattr(spec, "host", "new"))
    assert got == {"host": "new", "unknown": {"a": [1]}, "containers": containers("a")}


def test_what_is_none_afterwards_goes():
    assert changed({"host": "h", "unknown": 1}, lambda spec: setattr(spec, "host", None)) == {"unknown": 1}


def test_a_null_that_was_there_can_be_set():
    assert changed({"host": None}, lambda spec: setattr(spec, "host", "h")) == {"host": "h"}


def test_items_with_a_name_are_told_apart_by_it():
    def change(spec):
        spec.containers.reverse()
        spec.containers[0].image = "new"
        spec.containers.insert(1, Container(name="c"))

    got = changed({"containers": containers("a", "b")}, change)["containers"]
    assert got == [
        {"name": "b", "image": "new", "secret": "b"},
        {"name": "c", "image": "", "ports": []},
        {"name": "a", "image": "i", "secret": "a"},
    ]


def test_items_without_one_are_told_apart_by_what_they_are_and_where():
    spec = {"ports": [{"number": 1, "u": 1}, {"number": 2, "u": 2}, {"number": 3, "u": 3}]}
    assert changed(spec, lambda spec: spec.ports.pop(1)) == {"ports": [{"number": 1, "u": 1}, {"number": 3, "u": 3}]}
    got = changed(spec, lambda spec: setattr(spec.ports[1], "number", 9))
    assert got == {"ports": [{"number": 1, "u": 1}, {"number": 9, "u": 2}, {"number": 3, "u": 3}]}
    got = changed(spec, lambda spec: spec.ports.append(Port(number=4)))
    assert got == {"ports": [*spec["ports"], {"number": 4}]}


def test_nothing_is_guessed_where_something_would_be_lost():
    def change(spec):
        spec.ports[0].number = 9
        spec.ports.pop(1)
        spec.ports.append(Port(number=5))
        spec.ports.append(Port(number=6))

    spec = {"ports": [{"number": 1, "u": 1}, {"number": 2}]}
    with pytest.raises(ValueError, match=r"spec\.ports: it can't be told which item .* change it by patch"):
        changed(spec, change)
    with pytest.raises(ValueError, match=r"spec\.containers: it can't be told"):
        changed({"containers": containers("a")}, lambda spec: setattr(spec.containers[0], "name", "b"))
    known = {"ports": [{"number": 1}, {"number": 2}]}
    assert changed(known, change) == {"ports": [{"number": 9}, {"number": 5}, {"number": 6}]}


@pytest.mark.parametrize("after", [[20, 3], [20, 10], [2, 10, 3]])
def test_items_that_have_changed_are_matched_by_nothing_if_there_are_several(after):
    """One removed, one changed, one added; both changed; two swapped and one of them changed."""

    def change(spec):
        spec.ports[:] = [Port(number=number) for number in after]

    spec = {"ports": [{"number": 1, "secret": "one"}, {"number": 2, "secret": "two"}]}
    with pytest.raises(ValueError, match="it can't be told which item"):
        changed(spec, change)


def test_an_item_that_alone_has_changed_is_known_wherever_it_stands():
    def change(spec):
        spec.ports[:] = [Port(number=2), Port(number=10)]

    spec = {"ports": [{"number": 1, "secret": "one"}, {"number": 2, "secret": "two"}]}
    assert changed(spec, change) == {"ports": [{"number": 2, "secret": "two"}, {"number": 10, "secret": "one"}]}


def test_a_set_is_put_as_it_is():
    assert changed({"words": ["b", "a"]}, lambda spec: spec.words.add("c")) == {"words": ["a", "b", "c"]}
    assert changed({"words": ["b", "a"]}, lambda spec: spec.words.remove("a")) == {"words": ["b"]}
    assert changed({"words": ["b", "a"], "u": 1}, lambda spec: None) == {"words": ["b", "a"], "u": 1}


def test_one_and_true_are_two():
    assert not same({"a": 1}, {"a": True})
    assert not same([1], [1.0])
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=12,
)


@given(JSON, JSON)
def test_what_knows_everything_is_put_as_it_is(before, after):
    assert same(overlay(before, before, after), after)


@given(JSON, JSON)
def test_without_a_change_nothing_is_touched(live, before):
    assert overlay(live, before, copy.deepcopy(before)) is live


NAMED = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(NAMED, NAMED)
def test_items_that_stay_keep_what_is_unknown_of_them(before, kept):
    live = containers(*before)
    known = [{"name": each["name"], "image": "i"} for each in live]
    after = [{"name": name, "image": "new"} for name in kept if name in before]
    got = overlay(live, known, after)
    assert got == [{"name": each["name"], "image": "new", "secret": each["name"]} for each in after]


def test_an_object_that_was_encoded_again_is_no_change():
    thing = Thing(name="a", spec=PodSpec(containers=[Container(name="c")]))
    assert to_dict(decode(Thing, encode(thing))) == to_dict(thing)

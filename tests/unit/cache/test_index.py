"""Indexes: nothing before they are asked, right from then on, and no object lost to a function that fails."""

import gc

import orjson
import pytest

from asyncctl.cache.header import Entry, Header, Owner, annotations_of, read_entry
from asyncctl.cache.index import LABELS, Functions, of_header
from asyncctl.cache.store import Store
from asyncctl.objects.builtin import ConfigMap
from asyncctl.objects.resource import Unstructured


def item(name, version=1, *, uid=None, namespace="team", **parts):
    metadata = {"name": name, "namespace": namespace, "uid": uid or name, "resourceVersion": str(version)}
    metadata |= {key: parts.pop(key) for key in ("labels", "annotations", "ownerReferences") if key in parts}
    return read_entry(orjson.dumps({"metadata": metadata, **parts}))


def owned(name, version, *uids):
    owners = [{"apiVersion": "v1", "kind": "O", "name": uid, "uid": uid} for uid in uids]
    return item(name, version, ownerReferences=owners)


def names(entries):
    return [entry.header.name for entry in entries]


class Called(list):
    """An index function by `data.node` that counts."""

    def __call__(self, config_map):
        self.append(config_map.name)
        return config_map.data["node"]


class Blamed(list):
    def __call__(self, what, header, error):
        self.append((what, header.name, type(error).__name__))


@pytest.fixture
def blamed():
    return Blamed()


@pytest.fixture
def functions(blamed):
    return Functions(blamed)


@pytest.fixture
def store(functions):
    return Store(functions)


def test_a_function_that_nobody_asks_is_never_called_and_one_that_was_asked_sees_each_state_once(store, functions):
    called = Called()
    functions.add("node", called, ConfigMap)
    store.replace([item("a", data={"node": "n1"}), item("b", data={"node": "n2"})], 5)
    store.upsert(item("a", 6, data={"node": "n1"}))
    assert called == []
    assert names(store.by_index("node", "n1")) == ["a"]
    assert sorted(called) == ["a", "b"]
    assert names(store.by_index("node", "n2")) == ["b"]
    store.upsert(item("b", 7, data={"node": "n1"}))
    assert called[2:] == ["b"]
    assert names(store.by_index("node", "n1")) == ["a", "b"]
    assert names(store.by_index("node", "n2")) == []
    assert len(called) == 3


def test_nothing_is_kept_of_an_index_that_has_nothing_in_it(store):
    store.replace([owned("a", 1, "o")], 5)
    list(store.by_owner("o"))
    list(store.entries(labels={"app": "web"}))
    store.remove(owned("a", 6, "o"))
    assert [index.below._buckets for index in store._indexes.built.values()] == [{}, {}]


def test_an_object_with_many_owners_is_found_by_each_once(store):
    store.replace([owned("a", 1, "o", "p", "o"), owned("b", 2, "p")], 5)
    assert names(store.by_owner("o")) == ["a"]
    assert sorted(names(store.by_owner("p"))) == ["a", "b"]
    store.upsert(owned("a", 6, "q"))
    assert [names(store.by_owner(uid)) for uid in "opq"] == [[], ["b"], ["a"]]


def test_an_own_write_is_found_at_once_where_it_is_now_and_not_where_it_was(store):
    store.replace([owned("a", 1, "o")], 5)
    assert names(store.by_owner("o")) == ["a"]
    store.wrote(owned("a", 7, "p"))
    store.wrote(owned("new", 8, "o"))
    assert (names(store.by_owner("o")), names(store.by_owner("p"))) == (["new"], ["a"])
    store.deleted(("team", "new"), "new", 8)
    assert names(store.by_owner("o")) == []
    store.advance(9)
    assert (names(store.by_owner("o")), names(store.by_owner("p"))) == (["a"], [])


def test_an_own_deletion_is_found_by_no_index(store, functions):
    functions.add("name", of_header(lambda header: [header.name]))
    owners = [{"apiVersion": "v1", "kind": "O", "name": "o", "uid": "o"}]
    store.replace([item("a", labels={"app": "web"}, ownerReferences=owners)], 5)
    store.deleted(("team", "a"), "a")
    for found in (store.by_owner("o"), store.entries(labels={"app": "web"}), store.entries("team")):
        assert names(found) == []
    assert names(store.by_index("name", "a")) == []


@pytest.mark.parametrize(
    "returned, values", [("n1", ["n1"]), (None, []), ([], []), (("x", "y", "x"), ["x", "y"]), ({"k": 1}, ["k"])]
)
def test_a_function_may_return_strings_in_any_form(store, functions, blamed, returned, values):
    functions.add("any", of_header(lambda header: returned))
    store.replace([item("a")], 5)
    assert [value for value in ("n1", "x", "y", "k", "n", "1") if names(store.by_index("any", value))] == values
    assert not blamed


@pytest.mark.parametrize("returned", [1, [1], [None], ["a", 2]])
def test_what_is_no_string_is_blamed_on_the_function(store, functions, blamed, returned):
    functions.add("any", of_header(lambda header: returned))
    store.replace([item("a")], 5)
    assert names(store.by_index("any", "a")) == []
    assert blamed == [("index 'any'", "a", "TypeError")]


def test_a_function_that_raises_costs_its_object_that_index_and_nothing_else(store, functions, blamed):
    functions.add("node", Called(), ConfigMap)
    store.replace([item("a", data={}), item("b", data={"node": "n1"})], 5)
    assert names(store.by_index("node", "n1")) == ["b"]
    assert blamed == [("index 'node'", "a", "KeyError")]
    assert names(store.entries()) == ["a", "b"]
    store.upsert(item("b", 6, data={}))
    assert names(store.by_index("node", "n1")) == []
    assert store.get(("team", "b")).header.version == 6
    store.upsert(item("a", 7, data={"node": "n1"}))
    assert names(store.by_index("node", "n1")) == ["a"]


def test_a_function_that_says_something_else_of_the_same_state_leaves_nothing_behind(store, functions):
    said = iter(["x", "y", "z"])
    functions.add("moody", of_header(lambda header: next(said)))
    store.replace([item("a")], 5)
    assert names(store.by_index("moody", "x")) == ["a"]
    store.upsert(item("a", 6))
    assert (names(store.by_index("moody", "x")), names(store.by_index("moody", "y"))) == ([], ["a"])
    store.remove(item("a", 7))
    assert store._indexes.get(("function", "moody")).below._buckets == {}


def test_an_object_that_can_not_be_decoded_is_in_no_index_of_decoded_objects(store, functions, blamed):
    functions.add("node", Called(), ConfigMap)
    store.replace([item("a", data=5), item("b", data={"node": "n1"})], 5)
    assert names(store.by_index("node", "n1")) == ["b"]
    assert blamed == [("index 'node'", "a", "DecodeError")]


def test_an_object_without_a_class_is_indexed_as_a_dict(store, functions):
    functions.add("node", lambda found: [found["data"]["node"]], Unstructured("v1", "ConfigMap"))
    store.replace([item("a", data={"node": "n1"})], 5)
    assert names(store.by_index("node", "n1")) == ["a"]


def test_what_a_function_does_to_its_object_changes_no_cache(store, functions):
    def vandal(config_map):
        config_map.data.clear()
        return ["x"]

    functions.add("vandal", vandal, ConfigMap)
    store.replace([item("a", data={"node": "n1"})], 5)
    before = store.get(("team", "a")).data
    assert names(store.by_index("vandal", "x")) == ["a"]
    assert store.get(("team", "a")).data == before


def test_a_name_is_of_one_function(functions):
    by_name = of_header(str)
    functions.add("a", by_name)
    functions.add("a", of_header(str))
    with pytest.raises(ValueError, match="there is an index 'a' by another function"):
        functions.add("a", of_header(repr))
    with pytest.raises(ValueError, match="wrap it in of_header"):
        functions.add("b", str)
    assert not functions.remove("a")
    assert functions.remove("a")
    functions.add("a", of_header(repr))


def test_an_index_that_was_not_declared_says_what_to_do(store):
    with pytest.raises(LookupError, match=r"no index 'node': declare it with Watch\(indexes=…\); declared: none"):
        store.by_index("node", "n1")


def test_an_annotation_is_found_and_only_those_that_may_have_it_are_decoded(store, monkeypatch):
    def noted(name, version, **annotations):
        return item(name, version, annotations=annotations)

    broken = read_entry(b'{"metadata":{"name":"bad","namespace":"team","annotations":{"of":7},"resourceVersion":"3"}}')
    elsewhere = item("spec", data={"of": "x"})
    store.replace([noted("a", 1, of="x"), noted("b", 2, of="y"), noted("c", 3), item("d"), broken, elsewhere], 5)
    assert names(store.by_annotation("of", "x")) == ["a"]
    read = []
    monkeypatch.setattr(
        "asyncctl.cache.index.annotations_of", lambda entry: read.append(entry) or annotations_of(entry)
    )
    store.upsert(noted("b", 6, of="x"))
    store.upsert(noted("c", 7, other="x"))
    assert names(store.by_annotation("of", "x")) == ["a", "b"]
    assert len(read) == 2
    store.upsert(noted("b", 8, of="x"))
    assert len(read) == 2, "its annotations are as they were"
    store.wrote(noted("c", 9, of="x"))
    store.remove(noted("a", 10))
    assert names(store.by_annotation("of", "x")) == ["b"]
    assert store._indexes.get(("annotation", "of")).below._said is None


def test_an_index_may_be_walked_while_the_store_changes(store):
    store.replace([owned(name, at, "o") for at, name in enumerate("abcd")], 5)
    walk = store.by_owner("o")
    assert next(walk).header.name == "a"
    store.remove(owned("b", 6, "o"))
    store.upsert(owned("c", 7, "p"))
    store.upsert(owned("e", 8, "o"))
    assert names(walk) == ["d"]


def test_the_rarest_of_what_is_asked_for_is_walked(store):
    common = [item(f"w{number}", labels={"app": "web"}, namespace="team") for number in range(50)]
    store.replace([*common, item("x", labels={"app": "web", "tier": "db"}, namespace="other")], 5)
    asked = []
    store.get = lambda key: asked.append(key) or Store.get(store, key)
    assert names(store.entries(labels={"app": "web", "tier": "db"})) == ["x"]
    assert names(store.entries("other", {"app": "web"})) == ["x"]
    assert asked == [("other", "x")] * 2


def test_labels_whose_names_are_without_number_are_found_by_walking(store):
    """Such as `member-of-<group>`: an index for each would cost room, and time at each event, for ever."""
    groups = [f"member-of-{number}" for number in range(100)]
    store.replace([item(group, labels={group: ""}) for group in groups], 5)
    for group in groups * 2:
        assert names(store.entries(labels={group: ""})) == [group]
        assert names(store.entries("team", {group: ""})) == [group]
    assert len(store._indexes.built) == LABELS + 1
    assert names(store.entries(labels={"member-of-99": "", "member-of-0": ""})) == []


def test_a_key_is_kept_once_however_many_indexes_have_it(store):
    store.replace([owned("a", 1, "o")], 5)
    list(store.by_owner("o"))
    list(store.entries("team"))
    (key,) = store._entries
    assert {id(found) for index in store._indexes.built.values() for found in index.below._buckets.values()} == {
        id(key)
    }


def test_headers_and_entries_cost_the_garbage_collector_nothing():
    header = Header("a", "t", "u", 1, 1, False, (), {}, (Owner("v1", "O", "o", "o"),), 0, False)
    for made in (header, Entry(header, b""), item("a", labels={"a": "b"}).header.labels, header.owners[0]):
        assert not gc.is_tracked(made)

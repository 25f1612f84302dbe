"""Whom a change wakes: mappers of a header, of both versions, of the object, of an index."""

import orjson
import pytest

from asyncctl.cache.header import read_entry
from asyncctl.controller.declaration import sources_of
from asyncctl.controller.mapping import mapping
from asyncctl.controller.sources import Watch, of_change, of_object, to_every, to_indexed
from asyncctl.objects import ConfigMap, DecodeError, Secret, Unstructured
from tests.unit.harness import Widget


class Cache:
    """What a mapping asks of an informer."""

    def __init__(self, *entries, index=None):
        self.known = {entry.header.key: entry for entry in entries}
        self.index = index or {}

    def get(self, key):
        return self.known.get(key)

    def entries(self):
        return iter(self.known.values())

    def by_index(self, name, value):
        return iter([self.known[key] for key in self.index.get((name, value), [])])

    def step(self, whom, old, new):
        """What `whom` says of a change that this cache has just seen."""
        if new is not None:
            self.known[new.header.key] = new
        else:
            del self.known[old.header.key]
        return set(whom(old and old.header, new and new.header))


def entry(name, version=1, namespace="team", **values):
    metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": str(version)}
    labels = values.pop("labels", {})
    return read_entry(orjson.dumps({"metadata": metadata | {"labels": labels}, **values}))


def by_label(header):
    return [(header.namespace, header.labels["of"])]


def test_a_mapper_of_the_header_is_asked_of_both_versions():
    whom = mapping(Watch(ConfigMap, to=by_label), Cache(), Cache())
    a, b = entry("c", labels={"of": "a"}), entry("c", 2, labels={"of": "b"})
    assert set(whom(None, a.header)) == {("team", "a")}
    assert set(whom(a.header, b.header)) == {("team", "a"), ("team", "b")}
    assert set(whom(b.header, None)) == {("team", "b")}


def test_what_is_owned_wakes_its_controller_and_the_one_before():
    def owned(name, version, kind="Widget", group="runtime.example.com", controller=True):
        owner = {"apiVersion": f"{group}/v1", "kind": kind, "name": name, "uid": name, "controller": controller}
        metadata = {"name": "c", "namespace": "team", "resourceVersion": str(version), "ownerReferences": [owner]}
        return read_entry(orjson.dumps({"metadata": metadata})).header

    (watch,) = sources_of("test", Widget, owns=[ConfigMap]).watches
    whom = mapping(watch, Cache(), Cache())
    a, again, b = owned("a", 1), owned("a", 2), owned("b", 3)
    assert list(whom(None, a)) == list(whom(a, again)) == list(whom(a, None)) == [("team", "a")]
    assert set(whom(again, b)) == {("team", "a"), ("team", "b")}
    strangers = [{"kind": "Gadget"}, {"group": "other.example.com"}, {"controller": False}]
    assert [list(whom(None, owned("a", 1, **stranger))) for stranger in strangers] == [[], [], []]


def test_a_mapper_of_a_change_is_given_what_was_and_what_is():
    def moved(old, new):
        return [("team", f"{old and old.version}-{new and new.version}")]

    whom = mapping(Watch(ConfigMap, to=of_change(moved)), Cache(), Cache())
    one, two = entry("c", 1).header, entry("c", 2).header
    assert [*whom(None, one), *whom(one, two), *whom(two, None)] == [
        ("team", "None-1"), ("team", "1-2"), ("team", "2-None"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "kind, read",
    [(ConfigMap, lambda one: one.data["of"]), (Unstructured("v1", "ConfigMap"), lambda one: one["data"]["of"])],
    ids=["class", "dict"],
)
def test_a_mapper_of_the_object_is_given_it_decoded_once_and_who_was_named_before_is_woken_too(kind, read):
    decoded = []

    def named(one):
        decoded.append(1)
        return [("team", read(one))]

    cache = Cache()
    whom = mapping(Watch(kind, to=of_object(named)), cache, Cache())
    a, b = entry("c", 1, data={"of": "a"}), entry("c", 2, data={"of": "b"})
    assert cache.step(whom, None, a) == {("team", "a")}
    assert cache.step(whom, a, b) == {("team", "a"), ("team", "b")}
    assert cache.step(whom, b, entry("c", 3, data={"of": "b"})) == {("team", "b")}
    assert cache.step(whom, b, None) == {("team", "b")}
    assert len(decoded) == 3
    assert cache.step(whom, None, entry("c", 9, data={"of": "z"})) == {("team", "z")}


def test_an_object_that_can_not_be_decoded_is_an_error_and_whom_it_named_is_remembered():
    cache = Cache()
    whom = mapping(Watch(ConfigMap, to=of_object(lambda one: [("team", one.data["of"])])), cache, Cache())
    cache.step(whom, None, entry("c", 1, data={"of": "a"}))
    with pytest.raises(DecodeError, match="ConfigMap team/c: data"):
        cache.step(whom, entry("c", 1), entry("c", 2, data=3))
    assert cache.step(whom, entry("c", 2), entry("c", 3, data={"of": "b"})) == {("team", "a"), ("team", "b")}


def test_an_index_finds_who_names_the_changed_object_in_its_namespace():
    here, there = entry("w"), entry("w", namespace="other")
    primary = Cache(here, there, index={("secret", "s"): [here.header.key, there.header.key]})
    whom = mapping(Watch(Secret, to=to_indexed("secret")), Cache(), primary)
    assert set(whom(None, entry("s").header)) == {("team", "w")}
    assert set(whom(None, entry("t").header)) == set()
    assert set(whom(None, entry("s", namespace="").header)) == {("team", "w"), ("other", "w")}


def test_an_index_by_another_value_is_looked_up_everywhere():
    here, there = entry("w"), entry("w", namespace="other")
    primary = Cache(here, there, index={("secret", "team/s"): [here.header.key, there.header.key]})
    value = to_indexed("secret", lambda header: f"{header.namespace}/{header.name}")
    whom = mapping(Watch(Secret, to=value), Cache(), primary)
    assert set(whom(None, entry("s").header)) == {("team", "w"), ("other", "w")}


def test_a_watch_without_a_mapper_wakes_nobody():
    assert mapping(Watch(Secret), Cache(), Cache()) is None
    assert mapping(Watch(Secret, to=to_every), Cache(), Cache()) is None  # all of them: none is looked for

"""What is read of an object's bytes, and what is kept of them."""

import gc
import json
import tracemalloc

import msgspec
import orjson
import pytest
from hypothesis import example, given, strategies as st

from asyncctl.cache.header import read_entry
from asyncctl.cache.store import Store

MANAGED = [
    {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:data": {}}},
    {"manager": "ours", "operation": "Update", "fieldsV1": {"f:spec": {}}},
    {"manager": "ours", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}},
    {"manager": "ours", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:a": {}}}},
]


def raw(metadata, **rest):
    return orjson.dumps({"metadata": metadata, **rest})


def test_the_header_is_read():
    entry = read_entry(
        raw(
            {
                "name": "a",
                "namespace": "team",
                "uid": "u",
                "resourceVersion": "12",
                "generation": 3,
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["x/y"],
                "labels": {"l": "1"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "A", "name": "o", "uid": "1"},
                    {"apiVersion": "v1", "kind": "B", "name": "p", "uid": "2", "controller": True, "new": 1},
                ],
            }
        )
    )
    header = entry.header
    assert header.key == ("team", "a")
    assert (header.uid, header.version, header.generation, header.deleting) == ("u", 12, 3, True)
    assert (header.finalizers, header.labels) == (("x/y",), {"l": "1"})
    assert header.controller is not None
    assert header.controller.name == "p"
    assert len(header.owners) == 2


@pytest.mark.parametrize(
    "order", [("managedFields", "name", "uid"), ("name", "managedFields", "uid"), ("name", "managedFields")]
)
@pytest.mark.parametrize("managed", [MANAGED, [], None])
def test_managed_fields_are_cut_out_wherever_they_stand(order, managed):
    values = {"managedFields": managed, "name": "a", "uid": "u"}
    metadata = {key: values[key] for key in order}
    kept = orjson.loads(read_entry(raw(metadata, data={"k": "v"})).data)
    metadata.pop("managedFields")
    assert kept == {"metadata": metadata, "data": {"k": "v"}}


def test_managed_fields_alone_in_a_metadata_are_no_object():
    with pytest.raises(msgspec.DecodeError):
        read_entry(raw({"managedFields": MANAGED}))


def test_text_that_looks_like_managed_fields_is_kept():
    text = '"managedFields":' + orjson.dumps(MANAGED).decode()
    kept = orjson.loads(read_entry(raw({"name": "a", "managedFields": MANAGED}, data={"text": text})).data)
    assert kept == {"metadata": {"name": "a"}, "data": {"text": text}}


def test_only_our_own_apply_entry_of_the_object_itself_is_kept():
    entry = read_entry(raw({"name": "a", "managedFields": MANAGED}), "ours")
    assert entry.applied == b'{"f:data":{"f:a":{}}}'
    assert read_entry(raw({"name": "a", "managedFields": MANAGED})).applied is None
    assert read_entry(raw({"name": "a", "managedFields": MANAGED}), "kubectl").applied is None
    assert read_entry(raw({"name": "a", "managedFields": MANAGED}), "our").applied is None


def test_the_digest_of_the_annotations_differs_when_they_do():
    def digest(**annotations):
        return read_entry(raw({"name": "a", "annotations": annotations})).header.annotations

    assert digest(a="1") == digest(a="1")
    assert (
        len({digest(), digest(a="1"), digest(a="2"), digest(b="1"), read_entry(raw({"name": "a"})).header.annotations})
        == 5
    )


@pytest.mark.parametrize(
    "annotations, paused",
    [
        ({"asyncctl/paused": "true"}, True),
        ({"z": "1", "asyncctl/paused": "true"}, True),
        ({"asyncctl/paused": "false"}, False),
        ({"asyncctl/paused": ""}, False),
        ({"x": '{"asyncctl/paused":"true"}'}, False),
        ({"asyncctl/paused": '"true"'}, False),
    ],
)
def test_paused_is_that_annotation_and_no_text_like_it(annotations, paused):
    assert read_entry(raw({"name": "a", "annotations": annotations})).header.paused is paused


def test_what_asks_for_a_pass_is_the_value_of_that_annotation_alone():
    def asked(**annotations):
        return read_entry(raw({"name": "a", "annotations": annotations})).header.asked

    at = {"asyncctl/reconcile-at": "1"}
    assert asked(**at) == asked(z="other", **at) != 0
    assert asked(**at) != asked(**{"asyncctl/reconcile-at": "2"})
    assert asked() == asked(x='{"asyncctl/reconcile-at":"1"}') == 0
    assert read_entry(raw({"name": "a"})).header.asked == 0


def test_the_bytes_do_not_hold_on_to_the_page_they_came_in():
    page = orjson.dumps({"items": [{"metadata": {"name": "a"}}]})

    class Items(msgspec.Struct):
        items: list[msgspec.Raw]

    (item,) = msgspec.json.decode(page, type=Items).items
    assert type(read_entry(item).data) is bytes
    assert read_entry(item).data == b'{"metadata":{"name":"a"}}'


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"metadata":null}',
        b"{}",
        b'{"metadata":{}}',
        b'{"metadata":{"name":1}}',
        b'{"metadata":{"name":"a","resourceVersion":"x"}}',
        b'{"metadata":{"name":"\xff"}}',
        b'{"metadata":{"name":"a","managedFields":[{"manager":"ours","operation":1}]}}',
        b'{"metadata":{"name":"a","managedFields":{"manager":"ours"}}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_object_is_a_value_error_and_nothing_else(broken):
    """`DecodeError` is one; the reflector catches both, and a recursion too deep must not get past it."""
    with pytest.raises((msgspec.DecodeError, ValueError)):
        read_entry(broken, "ours")


@example({"managedFields": ""}, ["name", "managedFields", "annotations", "labels"])
@example({"managedFields": ""}, ["labels", "name", "managedFields", "annotations"])
@given(st.dictionaries(st.text(), st.text()), st.permutations(["name", "managedFields", "annotations", "labels"]))
def test_whatever_the_texts_the_object_stays_the_same(texts, order):
    values = {"name": "a", "managedFields": MANAGED, "annotations": texts, "labels": texts}
    metadata = {key: values[key] for key in order}
    kept = orjson.loads(read_entry(raw(metadata, data=texts), "ours").data)
    metadata.pop("managedFields")
    assert kept == {"metadata": metadata, "data": texts}


def test_what_a_reader_does_to_the_labels_changes_no_header():
    header = read_entry(raw({"name": "a", "labels": {"app": "web", "tier": "1"}})).header
    items = dict(header.labels.items())
    items["app"] = "mine"
    with pytest.raises(TypeError):
        header.labels["app"] = "mine"
    with pytest.raises(AttributeError):
        header.labels.update({"app": "mine"})
    assert header.labels == {"app": "web", "tier": "1"}


def test_labels_are_read_as_a_mapping():
    labels = read_entry(raw({"name": "a", "labels": {"app": "web", "ü": "1"}})).header.labels
    assert (labels["app"], labels.get("none"), labels.get("none", "x"), "app" in labels) == ("web", None, "x", True)
    assert (list(labels), sorted(labels.values()), len(labels), bool(labels)) == (["app", "ü"], ["1", "web"], 2, True)
    assert {"app": "web"}.items() <= labels.items()
    assert dict(labels) == {**labels} == {"app": "web", "ü": "1"}
    turned = read_entry(raw({"name": "b", "labels": {"ü": "1", "app": "web"}})).header.labels
    assert labels == turned
    assert hash(labels) == hash(turned)
    assert labels != read_entry(raw({"name": "b"})).header.labels
    assert not read_entry(raw({"name": "b"})).header.labels


def test_labels_that_are_none_make_an_object_that_can_not_be_read():
    for labels in (5, {"a": 1}, [], "app=web"):
        with pytest.raises(msgspec.DecodeError):
            read_entry(raw({"name": "a", "labels": labels}))


def test_what_many_objects_have_in_common_is_kept_once():
    owner = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "u"}
    same = {"namespace": "team", "labels": {"app": "web"}, "finalizers": ["example.com/w"], "ownerReferences": [owner]}
    one, two = (read_entry(raw({"name": name, **same})).header for name in "ab")
    assert one.namespace is two.namespace
    assert one.labels is two.labels
    assert one.finalizers is two.finalizers
    assert one.owners == two.owners
    assert one.owners[0].api_version is two.owners[0].api_version
    assert one.owners[0].kind is two.owners[0].kind


def test_an_object_of_2_kb_takes_less_than_1_kb_more_in_the_cache():
    """What a header costs: a third of what a dict of labels, and strings of their own for each, would."""
    labels = {f"app.kubernetes.io/{key}": f"value-of-{key}" for key in ("name", "part-of", "component", "managed-by")}
    store = Store()

    def listed(numbers):
        for number in numbers:
            metadata = {
                "name": f"widget-{number:06}", "namespace": "team", "uid": f"{number:036}",
                "resourceVersion": str(100_000 + number), "labels": labels | {"instance": f"widget-{number:06}"},
                "annotations": {"note": "n" * 100}, "finalizers": ["example.com/widgets"], "generation": 1,
            }  # fmt: skip
            yield read_entry(json.dumps({"metadata": metadata, "spec": {"text": "x" * 1500}}).encode())

    store.replace(list(listed(range(100))), 1_000_000)  # the tables have their size
    tracemalloc.start()
    store.replace(list(listed(range(2000))), 1_000_000)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (kept - store.size) / len(store) < 850

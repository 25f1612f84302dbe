import asyncio

import pytest

from asyncctl.apiserver.errors import ApiError
from asyncctl.apiserver.store import Cursor, Store


def obj(value=0):
    return {"metadata": {}, "value": value}


@pytest.fixture
def store():
    return Store(window=3)


def test_one_resource_version_counts_over_all_collections(store):
    first = store.put(store.collection("a"), "x", obj())
    second = store.put(store.collection("b"), "x", obj())
    assert second.version == first.version + 1
    assert second.object["metadata"]["resourceVersion"] == str(second.version)


def test_a_past_moment_is_rebuilt_from_the_history(store):
    things = store.collection("a")
    first = store.put(things, "x", obj(1))
    store.put(things, "y", obj(2))
    then = store.version
    store.put(things, "x", obj(3))
    store.delete(things, "y", obj(2))
    past = things.at(then)
    assert {key: record.object["value"] for key, record in past.items()} == {"x": 1, "y": 2}
    assert past["x"] is first


def test_a_forgotten_moment_is_expired(store):
    things = store.collection("a")
    store.put(things, "x", obj())
    then = store.version
    store.put(things, "x", obj())
    store.compact()
    with pytest.raises(ApiError) as error:
        things.at(then)
    assert (error.value.code, error.value.reason) == (410, "Expired")
    things.at(store.version)


def test_the_history_keeps_at_least_its_window(store):
    things = store.collection("a")
    for value in range(20):
        store.put(things, "x", obj(value))
        assert len(things.history) >= min(value + 1, 3)
        assert len(things.history) <= 6
    assert things.history[0].version == things.forgotten + 1


def test_keys_come_in_order_from_a_start(store):
    things = store.collection("a")
    for key in ("n/b", "m/a", "n/a", "n-x/a", "n/c"):
        store.put(things, key, obj())
    assert [record.key for record in things.scan("n/", "n/b")] == ["n/b", "n/c"]
    assert [record.key for record in things.scan()] == ["m/a", "n-x/a", "n/a", "n/b", "n/c"]


def test_a_cursor_takes_each_change_once(store):
    things = store.collection("a")
    with Cursor(store, things, store.version) as cursor:
        store.put(things, "x", obj(1))
        store.put(things, "x", obj(2))
        assert [change.type for change in cursor.take(10)] == ["ADDED", "MODIFIED"]
        assert cursor.take(10) == []


async def test_a_cursor_is_woken_by_a_change(store):
    things = store.collection("a")
    with Cursor(store, things, store.version) as cursor:
        waiting = asyncio.create_task(cursor.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        store.put(things, "x", obj())
        await asyncio.wait_for(waiting, 1)


def test_a_cursor_that_is_overtaken_is_lost(store):
    things = store.collection("a")
    with Cursor(store, things, store.version) as cursor:
        for value in range(20):
            store.put(things, "x", obj(value))
        assert cursor.lost
        assert cursor.take(10) == []


def test_a_cursor_is_lost_with_its_collection(store):
    things = store.collection("a")
    with Cursor(store, things, store.version) as cursor:
        store.put(things, "x", obj())
        store.drop("a")
        assert cursor.lost
        assert len(cursor.take(10)) == 1


def test_a_new_collection_has_no_past(store):
    store.put(store.collection("a"), "x", obj())
    with pytest.raises(ApiError, match=r"too old resource version: 1 \(2\)"):
        Cursor(store, store.collection("b"), 1)

"""The store, case by case: who hears of what, and what a reader sees of own writes."""

import pytest

from asyncctl.cache.header import Entry, Header
from asyncctl.cache.index import NAMESPACE
from asyncctl.cache.store import Store


def entry(name="a", uid="1", version=1, *, size=10, namespace="team"):
    header = Header(
        name=name, namespace=namespace, uid=uid, version=version, generation=1, deleting=False, finalizers=(),
        labels={}, owners=(), annotations=0, paused=False,
    )  # fmt: skip
    return Entry(header, b"x" * size)


KEY = ("team", "a")


class Heard(list):
    def __call__(self, old, new, initial):
        self.append((old and (old.uid, old.version), new and (new.uid, new.version), initial))


@pytest.fixture
def store():
    return Store()


def seen(store, key=KEY):
    found = store.get(key)
    return found and (found.header.uid, found.header.version)


def test_a_subscriber_hears_of_what_is_there_and_then_of_each_change(store):
    store.replace([entry(version=3)], 5)
    heard = Heard()
    store.subscribe(heard)
    store.upsert(entry(version=6))
    store.remove(entry(version=7))
    assert heard == [(None, ("1", 3), True), (("1", 3), ("1", 6), False), (("1", 6), None, False)]


def test_a_list_deletes_what_it_does_not_have(store):
    store.replace([entry("a"), entry("b", uid="2")], 5)
    heard = Heard()
    store.subscribe(heard)
    heard.clear()
    store.replace([entry("b", uid="2")], 9)
    assert heard == [(("1", 1), None, True)]
    assert seen(store) is None


def test_an_item_of_a_list_that_does_not_say_what_it_is_tells_nothing_new(store):
    """As those of the built-in kinds, while events say it."""
    event, item = b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}', b'{"metadata":{"name":"a"}}'
    heard = Heard()
    store.upsert(Entry(entry(version=3).header, event))
    store.subscribe(heard)
    heard.clear()
    store.replace([Entry(entry(version=3).header, item)], 5)
    assert heard == []
    store.replace([Entry(entry(version=3).header, b'{"metadata":{"name":"b"}}')], 5)
    assert heard == [(("1", 3), ("1", 3), True)]


@pytest.mark.parametrize("step", ["event", "list"])
def test_deleted_and_made_anew_in_a_gap_is_a_deletion_and_an_addition(store, step):
    store.replace([entry(uid="1", version=3)], 5)
    heard = Heard()
    store.subscribe(heard)
    heard.clear()
    if step == "event":
        store.upsert(entry(uid="2", version=8))
    else:
        store.replace([entry(uid="2", version=8)], 9)
    assert [line[:2] for line in heard] == [(("1", 3), None), (None, ("2", 8))]


def test_an_event_that_the_watch_is_past_brings_nothing_back(store):
    store.replace([entry(version=3)], 5)
    store.remove(entry(version=8))
    heard = Heard()
    store.subscribe(heard)
    store.upsert(entry(version=7))
    assert heard == []
    assert seen(store) is None


def test_the_deletion_of_an_old_namesake_drops_nothing_of_the_new_one(store):
    store.replace([entry(uid="2", version=9)], 9)
    store.remove(entry(uid="1", version=10))
    assert seen(store) == ("2", 9)


def test_a_write_is_read_at_once_and_survives_an_older_list(store):
    store.replace([], 5)
    store.wrote(entry(version=9))
    assert seen(store) == ("1", 9)
    store.replace([], 7)
    assert seen(store) == ("1", 9)
    assert [each.header.version for each in store.entries()] == [9]
    store.advance(9)  # the watch shows no such object: a selector hides it, or it is gone by now
    assert seen(store) is None


def test_own_writes_take_no_more_room_than_their_objects_while_the_watch_is_away(store):
    store.replace([], 5)
    for version in range(6, 1006):
        store.wrote(entry(version=version))
    assert seen(store) == ("1", 1005)
    assert len(store._overlay._by_version) < 100
    store.advance(1004)
    assert seen(store) == ("1", 1005)
    store.advance(1005)
    assert len(store._overlay) == len(store._overlay._by_version) == 0


def test_a_late_answer_does_not_go_below_a_newer_write(store):
    store.replace([entry(version=3)], 5)
    store.wrote(entry(version=9))
    store.wrote(entry(version=8))
    assert seen(store) == ("1", 9)


def test_a_late_answer_does_not_go_below_the_watch(store):
    store.replace([entry(version=3)], 5)
    store.upsert(entry(version=9))
    store.wrote(entry(version=8))
    assert seen(store) == ("1", 9)


def test_a_late_answer_brings_nothing_back_to_life(store):
    store.replace([entry(version=3)], 5)
    store.deleted(KEY, "1")
    store.wrote(entry(version=8))
    assert seen(store) is None
    store.upsert(entry(version=8))
    assert seen(store) is None
    store.remove(entry(version=9))
    assert seen(store) is None


def test_a_tombstone_hides_one_uid_only(store):
    store.replace([entry(uid="1", version=3)], 5)
    store.deleted(KEY, "1")
    store.wrote(entry(uid="2", version=9))
    assert seen(store) == ("2", 9)


def test_each_of_two_namesakes_that_were_deleted_stays_hidden(store):
    store.replace([entry(uid="1", version=3)], 5)
    store.deleted(KEY, "1")
    store.wrote(entry(uid="2", version=9))
    store.deleted(KEY, "2")
    assert seen(store) is None


def test_a_deletion_whose_answer_comes_after_the_event_leaves_no_tombstone(store):
    store.replace([entry(version=3)], 5)
    store.remove(entry(version=8))
    store.deleted(KEY, "1")
    assert len(store._overlay) == 0


def test_what_was_made_and_deleted_before_the_watch_showed_it_is_never_seen(store):
    store.replace([], 5)
    store.wrote(entry(version=8))
    store.deleted(KEY, "1")
    assert seen(store) is None
    store.replace([], 7)  # a list from before it was made
    store.upsert(entry(version=8))
    assert seen(store) is None
    store.remove(entry(version=9))
    assert len(store._overlay) == 0


def test_a_tombstone_of_what_the_watch_never_shows_goes_with_the_progress(store):
    store.replace([], 5)
    store.wrote(entry(version=8))
    store.deleted(KEY, "1")
    store.advance(10)
    assert len(store._overlay) == 0


def test_after_a_restore_from_a_backup_the_list_counts_and_not_what_was_written_before(store):
    store.replace([entry(version=900)], 1000)
    store.wrote(entry(version=1001))
    store.replace([entry(version=400)], 500)
    assert seen(store) == ("1", 400)
    assert store.progress == 500
    store.upsert(entry(version=501))
    assert seen(store) == ("1", 501)


def test_the_size_is_that_of_what_is_kept(store):
    store.replace([entry("a", size=10), entry("b", uid="2", size=7)], 5)
    store.upsert(entry("a", version=6, size=3))
    store.upsert(entry("b", uid="3", version=7, size=5))
    store.remove(entry("a", version=8))
    assert store.size == 5
    assert len(store) == 1


def test_entries_may_be_walked_while_the_store_changes(store):
    store.replace([entry(name, uid=name) for name in "abc"], 5)
    walk = store.entries()
    assert next(walk).header.name == "a"
    store.remove(entry("b", uid="b", version=6))
    store.upsert(entry("d", uid="d", version=7))
    assert [each.header.name for each in walk] == ["c"]


def test_the_late_answer_of_a_deletion_hides_no_namesake(store):
    store.replace([entry(uid="1", version=3)], 5)
    store.wrote(entry(uid="2", version=9))
    store.deleted(KEY, "1", 3)
    assert seen(store) == ("2", 9)
    store.upsert(entry(uid="2", version=10))
    assert seen(store) == ("2", 10)


def test_what_left_the_selection_and_came_back_before_we_deleted_it_stays_hidden(store):
    store.replace([entry(version=3)], 5)
    store.deleted(KEY, "1", 9)
    store.remove(entry(version=7))  # the watch's selector had no place for it for a while
    store.upsert(entry(version=8))
    assert seen(store) is None
    store.remove(entry(version=10))
    assert len(store._overlay) == 0


def test_a_deletion_hides_what_the_watch_has_not_shown_yet(store):
    store.replace([], 5)
    store.deleted(KEY, "1", 7)
    store.upsert(entry(version=6))
    assert seen(store) is None
    store.upsert(entry(uid="2", version=9))
    assert seen(store) == ("2", 9)
    assert len(store._overlay) == 0


def test_a_late_answer_does_not_go_below_what_was_adopted(store):
    behind, ahead = Store(), Store()
    behind.replace([entry("b", namespace="other")], 5)
    ahead.replace([entry(version=9)], 9)
    ahead.wrote(entry(version=12))
    store.adopt([behind, ahead], None)
    assert store.progress == 5
    assert seen(store) == ("1", 12)
    store.wrote(entry("b", version=8, namespace="other"))  # which `behind` has not shown yet
    assert seen(store, ("other", "b")) == ("1", 8)
    ahead.advance(12)
    again = Store()
    again.adopt([behind, ahead], None)
    again.wrote(entry(version=8))
    assert seen(again) == ("1", 9)


def test_what_a_namespace_has_is_adopted_without_walking_over_all_others(store):
    """From all to a hundred namespaces is a hundred walks else, in one step of the loop."""
    store.replace([entry(f"{namespace}{n}", namespace=namespace) for namespace in "abc" for n in range(3)], 5)
    store.wrote(entry("own", version=9, namespace="b"))
    some = Store()
    some.adopt([store], "b")
    assert sorted(each.header.name for each in some.entries()) == ["b0", "b1", "b2", "own"]
    assert (len(some), some.size) == (3, 30)
    assert list(store._indexes.built) == [NAMESPACE]


def test_a_store_that_is_retired_tells_all_as_gone_and_is_empty_by_then(store):
    store.replace([entry("a"), entry("b", uid="2")], 5)
    store.wrote(entry("c", uid="3", version=9))
    seen_meanwhile = []
    store.subscribe(lambda old, new, initial: seen_meanwhile.append((old and old.name, len(list(store.entries())))))
    seen_meanwhile.clear()
    store.retire(elsewhere=lambda key: key == ("team", "b"))
    assert seen_meanwhile == [("a", 0)]
    assert (len(store), store.size, len(store._overlay)) == (0, 0, 0)
    store.upsert(entry("d", version=10))
    assert seen_meanwhile == [("a", 0)]

"""The store against a naive model: own writes are seen, nothing goes back, nothing is kept for longer than needed."""

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncctl.cache.header import Entry, Header
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
    assert store._overlay._tombstones == {}


def test_what_was_made_and_deleted_before_the_watch_showed_it_is_never_seen(store):
    store.replace([], 5)
    store.wrote(entry(version=8))
    store.deleted(KEY, "1")
    assert seen(store) is None
    store.replace([], 7)  # a list from before it was made
    store.upsert(entry(version=8))
    assert seen(store) is None
    store.remove(entry(version=9))
    assert store._overlay._tombstones == {}


def test_a_tombstone_of_what_the_watch_never_shows_goes_with_the_progress(store):
    store.replace([], 5)
    store.wrote(entry(version=8))
    store.deleted(KEY, "1")
    store.advance(10)
    assert store._overlay._tombstones == {}


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


NAMES = ("a", "b")


class StoreMachine(RuleBasedStateMachine):
    """A server with a history, a watch that lags behind it, and answers that come late or never."""

    def __init__(self):
        super().__init__()
        self.store = Store()
        self.version = 10
        self.live = {}  # name -> entry
        self.history = []  # (version, type, entry)
        self.shown = 10  # the watch has come so far
        self.uids = 0
        self.answers = []  # of our own writes, still on their way
        self.written = {}  # name -> the newest version whose answer has come
        self.deleted = set()  # uids whose deletion was answered
        self.heard = {}  # key -> (uid, version), as a handler pieced it together
        self.store.replace([], 10)
        self.store.subscribe(self._hear)

    def _hear(self, old, new, initial):
        known = self.heard.get((old or new).name)
        assert (old and (old.uid, old.version)) == known
        if new is None:
            del self.heard[old.name]
        else:
            assert known is None or (known[0] == new.uid and known[1] < new.version)
            self.heard[new.name] = (new.uid, new.version)

    def _commit(self, kind, made):
        self.history.append((self.version, kind, made))

    @rule(name=st.sampled_from(NAMES), ours=st.booleans())
    def write(self, name, ours):
        self.version += 1
        old = self.live.get(name)
        if old is None:
            self.uids += 1
        made = entry(name, uid=old.header.uid if old else str(self.uids), version=self.version)
        self.live[name] = made
        self._commit("upsert", made)
        if ours:
            self.answers.append(("wrote", made))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), ours=st.booleans())
    def delete(self, data, ours):
        name = data.draw(st.sampled_from(sorted(self.live)))
        self.version += 1
        old = self.live.pop(name)
        self._commit("remove", entry(name, uid=old.header.uid, version=self.version))
        if ours:
            self.answers.append(("deleted", old))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data):
        what, made = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
        header = made.header
        if what == "wrote":
            self.store.wrote(made)
            self.written[header.name] = max(self.written.get(header.name, 0), header.version)
        else:
            known = self.store.get(header.key)
            if known is not None and known.header.uid == header.uid:  # else it is not known yet, or not any more
                self.deleted.add(header.uid)
            self.store.deleted(header.key, header.uid)

    @precondition(lambda self: self.shown < self.version)
    @rule()
    def watch(self):
        for version, kind, made in self.history:
            if version > self.shown:
                getattr(self.store, kind)(made)
                self.shown = version
                return
        self.bookmark()

    @rule()
    def bookmark(self):
        if not [version for version, _, _ in self.history if self.shown < version]:
            self.shown = self.version
            self.store.advance(self.version)

    @rule(behind=st.integers(0, 3))
    def relist(self, behind):
        """From now, or from a past that is not before our progress."""
        self.shown = max(self.shown, self.version - behind)
        state = {}
        for version, kind, made in self.history:
            if version <= self.shown:
                state[made.header.name] = made if kind == "upsert" else None
        self.store.replace([made for made in state.values() if made is not None], self.shown)

    @invariant()
    def own_writes_are_seen(self):
        for name, version in self.written.items():
            found = self.store.get(("team", name))
            gone = [
                v for v, kind, made in self.history if kind == "remove" and made.header.name == name and v > version
            ]
            if not gone:
                assert found is not None
                assert found.header.version >= version

    @invariant()
    def what_we_deleted_is_not_seen(self):
        for each in self.store.entries():
            assert each.header.uid not in self.deleted

    @invariant()
    def the_progress_is_that_of_the_watch(self):
        assert self.store.progress == self.shown

    @invariant()
    def what_is_seen_was_once_true(self):
        for each in self.store.entries():
            assert any(made is each for _, _, made in self.history)

    def teardown(self):
        """Once the watch has caught up, the store is the server and nothing else is kept."""
        for what, made in self.answers:
            getattr(self.store, what)(*((made,) if what == "wrote" else (made.header.key, made.header.uid)))
        while self.shown < self.version:
            self.watch()
        self.version += 1
        self.bookmark()
        assert {each.header.name: each for each in self.store.entries()} == self.live
        assert self.heard == {name: (made.header.uid, made.header.version) for name, made in self.live.items()}
        overlay = self.store._overlay
        assert not overlay._entries
        assert not overlay._tombstones
        assert not overlay._by_version


TestStoreAgainstAModel = StoreMachine.TestCase
TestStoreAgainstAModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

"""The store against a naive model: the newest of what the watch has shown and of what answers have said.

The model keeps the whole history of a server and recomputes all that can be seen from it each time. The store must
show the same by key, in a walk, by label, by owner and by an author's function; and must keep nothing once the watch is
past it.
"""

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from asyncctl.cache.header import Entry, Header, Owner
from asyncctl.cache.index import Functions, of_header
from asyncctl.cache.store import Store

NAMES = ("a", "b")
TIERS = ("web", "db", None)
OWNERS = ("o1", "o2", None)
OWNER = st.sampled_from(OWNERS)
MOSTLY = st.sampled_from((True, True, False))
STEPS = (
    ("write",) * 3 + ("delete",) * 2 + ("answer",) * 4 + ("watch",) * 3 + ("repeat", "bookmark", "relist", "restore")
)
SHOWN, HIDDEN, GONE = "shown", "hidden by the watch's selector", "gone"


def entry(name, uid, version, tier=None, owner=None):
    header = Header(
        name=name, namespace="team", uid=uid, version=version, generation=1, deleting=False, finalizers=(),
        labels={"tier": tier} if tier else {}, owners=(Owner("v1", "O", owner, owner),) if owner else (),
        annotations=0, paused=False,
    )  # fmt: skip
    return Entry(header, f"{uid} {version} {tier} {owner}".encode())


def parity(header):
    if header.version % 5 == 0:
        raise ValueError("no multiple of five can be said to be even or odd")
    return ["even" if header.version % 2 == 0 else "odd"]


def is_said(header):
    return [] if header.version % 5 == 0 else parity(header)


class StoreMachine(RuleBasedStateMachine):
    """A server with a history, a watch that lags behind it, and answers that come late or never."""

    def __init__(self):
        super().__init__()
        functions = Functions(blame=lambda what, header, error: None)
        functions.add("parity", of_header(parity))
        self.store = Store(functions)
        self.version = 10
        self.live = {}  # name -> entry
        self.history = []  # (version, entry, SHOWN, HIDDEN or GONE)
        self.shown = 10  # the watch has come so far
        self.uids = 0
        self.answers = []  # of our own writes, still on their way
        self.said = []  # the entries that answers have told of
        self.dead = set()  # uids whose deletion was answered
        self.heard = {}  # name -> (uid, version), as a handler pieced it together
        self.store.replace([], 10)
        self.store.subscribe(self._hear)

    def _hear(self, old, new, initial):
        known = self.heard.get((old or new).name)
        assert (old and (old.uid, old.version)) == known
        if new is None:
            del self.heard[old.name]
        else:
            assert known is None or known[0] != new.uid or known[1] < new.version or self.went_back
            assert known is None or known[0] == new.uid, "a namesake is a deletion and an addition"
            self.heard[new.name] = (new.uid, new.version)

    went_back = False

    def _last(self, version):
        """By name, the last that happened to it until then."""
        return {made.header.name: (made, how) for at, made, how in self.history if at <= version}

    def _below(self):
        """What the watch has shown by now."""
        return {name: made for name, (made, how) in self._last(self.shown).items() if how is SHOWN}

    def _tells(self, made, how):
        """Whether the watch has an event for it: what it has never shown it does not tell as gone."""
        return how is SHOWN or made.header.name in self._below()

    def _expected(self):
        """What is to be seen: the newest of what was shown and what was said, without what is known to be dead."""
        newest = self._below()
        for made in sorted(self.said, key=lambda each: each.header.version):
            if made.header.version > self.shown:
                newest[made.header.name] = made
        return {name: made for name, made in newest.items() if made.header.uid not in self.dead}

    def _commit(self, name, how, tier, owner):
        self.version += 1
        old = self.live.get(name)
        self.uids += old is None
        made = entry(name, old.header.uid if old else str(self.uids), self.version, tier, owner)
        self.live[name] = made
        self.history.append((self.version, made, how))
        return made

    @rule(what=st.sampled_from(STEPS), data=st.data())
    def step(self, what, data):
        """One rule for all: of many, Hypothesis leaves out some for a whole run, and then little happens."""
        possible = {
            self.delete: self.live, self.answer: self.answers, self.repeat: self.history,
            self.watch: self.shown < self.version, self.restore: self.shown > 11,
        }  # fmt: skip
        step = getattr(self, what)
        (step if possible.get(step, True) else self.write)(data.draw)

    def write(self, draw):
        how = draw(st.sampled_from((SHOWN, SHOWN, SHOWN, HIDDEN)))
        made = self._commit(draw(st.sampled_from(NAMES)), how, draw(st.sampled_from(TIERS)), draw(OWNER))
        if draw(MOSTLY):
            self.answers.append(("wrote", made))

    def delete(self, draw):
        """Whoever deletes has read the object, perhaps some time ago, and perhaps makes a namesake at once."""
        name = draw(st.sampled_from(sorted(self.live)))
        self.version += 1
        uid = self.live.pop(name).header.uid
        lived = [(made, how) for _, made, how in self.history if made.header.uid == uid]
        if draw(MOSTLY):
            readable = lived if all(how is SHOWN for _, how in lived) else lived[-1:]
            self.answers.append(("deleted", draw(st.sampled_from([made for made, _ in readable]))))
        self.history.append((self.version, entry(name, uid, self.version), GONE))
        if draw(MOSTLY):
            self.answers.append(("wrote", self._commit(name, SHOWN, None, None)))

    def answer(self, draw):
        self._answer(draw(st.integers(0, len(self.answers) - 1)))

    def _answer(self, which):
        what, made = self.answers.pop(which)
        self.said.append(made)  # a deletion's answer tells too that its object has been there, after all others
        if what == "wrote":
            self.store.wrote(made)
        else:
            self.store.deleted(made.header.key, made.header.uid, made.header.version)
            self.dead.add(made.header.uid)

    def watch(self, _draw=None):
        for version, made, how in self.history:
            if version > self.shown and self._tells(made, how):
                (self.store.upsert if how is SHOWN else self.store.remove)(made)
                self.shown = version
                return
        self.bookmark()

    def repeat(self, draw):
        """An event that was told before is told once more."""
        told = [each for each in self.history if each[0] <= self.shown][-draw(st.integers(1, 4)) :]
        for _, made, how in told[:1]:
            (self.store.upsert if how is SHOWN else self.store.remove)(made)

    def bookmark(self, _draw=None):
        """The watch says how far it is, which may be past what a selector hides."""
        following = [version for version, made, how in self.history if version > self.shown and self._tells(made, how)]
        self.shown = min(following, default=self.version + 1) - 1
        self.store.advance(self.shown)

    def relist(self, draw):
        """From now, or from a past that is not before our progress: older than some of our writes, perhaps."""
        self.shown = max(self.shown, self.version - draw(st.integers(0, 3)))
        self.store.replace(self._below().values(), self.shown)

    def restore(self, draw):
        """The server is restored from a backup and goes on from there; by its lower version the list tells it."""
        progress = self.shown
        self.version = max(10, progress - draw(st.integers(2, 8)))
        self.history = [each for each in self.history if each[0] <= self.version]
        self.live = {name: made for name, (made, how) in self._last(self.version).items() if how is not GONE}
        self.answers, self.said, self.dead = [], [], set()  # of what never was nothing counts
        for _ in range(min(draw(st.integers(0, 3)), progress - self.version - 1)):
            self._commit(draw(st.sampled_from(NAMES)), SHOWN, draw(st.sampled_from(TIERS)), None)
        self.shown = self.version
        self.went_back = True
        self.store.replace(self._below().values(), self.shown)
        self.went_back = False

    @invariant()
    def each_is_seen_as_it_is_known_to_be(self):
        expected = self._expected()
        for name in NAMES:
            assert self.store.get(("team", name)) is expected.get(name)
        assert {each.header.name: each for each in self.store.entries()} == expected

    @invariant()
    def indexes_show_the_same(self):
        expected = self._expected()

        def names(found):
            return sorted(each.header.name for each in found)

        for tier in TIERS[:2]:
            wanted = names(each for each in expected.values() if each.header.labels.get("tier") == tier)
            assert names(self.store.entries(labels={"tier": tier})) == wanted
            assert names(self.store.entries(namespace="team", labels={"tier": tier})) == wanted
        for owner in OWNERS[:2]:
            wanted = names(each for each in expected.values() if [o.uid for o in each.header.owners] == [owner])
            assert names(self.store.by_owner(owner)) == wanted
        for value in ("even", "odd"):
            wanted = names(each for each in expected.values() if is_said(each.header) == [value])
            assert names(self.store.by_index("parity", value)) == wanted

    @invariant()
    def the_progress_is_that_of_the_watch(self):
        assert self.store.progress == self.shown
        assert self.store.size == sum(len(each.data) for each in self._below().values())

    @invariant()
    def a_handler_knows_what_the_watch_has_shown(self):
        assert self.heard == {name: (each.header.uid, each.header.version) for name, each in self._below().items()}

    def teardown(self):
        """Once the watch has caught up, the store is the server and nothing else is kept."""
        while self.answers:
            self._answer(0)
        while self.shown < self.version:
            self.watch()
        self.version += 1
        self.bookmark()
        assert {each.header.name: each for each in self.store.entries()} == self._below()
        overlay = self.store._overlay
        assert len(overlay) == 0
        assert not overlay._by_version
        for index in self.store._indexes.built.values():
            assert not index.laid._buckets
            assert not index.laid._said


TestStoreAgainstAModel = StoreMachine.TestCase
TestStoreAgainstAModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

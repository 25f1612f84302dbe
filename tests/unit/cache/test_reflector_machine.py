"""Reflector and store against a model server that drops, repeats, delays, compacts, refuses and forgets.

Whatever it does: no version goes back but by a list's decision, every change is heard once and in order, what vanished
is announced once with its last known state; our own writes are read from their answers on, until somebody else changes
the object; and when it has calmed down, the store has what the server has, and nothing else is kept.
"""

import asyncio

import orjson
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncctl.cache.barrier import Barrier
from asyncctl.cache.header import read_entry
from asyncctl.cache.lister import Lister
from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Store
from asyncctl.objects.builtin import ConfigMap
from asyncctl.observe.metrics import Metrics
from asyncctl.testing.clock import FakeClock
from tests.unit.cache.model_server import ANSWERS, ENDS, ModelServer
from tests.unit.cache.scripted import item
from tests.unit.support import Log

KIND = ConfigMap.resource_type
NAMES = st.sampled_from("abcde")


class Listener:
    """Hears of changes, and knows what it has heard."""

    def __init__(self):
        self.known = {}
        self.last = 0
        self.synced = lambda: False

    def __call__(self, old, new, initial):
        name = (new or old).name
        assert initial or self.synced(), "a first list comes as a whole"
        assert self.known.get(name) == (old and (old.uid, old.version)), "the state before is the one last heard of"
        if old is not None and new is not None:
            assert old.uid == new.uid, "another object of that name is a deletion and an addition"
            assert new.version != old.version, "nothing is heard twice"
        if new is None:
            del self.known[name]
            return
        if not initial:
            assert new.version > self.last, "changes come in order"
            self.last = new.version
        self.known[name] = (new.uid, new.version)


class ListenedStore(Store):
    def __init__(self, listener, server):
        super().__init__()
        self._listener = listener
        self._server = server
        self.subscribe(listener)

    def replace(self, entries, version):
        assert version >= self.progress or self._server.restored, "only who was restored goes back"
        self._listener.last = 0  # a list decides, and what follows begins anew
        super().replace(entries, version)


LOGGER = Log().logger
OPERATIONS = st.lists(st.tuples(st.sampled_from(["write", "delete", "replace"]), NAMES, st.booleans()), max_size=4)


class ReflectorMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)  # it would take most of the time
        self.clock = FakeClock()
        self.server = ModelServer(self.clock)
        self.listener = Listener()
        self.store = ListenedStore(self.listener, self.server)
        self.saved = self.server.backup()
        self.mine = {}  # name -> (uid, version), or None: what our own write has made of it, if that was the last one
        self.task = None

    @initialize(
        names=st.lists(NAMES, unique=True, min_size=2),
        streaming=st.sampled_from(["yes", "yes", "refuses", "ignores"]),
        delayed=st.booleans(),
        latency=st.sampled_from([0.0, 0.0, 5.0]),
    )
    def begin(self, names, streaming, delayed, latency):
        for name in names:
            self.server.write(name)
        self.server.streaming, self.server.delayed, self.server.latency = streaming, delayed, latency
        self.loop.run_until_complete(self.start())
        self.settle()

    async def start(self):
        metrics = Metrics(process=False, clock=self.clock)
        self.reflector = Reflector(
            self.server, KIND, self.store, clock=self.clock, random=lambda: 0.5,
            logger=LOGGER, metrics=metrics.informer("w", objects=lambda: 0, size=lambda: 0),
        )  # fmt: skip
        self.listener.synced = self.reflector.synced.is_set
        self.task = asyncio.create_task(self.reflector.run(), name="reflector")

    def work(self, operations):
        """What others do, and we; after a restore nobody does until it was noticed: what is written under versions
        that were used before can't be told from what was there."""
        for what, name, mine in () if self.server.went_back else operations:
            if what != "write" and (gone := self.server.objects.get(name)):
                self.server.delete(name)
                self.answered(name, gone, mine)
            if what != "delete":
                self.server.write(name)
                self.answered(name, None, mine)

    def answered(self, name, gone, mine):
        """A write of ours has its answer before anything else happens; of others' the watch alone tells."""
        if not mine:
            self.mine.pop(name, None)
            return
        self.mine[name] = self.server.objects.get(name)
        if gone is not None:
            self.store.deleted(("team", name), *gone)
        else:
            uid, version = self.mine[name]
            self.store.wrote(read_entry(orjson.dumps(item(name, version, uid))))

    def settle(self):
        self.loop.run_until_complete(self.clock.settle())

    def elapse(self, seconds):
        self.loop.run_until_complete(self.clock.elapse(seconds))

    # What others do.

    @rule(operations=OPERATIONS)
    def change(self, operations):
        self.work(operations)
        self.settle()

    @precondition(lambda self: not self.server.went_back)
    @rule()
    def other_kinds_change(self):
        self.server.advance()

    # What goes wrong.

    @rule(
        how=st.sampled_from(sorted(ENDS)),
        operations=OPERATIONS,
        compact=st.booleans(),
        answers=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=3),
    )
    def gap(self, how, operations, compact, answers):
        """The watches end; something happens that nobody sees; and who asks again is refused."""
        self.server.end_all(how)
        self.work(operations)
        if compact:
            self.server.compact()
        self.server.answers += answers
        self.settle()

    @rule(operations=OPERATIONS)
    def change_while_a_list_is_on_its_way(self, operations):
        self.server.delayed = True
        self.server.end_all("ERROR 410")
        self.elapse(16.0)  # longer than any backoff, and less than a list is waited for
        self.work([*operations, ("write", "a", False)])
        self.calm_down()

    @rule(operations=OPERATIONS)
    def a_list_from_before_our_writes(self, operations):
        self.server.delayed, self.server.lag = True, 4
        self.server.end_all("garbage")
        self.work([*operations, ("write", "a", True)])
        self.elapse(16.0)

    @rule(operations=OPERATIONS)
    def forget_the_next_list_half_way(self, operations):
        """What it has told of may be gone by then."""

        def between():
            self.work([("delete", min(self.server.objects, default="a"), False), *operations])
            self.server.compact()

        self.server.between.append(between)

    @rule()
    def lose_watches(self):
        """A network that swallows everything."""
        for watch in self.server.watches:
            watch.silent = True

    @rule()
    def bookmarks(self):
        for watch in self.server.watches:
            watch.bookmark()
        self.settle()

    @rule(count=st.integers(1, 4))
    def repeat(self, count):
        for watch in self.server.watches:
            watch.repeat(count)
        self.settle()

    @rule(delayed=st.booleans())
    def delay(self, delayed):
        self.server.delayed = delayed
        self.server.send()
        self.settle()

    @precondition(lambda self: self.server.delayed)
    @rule(count=st.integers(1, 3))
    def send_some(self, count):
        for watch in self.server.watches:
            watch.send(count)
        self.settle()

    @rule(latency=st.sampled_from([0.0, 0.0, 0.5, 5.0]))
    def slow(self, latency):
        self.server.latency = latency

    @rule(lag=st.sampled_from([0, 1, 4]))
    def lag(self, lag):
        """Lists are of a while ago, as old as they may be."""
        self.server.lag = lag

    @rule()
    def back_up(self):
        self.saved = self.server.backup()

    @rule(how=st.sampled_from(sorted(ENDS)), answers=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=2))
    def restore(self, how, answers):
        self.server.restore(self.saved, how)
        self.server.answers += answers
        self.mine.clear()
        self.settle()

    @rule(streaming=st.sampled_from(["yes", "refuses", "ignores"]))
    def stream_or_not(self, streaming):
        self.server.streaming = streaming

    @rule(address=st.sampled_from(["10.0.0.1:6443", "10.0.0.2:6443"]))
    def move(self, address):
        self.server.address = address

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 100.0, 4000.0]))
    def time_passes(self, seconds):
        self.elapse(seconds)

    @rule(seconds=st.sampled_from([0.5, 4.0, 40.0]))
    def catch_up(self, seconds):
        """Whoever has come through the barrier knows all that there was when he came to it."""
        before = dict(self.server.objects)
        barrier = Barrier(
            self.reflector, self.store, Lister(self.server, KIND, {}, metadata_only=True), "w",
            clock=self.clock, random=lambda: 0.5, logger=LOGGER,
        )  # fmt: skip
        waiting = self.loop.create_task(barrier.wait(), name="barrier")
        self.elapse(seconds)
        if waiting.done():
            waiting.result()
            assert self.listener.known == before or self.server.restored
        waiting.cancel()
        self.loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))

    # What always holds.

    @invariant()
    def it_runs(self):
        assert self.task is None or not self.task.done(), self.task.exception()

    @invariant()
    def the_store_has_what_was_told(self):
        entries = {name: (entry.header.uid, entry.header.version) for (_, name), entry in self.store._entries.items()}
        assert entries == self.listener.known
        assert self.store.progress >= max((version for _, version in entries.values()), default=0)

    @invariant()
    def what_we_have_written_is_read(self):
        for name, expected in () if self.server.restored else self.mine.items():
            found = self.store.get(("team", name))
            assert (found and (found.header.uid, found.header.version)) == expected

    @rule()
    def calm_down(self):
        """Nothing goes wrong any more: after the longest waits that there are, all is as the server has it."""
        self.server.answers.clear()
        self.server.latency, self.server.delayed, self.server.lag = 0.0, False, 0
        self.server.send()
        self.settle()
        for _ in range(6):  # of silence, of a list that never ends, of the longest backoff
            self.elapse(31.0)
            for watch in self.server.watches:
                watch.bookmark()
            self.settle()
        assert self.listener.known == self.server.objects
        assert self.store.progress <= self.server.version
        if not self.server.restored:
            assert {entry.header.name for entry in self.store.entries()} == self.server.objects.keys()
            assert len(self.store._overlay) == 0
        # Of a server that went back no further than our watch had come, nobody can tell that our writes are undone.
        self.server.restored = len(self.store._overlay) > 0
        assert self.reflector.problem is None
        assert self.reflector.state.label == "watching"

    def teardown(self):
        if self.task is None:
            self.loop.close()
            return
        try:
            self.it_runs()
            self.calm_down()
        finally:
            self.task.cancel()
            self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))
            self.loop.close()


ReflectorMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestReflector = ReflectorMachine.TestCase

"""The barrier after winning the Lease: nobody comes through it who does not know what the server had."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from asyncctl.cache.barrier import FIRST, LATER, Barrier
from asyncctl.cache.lister import Lister
from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Store
from asyncctl.objects import ConfigMap
from asyncctl.observe.metrics import Metrics
from asyncctl.testing.clock import FakeClock
from tests.unit.cache.cluster import Api, informing as informing_at
from tests.unit.cache.model_server import ModelServer
from tests.unit.support import Log, until

KIND = ConfigMap.resource_type


class Stage:
    """A store that is kept current, a barrier before it, and time that stands still."""

    def __init__(self):
        self.clock, self.log, self.store = FakeClock(), Log(), Store()
        self.server = ModelServer(self.clock)
        made = {"clock": self.clock, "random": lambda: 0.5, "logger": self.log.logger}
        metrics = Metrics(process=False, clock=self.clock).informer("w", objects=lambda: 0, size=lambda: 0)
        self.reflector = Reflector(self.server, KIND, self.store, metrics=metrics, **made)
        self.barrier = Barrier(
            self.reflector, self.store, Lister(self.server, KIND, {}, metadata_only=True), "configmaps", **made
        )

    def known(self):
        return {entry.header.name: (entry.header.uid, entry.header.version) for entry in self.store.entries()}

    def agrees(self):
        return self.known() == self.server.objects

    async def seconds(self, limit):
        """How long who comes to the barrier waits; fails after `limit`."""
        began, waiting = self.clock.monotonic(), asyncio.create_task(self.barrier.wait(), name="who waits")
        self.waiting = waiting
        await self.clock.settle()
        while not waiting.done():
            assert self.clock.monotonic() - began < limit, self.barrier.problem
            await self.clock.elapse(0.25)
        await waiting
        return self.clock.monotonic() - began


@asynccontextmanager
async def staged(*names):
    stage = Stage()
    for name in names:
        stage.server.write(name)
    task = asyncio.create_task(stage.reflector.run(), name="reflector")
    await stage.clock.settle()
    assert stage.agrees()
    stage.server.asked.clear()
    stage.waiting = None
    try:
        yield stage
    finally:
        for each in filter(None, (task, stage.waiting)):
            each.cancel()
            await asyncio.wait([each])


def stick(stage):
    """The watch that is open brings nothing any more, and nobody can tell."""
    for watch in stage.server.watches:
        watch.silent = True


async def test_where_nothing_is_missing_one_request_tells_so():
    async with staged("a", "b") as stage:
        stage.server.advance()  # other kinds change all the time: the watch says nothing of it
        assert await stage.seconds(limit=1) == 0
        assert stage.server.asked == ["list"]


async def test_what_is_missing_is_brought_by_the_watch_that_is_opened_anew():
    async with staged("a", "b") as stage:
        stick(stage)
        stage.server.write("a")
        assert await stage.seconds(limit=1) == 0
        assert stage.agrees()
        assert stage.server.asked == ["list", "probe", "watch"]


@pytest.mark.parametrize("what", ["deleted", "replaced", "added"])
async def test_whatever_is_missing_is_waited_for(what):
    async with staged("a") as stage:
        stick(stage)
        if what == "added":
            stage.server.write("b")
        else:
            stage.server.delete("a")
        if what == "replaced":
            stage.server.write("a")
        stage.server.delayed = True
        with pytest.raises(AssertionError):
            await stage.seconds(limit=FIRST + 10)
        assert not stage.agrees()
        stage.server.delayed = False
        stage.server.send()
        await stage.clock.settle()
        assert stage.waiting.done()
        assert stage.agrees()


async def test_where_there_is_more_than_a_page_the_bookmark_tells_that_nothing_is_missing():
    async with staged("a", "b", "c", "d") as stage:
        stage.server.advance()
        assert await stage.seconds(limit=3) == 1.0
        assert stage.server.asked == ["list", "probe", "watch"]
        await stage.clock.elapse(10)
        assert len(stage.server.asked) == 4  # the watch after the short one is as long as ever


async def test_a_server_that_sends_no_bookmark_is_asked_for_all_it_has():
    async with staged("a", "b", "c", "d") as stage:
        stage.server.closes = False
        stage.server.advance()
        assert await stage.seconds(limit=FIRST + 1) == FIRST
        (line,) = stage.log.said("no pass begins before the cache is caught up", "warning")
        assert line["cause"] == "the watch has not brought within 5 s what the server has: it is open, and late"


async def test_a_watch_that_is_late_holds_up_whoever_waits_and_is_told_of_once():
    async with staged("a", "b", "c") as stage:
        stage.server.delayed = True
        stage.server.write("c")
        with pytest.raises(AssertionError, match="it is open, and late"):
            await stage.seconds(limit=FIRST + LATER - 1)
        assert len(stage.log.said("no pass begins")) == 1
        assert stage.server.asked.count("list") == 3  # one page, and once the two that there are
        stage.server.delayed = False
        stage.server.send()
        await stage.clock.settle()
        assert stage.waiting.done()
        assert stage.barrier.problem is None
        assert stage.agrees()


async def test_an_api_server_that_is_away_or_busy_is_asked_again():
    async with staged("a") as stage:
        stick(stage)
        stage.server.write("a")
        stage.server.answers = ["refused", "refused", "429", "500"]
        waited = await stage.seconds(limit=10)
        assert 0.5 < waited < 10
        assert stage.agrees()
        assert next(line["cause"] for line in stage.log.said("no pass begins")) == "connection refused"


async def test_a_reflector_that_backs_off_is_not_waited_for():
    async with staged("a") as stage:
        stage.server.answers = ["429"] * 6
        stage.server.end_all("break")
        while stage.server.answers:
            await stage.clock.elapse(1)
        assert stage.reflector.state.label == "backing_off"
        stage.server.write("a")
        assert await stage.seconds(limit=1) == 0
        assert stage.agrees()


async def test_a_server_that_was_restored_to_an_older_state_is_listed_anew():
    async with staged("a") as stage:
        saved = stage.server.backup()
        stage.server.write("a")
        stage.server.write("b")
        await stage.clock.settle()
        assert stage.agrees()
        stage.server.restore(saved, "end")
        await stage.seconds(limit=10)
        assert stage.agrees()


async def test_the_first_list_may_have_been_asked_for_before():
    stage = Stage()
    stage.server.latency = 1.0
    task = asyncio.create_task(stage.reflector.run(), name="reflector")
    await stage.clock.settle()
    waiting = asyncio.create_task(stage.barrier.wait(), name="who waits")
    await stage.clock.elapse(0.5)
    assert not waiting.done()
    await stage.clock.elapse(1.5)
    assert waiting.done()
    assert stage.server.asked[:2] == ["stream", "list"]
    task.cancel()
    await asyncio.wait([task])


# All namespaces of an informer.


async def test_each_namespace_catches_up_and_none_that_is_no_longer_watched_is_waited_for():
    api = Api()
    api.put("one", "a")
    async with informing_at(api, namespaces=["one", "two"]) as informer:
        await informer.wait_synced()
        await until(lambda: len(api.watches["one"]) == len(api.watches["two"]) == 1)
        api.hold("two")
        waiting = asyncio.create_task(informer.catch_up(), name="who waits")
        await until(lambda: "two" in api.waits)
        assert not waiting.done()
        informer.remove_namespace("two")
        await asyncio.wait_for(waiting, 30)
        api.release("two")


async def test_who_waits_is_let_go_when_the_informer_ends():
    api = Api()
    async with informing_at(api) as informer:
        await informer.wait_synced()
        api.hold(None)
        waiting = asyncio.create_task(informer.catch_up(), name="who waits")
        await until(lambda: None in api.waits)
    await asyncio.wait_for(waiting, 30)

"""A watch that is late, on a clock moved by hand: own writes are read from their answers on, and silence is noticed."""

import asyncio
from contextlib import asynccontextmanager

import orjson

from asyncctl.cache.header import read_entry
from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Store
from asyncctl.objects.builtin import ConfigMap
from asyncctl.observe.metrics import Metrics
from asyncctl.testing.clock import FakeClock
from tests.unit.cache.model_server import ModelServer
from tests.unit.cache.scripted import item
from tests.unit.support import Log

LATE = 30
KEY = ("team", "a")


@asynccontextmanager
async def reflecting():
    """A model server, the store of a reflector at work on it, and their clock."""
    clock, store = FakeClock(), Store()
    server = ModelServer(clock)
    metrics = Metrics(process=False, clock=clock).informer("w", objects=lambda: 0, size=lambda: 0)
    reflector = Reflector(
        server, ConfigMap.resource_type, store, clock=clock, random=lambda: 0.5, logger=Log().logger, metrics=metrics
    )
    task = asyncio.create_task(reflector.run(), name="reflector")
    try:
        await clock.settle()
        yield server, store, clock
        assert reflector.state.label == "watching"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_made_changed_deleted_and_made_anew_is_read_while_the_watch_is_30_seconds_late():
    async with reflecting() as (server, store, clock):
        server.delayed = True
        told, expected = [], None
        store.subscribe(lambda old, new, initial: told.append((old and old.uid, new and new.uid)))

        def write():
            server.write("a")
            uid, version = server.objects["a"]
            store.wrote(read_entry(orjson.dumps(item("a", version, uid))))

        def delete():
            gone = server.objects["a"]
            server.delete("a")
            store.deleted(KEY, *gone)

        steps = {0: write, 5: write, 10: delete, 11: write, 15: write, 20: delete, 40: write}
        for second in range(40 + LATE + 1):
            if second in steps:
                steps[second]()
                expected = server.objects.get("a")
            if second - LATE in steps:
                assert len(told) == sum(when + LATE < second for when in steps), "the watch has told it sooner"
                (watch,) = server.watches
                watch.send(1)
            await clock.elapse(1.0)
            found = store.get(KEY)
            assert (found and (found.header.uid, found.header.version)) == expected, f"after {second} seconds"
        first, second, third = "uid-1", "uid-2", "uid-3"
        assert told == [
            (None, first), (first, first), (first, None),
            (None, second), (second, second), (second, None), (None, third),
        ]  # fmt: skip
        assert len(store._overlay) == 0


async def test_a_watch_is_silent_after_90_seconds_without_a_bookmark_and_not_before():
    async with reflecting() as (server, _, clock):
        for _ in range(5):
            await clock.elapse(89.0)
            for watch in server.watches:
                watch.bookmark()
            await clock.settle()
        assert server.asked == ["stream"]
        await clock.elapse(89.0)
        assert server.asked == ["stream"]
        await clock.elapse(2.0)
        assert server.asked == ["stream", "probe", "watch"]

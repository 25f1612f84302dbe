"""Wherever a stream is cut into chunks, the same is delivered."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise

import pytest

from asyncctl.cache.reflector import Reflector
from asyncctl.cache.store import Store
from asyncctl.client.watch import Lines, lines
from asyncctl.objects.builtin import ConfigMap
from asyncctl.observe.metrics import Metrics
from tests.unit.cache.scripted import EXPIRED, HANG, Api, Heard, Watch, bookmark, event, informing, item, page
from tests.unit.support import ImpatientClock, Log, http_server, until

END = {"k8s.io/initial-events-end": "true"}


def named(name, version, **data):
    return item(name, version) | {"data": data}


CHANGES = (
    event("MODIFIED", named("a", 10, text="naïve, 日本語, 🐙"))
    + event("ADDED", named("c", 11, text='\\ and " and \n'))
    + event("DELETED", named("b", 12))
    + bookmark(15)
    + event("ADDED", named("d", 16))
)
STREAM = (
    event("ADDED", named("a", 1, text="Grüße")) + event("ADDED", named("b", 2)) + bookmark(9, END) + CHANGES
    + event("ERROR", EXPIRED)
)  # fmt: skip


class Server:
    """Answers the first watch with these chunks, and hangs in whatever comes then."""

    def __init__(self, chunks):
        self.chunks = chunks
        self.asked = []
        self.gone_on = asyncio.Event()

    @asynccontextmanager
    async def watch(self, kind, **query):
        self.asked.append(("stream" if query["initial"] else "watch", query["resource_version"]))
        if len(self.asked) > 1:
            await self._hang()
        async with aclosing(lines(self._chunks())) as batches:
            yield Lines(batches)

    async def list_page(self, kind, **query):
        self.asked.append(("list", query.get("resource_version")))
        await self._hang()

    async def _hang(self):
        self.gone_on.set()
        await asyncio.get_running_loop().create_future()

    async def _chunks(self):
        for chunk in self.chunks:
            yield chunk


METRICS = Metrics(process=False).informer("w", objects=lambda: 0, size=lambda: 0)
LOGGER = Log().logger


async def delivered(*chunks):
    """What a listener hears of them, what is kept, and how it is gone on."""
    server, store, heard = Server(chunks), Store(), Heard()
    store.subscribe(heard)
    reflector = Reflector(
        server, ConfigMap.resource_type, store, clock=ImpatientClock(), random=lambda: 0.5, logger=LOGGER,
        metrics=METRICS,
    )  # fmt: skip
    task = asyncio.create_task(reflector.run(), name="reflector")
    async with asyncio.timeout(30):
        await server.gone_on.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    kept = {entry.header.name: entry.data for entry in store.entries()}
    return list(heard), heard.initial, kept, store.progress, server.asked[1:]


@pytest.fixture
async def quick():
    """No debugging of a thousand streams: where each future was made takes longer than all that it does."""
    loop = asyncio.get_running_loop()
    loop.set_debug(False)
    yield
    loop.set_debug(True)


@pytest.mark.usefixtures("quick")
async def test_cut_at_any_byte_a_stream_gives_the_same():
    expected = await delivered(STREAM)
    heard, initial, kept, progress, gone_on = expected
    assert heard == [
        ("add", "a", 1), ("add", "b", 2), ("update", "a", 10), ("add", "c", 11), ("delete", "b", 2), ("add", "d", 16)
    ]  # fmt: skip
    assert initial == [True, True, False, False, False, False]
    assert "🐙".encode() in kept["a"]
    assert (progress, gone_on) == (16, [("stream", None)]), "it had expired"
    for cut in range(1, len(STREAM)):
        assert await delivered(STREAM[:cut], STREAM[cut:]) == expected, f"cut at {cut}"
    assert await delivered(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == expected


@pytest.mark.usefixtures("quick")
async def test_what_came_whole_before_a_stream_broke_is_delivered_and_a_half_of_a_line_is_not():
    whole = [0, *(at + 1 for at, byte in enumerate(STREAM) if byte == 0x0A)]
    for start, end in pairwise(whole):
        expected = (await delivered(STREAM[:start], b"x"))[:4]
        for at in range(start + 1, end):
            assert (await delivered(STREAM[:at]))[:4] == expected, f"ends at {at}"


async def test_byte_by_byte_over_a_socket_it_is_the_same():
    api = Api(lists=[page(9, named("a", 1), named("b", 2))])
    api.watches = [Watch(*(CHANGES[at : at + 1] for at in range(len(CHANGES))), HANG)]
    async with http_server(api) as url, informing(url) as running:
        await running.names("a", "c", "d")
        await until(lambda: running.version("d") == 16)
        assert running.heard[2:] == [("update", "a", 10), ("add", "c", 11), ("delete", "b", 2), ("add", "d", 16)]

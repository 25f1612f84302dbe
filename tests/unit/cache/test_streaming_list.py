"""A list that comes as a stream and goes on as the watch, and what happens where a server has no such thing."""

import asyncio

import pytest

from asyncctl.cache import reflector as module
from asyncctl.cache.event import read_event
from tests.unit.cache.scripted import (
    EXPIRED,
    HANG,
    Api,
    Watch,
    bookmark,
    event,
    item,
    page,
    reflecting,
    unstreamed,
)
from tests.unit.support import ImpatientClock, status, until

END = {"k8s.io/initial-events-end": "true"}
AHEAD = {
    "kind": "Status", "code": 504, "reason": "Timeout", "message": "Timeout: Too large resource version: 9, current: 5",
    "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]},
}  # fmt: skip


def end(version):
    return bookmark(version, END)


def added(*args):
    return event("ADDED", item(*args))


class Clock(ImpatientClock):
    """Can be put forward."""

    def __init__(self):
        super().__init__()
        self.shift = 0.0

    def monotonic(self):
        return super().monotonic() + self.shift


async def test_objects_gather_aside_until_the_bookmark_and_the_stream_goes_on_as_the_watch(monkeypatch):
    go_on, read = asyncio.Event(), []
    monkeypatch.setattr(module, "read_event", lambda line: read.append(line) or read_event(line))

    class Gated(Watch):
        async def answer(self, request):
            response = await self.begin(request)
            await response.write(added("a", 1) + added("b", 2))
            await go_on.wait()
            await response.write(end(9) + event("MODIFIED", item("a", 10)))
            await response.write(added("c", 11))
            await asyncio.sleep(3600)

    api = Api(streams=[Gated()])
    async with reflecting(api) as running:
        await until(lambda: len(read) == 2)
        assert running.heard == []
        assert not running.informer.synced
        go_on.set()
        await running.names("a", "b", "c")
        assert running.heard == [("add", "a", 1), ("add", "b", 2), ("update", "a", 10), ("add", "c", 11)]
        assert running.heard.initial == [True, True, False, False]
        assert running.informer.synced
    ((_, _, query),) = api.asked
    assert {key: query.get(key) for key in ("sendInitialEvents", "resourceVersionMatch", "allowWatchBookmarks")} == {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    assert "resourceVersion" not in query


async def test_a_streamed_list_that_is_empty_is_one():
    api = Api(streams=[Watch(end(9), HANG)])
    async with reflecting(api) as running:
        await running.informer.wait_synced()
        assert list(running.informer.entries()) == []


@pytest.mark.parametrize(
    "answer",
    [
        unstreamed,
        lambda: status(400, "BadRequest", "unknown parameter"),
        Watch(event("ERROR", {"kind": "Status", "code": 422, "reason": "Invalid", "message": "no such feature"})),
        Watch(added("a", 1), bookmark(9), HANG),
        Watch(added("a", 1)),
        Watch(added("a", 1), HANG),
    ],
    ids=["422", "400", "an ERROR event", "an ordinary bookmark", "an end without the bookmark", "silence"],
)
async def test_a_server_that_does_not_stream_is_paged_at_once_and_not_asked_again_for_an_hour(answer, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    expired = Watch(event("ERROR", EXPIRED))
    clock = Clock()
    api = Api(lists=[page(9, item("a", 1))], watches=[expired, expired], streams=[answer, unstreamed])
    async with reflecting(api, clock=clock) as running:
        await until(lambda: len(api.of("watch")) == 3)
        assert [what for what, _, _ in api.asked[:3]] == ["stream", "list", "watch"]
        assert clock.slept == [0.4, 0.8]  # for the two that expired
        assert len(api.of("stream")) == 1
        assert running.informer.problem is None
    assert api.of("list")[0].get("resourceVersion") is None


async def test_after_an_hour_it_is_asked_again():
    clock = Clock()
    asked = asyncio.Event()

    class Expiring(Watch):
        async def answer(self, request):
            clock.shift = 3601.0
            asked.set()
            return await super().answer(request)

    api = Api(lists=[page(9)], watches=[Expiring(event("ERROR", EXPIRED))], streams=[unstreamed, Watch(end(20), HANG)])
    async with reflecting(api, clock=clock):
        await until(lambda: len(api.of("stream")) == 2)
    assert len(api.of("list")) == 1


@pytest.mark.parametrize(
    "code, reason",
    [
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
    ],
)
async def test_a_refusal_that_is_not_about_streaming_is_tried_again_after_a_while(code, reason):
    no = lambda: status(code, reason, "no such luck")  # noqa: E731
    api = Api(streams=[no, no, Watch(end(9), HANG)])
    async with reflecting(api) as running:
        await running.informer.wait_synced()
        assert running.clock.slept == [0.4, 0.8]
    assert api.of("list") == []


async def test_a_stream_that_breaks_before_its_end_is_had_in_pages_and_asked_for_again_next_time():
    broken = Watch(added("a", 1), b'{"type":"ADD')
    api = Api(
        lists=[page(9, item("b", 2))],
        watches=[Watch(event("ERROR", EXPIRED))],
        streams=[broken, Watch(added("c", 20), end(20), HANG)],
    )
    async with reflecting(api) as running:
        await running.names("c")
        assert running.heard == [("add", "b", 2), ("delete", "b", 2), ("add", "c", 20)]
    assert [what for what, _, _ in api.asked] == ["stream", "list", "watch", "stream"]


async def test_a_server_that_fails_at_streams_only_is_had_in_pages_after_some_tries():
    """Which cost it more, where it is only busy."""
    broken = lambda: status(500, "InternalError", "streams are broken")  # noqa: E731
    api = Api(lists=[page(9, item("a", 1))], streams=[broken] * 500)
    async with reflecting(api) as running:
        await running.names("a")
        assert running.clock.slept == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0]
    assert len(api.of("stream")) == 7


async def test_a_stream_of_which_nothing_comes_is_had_in_pages():
    """As through a proxy that holds an answer back until it has all of it."""

    class Held(Watch):
        async def begin(self, request):
            await asyncio.sleep(3600)

    api = Api(lists=[page(9, item("a", 1))], streams=[Held()] * 500)
    async with reflecting(api, timeout=0.2) as running:
        await running.names("a")
        assert running.log.said("no answer from")
    assert len(api.of("stream")) == 1


async def test_what_follows_the_bookmark_is_a_watch_like_any_other():
    """It ends and goes on; it expires and leads to a list."""
    api = Api(streams=[Watch(end(9), added("a", 10)), Watch(added("b", 30), end(31), HANG)])
    api.watches = [Watch(bookmark(15), added("c", 16), event("ERROR", EXPIRED))]
    async with reflecting(api) as running:
        await running.names("b")
        assert running.heard[2:] == [("delete", "a", 10), ("delete", "c", 16), ("add", "b", 30)]
        assert api.of("watch")[0]["resourceVersion"] == "10"


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "paged"])
async def test_a_later_list_is_not_older_than_what_was_seen(streams):
    gone = lambda: status(404, "NotFound", "the server could not find the requested resource")  # noqa: E731
    if streams:
        api = Api(streams=[Watch(end(9), added("a", 12)), Watch(added("a", 12), end(20), HANG)], watches=[gone])
    else:
        api = Api(lists=[page(9), page(20, item("a", 12))], watches=[Watch(added("a", 12)), gone])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("stream" if streams else "list")) == 2)
        await until(lambda: running.informer.problem is None)
    asked = api.of("stream" if streams else "list")[1]
    assert (asked["resourceVersion"], asked["resourceVersionMatch"]) == ("12", "NotOlderThan")
    assert streams or asked["limit"] == "500"


@pytest.mark.parametrize("form", ["410 event", "504 answer", "504 event"])
async def test_only_after_410_or_a_version_that_is_too_large_a_list_begins_with_none(form):
    gone = lambda: status(404, "NotFound", "the server could not find the requested resource")  # noqa: E731
    ahead = lambda: status(504, "Timeout", "Timeout: Too large resource version: 9, current: 5")  # noqa: E731
    streams = {
        "410 event": [Watch(event("ERROR", EXPIRED))],
        "504 answer": [ahead],
        "504 event": [Watch(event("ERROR", AHEAD))],
    }[form]
    api = Api(streams=[Watch(added("a", 1), end(9)), *streams, Watch(added("a", 4), end(5), HANG)], watches=[gone])
    async with reflecting(api) as running:
        await until(lambda: running.version("a") == 4)
        assert running.informer.problem is None
    assert [query.get("resourceVersion") for query in api.of("stream")] == [None, "9", None]


async def test_the_first_list_that_is_paged_after_a_failure_is_as_new_as_can_be():
    api = Api(lists=[lambda: status(500, "InternalError", "etcd is away"), page(9)], streams=[unstreamed])
    async with reflecting(api) as running:
        await running.informer.wait_synced()
    assert [(query["limit"], query.get("resourceVersion")) for query in api.of("list")] == [("500", None)] * 2

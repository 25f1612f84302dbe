"""The reflector over a real socket, against a server that follows a script and then hangs in a watch."""

import orjson
import pytest
from aiohttp import web

from asyncctl.cache import reflector as module
from asyncctl.cache.header import read_entry
from asyncctl.objects.builtin import Namespace
from tests.unit.cache.scripted import (
    EXPIRED,
    HANG,
    Api,
    Watch,
    bookmark,
    event,
    informing,
    item,
    page,
    reflecting,
    unstreamed,
)
from tests.unit.support import raw_server, status, until


async def test_pages_are_put_together_before_anyone_sees_them():
    api = Api(lists=[page(9, item("a", 1), token="next"), page(9, item("b", 2))])
    async with reflecting(api) as running:
        await running.informer.wait_synced()
        await running.names("a", "b")
    assert [(query.get("limit"), query.get("continue"), query.get("resourceVersion")) for query in api.of("list")] == [
        ("500", None, None),
        ("500", "next", None),
    ]
    assert running.heard == [("add", "a", 1), ("add", "b", 2)]


async def test_a_410_in_a_continuation_falls_back_to_one_list_of_all():
    gone = lambda: status(410, "Expired", "the continue token is too old")  # noqa: E731
    api = Api(lists=[page(9, item("old", 1), token="next"), gone, page(12, item("a", 11))])
    async with reflecting(api) as running:
        await running.names("a")
        await until(lambda: api.of("watch"))
        assert api.of("watch")[0]["resourceVersion"] == "12"
    assert "limit" not in api.of("list")[2]
    assert running.heard == [("add", "a", 11)]


async def test_a_list_whose_pages_never_end_is_told_of_and_asked_for_again_after_a_while():
    """Of a server that does not know what a continue token is: it would fill the memory."""
    same = page(9, item("a", 1), token="next")
    api = Api(lists=[same, same, same, page(9, item("a", 1))])
    async with reflecting(api) as running:
        await running.names("a")
        assert running.log.said("followed by itself", "warning")
        assert len(running.clock.slept) == 1


async def test_the_watch_goes_on_where_the_list_ended_and_delivers_in_order():
    watch = Watch(
        event("ADDED", item("b", 10)), event("MODIFIED", item("a", 11)), event("DELETED", item("b", 12)), HANG
    )
    api = Api(lists=[page(9, item("a", 1))], watches=[watch])
    async with reflecting(api) as running:
        await until(lambda: len(running.heard) == 4)
        assert running.heard == [("add", "a", 1), ("add", "b", 10), ("update", "a", 11), ("delete", "b", 10)]
    (asked,) = api.of("watch")
    assert (asked["resourceVersion"], asked["allowWatchBookmarks"]) == ("9", "true")
    assert 290 <= int(asked["timeoutSeconds"]) < 580


async def test_events_cut_anywhere_in_the_stream_arrive_whole():
    stream = event("ADDED", item("b", 10)) + bookmark(15) + event("ADDED", item("c", 16))
    cuts = [stream[start : start + 7] for start in range(0, len(stream), 7)]
    api = Api(lists=[page(9)], watches=[Watch(*cuts, HANG)])
    async with reflecting(api) as running:
        await running.names("b", "c")
    assert len(api.of("list")) == 1


async def test_a_bookmark_moves_the_resume_point_and_is_delivered_to_nobody():
    api = Api(lists=[page(9)], watches=[Watch(bookmark(40))])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 2)
        assert api.of("watch")[1]["resourceVersion"] == "40"
        assert running.heard == []
    assert len(api.of("list")) == 1


async def test_a_watch_that_ends_after_events_goes_on_at_once():
    api = Api(
        lists=[page(9)], watches=[Watch(event("ADDED", item("a", 10))), Watch(event("ADDED", item("b", 11)), HANG)]
    )
    async with reflecting(api) as running:
        await running.names("a", "b")
        assert running.clock.slept == []
        assert api.of("watch")[1]["resourceVersion"] == "10"


@pytest.mark.parametrize("parts", [(), (bookmark(9),)], ids=["nothing", "a bookmark alone"])
async def test_watches_that_end_at_once_without_an_event_are_backed_off_from(parts):
    api = Api(lists=[page(9)], watches=[Watch(*parts)] * 4)
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 5)
        assert running.clock.slept == [0.4, 0.8, 1.6, 3.2]  # half of 0.8 doubling: the jitter is full
    assert len(api.of("list")) == 1


@pytest.mark.parametrize("form", ["event", "answer"])
async def test_a_410_of_a_watch_lists_anew_and_what_vanished_is_deleted(form):
    expired = Watch(event("ERROR", EXPIRED)) if form == "event" else lambda: status(410, "Expired", "too old")
    api = Api(lists=[page(9, item("a", 1), item("b", 2)), page(30, item("b", 20))], watches=[expired])
    async with reflecting(api) as running:
        await running.names("b")
        await until(lambda: len(api.of("watch")) == 2)
        assert running.heard[2:] == [("delete", "a", 1), ("update", "b", 20)]
        assert api.of("watch")[1]["resourceVersion"] == "30"
        assert running.informer.problem is None


async def test_a_server_that_expires_every_watch_is_not_listed_in_a_loop():
    api = Api(lists=[page(9)], watches=[Watch(event("ERROR", EXPIRED))] * 5)
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 6)
        assert running.clock.slept == [0.4, 0.8, 1.6, 3.2, 6.4]


@pytest.mark.parametrize(
    "garbage",
    [b"not json\n", b'{"type":"ADDED"}\n', b'{"type":"ADDED","object":{"a":}}\n', b"\xff\n", b"[" * 5000 + b"\n"],
)
async def test_a_line_that_is_no_event_ends_the_stream_and_loses_nothing(garbage):
    api = Api(
        lists=[page(9), page(20, item("a", 15))],
        watches=[Watch(garbage, HANG), Watch(event("ADDED", item("b", 21)), HANG)],
    )
    async with reflecting(api) as running:
        await running.names("a", "b")
        assert running.log.said("the cache is not current", "warning")
        assert running.informer.problem is None


async def test_an_error_event_of_a_busy_server_watches_again_without_a_list():
    busy = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "etcd is away"}
    api = Api(lists=[page(9)], watches=[Watch(event("ERROR", busy))])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 2)
        assert running.log.said("etcd is away")
    assert len(api.of("list")) == 1


async def test_an_error_event_of_a_watch_that_cannot_go_on_lists_again():
    """The server has taken the watch: from the same place it would fail for ever."""
    broken = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd has no such object"}
    api = Api(lists=[page(9), page(10)], watches=[Watch(event("ERROR", broken))])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("list")) == 2)
        assert running.log.said("etcd has no such object")
        await until(lambda: len(api.of("watch")) == 2)


@pytest.mark.parametrize(
    "code, reason", [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")]
)
async def test_a_busy_server_is_watched_again_and_not_listed(code, reason):
    api = Api(lists=[page(9)], watches=[lambda: status(code, reason, "busy")] * 3)
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 4)
        assert len(running.clock.slept) == 3
    assert len(api.of("list")) == 1


@pytest.mark.parametrize("code, reason", [(400, "BadRequest"), (405, "MethodNotAllowed"), (422, "Invalid")])
async def test_a_watch_that_is_refused_for_what_it_asks_lists_again(code, reason):
    """It would be refused for ever: what it asks is made of what the list said."""
    api = Api(lists=[page(9), page(20, item("a", 15))], watches=[lambda: status(code, reason, "no such version")])
    async with reflecting(api) as running:
        await running.names("a")
        assert len(running.clock.slept) == 1


async def test_watches_that_tell_old_news_and_end_are_backed_off_from():
    old = Watch(event("MODIFIED", item("a", 1)))
    api = Api(lists=[page(9, item("a", 1))], watches=[old] * 3)
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 4)
        assert running.clock.slept == [0.4, 0.8, 1.6]


async def test_a_watch_that_always_fails_on_the_server_lists_again_in_the_end():
    """Some say 500 of a version that is compacted."""
    broken = lambda: status(500, "InternalError", "required revision has been compacted")  # noqa: E731
    api = Api(lists=[page(9), page(20, item("a", 15))], watches=[broken] * 7)
    async with reflecting(api) as running:
        await running.names("a")
        assert running.clock.slept == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0]
        await until(lambda: len(api.of("watch")) == 8)
        assert running.informer.problem is None


async def test_a_connection_that_breaks_is_watched_again_after_a_probe():
    first = []

    async def handler(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"sendInitialEvents" in head:
            body = unstreamed().body
            writer.write(b"HTTP/1.1 422 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            return
        asked.append(head.split(b" ")[1].decode())
        if b"watch=1" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\n\n\n\n\n\r\n")
            await writer.drain()
            if not first:
                first.append(1)
                return
            await reader.read()
            return
        body = page(9)().body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()

    asked = []
    async with raw_server(handler) as url, informing(url) as running:
        await until(lambda: sum("watch" in path for path in asked) == 2)
        assert running.log.said("the cache is not current")
        await until(lambda: running.informer.problem is None)
    assert [path.split("?")[1][:9] for path in asked if "watch" not in path] == ["limit=500", "limit=1"]


async def test_an_outage_is_told_once_however_its_errors_change_and_the_next_one_again():
    away = [(503, "ServiceUnavailable", "no endpoints"), (500, "InternalError", "etcd is away"), (429, "Busy", "later")]
    lists = [lambda each=each: status(*each) for each in away]
    api = Api(lists=[page(9), *lists, page(9), page(10)], watches=[Watch(b"{"), Watch(bookmark(10), b"{"), Watch(HANG)])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 3 and running.informer.problem is None)
        told = [line["cause"] for line in running.log.said("the cache is not current", "warning")]
    assert len(told) == 2, told


async def test_of_a_cache_of_one_namespace_it_is_told_which():
    api = Api(lists=[lambda: status(403, "Forbidden", "may not"), page(9)])
    async with reflecting(api, namespaces=("team",)) as running:
        await until(lambda: api.of("watch"))
        (line,) = running.log.said("the cache is not current")
    assert line["namespace"] == "team"


async def test_a_right_that_is_missing_after_an_outage_is_told_of_as_well():
    lists = [lambda: status(503, "ServiceUnavailable", "no"), lambda: status(403, "Forbidden", "may not")]
    api = Api(lists=[page(9), *lists, page(9)], watches=[Watch(b"{"), Watch(HANG)])
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 2)
        first, second = (line["cause"] for line in running.log.said("the cache is not current", "warning"))
    assert "may not" not in first
    assert "may not" in second


async def test_a_server_restored_from_a_backup_is_listed_anew():
    """Its resourceVersions are lower; a watch from ours would be silent for ever."""
    api = Api(
        lists=[page(1000, item("a", 900), item("new", 950)), page(500), page(500, item("a", 400))],
        watches=[Watch(b"{")],  # breaks in the middle of a line
    )
    async with reflecting(api) as running:
        await running.names("a")
        await until(lambda: len(api.of("watch")) == 2)
        assert running.version("a") == 400
        assert api.of("watch")[1]["resourceVersion"] == "500"
        assert running.log.said("it was restored or replaced")


async def test_a_silent_watch_asks_the_server_where_it_stands(monkeypatch):
    monkeypatch.setattr(module, "SILENT", 0.1)
    api = Api(lists=[page(1000, item("a", 900)), page(500), page(500, item("a", 400))], watches=[Watch(HANG)])
    async with reflecting(api) as running:
        await until(lambda: running.version("a") == 400)
        assert api.of("list")[1]["limit"] == "1"
        assert len(running.clock.slept) == 1, "two servers that answer in turn are not listed in a loop"


@pytest.mark.parametrize("code, reason", [(403, "Forbidden"), (404, "NotFound")])
async def test_what_is_forbidden_or_not_there_is_told_once_and_recovers(code, reason):
    refused = lambda: status(code, reason, "no such luck")  # noqa: E731
    api = Api(lists=[refused, refused, refused, refused, page(9, item("a", 1))])
    async with reflecting(api) as running:
        await running.names("a")
        assert running.informer.synced
        assert running.informer.problem is None
        assert len(running.log.said("no such luck", "warning")) == 1


async def test_a_kind_that_goes_away_keeps_what_was_known_until_it_is_back():
    gone = lambda: status(404, "NotFound", "the server could not find the requested resource")  # noqa: E731
    api = Api(lists=[page(9, item("a", 1)), gone, gone, page(20, item("b", 15))], watches=[Watch(), gone])
    async with reflecting(api) as running:
        await running.names("b")
        assert running.heard == [("add", "a", 1), ("delete", "a", 1), ("add", "b", 15)]
        assert running.log.said("the cache is current again")
        told = running.log.said("the server could not find the requested resource")
        assert told
        assert "kubectl" not in str(told), "the error says what to do, and whose kind it is nobody knows"


async def test_each_namespace_has_a_watch_of_its_own_and_no_other_is_asked_for():
    class PerNamespace(Api):
        async def __call__(self, request):
            namespace = request.path.split("/")[4]
            self.lists = [page(9, item("a", 1, uid=namespace, namespace=namespace))]
            return await super().__call__(request)

    api = PerNamespace(lists=[page(9)])
    async with reflecting(api, namespaces=("team", "other")) as running:
        await until(lambda: len(api.of("watch")) == 2)
        assert running.informer.get(("team", "a")).header.uid == "team"
        assert running.informer.get(("other", "a")).header.uid == "other"
        assert running.informer.get(("third", "a")) is None
        assert len(list(running.informer.entries())) == 2
        assert [entry.header.namespace for entry in running.informer.entries("other")] == ["other"]
    assert {path for _, path, _ in api.asked} == {
        "/api/v1/namespaces/team/configmaps",
        "/api/v1/namespaces/other/configmaps",
    }


async def test_a_cluster_wide_kind_has_one_watch_whatever_the_namespaces():
    api = Api(lists=[page(9)])
    async with reflecting(api, kind=Namespace.resource_type, namespaces=("team",)) as running:
        await running.informer.wait_synced()
    assert {path for _, path, _ in api.asked} == {"/api/v1/namespaces"}


async def test_a_selector_goes_with_each_request():
    """A right may be to what it selects only (`resourceNames`), and the probe has no other."""
    api = Api(lists=[page(9)], watches=[Watch(b"{")])
    async with reflecting(api, labels="a=b", fields="metadata.name=x"):
        await until(lambda: len(api.of("watch")) == 2)
    assert [query.get("limit") for query in api.of("list")] == ["500", "1"]
    assert {(query.get("labelSelector"), query.get("fieldSelector")) for _, _, query in api.asked} == {
        ("a=b", "metadata.name=x")
    }


async def test_a_list_that_says_no_version_is_not_taken_for_an_empty_cluster():
    api = Api(lists=[page(9, item("a", 1)), lambda: web.json_response({"metadata": {}}), page(20, item("a", 1))])
    api.watches = [Watch(event("ERROR", EXPIRED))]
    async with reflecting(api) as running:
        await until(lambda: len(api.of("watch")) == 2)
        assert running.heard == [("add", "a", 1)]


async def test_the_first_object_of_an_empty_cache_is_read_as_soon_as_it_was_written():
    api = Api(lists=[page(9)])
    async with reflecting(api) as running:
        await running.informer.wait_synced()
        running.informer.wrote(read_entry(orjson.dumps(item("a", 10))))
        assert running.version("a") == 10

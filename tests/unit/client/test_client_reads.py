"""Lists that come in pages, watches, selectors and raw paths: what is asked, and what is made of the answers."""

import msgspec
import orjson
import pytest
from aiohttp import web

from asyncctl.client import selectors
from asyncctl.client.changes import Bookmark, Change
from asyncctl.client.client import Client
from asyncctl.client.errors import Expired, Forbidden, Gone, NotFound, ServerError, StreamError, Target
from asyncctl.client.listing import Listing, Page
from asyncctl.objects import ConfigMap, DecodeError, Resource, Spec, Unstructured
from tests.unit.support import connected, http_server, status


def item(name, version="1"):
    return msgspec.Raw(orjson.dumps({"metadata": {"name": name, "uid": name, "resourceVersion": version}}))


class Server:
    """Pages by their tokens; a token that is not there is forgotten. `whole` is the list that has no pages."""

    def __init__(self, pages, whole=None):
        self.pages = pages
        self.whole = whole
        self.asked = []

    async def __call__(self, token, *, whole):
        self.asked.append("whole" if whole else token)
        found = self.whole if whole else self.pages.get(token)
        if found is None:
            raise Expired(Target("list", "things"), 410, {"reason": "Expired"})
        return found

    def listing(self):
        return Listing(self, lambda data: orjson.loads(data)["metadata"]["name"])


FIRST = Page([item("a"), item("b")], "10", "t")
LAST = Page([item("c")], "10", "")
WHOLE = Page([item("b"), item("c", "15"), item("d")], "20", "")


async def test_a_list_is_all_its_pages():
    server = Server({"": FIRST, "t": LAST})
    assert [name async for name in server.listing()] == ["a", "b", "c"]
    listing = server.listing()
    assert await listing.all() == ["a", "b", "c"]
    assert listing.resource_version == "10"
    assert server.asked == ["", "t", "", "t"]


async def test_a_list_that_expires_half_way_is_of_one_moment_when_it_is_wanted_whole():
    server = Server({"": FIRST}, WHOLE)
    listing = server.listing()
    assert await listing.all() == ["b", "c", "d"]
    assert listing.resource_version == "20"
    assert server.asked == ["", "t", "whole"]


async def test_a_list_that_expires_half_way_gives_nothing_twice_but_what_has_changed():
    changed = Page([item("a"), item("b", "15"), item("c")], "20", "")
    assert [name async for name in Server({"": FIRST}, changed).listing()] == ["a", "b", "b", "c"]


async def test_what_has_no_uid_is_given_again_rather_than_left_out():
    bare = [msgspec.Raw(orjson.dumps({"metadata": {"name": name}})) for name in "abc"]
    server = Server({"": Page(bare[:2], "10", "t")}, Page(bare, "20", ""))
    assert [name async for name in server.listing()] == ["a", "b", "a", "b", "c"]


@pytest.mark.parametrize("server", [Server({}), Server({"": FIRST})])
async def test_a_list_that_can_not_be_had_at_all_is_an_error(server):
    with pytest.raises(Gone):
        await server.listing().all()


async def test_nothing_is_asked_before_it_is_wanted():
    server = Server({"": FIRST, "t": LAST})
    objects = aiter(server.listing())
    assert server.asked == []
    await anext(objects)
    await anext(objects)
    assert server.asked == [""]
    await objects.aclose()


def answering(*bodies, code=200):
    async def handler(request):
        handler.asked.append(request.path_qs)
        return web.Response(body=bodies[min(len(handler.asked), len(bodies)) - 1], status=code)

    handler.asked = []
    return handler


async def test_what_a_list_is_asked_for():
    empty = b'{"kind":"ConfigMapList","metadata":{"resourceVersion":"5"},"items":null}'
    handler = answering(empty.replace(b'"5"', b'"5","continue":"t=1"'), empty)
    async with http_server(handler) as url, connected(url) as client:
        which = {"namespace": "team", "labels": {"a": "b"}, "fields": {"metadata.name": "x,y"}}
        assert await client.list(ConfigMap, limit=7, resource_version="3", **which).all() == []
    common = "labelSelector=a%3Db&fieldSelector=metadata.name%3Dx%5C%2Cy"
    assert handler.asked == [
        f"/api/v1/namespaces/team/configmaps?limit=7&resourceVersion=3&{common}",
        f"/api/v1/namespaces/team/configmaps?limit=7&continue=t%3D1&{common}",
    ]


def test_selectors_take_what_is_meant_and_no_more():
    assert selectors.labels({"a": "b", "x.y/z": ""}) == "a=b,x.y/z="
    assert selectors.labels("a in (b, c)") == "a in (b, c)"
    assert selectors.fields({"spec.x": "a=b\\c"}) == r"spec.x=a\=b\\c"
    for wrong in ({"a": "b,c"}, {"a,b": "c"}, {"a": "b c"}, {"": "a"}, {"a": "x" * 64}):
        with pytest.raises(ValueError, match="is no label"):
            selectors.labels(wrong)


# Watches.


class StrictSpec(Spec):
    size: int


class Strict(Resource, group="example.com", version="v1"):
    spec: StrictSpec


def lines(*events):
    return b"".join(each if isinstance(each, bytes) else orjson.dumps(each) + b"\n" for each in events)


def strict(size, version="7"):
    return {"metadata": {"name": "a", "resourceVersion": version}, "spec": {"size": size}}


async def watched(body, kind=Strict, code=200, told=None):
    told = [] if told is None else told
    async with (
        http_server(answering(body, code=code)) as url,
        connected(url) as client,
        client.watch(kind, namespace="team", resource_version="5") as events,
    ):
        async for event in events:
            told.append(event)
    return told


async def test_a_watch_gives_objects_and_bookmarks():
    bookmark = {"kind": "Strict", "metadata": {"resourceVersion": "9"}}  # which has no spec
    body = lines(
        {"type": "ADDED", "object": strict(1)}, b"\n", {"type": "DELETED", "object": strict(2)},
        {"type": "BOOKMARK", "object": bookmark},
    )  # fmt: skip
    added, deleted, last = await watched(body)
    assert (added.type, added.object.spec.size) == ("ADDED", 1)
    assert (deleted.type, deleted.object.spec.size) == ("DELETED", 2)
    assert last == Bookmark("9")
    found = await watched(lines({"type": "MODIFIED", "object": strict(1)}), Unstructured("example.com/v1", "Strict"))
    assert found == [Change("MODIFIED", {"apiVersion": "example.com/v1", "kind": "Strict"} | strict(1))]


ERROR = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


@pytest.mark.parametrize(
    "end, kind, text",
    [
        ({"type": "ERROR", "object": ERROR}, Expired, "watch stricts.example.com team: 410 Expired: too old"),
        ({"type": "ERROR", "object": {"kind": "Status", "code": 403, "reason": "Forbidden"}}, Forbidden, "403"),
        ({"type": "ERROR", "object": {"oh": "no"}}, ServerError, "not a Kubernetes Status"),
        ({"type": "ERROR", "object": None}, ServerError, "not a Kubernetes Status"),
        ({"type": "NEWS", "object": {}}, StreamError, "unknown event type 'NEWS'"),
        ({"type": "ADDED"}, StreamError, "a line of the watch is no event"),
        ({"type": "BOOKMARK", "object": {}}, StreamError, "a line of the watch is no event"),
        (b"<html>\n", StreamError, "a line of the watch is no event"),
        (b'{"type":"ADDED","object":' + b"[" * 9999 + b"]" * 9999 + b"}\n", StreamError, "is no event"),
        (b'{"type":"ADDED","obj', StreamError, "ended in the middle"),
        ({"type": "ADDED", "object": strict("1")}, DecodeError, "Strict a: spec.size: expected int, got str"),
    ],
)
async def test_a_watch_that_goes_wrong_says_how_after_what_it_told_before(end, kind, text):
    told = []
    with pytest.raises(kind, match=text):
        await watched(lines({"type": "ADDED", "object": strict(1)}, end), told=told)
    assert [event.object.spec.size for event in told] == [1]


async def test_a_watch_that_is_refused_is_an_error_at_once():
    with pytest.raises(NotFound, match=r"watch stricts\.example\.com team: 404"):
        await watched(b"404 page not found\n", code=404)


# Raw paths, and the boundary.


async def test_a_raw_answer_is_what_came():
    handler = answering(b"\xff<html>")
    async with http_server(handler) as url, connected(url) as client:
        assert await client.get_raw("/some/path", query={"a": "b c", "c": None}) == b"\xff<html>"
    assert handler.asked == ["/some/path?a=b%20c"]


class Nobody:
    async def request(self, request):
        raise AssertionError(f"sent: {request.path}")


@pytest.mark.parametrize(
    "path",
    [
        "", "version", "/a?b=c", "/a#b", "/a b", "/a\r\nHost: b", "/ä", "//a", "/a/../b", "/a/%2e%2e/b", "/a/..",
        "/a/.", "/api/v1/namespaces%2Fother/secrets/a", "/api/v1%2fnamespaces%2fother%2fsecrets", "/api%252Fv1/pods",
    ],
)  # fmt: skip
async def test_what_is_no_path_is_never_sent(path):
    with pytest.raises(ValueError, match="is no path such as"):
        await Client(Nobody(), field_manager="x").get_raw(path)


@pytest.mark.parametrize(
    "path, target",
    [
        ("/api/v1/namespaces/team/secrets/a", ("get", "secrets", "team", "a")),
        ("/api/v1/namespaces/team/secrets", ("list", "secrets", "team", None)),
        ("/api/v1/namespaces/team/pods/a/log", ("get", "pods/log", "team", "a")),
        ("/apis/apps/v1/deployments", ("list", "deployments.apps", None, None)),
        ("/apis/apps/v1/namespaces/team/deployments/a/scale", ("get", "deployments.apps/scale", "team", "a")),
        ("/api/v1/namespaces/team", ("get", "namespaces", None, "team")),
        ("/api/v1/namespaces/team/status", ("get", "namespaces/status", None, "team")),
        ("/api/v1/watch/namespaces/team/pods", ("watch", "pods", "team", None)),
        ("/api/v1", ("get", "/api/v1", None, None)),
        ("/apis/apps", ("get", "/apis/apps", None, None)),
        ("/apis/apps/v1/", ("get", "/apis/apps/v1/", None, None)),
        ("/version", ("get", "/version", None, None)),
        ("/", ("get", "/", None, None)),
    ],
)
async def test_an_error_of_a_raw_path_knows_what_it_was_about(path, target):
    async def handler(request):
        return status(403, "Forbidden", "no")

    async with http_server(handler) as url, connected(url) as client:
        with pytest.raises(Forbidden) as caught:
            await client.get_raw(path)
    assert caught.value.target == Target(*target)

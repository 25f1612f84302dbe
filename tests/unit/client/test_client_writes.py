"""What the client sends to change something: whole or in part, once or again, and what it makes of lost answers."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
from aiohttp import web

from asyncctl.apiserver import ApiServer
from asyncctl.client.client import UPDATE_TRIES, Client
from asyncctl.client.errors import Conflict, NotFound, ServerError, TransportError
from asyncctl.client.patch import Patch
from asyncctl.objects import ConfigMap, DecodeError, Namespace, ObjectMeta, Secret, Unstructured
from tests.unit.support import ImpatientClock, connected, http_server, make_transport

KIND = ConfigMap.resource_type
CONFIG = Unstructured("v1", "ConfigMap")


class Recorded(list):
    """A transport that remembers what it was asked for, and answers with a ConfigMap."""

    def __init__(self):
        self.answer = {"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "team", "resourceVersion": "5"}}

    async def request(self, request):
        self.append(request)
        return type("Reply", (), {"body": orjson.dumps(self.answer)})


@pytest.fixture
def sent():
    return Recorded()


@pytest.fixture
def client(sent):
    return Client(sent, field_manager="test")


HERE = {"name": "a", "namespace": "team"}
PINNED = {"metadata": {"resourceVersion": "5"}}
REPEATABLE = {
    "get": (True, lambda client: client.get(KIND, "a", namespace="team")),
    "create": (False, lambda client: client.create(ConfigMap(name="a", namespace="team"))),
    "replace": (True, lambda client: client.replace({"metadata": HERE | PINNED["metadata"]}, CONFIG)),
    "replace whatever is there": (False, lambda client: client.replace({"metadata": HERE}, CONFIG)),
    "apply": (True, lambda client: client.apply(ConfigMap(name="a", namespace="team"))),
    "merge": (False, lambda client: patched(client, {"data": {}}, Patch.MERGE)),
    "merge of one version": (True, lambda client: patched(client, PINNED, Patch.MERGE)),
    "merge of version 0": (False, lambda client: patched(client, {"metadata": {"resourceVersion": "0"}}, Patch.MERGE)),
    "strategic": (False, lambda client: patched(client, {}, Patch.STRATEGIC)),
    "strategic of one version": (True, lambda client: patched(client, PINNED, Patch.STRATEGIC)),
    "json": (False, lambda client: patched(client, [{"op": "add", "path": "/data/a", "value": "1"}], Patch.JSON)),
    "json of one uid": (False, lambda client: patched(client, [a_test_of("uid")], Patch.JSON)),
    "json of one version": (True, lambda client: patched(client, [a_test_of("resourceVersion")], Patch.JSON)),
    "delete": (False, lambda client: client.delete(KIND, "a", namespace="team")),
    "delete of one version": (False, lambda client: client.delete(KIND, "a", namespace="team", resource_version="5")),
    "delete of one uid": (True, lambda client: client.delete(KIND, "a", namespace="team", uid="u")),
}  # fmt: skip


def a_test_of(field):
    return {"op": "test", "path": f"/metadata/{field}", "value": "5"}


def patched(client, change, patch):
    return client.patch(KIND, "a", change, patch=patch, namespace="team")


@pytest.mark.parametrize("what", REPEATABLE)
async def test_only_what_has_the_effect_of_once_may_be_sent_twice(client, sent, what):
    repeatable, ask = REPEATABLE[what]
    await ask(client)
    assert [request.repeatable for request in sent] == [repeatable]


async def test_what_hangs_below_is_repeated_only_where_a_version_guards_it(client, sent):
    sent.answer = {"kind": "Scale", "metadata": {}}
    await client.get_scale(KIND, "a", namespace="team")
    await client.set_scale(KIND, "a", 1, namespace="team")
    await client.set_scale(KIND, "a", 1, namespace="team", resource_version="5")
    sent.answer = {"kind": "Status", "status": "Success"}
    await client.evict("a", namespace="team", uid="u")
    issued = {"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}
    sent.answer = {"kind": "TokenRequest", "metadata": {}, "status": issued}
    await client.create_token("a", namespace="team")
    sent.answer = {"kind": "ConfigMapList", "metadata": {}, "items": []}
    await client.delete_all(ConfigMap, namespace="team")
    assert [request.repeatable for request in sent] == [True, False, True, False, False, False]


async def test_every_write_takes_its_options(client, sent):
    options = {"dry_run": True, "field_validation": "Warn", "field_manager": "me"}
    await client.create(ConfigMap(name="a", namespace="team"), **options)
    await client.patch(KIND, "a", {}, patch=Patch.MERGE, namespace="team", **options)
    await client.apply(ConfigMap(name="a", namespace="team"), force=True, **options)
    await client.replace({"metadata": {"name": "a", "namespace": "team"}}, CONFIG, **options)
    assert {request.path.partition("?")[2] for request in sent} == {
        "fieldManager=me&fieldValidation=Warn&dryRun=All",
        "fieldManager=me&fieldValidation=Warn&dryRun=All&force=true",
    }


async def test_a_deletion_says_all_that_was_asked_for(client, sent):
    await client.delete(
        KIND, "a", namespace="team", uid="u", resource_version="5", propagation="Foreground", grace_period=0,
        dry_run=True,
    )  # fmt: skip
    assert orjson.loads(sent[0].body) == {
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground", "gracePeriodSeconds": 0,
        "dryRun": ["All"], "preconditions": {"uid": "u", "resourceVersion": "5"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "ask, text",
    [
        (lambda client: client.create(ConfigMap(name="a")), "v1 ConfigMap 'a' is namespaced: say in which"),
        (lambda client: client.create({"metadata": {}}), "of a dict the kind has to be said"),
        (lambda client: client.replace(ConfigMap(name="a", namespace="team")), "has no resourceVersion"),
        (
            lambda client: client.apply({"metadata": {"namespace": "team"}}, CONFIG),
            "v1 ConfigMap: it has no metadata.name",
        ),
        (lambda client: client.replace({}, CONFIG), "v1 ConfigMap: it has no metadata.name"),
        (lambda client: client.get(KIND, "a", namespace="team", subresource="scale"), "use get_scale and set_scale"),
        (lambda client: client.replace({"metadata": HERE}, CONFIG, subresource="scale"), "use get_scale and set_scale"),
        (
            lambda client: client.update_with_retry(CONFIG, "a", dict.clear, namespace="team", subresource="scale"),
            "use get_scale and set_scale",
        ),
        (lambda client: client.delete_all(ConfigMap), "say in which namespace all are to be deleted"),
        (lambda client: client.delete_all(ConfigMap, namespace="team", labels={}), "selects everything"),
        (lambda client: client.delete_all(ConfigMap, namespace="team", fields=" "), "selects everything"),
        (lambda client: client.delete_all(ConfigMap, namespace="team", labels={"a": "b,c"}), "is no label"),
        (lambda client: patched(client, {"data": {"a": float("nan")}}, Patch.MERGE), "data.a: nan can't be written"),
    ],
)
async def test_what_makes_no_sense_is_never_sent(client, sent, ask, text):
    with pytest.raises((ValueError, TypeError), match=text):
        await ask(client)
    assert sent == []


@pytest.mark.parametrize("answer", [{}, {"token": 1}, {"token": "hunter2"}])
async def test_an_answer_without_a_token_is_not_quoted(client, sent, answer):
    sent.answer = {"kind": "TokenRequest", "metadata": {}, "status": answer}
    with pytest.raises(ServerError, match="not shown") as caught:
        await client.create_token("a", namespace="team")
    assert "hunter2" not in str(caught.value)


# Lost answers, over real sockets.


def grow(obj):
    obj.data["a"] = "2"


UNREADABLE = {
    "create": lambda client: client.create(ConfigMap(name="a", namespace="team")),
    "apply": lambda client: client.apply(ConfigMap(name="a", namespace="team")),
    "replace": lambda client: client.replace(ConfigMap(metadata=ObjectMeta(**HERE, resource_version="5"))),
    "patch": lambda client: client.patch(ConfigMap, "a", {}, namespace="team", patch=Patch.MERGE),
    "update": lambda client: client.update_with_retry(ConfigMap, "a", grow, namespace="team"),
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_an_answer_to_a_write_that_can_not_be_decoded_says_that_the_write_was_made(client, sent, what):
    async def request(request, good=sent.request):
        reply = await good(request)
        sent.answer["data"] = ["1"]  # from the write on
        return reply if request.method == "GET" else await good(request)

    sent.answer["metadata"]["uid"] = "1"
    sent.request = request
    with pytest.raises(DecodeError, match=r"^ConfigMap team/a: data: expected object.*; the server has accepted the"):
        await UNREADABLE[what](client)


async def test_an_object_that_can_not_be_decoded_before_a_write_is_not_said_to_be_written(client, sent):
    sent.answer["data"] = ["1"]
    for ask in (UNREADABLE["replace"], UNREADABLE["update"]):
        with pytest.raises(DecodeError, match=r"^ConfigMap team/a: data: expected object, got array$"):
            await ask(client)
    assert {each.method for each in sent} == {"GET"}


@asynccontextmanager
async def losing(lose):
    """An API server whose answers to the first `lose` PUTs never come back; yields a client, and what was put."""
    done = []

    async def handler(request):
        headers = {"Content-Type": request.content_type} if request.can_read_body else {}
        body = await request.read()
        async with forward.request(request.method, request.path_qs, data=body, headers=headers) as reply:
            answer = await reply.read()
            if request.method == "PUT":
                done.append(reply.status)
                if len(done) <= lose:
                    request.transport.abort()
            return web.Response(status=reply.status, body=answer, content_type="application/json")

    async with (
        ApiServer() as server,
        aiohttp.ClientSession(server.url) as forward,
        http_server(handler) as url,
        connected(url) as client,
    ):
        await client.create(Namespace(name="team"))
        await client.create(ConfigMap(name="a", namespace="team", data={"n": "0"}))
        yield client, done


def count(obj):
    obj.data["n"] = str(int(obj.data["n"]) + 50)


async def number(client):
    return (await client.get(ConfigMap, "a", namespace="team")).data["n"]


async def test_the_repeat_of_a_put_that_was_made_is_told_as_a_conflict():
    """Which is honest: the object is not at that version any more. Who reads again sees the change."""
    async with losing(1) as (client, done):
        one = await client.get(ConfigMap, "a", namespace="team")
        one.data["n"] = "50"
        with pytest.raises(Conflict):
            await client.replace(one)
        assert done == [200, 409]
        assert await number(client) == "50"


async def test_an_update_whose_answer_is_lost_is_not_made_twice():
    async with losing(1) as (client, done):
        with pytest.raises(TransportError) as caught:
            await client.update_with_retry(ConfigMap, "a", count, namespace="team")
        assert caught.value.sent
        assert done == [200]
        assert await number(client) == "50"


@asynccontextmanager
async def embedded(**options):
    async with ApiServer() as server, make_transport(server.url) as transport:
        client = Client(transport, field_manager="test", **options)
        await client.create(Namespace(name="team"))
        await client.create(ConfigMap(name="a", namespace="team", data={"n": "0"}))
        yield client


async def test_an_update_waits_longer_each_time_and_gives_up():
    clock = ImpatientClock()
    async with embedded(clock=clock, random=lambda: 0.5) as client:
        calls = []

        async def mutate(one):
            calls.append(one.data["n"])
            other = await client.get(ConfigMap, "a", namespace="team")
            count(other)
            await client.replace(other)
            one.data["mine"] = "1"

        with pytest.raises(Conflict):
            await client.update_with_retry(ConfigMap, "a", mutate, namespace="team")
        assert calls == ["0", "50", "100", "150", "200"]
        assert len(calls) == UPDATE_TRIES
        assert clock.slept == pytest.approx([0.0105, 0.021, 0.042, 0.084])


async def test_an_update_that_changes_nothing_sends_nothing():
    async with embedded() as client:
        transport = client._transport
        request = transport.request
        methods = []

        async def noting(asked):
            methods.append(asked.method)
            return await request(asked)

        transport.request = noting
        for kind in (ConfigMap, CONFIG):
            found = await client.update_with_retry(kind, "a", lambda one: None, namespace="team")
            assert (found if isinstance(found, dict) else {"data": found.data})["data"] == {"n": "0"}
        assert methods == ["GET", "GET"]


def nested(depth):
    return b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"team"},"free":' + (
        b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    )


@pytest.mark.parametrize("depth", [400, 900])
async def test_an_object_that_is_too_deep_to_be_written_is_named(depth):
    async def answer(request):
        return web.Response(body=nested(depth), content_type="application/json")

    async with http_server(answer) as url, connected(url) as client:
        with pytest.raises(
            (TypeError, ServerError), match=r"(ConfigMap 'a' can't be written as JSON|nested too deeply)"
        ):
            await client.update_with_retry(CONFIG, "a", lambda one: one.update(x="1"), namespace="team")


async def test_an_object_without_a_uid_can_be_updated():
    seen = []

    async def answer(request):
        seen.append(await request.read())
        return web.Response(body=nested(1), content_type="application/json")

    async with http_server(answer) as url, connected(url) as client:
        await client.update_with_retry(CONFIG, "a", lambda one: one.update(x="1"), namespace="team")
    assert b'"x":"1"' in seen[1]


async def test_an_update_of_a_dict():
    async with embedded() as client:
        found = await client.update_with_retry(CONFIG, "a", lambda one: one["data"].update(x="1"), namespace="team")
        assert found["data"] == {"n": "0", "x": "1"}


async def test_an_update_is_of_the_object_that_was_read_whatever_the_change_says():
    async with embedded() as client:

        async def mutate(one):
            if "theirs" not in one["data"]:
                await client.patch(KIND, "a", {"data": {"theirs": "1"}}, patch=Patch.MERGE, namespace="team")
            one["metadata"]["resourceVersion"] = ""
            one["data"]["mine"] = "1"

        found = await client.update_with_retry(CONFIG, "a", mutate, namespace="team")
        assert found["data"] == {"n": "0", "theirs": "1", "mine": "1"}


async def test_an_update_of_what_is_not_there_or_that_fails_is_no_update():
    async with embedded() as client:
        with pytest.raises(NotFound):
            await client.update_with_retry(ConfigMap, "b", count, namespace="team")
        with pytest.raises(KeyError):
            await client.update_with_retry(ConfigMap, "a", lambda one: one.data["x"], namespace="team")


async def test_an_update_can_be_cancelled():
    async with embedded() as client:
        started = asyncio.Event()

        async def mutate(one):
            started.set()
            await asyncio.sleep(3600)

        task = asyncio.create_task(client.update_with_retry(ConfigMap, "a", mutate, namespace="team"), name="update")
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_secret_is_updated_without_touching_what_was_not_changed():
    async with embedded() as client:
        await client.create(Secret(name="s", namespace="team", data={"a": b"\xff", "b": b"1"}))
        found = await client.update_with_retry(Secret, "s", lambda one: one.data.pop("b"), namespace="team")
        assert found.data == {"a": b"\xff"}

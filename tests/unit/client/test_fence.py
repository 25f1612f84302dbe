"""The fence at the sender: no write leaves without it, wherever the request was when the Lease ran out."""

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web

from asyncctl.client.errors import Fenced, KubernetesError, Target
from asyncctl.client.patch import Patch
from asyncctl.client.transport.transport import Lane, Request
from asyncctl.objects import ConfigMap, Unstructured
from tests.unit.support import connected, http_server, make_transport, raw_server, status, until

WRITE = Request(
    target=Target("create", "configmaps", "team", "a"), method="POST", path="/w", lane=Lane.WRITE, body=b"{}"
)
READ = Request(target=Target("get", "configmaps", "team", "a"), method="GET", path="/r", lane=Lane.READ)


class Validity:
    """A fence in the hands of the test; time is the loop's."""

    def __init__(self, seconds=float("inf")):
        self.until = asyncio.get_running_loop().time() + seconds
        self.asked = 0

    def __call__(self):
        self.asked += 1
        left = self.until - asyncio.get_running_loop().time()
        if left <= 0:
            raise Fenced("the Lease is gone")
        return left

    def end(self):
        self.until = float("-inf")


class Answers(list):
    """A fence that answers with one of these seconds after the other."""

    def __call__(self):
        left = self.pop(0)
        if left <= 0:
            raise Fenced("the Lease is gone")
        return left


class Counter(list):
    def __call__(self):
        self.append(1)


async def test_a_write_without_the_lease_is_refused_and_counted_and_reads_go_on():
    seen, fenced = [], Counter()

    async def handler(request):
        seen.append(request.method)
        return web.json_response({})

    validity = Validity(-1)
    async with http_server(handler) as url, make_transport(url, fence=validity, on_fenced=fenced) as transport:
        with pytest.raises(Fenced, match="the Lease is gone"):
            await transport.request(WRITE)
        await transport.request(READ)
    assert seen == ["GET"]
    assert fenced == [1]


async def test_a_write_that_waits_for_a_free_connection_when_the_lease_ends_is_not_sent():
    bodies, release = [], asyncio.Event()

    async def handler(request):
        bodies.append(await request.read())
        await release.wait()
        return web.json_response({})

    validity = Validity()
    async with http_server(handler) as url, make_transport(url, fence=validity, timeout=5) as transport:
        first = [asyncio.create_task(transport.request(WRITE), name=f"first {n}") for n in range(32)]
        await until(lambda: len(bodies) == 32)
        late = asyncio.create_task(transport.request(WRITE), name="late")
        asked = validity.asked
        await until(lambda: validity.asked > asked)
        validity.end()
        release.set()
        with pytest.raises(Fenced):
            await late
        await asyncio.gather(*first)
    assert len(bodies) == 32


async def test_the_fence_is_asked_after_the_connection_was_made(monkeypatch):
    """The Lease ends while the connection is being made: not even the headers of the write leave."""
    connected, got = asyncio.Event(), []

    async def handler(reader, writer):
        connected.set()
        got.append(await reader.read(1000))

    async with raw_server(handler) as url:
        validity = Validity()
        async with make_transport(url, fence=validity, timeout=5) as transport:
            pool = transport._pools[Lane.WRITE]
            acquire = pool.acquire

            async def slow_acquire(context):
                connection = await acquire(context)
                await connected.wait()
                validity.end()
                return connection

            monkeypatch.setattr(pool, "acquire", slow_acquire)
            with pytest.raises(Fenced, match="the Lease is gone"):
                await transport.request(WRITE)
        await until(lambda: got)
    assert got == [b""]


async def test_headers_and_body_leave_in_the_step_that_asks_the_fence():
    """Between the fence's yes and the bytes in the socket nothing else may run."""
    steps = []

    async def handler(request):
        return web.json_response({})

    class Noting(Validity):
        def __call__(self):
            steps.append("asked")
            asyncio.get_running_loop().call_soon(steps.append, "next step")
            return super().__call__()

    async with http_server(handler) as url, make_transport(url, fence=Noting()) as transport:
        await transport.request(WRITE)  # the connection is there from now on
        (connection,) = transport._pools[Lane.WRITE]._idle
        write = connection._transport.write
        connection._transport.write = lambda data: (steps.append("sent"), write(data))
        await asyncio.sleep(0)
        steps.clear()
        await transport.request(WRITE)
    sent = steps.index("sent")
    assert steps[sent - 1] == "asked"
    assert steps.count("sent") == 1


async def test_a_write_in_flight_when_the_lease_ends_is_given_up():
    fenced, asked = Counter(), asyncio.Event()

    async def handler(request):
        asked.set()
        await asyncio.sleep(3600)

    async with (
        http_server(handler) as url,
        # Asked before a connection is made, as the write is sent, and when that time is over.
        make_transport(url, fence=Answers([60, 0.05, 0]), on_fenced=fenced, timeout=30) as transport,
    ):
        with pytest.raises(Fenced, match=r"create configmaps team/a: .* the write may have been made"):
            await transport.request(WRITE)
    assert asked.is_set()
    assert fenced == [1]


async def test_a_renewal_lets_a_write_in_flight_wait_on():
    fence = Answers([60, 0.05, 60])

    async def handler(request):
        await until(lambda: not fence)
        return web.json_response({})

    async with http_server(handler) as url, make_transport(url, fence=fence, timeout=30) as transport:
        assert (await transport.request(WRITE)).code == 200


async def test_a_retry_asks_the_fence_again():
    validity, seen = Validity(), []

    async def handler(request):
        seen.append(1)
        validity.end()
        return status(503, "ServiceUnavailable", "not now")

    request = Request(target=WRITE.target, method="PATCH", path="/", lane=Lane.WRITE, body=b"{}", repeatable=True)
    async with http_server(handler) as url, make_transport(url, fence=validity) as transport:
        with pytest.raises(Fenced, match="an earlier try of create configmaps team/a may have been made"):
            await transport.request(request)
    assert seen == [1]


async def test_a_sealed_transport_writes_nothing_and_says_why():
    async def handler(request):
        return web.json_response({})

    async with http_server(handler) as url, make_transport(url) as transport:
        await transport.request(WRITE)
        transport.seal("somebody else leads")
        with pytest.raises(Fenced, match="somebody else leads"):
            await transport.request(WRITE)
        assert (await transport.request(READ)).code == 200


REFUSED = "leases.x is forbidden: ValidatingAdmissionPolicy 'p' denied request: asyncctl-fenced: pod a leads"


async def test_the_fence_of_the_api_server_is_known_by_its_message_and_told_of():
    fenced, told = Counter(), []

    async def handler(request):
        return status(403, "Forbidden", REFUSED)

    async with http_server(handler) as url, make_transport(url, on_fenced=fenced, on_refused=told.append) as transport:
        with pytest.raises(Fenced, match="pod a leads") as caught:
            await transport.request(WRITE)
        assert caught.value.by_server
        assert fenced == [1]
        assert told == [str(caught.value)]
        with pytest.raises(Fenced):  # what is no write of its work is nobody's loss
            await transport.request(Request(target=WRITE.target, method="POST", path="/", lane=Lane.READ, body=b"{}"))
        assert (fenced, len(told)) == ([1], 1)


async def test_a_write_that_only_a_server_which_is_behind_refuses_is_sent_again():
    fenced, seen = Counter(), []

    async def handler(request):
        seen.append(await request.read())
        return status(403, "Forbidden", REFUSED) if len(seen) < 3 else web.json_response({})

    async with (
        http_server(handler) as url,
        make_transport(url, on_fenced=fenced, on_refused=lambda _: True) as transport,
    ):
        assert (await transport.request(WRITE)).code == 200
        assert seen == [b"{}"] * 3
        assert transport._clock.slept == [0.2, 0.4]
    assert fenced == []


async def test_a_write_that_a_server_which_is_behind_refuses_is_not_sent_for_ever_nor_without_the_lease():
    seen, validity = [], Validity()

    async def handler(request):
        seen.append(1)
        if len(seen) == 7:
            validity.end()
        return status(403, "Forbidden", REFUSED)

    async with (
        http_server(handler) as url,
        make_transport(url, fence=validity, on_refused=lambda _: True) as transport,
    ):
        with pytest.raises(Fenced) as caught:
            await transport.request(WRITE)
        assert (len(seen), caught.value.by_server) == (5, True)
        with pytest.raises(Fenced, match="the Lease is gone") as caught:
            await transport.request(WRITE)
        assert (len(seen), caught.value.by_server) == (7, False)


async def test_a_lease_that_ends_as_the_deadline_passes_leaves_no_error_behind():
    """Both timers fire in one turn of the loop; the loop's exception handler must not hear of it."""
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    async def handler(request):
        await asyncio.sleep(3600)

    try:
        async with http_server(handler) as url, make_transport(url, timeout=0.05, tries=1) as transport:
            for _ in range(5):
                transport._fence = Validity(0.05)
                with pytest.raises(Exception, match=r"may have been made|no answer|no connection|the Lease is gone"):
                    await transport.request(WRITE)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert heard == []


@pytest.mark.parametrize("ends", ["cancelled", "cut off", "timed out", "504", "200", "409", "a read", "unsent"])
async def test_that_nobody_knows_of_a_write_whether_it_was_made_is_remembered(ends):
    asked = asyncio.Event()

    async def handler(request):
        asked.set()
        if ends == "cut off":
            request.transport.abort()
        elif not ends.isdecimal():
            await asyncio.sleep(3600)
        return web.json_response({}) if ends == "200" else status(int(ends) if ends.isdecimal() else 500, "", "no")

    request = READ if ends == "a read" else WRITE
    async with (
        http_server(handler) as url,
        make_transport(url, timeout=0.2 if ends == "timed out" else 30) as transport,
    ):
        if ends == "unsent":
            transport._fence = Validity(-1)
        assert transport.in_doubt_for == float("inf")
        task = asyncio.create_task(transport.request(request), name="asks")
        if ends in {"cancelled", "a read"}:
            await asked.wait()
            task.cancel()
        with suppress(KubernetesError, asyncio.CancelledError):
            await task
        doubtful = transport.in_doubt_for < 30
    assert doubtful is (ends in {"cancelled", "cut off", "timed out", "504"})


def change(found):
    found.data = {"a": "b"}


IN_TEAM, MAP = {"namespace": "team"}, ConfigMap.resource_type
WRITES = {
    "create": lambda client: client.create(ConfigMap(name="a", namespace="team")),
    "create, dry run": lambda client: client.create(ConfigMap(name="a", namespace="team"), dry_run=True),
    "replace": lambda client: client.replace(
        {"metadata": {"name": "a", "namespace": "team", "resourceVersion": "1"}}, Unstructured("v1", "ConfigMap")
    ),
    "read and replace": lambda client: client.update_with_retry(ConfigMap, "a", change, **IN_TEAM),
    "patch": lambda client: client.patch(ConfigMap, "a", {}, patch=Patch.MERGE, **IN_TEAM),
    "status": lambda client: client.patch(MAP, "a", {}, patch=Patch.MERGE, subresource="status", **IN_TEAM),
    "apply": lambda client: client.apply(ConfigMap(name="a", namespace="team")),
    "delete": lambda client: client.delete(ConfigMap, "a", **IN_TEAM),
    "delete this one": lambda client: client.delete_answer(MAP, "a", uid="u", resource_version="1", **IN_TEAM),
    "delete all": lambda client: client.delete_all(ConfigMap, **IN_TEAM),
    "scale": lambda client: client.set_scale(ConfigMap, "a", 1, **IN_TEAM),
    "evict": lambda client: client.evict("a", **IN_TEAM),
    "token": lambda client: client.create_token("a", **IN_TEAM),
}


@pytest.mark.parametrize("write", WRITES)
async def test_no_write_of_the_client_goes_past_the_fence(write):
    seen = []

    async def handler(request):
        seen.append(request.method)
        metadata = {"name": "a", "namespace": "team", "uid": "u", "resourceVersion": "1"}
        return web.json_response({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    async with http_server(handler) as url, connected(url, fence=Validity(-1)) as client:
        with pytest.raises(Fenced, match="the Lease is gone"):
            await WRITES[write](client)
    assert set(seen) <= {"GET"}

"""What a reflector tells of itself: why it asked again, what it is doing, for how long it has heard nothing."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from asyncctl.cache import reflector as module
from tests.unit.cache.scripted import EXPIRED, HANG, Api, Watch, bookmark, event, informing, item, page, reflecting
from tests.unit.support import ImpatientClock, http_server, status, until

END = {"k8s.io/initial-events-end": "true"}
BROKEN = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd is away"}


class Shifted(ImpatientClock):
    """Can be put forward."""

    def __init__(self):
        super().__init__()
        self.shift = 0.0

    def monotonic(self):
        return super().monotonic() + self.shift


def said(code, reason, message="no such luck"):
    return lambda: status(code, reason, message)


CAUSES = {
    "end": [Watch(event("ADDED", item("a", 10)))],
    "expired": [Watch(event("ERROR", EXPIRED))],
    "silent": [Watch(HANG)],
    "refused": [said(429, "TooManyRequests")],
    "broken": [Watch(b"{")],
    "error": [Watch(event("ERROR", BROKEN))],
    "denied": [said(403, "Forbidden")],
    "missing": [said(404, "NotFound")],
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_restart_is_counted_by_its_cause(cause, monkeypatch):
    monkeypatch.setattr(module, "SILENT", 0.1 if cause == "silent" else 90.0)
    api = Api(streams=[Watch(bookmark(9, END))] * 2, lists=[page(9)], watches=[*CAUSES[cause], Watch(HANG)])
    async with reflecting(api) as running:
        await until(lambda: running.restarts().get(cause, 0) > (cause == "end"))
        assert running.restarts().keys() <= {cause, "end"}


async def test_a_list_that_is_not_streamed_and_one_that_is_too_new_are_counted():
    ahead = said(504, "Timeout", "Timeout: Too large resource version: 9, current: 5")
    api = Api(streams=[Watch(bookmark(9, END)), ahead], lists=[page(5)], watches=[said(404, "NotFound"), Watch(HANG)])
    async with reflecting(api) as running:
        await until(lambda: "unstreamed" in running.restarts())
        assert running.restarts() == {"end": 1, "missing": 1, "ahead": 1, "unstreamed": 1}


async def test_a_server_that_has_gone_back_is_counted_as_found_by_the_probe():
    api = Api(streams=[Watch(bookmark(1000, END))], lists=[page(500)], watches=[Watch(b"{")])
    async with reflecting(api) as running:
        await until(lambda: "probe" in running.restarts())


async def test_a_refused_connection_is_counted():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with informing(f"http://127.0.0.1:{port}") as running:
        await until(lambda: running.restarts().get("refused"))


async def test_a_watch_that_comes_from_another_address_is_preceded_by_a_probe(monkeypatch):
    """What answers there may be another cluster, or one that was restored."""

    class Ending(Watch):
        async def begin(self, request):
            addresses[0] = "127.0.0.2"
            response = await super().begin(request)
            response.force_close()
            return response

    addresses = ["127.0.0.1"]

    async def resolve(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[0], port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    here = Api(streams=[Ending(event("ADDED", item("a", 8)) + bookmark(9, END), event("ADDED", item("b", 10)))])
    there = Api(lists=[page(5), page(5, item("c", 4))])
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(http_server(here))
        port = int(url.rpartition(":")[2])
        await stack.enter_async_context(http_server(there, host="127.0.0.2", port=port))
        running = await stack.enter_async_context(informing(f"http://api.test:{port}"))
        await running.names("c")
        assert [what for what, _, _ in there.asked[:4]] == ["watch", "list", "stream", "list"]
        assert there.of("list")[0]["limit"] == "1"
        assert running.restarts()["moved"] == 1


async def test_age_and_state_are_shown_while_it_runs_and_gone_with_it():
    clock = Shifted()
    go_on = asyncio.Event()

    class Gated(Watch):
        async def answer(self, request):
            response = await self.begin(request)
            await response.write(bookmark(9, END))
            await go_on.wait()
            await response.write(bookmark(10))
            await asyncio.sleep(3600)

    async with reflecting(Api(streams=[Gated()]), clock=clock) as running:
        families = running.metrics.families

        def shown(family):
            return {tuple(sample.labels.values()): sample.value for sample in family.collect().samples}

        await running.informer.wait_synced()
        clock.shift = 50.0
        assert shown(families.watch_idle)["configmaps",] == pytest.approx(50, abs=5)
        assert shown(families.watch_states) == {("configmaps", "watching"): 1.0}
        assert shown(families.cache_synced) == {("configmaps",): 1.0}
        go_on.set()
        await until(lambda: shown(families.watch_idle)["configmaps",] < 5)
    assert [shown(family) for family in (families.watch_idle, families.watch_states, families.cache_synced)] == [{}] * 3

"""The debug pages: JSON for who asks on loopback, and for nobody else."""

import asyncio
import threading

import pytest
from aiohttp import ClientSession

from asyncctl.http import Look, Server, debug_pages, only_from_here
from asyncctl.observe import Metrics
from asyncctl.settings import Address


async def here():
    return {"loop": threading.current_thread() is threading.main_thread()}


LOOKS = {
    "things": Look("what there is", lambda: {"thread": threading.current_thread().name}),
    "here": Look("what the loop sees", here, in_loop=True),
    "sealed": Look("a mistake", lambda: {"url": "postgres://u:hunter2@host/db", "t": "Bearer abcdefghijkl"}),
}


@pytest.fixture
async def get():
    metrics = Metrics(process=False)
    server = Server(
        Address("127.0.0.1", 0), debug_pages(LOOKS), metrics, variable="X", guard=only_from_here, timed_as="/debug/"
    )
    async with asyncio.timeout(20), server, ClientSession(f"http://127.0.0.1:{server.port}") as session:

        async def get(path, **headers):
            async with session.get(path, headers=headers) as answer:
                return answer.status, await answer.json() if answer.status == 200 else await answer.text()

        get.metrics = metrics
        yield get


async def test_the_index_lists_the_pages(get):
    assert await get("/debug/") == (
        200, {"/debug/things": "what there is", "/debug/here": "what the loop sees", "/debug/sealed": "a mistake"}
    )  # fmt: skip


async def test_a_page_is_made_in_a_thread_or_in_the_loop_as_it_says(get):
    assert await get("/debug/things") == (200, {"thread": "debug page"})
    assert await get("/debug/here") == (200, {"loop": True})


async def test_what_looks_like_a_credential_is_not_shown(get):
    _, shown = await get("/debug/sealed")
    assert shown == {"url": "postgres://u:***@host/db", "t": "Bearer ***"}


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8082", "LOCALHOST", "127.8.8.8:1"])
async def test_who_asks_as_this_machine_may_read(get, host):
    assert (await get("/debug/", Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example.com:8082", "10.1.2.3:8082", "localhost.evil.example.com", "[", "", "::1"]
)
async def test_a_browser_that_a_foreign_page_has_led_here_may_not(get, host):
    status, said = await get("/debug/", Host=host)
    assert status == 403
    assert "kubectl port-forward" in said


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Forwarded-Proto"])
async def test_what_comes_through_a_proxy_may_not(get, header):
    assert (await get("/debug/", Host="localhost", **{header: "x"}))[0] == 403


async def test_all_pages_are_timed_as_one(get):
    await get("/debug/")
    await get("/debug/things")
    value = get.metrics.registry.get_sample_value
    assert value("asyncctl_http_request_duration_seconds_count", {"path": "/debug/"}) == 2.0

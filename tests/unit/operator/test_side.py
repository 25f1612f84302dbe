"""The listeners of an operator at work: which page is where, who may read it, and what the debug pages tell."""

import asyncio
import socket
import ssl

import aiohttp
import pytest

from asyncctl.http import ListenError
from asyncctl.objects import ConfigMap, Secret
from asyncctl.operator import Operator, side as module
from asyncctl.settings import Address
from tests.unit.harness import Widget, WidgetSpec, working
from tests.unit.support import Log, until

ANY = Address("127.0.0.1", 0)


def operator():
    made = Operator("test")
    made.begun, made.go = asyncio.Event(), asyncio.Event()

    @made.controller(Widget, owns=[ConfigMap], reads=[Secret], workers=1)
    async def reconcile(ctx, widget):
        made.begun.set()
        await made.go.wait()

    return made


async def get(address, path, *, tls=False, **headers):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"http{'s' if tls else ''}://{address}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=context) as answer:
        return answer.status, await (answer.json() if "json" in answer.content_type else answer.text())


def address_of(log, what):
    (line,) = log.said(what, "info")
    return line["address"]


async def test_metrics_are_among_the_probes_unless_they_have_an_address_of_their_own(cluster):
    log = Log()
    async with working(operator(), cluster, log):
        side = address_of(log, "the side server is up")
        assert (await get(side, "/metrics"))[0] == 200
        assert not log.said("the metrics listener is up")
        assert not log.said("the debug pages are up")


async def test_metrics_of_their_own_ask_for_tls_and_a_token_by_default(cluster):
    log = Log()
    async with working(operator(), cluster, log, metrics_address=ANY):
        side, metrics = address_of(log, "the side server is up"), address_of(log, "the metrics listener is up")
        assert (await get(side, "/livez"))[0] == 200
        assert (await get(side, "/metrics"))[0] == 404
        assert (await get(metrics, "/metrics"))[0] == 400
        assert (await get(metrics, "/metrics", tls=True))[0] == 401
        code, body = await get(metrics, "/metrics", tls=True, Authorization="Bearer x")  # all are good here
        assert code == 200
        assert 'path="/metrics"' in body
        assert (await get(metrics, "/livez", tls=True, Authorization="Bearer x"))[0] == 404
        assert log.said("signed itself", "warning")


async def test_metrics_of_their_own_can_be_open(cluster):
    log = Log()
    async with working(operator(), cluster, log, metrics_address=ANY, metrics_tls=False, metrics_auth="none"):
        assert (await get(address_of(log, "the metrics listener is up"), "/metrics"))[0] == 200


async def test_the_debug_pages_tell_what_the_operator_is_doing(cluster):
    log, made = Log(), operator()
    async with working(made, cluster, log, debug_address=ANY) as running:
        await cluster.create(Secret, "sealed", data={"password": b"open-sesame"})
        await cluster.create(Widget, "first", spec=WidgetSpec(size=3))
        await made.begun.wait()
        await cluster.create(Widget, "second")
        await until(lambda: len(running._controllers[0].queue))
        running._controllers[0].queue.add((cluster.namespace, "later"), after=60)
        debug = address_of(log, "the debug pages are up")
        pages = {name: (await get(debug, f"/debug/{name}"))[1] for name in ("tasks", "queue", "cache", "settings")}
        assert (await get(debug, "/debug/leases")) == (200, [])
        assert set((await get(debug, "/debug/"))[1]) == {f"/debug/{name}" for name in (*pages, "leases")}

        queue = pages["queue"]["widgets"]
        assert queue["kind"] == "widgets.runtime.example.com"
        assert [each["key"] for each in queue["processing"]] == [f"{cluster.namespace}/first"]
        assert [each["key"] for each in queue["queued"]] == [f"{cluster.namespace}/second"]
        assert [each["key"] for each in queue["delayed"]] == [f"{cluster.namespace}/later"]
        assert 50 < queue["delayed"][0]["in"] <= 60
        assert queue["counts"]["queued"] == 1

        caches = {each["kind"]: each["scopes"] for each in pages["cache"]}
        (scope,) = caches["widgets.runtime.example.com"]
        assert (scope["namespace"], scope["objects"], scope["synced"]) == (cluster.namespace, 2, True)
        assert scope["bytes"] > 0
        assert scope["progress"] > 0
        assert set(caches) >= {"configmaps", "secrets"}

        tasks = {each["name"]: each for each in pages["tasks"]["tasks"]}
        (worker,) = [each for name, each in tasks.items() if name.startswith("widgets worker")]
        assert any("test_side.py" in place and "reconcile" in place for place in worker["stack"])
        assert "watchdog" in {each["name"] for each in pages["tasks"]["threads"]}

        assert pages["settings"]["ASYNCCTL_LEADER_ELECTION"] == "false"
        assert "open-sesame" not in str(pages)
        assert "b3Blbi1zZXNhbWU=" not in str(pages)
        made.go.set()


async def test_the_debug_pages_tell_who_leads(cluster):
    log = Log()
    async with working(
        operator(), cluster, log, debug_address=ANY, leader_election=True, lease_namespace="default"
    ) as it:
        await until(lambda: it.leading)
        (lease,) = (await get(address_of(log, "the debug pages are up"), "/debug/leases"))[1]
        assert (lease["namespace"], lease["name"], lease["leading"]) == ("default", "test-leader", True)
        assert lease["identity"].startswith("test_")
        assert lease["holderAsSeen"] == lease["identity"]
        assert 0 < lease["mayWriteForSeconds"] <= 10


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Address("127.0.0.1", listening.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ASYNCCTL_METRICS_ADDRESS", {"metrics_tls": False, "metrics_auth": "none"}),
        ("ASYNCCTL_DEBUG_ADDRESS", {}),
    ],
)
async def test_an_address_that_is_taken_ends_the_start_with_the_name_of_its_setting(cluster, taken, name, settings):
    field = name.removeprefix("ASYNCCTL_").lower()
    with pytest.raises(ListenError, match=f"can't listen on {taken}: something listens there already.*set {name}"):
        async with working(operator(), cluster, **{field: taken}, **settings):
            pass


async def test_that_the_usual_debug_address_is_taken_is_told_and_lived_with(cluster, taken, monkeypatch):
    monkeypatch.setattr(module, "DEBUG_ADDRESS", taken)
    log = Log()
    async with working(operator(), cluster, log, debug_address=taken):
        (line,) = log.said("there are no debug pages", "warning")
        assert "set ASYNCCTL_DEBUG_ADDRESS to another one" in line["cause"]


async def test_a_large_queue_is_shown_in_part(cluster):
    log, made = Log(), operator()
    async with working(made, cluster, log, debug_address=ANY) as running:
        for number in range(5000):
            running._controllers[0].queue.add((cluster.namespace, f"w{number}"), after=60 + number)
        queue = (await get(address_of(log, "the debug pages are up"), "/debug/queue"))[1]["widgets"]
        assert queue["counts"]["delayed"] == 5000
        assert [each["key"] for each in queue["delayed"][:2]] == [f"{cluster.namespace}/w{number}" for number in (0, 1)]
        assert len(queue["delayed"]) == 200

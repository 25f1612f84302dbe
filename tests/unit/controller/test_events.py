"""Events as an API server keeps them: series, the cut of what is too much, and what happens when it refuses."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from asyncctl.client.errors import TransportError
from asyncctl.controller import events
from asyncctl.controller.events import EventRecorder
from asyncctl.objects.builtin import ObjectReference
from asyncctl.testing.clock import FakeClock
from tests.unit.support import Log, connected, http_server, until


class Recording:
    """A recorder at work, its clock, its log, and what it has asked the server for."""

    def __init__(self, client, namespace):
        self.clock, self.log, self.sent, self.namespace = FakeClock(), Log(), [], namespace
        self.lose = 0  # answers that get lost
        self.recorder = EventRecorder(
            client, controller="asyncctl-test", instance="pod", clock=self.clock, random=lambda: 0.0,
            logger=self.log.logger,
        )  # fmt: skip
        request = client._transport.request

        async def noting(asked):
            self.sent.append(asked.method)
            answer = await request(asked)
            if self.lose:
                self.lose -= 1
                raise TransportError("the answer was lost", sent=True)
            return answer

        client._transport.request = noting

    def say(self, note="it works", *, reason="Made", kind="Normal", about="w"):
        regarding = ObjectReference(api_version="v1", kind="ConfigMap", namespace=self.namespace, name=about, uid=about)
        self.recorder.say(regarding, kind, reason, note)

    async def written(self):
        """Return when nothing waits; unlike `flush` it asks for nothing more."""
        async with asyncio.timeout(30):
            await self.recorder._waiting.join()

    async def elapse(self, seconds):
        await self.clock.elapse(seconds)
        await self.written()


@asynccontextmanager
async def recording(server, namespace="default"):
    async with connected(server) as client:
        made = Recording(client, namespace)
        task = asyncio.create_task(made.recorder.run(), name="events")
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def made(cluster):
    async with recording(cluster.config, cluster.namespace) as made:
        yield made


async def told(cluster):
    """(note, how often) of each event that the server has, sorted."""
    path = f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events"
    items = (await cluster.send("GET", path))["items"]
    return sorted((each.get("note", ""), (each.get("series") or {"count": 1})["count"]) for each in items)


async def test_what_is_said_again_is_one_event_whose_count_is_written_at_intervals(made, cluster):
    made.say()
    await made.written()
    assert await told(cluster) == [("it works", 1)]
    made.say()
    await made.written()
    assert await told(cluster) == [("it works", 2)]
    for _ in range(5):  # every five minutes: it does not end, and half an hour passes
        for _ in range(10):
            made.say()
        await made.elapse(300)
    assert made.sent == ["POST", "PATCH"]
    made.say()
    await made.elapse(300)
    assert made.sent == ["POST", "PATCH", "PATCH"]
    assert await told(cluster) == [("it works", 53)]


async def test_a_series_ends_after_six_minutes_with_its_last_count(made, cluster):
    for _ in range(2):
        made.say()
        await made.written()
    for _ in range(3):
        made.say()
    await made.elapse(420)
    assert await told(cluster) == [("it works", 5)]
    assert not made.recorder._series
    made.say()
    await made.written()
    assert await told(cluster) == [("it works", 1), ("it works", 5)]
    series = (await cluster.send("GET", f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events"))["items"]
    assert any(each.get("series", {}).get("lastObservedTime") == "2026-01-01T00:00:00.000000Z" for each in series)


async def test_another_note_reason_type_or_object_is_another_event(made, cluster):
    for _ in range(2):
        made.say("one")
        made.say("two")
        made.say("one", reason="Lost")
        made.say("one", kind="Warning")
        made.say("one", about="x")
    await made.written()
    assert await told(cluster) == [*[("one", 2)] * 4, ("two", 2)]


async def test_what_waits_and_is_said_again_costs_one_request(made, cluster):
    for _ in range(15):
        made.say()
    await made.written()
    assert made.sent == ["POST"]
    assert await told(cluster) == [("it works", 15)]


async def test_after_25_different_ones_about_an_object_there_is_one_more_each_five_minutes(made, cluster):
    for number in range(40):
        made.say(f"{number:02}")
    made.say("of another object", about="x")
    await made.written()
    assert await told(cluster) == [*[(f"{number:02}", 1) for number in range(25)], ("of another object", 1)]
    assert made.recorder.dropped == 15
    assert len(made.log.said("too much is said about one object", "warning")) == 1
    await made.elapse(301)
    for number in (40, 41):
        made.say(f"{number}")
    await made.written()
    assert ("40", 1) in await told(cluster)
    assert made.recorder.dropped == 16
    await made.elapse(events.FINISHED)
    for number in range(10):
        made.say(f"once more {number}")
    first, second = made.log.said("too much is said about one object", "warning")  # not once for ever
    assert (first["kind"], first["name"], first["dropped"]) == ("ConfigMap", "w", 1)
    assert second["dropped"] > 16


async def test_the_end_writes_how_often_it_was(made, cluster):
    for _ in range(2):
        made.say()
        await made.written()
    for _ in range(5):
        made.say()
    await made.recorder.flush()
    assert await told(cluster) == [("it works", 7)]


async def test_what_the_server_refuses_is_told_and_the_next_is_written(made, cluster):
    made.say(reason="x" * 129)
    made.say("next")
    await made.written()
    assert await told(cluster) == [("next", 1)]
    (line,) = made.log.said("an event could not be written", "warning")
    assert "can have at most 128 characters" in line["error"]


async def test_an_event_whose_answer_was_lost_is_there_once(made, cluster):
    made.lose = 1
    made.say()
    await until(lambda: made.sent)
    made.say()
    await until(lambda: 1010.0 in made.clock.timers)  # ten seconds until it tries again
    await made.elapse(10)
    assert await told(cluster) == [("it works", 2)]
    assert not made.log.said("could not be written")


async def test_a_series_that_the_server_has_forgotten_is_made_anew(made, cluster):
    made.say()
    await made.written()
    await cluster.send("DELETE", f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events")
    made.say()
    await made.written()
    assert made.sent[-2:] == ["PATCH", "POST"]
    assert await told(cluster) == [("it works", 2)]


async def test_while_the_server_is_away_it_is_tried_twelve_times_and_saying_goes_on():
    from aiohttp import web

    asked = []

    async def away(request):
        asked.append(request.method)
        return web.json_response({"kind": "Status", "code": 503, "reason": "ServiceUnavailable"}, status=503)

    async with http_server(away) as url, recording(url) as made:
        made.say("one")
        for _ in range(11):
            await until(lambda: made.clock.monotonic() + 10.0 in made.clock.timers)
            made.say("two")
            assert not made.log.said("an event could not be written")
            await made.clock.elapse(10)
        await until(lambda: made.log.said("an event could not be written", "warning"))
        assert made.recorder.dropped == 0
        assert len(made.sent) in {12, 13}  # and the other one has its turn
        await until(lambda: len(made.sent) == 13)


async def test_it_remembers_no_more_than_so_much(made, cluster, monkeypatch):
    monkeypatch.setattr(events, "REMEMBERED", 10)
    for number in range(50):
        for _ in range(2):
            made.say(about=f"w{number}")
    assert len(made.recorder._series) == len(made.recorder._tokens) == 10
    await made.written()
    assert await told(cluster) == [("it works", 2)] * 50


async def test_what_does_not_fit_into_the_line_is_dropped_and_said_once(cluster, monkeypatch):
    monkeypatch.setattr(events, "LIMIT", 10)
    async with recording(cluster.config, cluster.namespace) as made:
        for number in range(15):
            made.say(f"{number:02}")
        await made.written()
        assert await told(cluster) == [(f"{number:02}", 1) for number in range(10)]
        assert made.recorder.dropped == 5
        assert len(made.log.said("some are dropped", "warning")) == 1
        made.say("14")  # it was not taken for one of a series that nobody has written
        await made.written()
        assert ("14", 1) in await told(cluster)


async def test_whatever_is_said_of_whatever_name_is_written(made, cluster):
    notes = [ValueError("boom"), None, "\ud800", "é" * 1000, ""]
    names = ["w", "system:node", "x" * 253, "a" * 199 + "-" * 3 + "b"]
    for about in names:
        for note in notes:
            made.say(note, about=about)
    await made.written()
    assert await told(cluster) == sorted((note, 1) for note in ("boom", "None", "?", "é" * 512, "") for _ in names)
    assert not made.log.said("could not be written")

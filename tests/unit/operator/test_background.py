"""Background tasks: begun with the Lease, ended before it is given back, begun anew when they fail."""

import asyncio
import contextlib
from itertools import pairwise

import pytest

from asyncctl.client.errors import TransportError
from asyncctl.observe.metrics import Metrics
from asyncctl.operator import LeaseLost, Operator, background as module
from asyncctl.operator.background import Backgrounds
from asyncctl.testing.clock import FakeClock
from tests.unit.harness import Widget, working
from tests.unit.operator.test_running import LEASE, electing, nothing
from tests.unit.support import Log, until


class Kit:
    """Background tasks of their own, with a clock in the test's hands."""

    def __init__(self, *functions):
        self.clock, self.log, self.metrics = FakeClock(), Log(), Metrics(process=False)
        self.backgrounds = Backgrounds(
            {function.__name__: function for function in functions}, "given",
            clock=self.clock, random=lambda: 0.0, logger=self.log.logger, metrics=self.metrics,
        )  # fmt: skip

    def failures(self, name):
        return self.metrics.registry.get_sample_value("asyncctl_background_failures_total", {"task": name})


async def test_one_that_fails_is_told_counted_and_begun_again_ever_later():
    starts = []

    async def poll(given):
        starts.append((kit.clock.monotonic(), given))
        raise RuntimeError("no answer from over there")

    kit = Kit(poll)
    kit.backgrounds.start()
    for _ in range(40):
        await kit.clock.elapse(5.0)
    await kit.backgrounds.stop()
    times = [time for time, _ in starts]
    assert [after - before for before, after in pairwise(times)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert {given for _, given in starts} == {"given"}
    assert kit.failures("poll") == len(starts)
    lines = kit.log.said("a background task has failed", "error")
    assert (lines[0]["task"], lines[0]["error"], lines[0]["restart_in"]) == ("poll", "no answer from over there", 1.0)
    assert ["Traceback" in str(line) for line in lines] == [True] + [False] * (len(starts) - 1)


async def test_after_two_quiet_minutes_a_failure_is_the_first_again():
    starts, work = [], [0.0, 0.0, 130.0, 0.0]

    async def poll(_):
        starts.append(kit.clock.monotonic())
        await kit.clock.sleep(work[len(starts) - 1] if len(starts) <= len(work) else 3600)
        raise RuntimeError

    kit = Kit(poll)
    kit.backgrounds.start()
    for _ in range(30):
        await kit.clock.elapse(5.0)
    await kit.backgrounds.stop()
    assert [after - before for before, after in pairwise(starts)] == [1, 2, 131, 2]


async def test_what_a_server_has_answered_is_told_without_a_traceback():
    async def poll(_):
        raise TransportError("no answer", sent=False)

    kit = Kit(poll)
    kit.backgrounds.start()
    await kit.clock.elapse(0.0)
    await kit.backgrounds.stop()
    (line,) = kit.log.said("a background task has failed")
    assert "Traceback" not in str(line)


async def test_one_that_returns_has_ended():
    starts = []

    async def once(_):
        starts.append(1)

    kit = Kit(once)
    kit.backgrounds.start()
    await kit.clock.elapse(600.0)
    assert starts == [1]
    assert kit.log.said("a background task has ended", "info")
    assert kit.failures("once") in {None, 0.0}
    await kit.backgrounds.stop()


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
async def test_nothing_that_one_raises_ends_the_others_or_the_loop(error):
    starts, alive = [], []

    async def bad(_):
        starts.append(1)
        if error is asyncio.CancelledError:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        raise error

    async def good(_):
        alive.append(1)
        await asyncio.Event().wait()

    kit = Kit(bad, good)
    kit.backgrounds.start()
    for _ in range(5):
        await kit.clock.elapse(1.0)
    assert len(starts) > 1
    assert alive == [1]
    assert {task.get_name() for task in kit.backgrounds.left} == {"background bad", "background good"}
    await kit.backgrounds.stop()
    assert kit.backgrounds.left == set()


async def test_a_stop_cancels_once_and_waits_for_the_clean_up():
    cleaned = []

    async def careful(_):
        try:
            await asyncio.Event().wait()
        finally:
            for step in range(3):
                await asyncio.sleep(0.005)
                cleaned.append(step)

    kit = Kit(careful)
    kit.backgrounds.start()
    await kit.clock.settle()
    await kit.backgrounds.stop()
    assert cleaned == [0, 1, 2]
    kit.backgrounds.start()
    assert kit.backgrounds.left == set()


async def test_one_that_swallows_its_cancellation_is_told_of_and_holds_up_no_stop(monkeypatch):
    release = asyncio.Event()

    async def stubborn(_):
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    monkeypatch.setattr(module, "GIVE_UP", 0.02)
    kit = Kit(stubborn)
    kit.backgrounds.start()
    await kit.clock.settle()
    await kit.backgrounds.stop()
    assert len(kit.backgrounds.left) == 1
    assert kit.log.said("a background task does not end, though it was cancelled", "error")
    release.set()
    await asyncio.wait(kit.backgrounds.left)


async def test_it_runs_only_while_leading_and_ends_before_the_lease_is_given_back(cluster):
    order = []

    def program(name):
        operator = Operator("test")
        operator.controller(Widget)(nothing)

        @operator.background
        async def beat(running):
            order.append(f"{name} began, leading {running.leading}")
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                holder = (await cluster.send("GET", LEASE))["spec"]["holderIdentity"]
                order.append(f"{name} ended, Lease {'held' if holder else 'free'}")

        @operator.on_shutdown
        async def bye(running):
            order.append(f"{name} shut down")

        return operator

    async with working(program("second"), cluster, **electing()) as first:
        await until(lambda: first.leading)
        async with working(program("standby"), cluster, **electing()) as standby:
            assert not standby.leading
            await until(lambda: len(order) == 1)
    assert order == ["second began, leading True", "standby shut down", "second ended, Lease held", "second shut down"]
    assert (await cluster.send("GET", LEASE))["spec"]["holderIdentity"] == ""


async def test_a_lost_lease_ends_it(cluster):
    operator, ended = Operator("test"), asyncio.Event()

    @operator.background
    async def beat(running):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def run():
        async with working(operator, cluster, **electing()) as running:
            await until(lambda: running.leading)
            taken = {"spec": {"holderIdentity": "other"}}
            await cluster.send("PATCH", LEASE, taken, content_type="application/merge-patch+json")
            await asyncio.Event().wait()

    async with asyncio.timeout(30):
        with pytest.raises(ExceptionGroup) as caught:
            await run()
    assert caught.group_contains(LeaseLost)
    assert ended.is_set()


# Declarations.


def test_a_plain_function_is_refused():
    with pytest.raises(TypeError, match=r"operator 'test', background: .* is a plain function; write `async def`"):
        Operator("test").background(lambda running: None)


def test_two_of_one_name_are_refused():
    operator = Operator("test")

    @operator.background
    async def poll(running):
        pass

    with pytest.raises(ValueError, match="has a background task 'poll' already"):
        operator.background(poll)


def test_a_method_and_an_object_that_is_called_serve_as_well():
    class Poller:
        async def poll(self, running): ...

        async def __call__(self, running): ...

    operator = Operator("test")
    operator.background(Poller().poll)
    operator.background(Poller())
    assert list(operator.backgrounds) == ["Poller.poll", "Poller"]

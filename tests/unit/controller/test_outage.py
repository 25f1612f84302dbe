"""An outage of a quarter of an hour, on a clock moved by hand: nothing is parked, and soon after it all is well.

"Soon" is one maximum delay with its jitter: 60 s and a quarter of it, 75 s. Each way in which an API server can be
away is tried, half of the objects change meanwhile, and half of the passes fail in the author's own request, the
others as the status is written.
"""

import itertools
import random
from collections import defaultdict

import pytest

from asyncctl.client.errors import Fenced, ServerError, TooManyRequests, TransportError, Unauthorized
from tests.unit.controller.stage import TARGET, Stage, declared, refused
from tests.unit.harness import Widget

OUTAGE = 15 * 60.0
MAXIMUM = 60.0 * 1.25
NAMES = [f"w-{number}" for number in range(200)]


def status(kind, code, **extra):
    return kind(TARGET, code, {"message": "the server is currently unable to handle the request"}, **extra)


def each_way():
    return itertools.cycle([
        refused(), TransportError("reset", sent=True), status(ServerError, 503), status(ServerError, 500),
        status(TooManyRequests, 429, retry_after=1.0), status(Unauthorized, 401), Fenced("the Lease was lost"),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio", {"debug": False}  # thousands of passes


async def test_nothing_is_parked_and_all_is_reconciled_within_one_longest_delay_after_it():
    began = defaultdict(list)

    async def reconcile(ctx, widget):
        began[widget.name].append(stage.clock.monotonic())
        if int(widget.name[2:]) % 2:
            await ctx.client.get(Widget, widget.name, namespace="team")
        widget.status.parts = widget.spec.size

    dice = random.Random(5)
    stage = Stage(declared(reconcile), random=dice.random)
    ways = each_way()
    stage.server.error = lambda: next(ways)
    stage.there(*NAMES, spec={"size": 1})
    changed = {name: dice.uniform(0.0, OUTAGE) for name in NAMES[:100]}
    async with stage.working():
        for name, when in sorted(changed.items(), key=lambda item: item[1]):
            await stage.clock.elapse(when - stage.clock.monotonic())
            stage.changed(name, spec={"size": 2}, metadata={"generation": 2})
        await stage.clock.elapse(OUTAGE - stage.clock.monotonic())
        assert all(stage.status(name) == {} for name in NAMES)
        assert stage.queue.statistics().delayed == stage.queue.statistics().retrying == 200

        stage.server.error = None
        await stage.clock.elapse(MAXIMUM)
        for name in NAMES:
            assert stage.status(name)["parts"] == (2 if name in changed else 1)
        assert stage.queue.statistics()[:5] == (0, 0, 0, 0, 0)

    assert not stage.controller.parking
    assert stage.events == []
    assert not stage.log.said("parked")
    assert not stage.log.said("Traceback")
    assert stage.counts.panics.value == 0
    for name in NAMES:
        if name not in changed:
            gaps = [after - before for before, after in itertools.pairwise(began[name])]
            assert 5.0 <= gaps[0] <= 6.25
            assert all(before * 0.8 <= after <= MAXIMUM for before, after in itertools.pairwise(gaps))
            assert began[name][-1] <= OUTAGE + MAXIMUM
            assert 15 <= len(gaps) <= 20
    times = sorted(each[-1] for each in began.values())  # they have not drifted into step
    assert times[100] - times[0] > 10.0


async def test_failures_of_before_do_not_add_up_with_an_outage():
    passes = []

    async def reconcile(ctx, widget):
        passes.append(widget.name)
        if len(passes) < 10:
            raise ValueError("not yet")
        await ctx.client.get(Widget, widget.name, namespace="team")

    stage = Stage(declared(reconcile))
    stage.there("a")
    stage.server.error = refused
    async with stage.working():
        await stage.clock.elapse(3600.0)
        assert len(passes) > 50
        assert stage.queue.failures(("team", "a")) == 9
        assert not stage.controller.parking
        stage.server.error = None
        await stage.clock.elapse(MAXIMUM)
        assert stage.queue.statistics().retrying == 0

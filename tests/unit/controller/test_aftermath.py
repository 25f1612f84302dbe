"""The contract's table, row by row, with exact delays: what a pass has come to, and what the queue does then."""

import asyncio
import contextlib
import itertools
from datetime import timedelta

import pytest

from asyncctl.client.errors import (
    ApplyConflict,
    Conflict,
    Fenced,
    Forbidden,
    Invalid,
    NamespaceBoundaryExceeded,
    ServerError,
    ServerTimeout,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from asyncctl.controller.outcome import NotOwned, Requeue, TerminalError, TransientError
from asyncctl.objects import Unstructured
from asyncctl.objects.codec import DecodeError
from tests.unit.controller.stage import TARGET, Stage, declared
from tests.unit.support import until


def answered(kind, code, **extra):
    return kind(TARGET, code, {"message": "no"}, **extra)


async def nothing(ctx, widget):
    pass


def group(*errors):
    return ExceptionGroup("unhandled errors in a TaskGroup", errors)


ROWS = [
    # the pass returns or raises                     result           first delay   counts  parks
    (None,                                           "success",       None,         False,  False),
    (Requeue(after=100),                             "requeue_after", (90, 110),    False,  False),
    (Requeue(after=timedelta(minutes=10)),           "requeue_after", (540, 660),   False,  False),
    (ValueError("odd"),                              "error",         (5, 6.25),    True,   False),
    (TimeoutError("the printer is slow"),            "error",         (5, 6.25),    True,   False),
    (answered(Conflict, 409),                        "requeue",       (0.01, 0.02), False,  False),
    (answered(ApplyConflict, 409),                   "error",         (5, 6.25),    True,   False),
    (NotOwned("theirs"),                             "error",         (5, 6.25),    True,   False),
    (answered(Invalid, 422),                         "error",         (5, 6.25),    True,   False),
    (DecodeError("ConfigMap", "team", "a", "data", "bad"), "error",   (5, 6.25),    True,   False),
    (TransportError("refused", sent=False),          "error",         (5, 6.25),    False,  False),
    (answered(TooManyRequests, 429),                 "error",         (5, 6.25),    False,  False),
    (answered(TooManyRequests, 429, retry_after=30), "error",         (30, 30),     False,  False),
    (answered(ServerTimeout, 504),                   "error",         (5, 6.25),    False,  False),
    (answered(ServerError, 503, retry_after=1),      "error",         (5, 6.25),    False,  False),
    (answered(Unauthorized, 401),                    "error",         (5, 6.25),    False,  False),
    (Fenced("lost"),                                 "error",         (5, 6.25),    False,  False),
    (TransientError("the printer is down"),          "error",         (5, 6.25),    False,  False),
    (answered(Forbidden, 403),                       "error",         (5, 6.25),    True,   False),
    (answered(NamespaceBoundaryExceeded, 403),       "error",         (5, 6.25),    True,   False),
    (TerminalError("mend it"),                       "error",         (480, 720),   True,   True),
    # as a TaskGroup raises them: what weighs most decides
    (group(TransportError("refused", sent=False)),   "error",         (5, 6.25),    False,  False),
    (group(answered(Conflict, 409), answered(Conflict, 409)), "requeue", (0.01, 0.02), False, False),
    (group(answered(Conflict, 409), TransientError("down")), "error", (5, 6.25),    False,  False),
    (group(group(answered(ServerError, 503, retry_after=30))), "error", (30, 30),   False,  False),
    (group(TransportError("refused", sent=False), ValueError("odd")), "error", (5, 6.25), True, False),
    (group(ValueError("odd"), group(TerminalError("mend it"))), "error", (480, 720), True,  True),
]  # fmt: skip


@pytest.mark.parametrize("outcome, result, delay, counts, parks", ROWS, ids=[str(row[0])[:40] for row in ROWS])
async def test_what_the_queue_does(outcome, result, delay, counts, parks):
    async def reconcile(ctx, widget):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    stage = Stage(declared(reconcile))
    stage.there("a")
    async with stage.working():
        await stage.clock.settle()
        assert [name for name, count in stage.counts._results.items() if count.value] == [result]
        assert stage.queue.failures(("team", "a")) == counts
        assert stage.queue.attempts(("team", "a")) == (result in {"error", "requeue"})
        assert len(stage.controller.parking) == stage.counts.parked.value == parks
        if delay is None:
            assert stage.queue.statistics()[:5] == (0, 0, 0, 0, 0)
        else:
            assert delay[0] <= stage.delay("a") <= delay[1]


async def failing(error, seconds, **members):
    """Passes over one object that always raise `error`, for so many seconds; returns when they began."""
    began = []

    async def reconcile(ctx, widget):
        began.append(stage.clock.monotonic())
        raise error

    stage = Stage(declared(reconcile))
    stage.there("a", **members)
    async with stage.working():
        await stage.clock.elapse(seconds)
    return stage, began


class PrinterDown(TransientError):
    """As authors write errors: its words are its own, and nobody else's constructor is called."""

    def __init__(self, printer):
        self.printer = printer

    def __str__(self):
        return f"{self.printer} is down"


@pytest.mark.parametrize(
    "error, level",
    [
        (TransientError("down"), "warning"),
        (PrinterDown("lp0"), "warning"),
        (TransientError("down", told=True), "debug"),
        (group(TransientError("down", told=True), TransientError("down", told=True)), "debug"),
        (group(TransientError("down", told=True), TransientError("late")), "warning"),
        (group(TransientError("down", told=True), TerminalError("mend it")), "error"),
    ],
)  # fmt: skip
async def test_what_was_told_of_all_objects_is_not_told_of_each(error, level):
    stage, began = await failing(error, 1.0)
    assert began
    (line,) = stage.log.said("down")
    assert (line["level"], line["name"]) == (level, "a")


async def test_an_apply_conflict_never_loops_hot():
    stage, began = await failing(answered(ApplyConflict, 409), 3600.0)
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert 5.0 <= gaps[0] <= 6.25
    assert all(gap >= 5.0 for gap in gaps)
    assert all(480.0 <= gap <= 720.0 for gap in gaps[9:])
    assert len(began) <= 10 + 7
    assert stage.condition("a")["reason"] == "RetryLimitExceeded"


async def test_a_parked_object_says_so_once_and_is_tried_each_ten_minutes_or_so():
    stage, began = await failing(TerminalError("mend the size", reason="BadSize"), 7200.0)
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert len(gaps) >= 10
    assert all(480.0 <= gap <= 720.0 for gap in gaps)
    assert stage.events == [("a", "Warning", "BadSize", "mend the size")]
    stalled = stage.condition("a")
    assert (stalled["status"], stalled["reason"], stalled["message"]) == ("True", "BadSize", "mend the size")
    assert stage.counts.parked.value == 1
    assert stage.counts.terminal_errors.value == len(began)
    assert len([request for request in stage.server.requests if request.method == "PATCH"]) == 1
    (line,) = stage.log.said("parked until the object changes", "error")
    assert (line["namespace"], line["name"], line["controllerKind"]) == ("team", "a", "Widget")


async def test_a_parked_object_that_next_fails_by_an_outage_is_tried_soon_and_is_parked_no_more():
    errors = [TerminalError("mend the size", reason="BadSize"), TransientError("the printer is down")]

    async def reconcile(ctx, widget):
        raise errors[0] if len(errors) == 1 else errors.pop(0)

    stage = Stage(declared(reconcile))
    stage.there("a")
    async with stage.working():
        await stage.clock.settle()
        assert (stage.counts.parked.value, len(stage.controller.parking)) == (1, 1)
        await stage.clock.elapse(720.0)
        assert (stage.counts.parked.value, len(stage.controller.parking)) == (0, 0)
        assert stage.delay("a") <= 75.0


async def test_a_change_wakes_a_parked_object_at_once_and_gives_it_all_its_tries_again():
    sizes = []

    async def reconcile(ctx, widget):
        sizes.append(widget.spec.size)
        if widget.spec.size < 3:
            raise ValueError("too small")

    stage = Stage(declared(reconcile), retry_limit=3)
    stage.there("a", spec={"size": 1})
    async with stage.working():
        await stage.clock.elapse(60.0)
        assert sizes == [1] * 3
        assert stage.counts.parked.value == 1
        stage.changed("a", spec={"size": 2}, metadata={"generation": 2}, status=stage.status("a"))
        await stage.clock.elapse(60.0)
        assert sizes == [1] * 3 + [2] * 3
        stage.changed("a", spec={"size": 3}, metadata={"generation": 3}, status=stage.status("a"))
        await stage.clock.settle()
        assert sizes[6:] == [3]
        assert stage.counts.parked.value == 0
        assert (stage.condition("a")["status"], stage.condition("a")["reason"]) == ("False", "Reconciled")
        assert [name for name, *_ in stage.events] == ["a"]
        assert stage.queue.statistics()[:5] == (0, 0, 0, 0, 0)


async def test_an_error_nobody_foresaw_is_counted_named_and_traced_once_for_each_place():
    async def reconcile(ctx, widget):
        if widget.name == "a":
            raise KeyError("size")
        raise KeyError("size")

    stage = Stage(declared(reconcile))
    stage.there("a", "b")
    async with stage.working():
        await stage.clock.elapse(60.0)
    lines = stage.log.said("the pass has failed", "warning")
    assert len(lines) == stage.counts.panics.value >= 8
    assert sorted(line["name"] for line in lines if "Traceback" in line.get("exception", "")) == ["a", "b"]
    assert all(line["namespace"] == "team" and line["controller"] == "widgets" for line in lines)
    assert all(line["error"] == "KeyError: 'size'" for line in lines)


@pytest.mark.parametrize(
    "members, path",
    [
        ({"spec": {"size": "big"}}, "spec.size"),
        ({"spec": {}, "status": {"parts": "many"}}, "status.parts"),
        ({"spec": {"size": "big"}, "status": {"conditions": [{"type": "Ready"}]}}, "spec.size"),
    ],
    ids=["spec", "status", "conditions"],
)
async def test_what_can_not_be_decoded_is_parked_with_its_name_and_path_and_others_go_on(members, path):
    seen = []

    async def reconcile(ctx, widget):
        seen.append(widget.name)

    stage = Stage(declared(reconcile), retry_limit=2, workers=1)
    entries = {"odd": members, "good": {"spec": {"size": 1}}}
    for name, each in entries.items():
        stage.changed(name, **each)
    async with stage.working():
        await stage.clock.elapse(2000.0)
        assert seen == ["good"]
        assert stage.counts.parked.value == 1
        (line,) = stage.log.said("parked until the object changes", "error")
        assert f"Widget team/odd: {path}: expected " in line["error"]
        (event,) = stage.events
        assert event == ("odd", "Warning", "RetryLimitExceeded", line["error"])
        if path == "spec.size" and "status" in members:  # there is no telling its conditions
            assert stage.condition("odd") is None
        else:
            stalled = stage.condition("odd")
            assert (stalled["status"], stalled["message"]) == ("True", line["error"])
            assert stalled["observedGeneration"] == 1
            assert stage.status("odd").get("parts") == members.get("status", {}).get("parts")
        patches = [request for request in stage.server.requests if request.method == "PATCH" and "odd" in request.path]
        assert len(patches) <= 1


async def test_a_pass_that_takes_too_long_is_cancelled_once_counted_and_tried_again():
    cancelled = asyncio.Event()

    async def reconcile(ctx, widget):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    stage = Stage(declared(reconcile, timeout=timedelta(milliseconds=20)))
    stage.there("a")
    async with stage.working():
        await cancelled.wait()
        await stage.clock.settle()
        assert stage.counts.timeouts.value == 1
        assert stage.queue.failures(("team", "a")) == 1
        assert 5.0 <= stage.delay("a") <= 6.25
        assert stage.log.said("the pass took longer than 0.02 s")


async def test_a_pass_knows_which_try_it_is_and_when_it_is_cut_off_and_its_log_lines_say_whose_they_are():
    tries = []

    async def reconcile(ctx, widget):
        ctx.log.info("at work", size=widget.spec.size)
        tries.append((ctx.attempt, ctx.deadline - stage.clock.monotonic(), ctx.reconcile_id))
        if len(tries) < 3:
            raise ValueError("odd")

    stage = Stage(declared(reconcile, timeout=timedelta(minutes=2)))
    stage.there("a", spec={"size": 7})
    async with stage.working():
        await stage.clock.elapse(60.0)
        stage.changed("a", metadata={"generation": 2})
        await stage.clock.settle()
    assert [each[:2] for each in tries] == [(1, 120.0), (2, 120.0), (3, 120.0), (1, 120.0)]
    assert len({reconcile_id for _, _, reconcile_id in tries}) == 4
    names = {
        "controller": "widgets", "controllerGroup": "runtime.example.com", "controllerKind": "Widget",
        "namespace": "team", "name": "a",
    }  # fmt: skip
    for line, (attempt, _, reconcile_id) in zip(stage.log.said("at work", "info"), tries, strict=True):
        assert line.items() >= (names | {"attempt": attempt, "reconcileID": reconcile_id}).items()


async def test_a_pass_that_swallows_its_cancellation_and_returns_was_not_over_in_time():
    returned = asyncio.Event()

    async def reconcile(ctx, widget):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        returned.set()

    stage = Stage(declared(reconcile, timeout=timedelta(milliseconds=20)))
    stage.there("a")
    async with stage.working():
        await returned.wait()
        await stage.clock.settle()
        assert stage.counts.timeouts.value == 1
        assert stage.queue.failures(("team", "a")) == 1
        (line,) = stage.log.lines
        assert line["error"] == "the pass took longer than 0.02 s (its controller's timeout=) and was cancelled"


async def test_a_pass_whose_clean_up_fails_when_it_is_cancelled_has_timed_out_too():
    async def reconcile(ctx, widget):
        async def fail_at_the_end():
            try:
                await asyncio.Event().wait()
            finally:
                raise KeyError("size")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail_at_the_end(), name="part of the pass")

    stage = Stage(declared(reconcile, timeout=timedelta(milliseconds=20)))
    stage.there("a")
    async with stage.working():
        await until(lambda: stage.log.lines)
        assert stage.counts.timeouts.value == 1
        assert stage.log.lines[0]["error"] == "KeyError: 'size'"


@pytest.mark.parametrize(
    "error, text",
    [
        (TimeoutError(), "TimeoutError"),
        (KeyError("size"), "KeyError: 'size'"),
        (ValueError("the size is odd"), "the size is odd"),
        (TransientError("down"), "down"),
        (group(KeyError("size"), group(TransientError("down"), KeyError("size"))), "KeyError: 'size'; down"),
        (group(ValueError("it is odd"), TerminalError("mend it", reason="BadSize")), "it is odd; mend it"),
    ],
    ids=["empty", "one word", "of no class of ours", "of ours", "group", "group that parks"],
)
async def test_what_a_pass_has_failed_by_is_said_in_words_wherever_it_is_told(error, text):
    stage, _ = await failing(error, 600.0)
    assert {line["error"].replace("ValueError: ", "") for line in stage.log.lines} == {text}
    if len(stage.events) == 1:
        reason = "BadSize" if "mend it" in text else "RetryLimitExceeded"
        assert stage.events == [("a", "Warning", reason, text)]
        assert (stage.condition("a")["reason"], stage.condition("a")["message"]) == (reason, text)
    else:
        assert text == "down"


async def test_what_looks_like_a_credential_in_an_authors_error_is_neither_logged_nor_said_of_the_object():
    url = "postgresql://app:hunter2@db/app"  # pragma: allowlist secret
    stage, _ = await failing(TerminalError(f"{url} does not answer"), 60.0)
    ((_, _, _, note),) = stage.events
    assert note == stage.condition("a")["message"] == "postgresql://app:***@db/app does not answer"
    assert stage.log.said(note)
    assert not stage.log.said("hunter2")


async def test_an_authors_own_timeout_has_its_traceback_and_the_runtimes_has_none():
    async def reconcile(ctx, widget):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    stage = Stage(declared(reconcile))
    stage.there("a")
    async with stage.working():
        await until(lambda: stage.log.lines)
    assert "asyncio.timeout(0)" in stage.log.lines[0]["exception"]
    assert stage.counts.timeouts.value == 0


async def test_a_null_in_a_status_is_what_is_not_there_and_is_sent_once_at_most():
    kind, passes = Unstructured("runtime.example.com/v1", "Widget"), []

    async def reconcile(ctx, widget):
        passes.append(widget["metadata"]["name"])
        widget["status"] = {"parts": None, "more": {"one": 1, "none": None}}

    stage = Stage(declared(reconcile, kind))
    stage.there("a", kind=kind, status={"parts": 3})
    async with stage.working():
        for _ in range(3):
            stage.queue.add(("team", "a"))
            await stage.clock.settle()
    assert len(passes) >= 3
    assert stage.status("a", kind) == {"more": {"one": 1}}
    assert [request.method for request in stage.server.requests] == ["PATCH"]


async def test_a_clean_up_that_wants_to_be_called_again_keeps_its_finalizer_and_is_told_how_to():
    declaration = declared(nothing)

    @declaration.finalizer("example.com/parts")
    async def clean_up(ctx, widget):
        return Requeue(after=30)

    stage = Stage(declaration)
    members = {"finalizers": ["example.com/parts"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    stage.there("a", metadata=members)
    async with stage.working():
        await stage.clock.settle()
    assert stage.server.objects["widgets", "a"]["metadata"]["finalizers"] == ["example.com/parts"]
    (line,) = stage.log.said("the pass has failed")
    assert "must return None when all is done, not Requeue(after=30); to be called again it raises" in line["error"]


async def test_a_status_that_is_refused_is_told_also_where_the_pass_has_failed():
    async def reconcile(ctx, widget):
        stage.server.error = answered(Invalid, 422)
        raise ValueError("it is odd")

    stage = Stage(declared(reconcile))
    stage.there("a")
    async with stage.working():
        await stage.clock.settle()
    either, failed = stage.log.lines
    assert (either["msg"], either["error"]) == (
        "the status could not be written either", "update widgets team/a: 422 Invalid: no"
    )  # fmt: skip
    assert failed["error"] == "ValueError: it is odd"


async def test_one_key_is_held_to_its_interval_and_all_to_their_rate():
    began = []

    async def reconcile(ctx, widget):
        began.append((stage.clock.monotonic(), widget.name))

    stage = Stage(declared(reconcile), interval=60.0, rate=1.0, burst=2)
    stage.there("a", "b", "c", "d")
    async with stage.working():
        await stage.clock.elapse(10.0)
        assert began == [(0.0, "a"), (0.0, "b"), (1.0, "c"), (2.0, "d")]
        stage.changed("a", metadata={"generation": 2})
        await stage.clock.elapse(49.9)
        assert len(began) == 4
        await stage.clock.elapse(0.1)
        assert began[4:] == [(60.0, "a")]


async def test_each_object_is_looked_at_again_once_a_period_and_a_failed_one_when_its_retry_comes():
    began = {f"w-{number}": [] for number in range(20)}

    async def reconcile(ctx, widget):
        began[widget.name].append(stage.clock.monotonic())
        if widget.name == "w-0":
            raise ValueError("odd")

    stage = Stage(declared(reconcile, resync=timedelta(seconds=100)))
    stage.there(*began)
    async with stage.working():
        await stage.clock.elapse(101.0)
        assert all(len(times) in {2, 3} for name, times in began.items() if name != "w-0")  # the second round begins
        assert len({round(times[1]) for name, times in began.items() if name != "w-0"}) >= 10
        gaps = [after - before for before, after in itertools.pairwise(began["w-0"])]
        assert all(gap >= 5.0 * 2**number for number, gap in enumerate(gaps))


async def test_a_slow_retry_that_succeeds_ends_the_parking():
    script = [TerminalError("mend the size", reason="BadSize"), None]

    async def reconcile(ctx, widget):
        if (step := script.pop(0)) is not None:
            raise step

    stage = Stage(declared(reconcile))
    stage.there("a")
    async with stage.working():
        await stage.clock.elapse(479.0)
        assert stage.counts.parked.value == 1
        await stage.clock.elapse(241.0)
        assert script == []
        assert stage.counts.parked.value == 0
        assert stage.condition("a")["status"] == "False"

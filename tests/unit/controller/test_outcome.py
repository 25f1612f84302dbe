"""What the queue does after a pass, row by row of the contract; with a real API server and short delays."""

import asyncio
import contextlib
import copy
import json
from datetime import datetime, timedelta

import pytest
from kubernetes_asyncio.client import ApiException, CoreV1Api

from asyncctl.client.errors import (
    ApplyConflict,
    Conflict,
    Fenced,
    Forbidden,
    Invalid,
    ServerError,
    ServerTimeout,
    StatusError,
    Target,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from asyncctl.controller import controller as module
from asyncctl.controller.outcome import Failure, NotOwned, Requeue, TerminalError, TransientError, classify, retry_after
from asyncctl.controller.sources import generation_changed
from asyncctl.generate import crd
from asyncctl.objects import ConfigMap, Resource, Status, field
from asyncctl.objects.codec import DecodeError
from asyncctl.operator import Operator
from tests.unit.harness import WIDGETS, Widget, working
from tests.unit.support import until

TARGET = Target("update", "widgets", "team", "a")


def answered(kind, code, **extra):
    return kind(TARGET, code, {"message": "no"}, **extra)


@pytest.mark.parametrize(
    "error, expected",
    [
        (answered(Conflict, 409), Failure.FAST),
        (answered(ApplyConflict, 409), Failure.COUNTED),
        (answered(Invalid, 422), Failure.COUNTED),
        (answered(Forbidden, 403), Failure.COUNTED),
        (answered(StatusError, 413), Failure.COUNTED),
        (answered(Unauthorized, 401), Failure.UNCOUNTED),
        (answered(TooManyRequests, 429), Failure.UNCOUNTED),
        (answered(ServerError, 500), Failure.UNCOUNTED),
        (answered(ServerTimeout, 504), Failure.UNCOUNTED),
        (TransportError("refused", sent=False), Failure.UNCOUNTED),
        (Fenced("lost"), Failure.UNCOUNTED),
        (TransientError("down"), Failure.UNCOUNTED),
        (TerminalError("wrong"), Failure.TERMINAL),
        (NotOwned("theirs"), Failure.COUNTED),
        (DecodeError("Widget", "team", "a", "spec", "bad"), Failure.COUNTED),
        (TimeoutError("long"), Failure.COUNTED),
        (ZeroDivisionError(), Failure.COUNTED),
    ],
)
def test_what_a_failure_means(error, expected):
    assert classify(error) is expected


def api_exception(code, reason="", headers=None):
    error = ApiException(status=code, reason=reason)
    error.body = json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "no"})
    error.headers = headers
    return error


@pytest.mark.parametrize(
    "error, expected",
    [
        (api_exception(409, "Conflict"), Failure.FAST),
        (api_exception(409, "AlreadyExists"), Failure.COUNTED),
        (api_exception(403, "Forbidden"), Failure.COUNTED),
        (api_exception(422, "Invalid"), Failure.COUNTED),
        (api_exception(401, "Unauthorized"), Failure.UNCOUNTED),
        (api_exception(429, "TooManyRequests"), Failure.UNCOUNTED),
        (api_exception(500, "InternalError"), Failure.UNCOUNTED),
        (api_exception(503), Failure.UNCOUNTED),
        (ApiException(status=504, reason="Gateway Timeout"), Failure.UNCOUNTED),
        (ApiException(status=409, reason="Conflict"), Failure.FAST),
        (ApiException(status=0, reason="no request could be made"), Failure.COUNTED),
    ],
)
def test_an_api_exception_means_what_our_error_of_that_status_means(error, expected):
    assert classify(error) is expected


def test_an_api_exception_keeps_its_retry_after():
    assert retry_after(api_exception(429, "TooManyRequests", {"Retry-After": "7"})) == 7.0


def test_retry_after_is_what_the_server_said_and_nothing_that_looks_like_it():
    assert retry_after(answered(TooManyRequests, 429, retry_after=7.0)) == 7.0
    other = ValueError()
    other.retry_after = "Wed, 21 Oct"
    assert retry_after(other) == 0.0


@pytest.mark.parametrize("reason", ["two words", "", "é", "x" * 200, "trailing-"])
def test_a_terminal_error_needs_a_reason_that_the_api_server_takes(reason):
    with pytest.raises(ValueError, match="one CamelCase word"):
        TerminalError("wrong", reason=reason)


class Passes(list):
    """A reconcile that follows a script, then returns None; has the size that each pass saw."""

    def __init__(self, *script):
        self.script = list(script)

    async def reconcile(self, ctx, widget):
        self.append(widget.spec.size)
        self.ctx = ctx
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        return await step(ctx, widget) if callable(step) else step


def declare(passes, **options):
    operator = Operator("test")
    return operator, operator.controller(Widget, **options)(passes)


@pytest.fixture
async def begun(cluster):
    """Begin with a Widget `a` that follows a script."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def begin(*script, **settings):
            passes = Passes(*script)
            operator, _ = declare(passes)
            await cluster.create(Widget, "a")
            running = await stack.enter_async_context(working(operator, cluster, **settings))
            await until(lambda: passes)
            return running, passes

        yield begin


def queue_of(running):
    return running._controllers[0].queue


KEY_NAME = "a"


async def test_none_forgets_and_leaves_nothing_in_the_queue(begun, cluster):
    running, passes = await begun(ValueError("once"), None)
    await until(lambda: len(passes) == 2)
    queue = queue_of(running)
    await until(lambda: not queue.statistics().processing)
    assert queue.failures((cluster.namespace, "a")) == 0
    assert sum(queue.statistics()[:5]) == 0


@pytest.mark.parametrize("after", [timedelta(seconds=500), 500.0])
async def test_requeue_adds_after_its_time_give_or_take_a_tenth(begun, cluster, after):
    running, _ = await begun(Requeue(after=after))
    queue = queue_of(running)
    await until(lambda: queue.statistics().delayed == 1)
    assert 440 < queue._delayed[cluster.namespace, "a"][0] - running.clock.monotonic() < 550


async def test_requeue_of_nothing_runs_again_at_once(begun):
    _, passes = await begun(Requeue(after=0), Requeue(after=0))
    await until(lambda: len(passes) == 3)


async def test_what_is_returned_and_no_requeue_is_an_error_that_says_so(begun):
    running, passes = await begun(timedelta(seconds=5))
    await until(lambda: len(passes) == 2)
    assert running.log.said("reconcile must return None or a Requeue, not datetime.timedelta(seconds=5)")


async def test_an_api_exception_of_a_pass_is_told_as_an_error_of_ours_and_is_no_bug(begun, cluster):
    async def read(ctx, widget):
        api = await ctx.kubernetes_asyncio()
        await CoreV1Api(api).read_namespaced_config_map("gone", cluster.namespace)

    running, passes = await begun(read)
    await until(lambda: len(passes) == 2)
    (line,) = running.log.said("the pass has failed")
    assert line["error"].startswith(f"get configmaps {cluster.namespace}/gone: 404 NotFound: ")
    assert "exception" not in line
    assert running._controllers[0]._metrics.panics.value == 0


async def test_a_conflict_by_kubernetes_asyncio_is_retried_fast_and_not_told_as_a_failure(begun, cluster):
    async def write(ctx, widget):
        async with ctx.kubernetes_asyncio() as api:
            stale = {"metadata": {"name": "c", "resourceVersion": "1"}}
            await CoreV1Api(api).replace_namespaced_config_map("c", cluster.namespace, stale)

    await cluster.create(ConfigMap, "c")
    running, passes = await begun(write, retry_base=1000.0, retry_max=1000.0)
    await until(lambda: len(passes) == 2)
    assert running.log.said("somebody else wrote the object first", "debug")


async def test_what_a_pass_leaves_open_ends_with_it(begun, cluster):
    left = []

    async def watch(ctx, widget):
        api = await ctx.kubernetes_asyncio()
        core = CoreV1Api(api)
        left.append(await core.list_namespaced_config_map(cluster.namespace, watch=True, _preload_content=False))

    _, _ = await begun(watch)
    await until(lambda: left and left[0].closed)


async def test_a_warning_of_the_server_names_the_controller(begun, cluster):
    async def write(ctx, widget):
        async with ctx.kubernetes_asyncio() as api:
            await CoreV1Api(api).create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "c"}, "dta": {}})

    running, _ = await begun(write)
    await until(lambda: running.log.said("the API server warns"))
    (line,) = running.log.said("the API server warns")
    assert (line["warning"], line["controller"]) == ('unknown field "dta"', running._controllers[0].declaration.name)


async def test_a_failure_is_retried_until_the_limit_and_then_parked(begun, cluster):
    running, passes = await begun(*[ValueError("the size is odd")] * 3, ValueError("still"), retry_limit=3)
    await cluster.until(Widget, "a", lambda widget: "Stalled" in widget.status.conditions)
    await until(lambda: queue_of(running).statistics().delayed)
    stalled = (await cluster.get(Widget, "a")).status.conditions.get("Stalled")
    assert (stalled.status, stalled.reason, stalled.message) == ("True", "RetryLimitExceeded", "the size is odd")
    assert len(passes) == 3
    wait = queue_of(running)._delayed[cluster.namespace, "a"][0] - running.clock.monotonic()
    assert 470 < wait < 720
    await until(lambda: running.log.said("parked until the object changes", "error"))
    assert len([line for line in running.log.said("ValueError") if "Traceback" in line.get("exception", "")]) <= 1


async def test_a_parked_object_that_changes_has_all_its_tries_again(begun, cluster):
    running, passes = await begun(*[ValueError("odd")] * 2, *[ValueError("still odd")] * 2, retry_limit=2)
    await cluster.until(Widget, "a", lambda widget: "Stalled" in widget.status.conditions)
    await cluster.patch(Widget, "a", {"spec": {"size": 2}})
    await until(lambda: len(passes) == 4)
    assert passes[2:] == [2, 2]
    await cluster.patch(Widget, "a", {"spec": {"size": 4}})
    found = await cluster.until(Widget, "a", lambda widget: widget.status.conditions.get("Stalled").status == "False")
    assert found.status.conditions.get("Stalled").reason == "Reconciled"
    await until(lambda: not running._controllers[0].parking)


async def test_a_parked_object_says_so_in_one_event(begun, cluster):
    running, _ = await begun(*[TerminalError("mend the size", reason="BadSize")] * 3)
    await cluster.until(Widget, "a", lambda widget: "Stalled" in widget.status.conditions)
    key = cluster.namespace, "a"
    for _ in range(2):
        await until(lambda: queue_of(running).statistics().delayed)
        queue_of(running).add(key)
        await until(lambda: not queue_of(running).statistics().delayed)
    assert await cluster.until_said("a") == [("BadSize", "mend the size")]


async def test_an_author_who_says_stalled_itself_has_its_event_too(begun, cluster):
    async def fail(ctx, widget):
        widget.status.conditions.set("Stalled", True, "BadSize", "mend the size")
        raise TerminalError("mend the size", reason="BadSize")

    await begun(fail)
    assert await cluster.until_said("a") == [("BadSize", "mend the size")]


class LampStatus(Status):
    phase: str | None = None

    def summarize(self):
        stalled = self.conditions.get("Stalled")
        self.phase = "Failed" if stalled is not None and stalled.status == "True" else "Fine"


class Lamp(Resource, group="runtime.example.com", version="v1"):
    status: LampStatus = field(default_factory=LampStatus)


LAMPS = crd(Lamp)  # at import: it reads the source for its docstrings


async def test_what_follows_from_the_conditions_follows_when_the_runtime_has_set_its_own(cluster):
    operator, errors = Operator("test"), [RuntimeError("odd"), RuntimeError("odd")]

    @operator.controller(Lamp)
    async def reconcile(ctx, lamp):
        if errors:
            raise errors.pop()

    await cluster.define(LAMPS)
    await cluster.create(Lamp, "a")
    async with working(operator, cluster, retry_limit=2):
        await cluster.until(Lamp, "a", lambda lamp: lamp.status.phase == "Failed")
        await cluster.patch(Lamp, "a", {"metadata": {"labels": {"a": "b"}}})
        await cluster.until(Lamp, "a", lambda lamp: lamp.status.phase == "Fine")


async def test_a_terminal_error_parks_at_once(begun, cluster):
    running, passes = await begun(TerminalError("mend the size", reason="BadSize"))
    widget = await cluster.until(Widget, "a", lambda widget: "Stalled" in widget.status.conditions)
    stalled = widget.status.conditions.get("Stalled")
    assert (stalled.reason, stalled.message, stalled.observed_generation) == ("BadSize", "mend the size", 1)
    assert len(passes) == 1
    assert queue_of(running).statistics().delayed == 1


async def test_an_outage_parks_nothing_however_long(begun, cluster):
    outage = [TransientError("the database is down"), TransportError("refused", sent=False), Fenced("lost")] * 4
    running, passes = await begun(*outage, retry_limit=2)
    await until(lambda: len(passes) == 13)
    assert not running._controllers[0].parking
    assert "Stalled" not in (await cluster.get(Widget, "a")).status.conditions
    assert not running.log.said("Traceback")


async def test_a_conflict_is_retried_fast_and_then_counts(begun, cluster):
    running, passes = await begun(*[answered(Conflict, 409)] * 9, retry_limit=3)
    await cluster.until(Widget, "a", lambda widget: "Stalled" in widget.status.conditions)
    assert len(passes) == 5 + 3
    assert running.log.said("somebody else wrote the object first", "warning")


async def test_a_pass_that_takes_too_long_is_cancelled_and_counted(begun, cluster):
    cancelled = []

    async def forever(ctx, widget):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # clean-up may wait
            cancelled.append(1)
            raise

    running, passes = await begun(forever, reconcile_timeout=0.05)
    await until(lambda: len(passes) == 2)
    assert cancelled == [1]
    assert running.log.said("the pass took longer than 0.05 s (ASYNCCTL_RECONCILE_TIMEOUT)")


async def test_an_authors_own_timeout_is_told_as_it_is(begun):
    running, passes = await begun(TimeoutError("the printer is slow"))
    await until(lambda: len(passes) == 2)
    assert running.log.said("the printer is slow")
    assert not running.log.said("ASYNCCTL_RECONCILE_TIMEOUT")


async def cancel_something(ctx, widget):
    inner = asyncio.create_task(asyncio.sleep(3600), name="inner")
    inner.cancel()
    await inner


async def cancel_itself(ctx, widget):
    asyncio.current_task().cancel()
    await asyncio.sleep(3600)


async def cancel_itself_and_go_on(ctx, widget):
    asyncio.current_task().cancel()


async def cancel_itself_and_swallow_it(ctx, widget):
    asyncio.current_task().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    raise ValueError("after that")


class Weird(BaseException):
    """What no `except Exception` catches."""


async def put_what_json_can_not(ctx, widget):
    widget.status.note = object()


async def put_a_bad_time(ctx, widget):
    widget.status.note = datetime(2026, 1, 1)  # noqa: DTZ001 - that is what is wrong with it


class Odd(Exception):
    """With attributes that the runtime has a meaning for, and other contents."""

    reason = OSError("no word")
    retry_after = "soon"


class Mute(Exception):
    """Whose text can't be made."""

    def __str__(self):
        raise self


@pytest.mark.parametrize(
    "step",
    [
        cancel_something, cancel_itself, cancel_itself_and_swallow_it, put_what_json_can_not,
        put_a_bad_time, Odd("odd"), Mute(), ExceptionGroup("two", [ValueError(), Odd()]), SystemExit(3), Weird(),
    ],
    ids=[
        "cancelled", "own task cancelled", "own cancellation swallowed", "unencodable",
        "naive time", "odd attributes", "no text", "group", "exit", "no Exception",
    ],
)  # fmt: skip
async def test_nothing_an_author_does_ends_a_worker(begun, cluster, step):
    running, passes = await begun(*[step] * 3, workers=1, retry_limit=3)
    await until(lambda: len(passes) == 3)
    await until(lambda: running._controllers[0].parking)
    await cluster.create(Widget, "b")
    await until(lambda: len(passes) == 4)
    assert len(await cluster.until_said("a")) == 1


async def test_a_pass_that_cancels_its_task_as_its_last_act_costs_the_next_one_nothing(begun, cluster):
    _, passes = await begun(cancel_itself_and_go_on, workers=1)
    await cluster.create(Widget, "b")
    await until(lambda: len(passes) == 2)


async def test_a_pass_whose_timer_cancels_the_worker_later_costs_the_next_one_nothing(begun, cluster):
    async def set_a_timer(ctx, widget):
        loop, worker = asyncio.get_running_loop(), asyncio.current_task()
        loop.call_later(0.05, lambda: (worker.cancel(), fired.set()))

    fired = asyncio.Event()
    _, passes = await begun(set_a_timer, workers=1)
    await fired.wait()
    await cluster.create(Widget, "b")
    await until(lambda: len(passes) >= 2)


async def test_a_worker_that_is_cancelled_while_the_status_is_written_goes_on_and_writes_it(begun, cluster):
    async def cancel_in_the_next_step(ctx, widget):
        widget.status.note = "said"
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)

    async def say_it_again(ctx, widget):
        widget.status.note = "said"

    _, passes = await begun(cancel_in_the_next_step, say_it_again, workers=1)
    await until(lambda: len(passes) >= 2)
    await cluster.until(Widget, "a", lambda widget: widget.status.note == "said")
    await cluster.create(Widget, "b")
    await until(lambda: len(passes) >= 3)


@pytest.mark.parametrize("limit", [2, 3])
async def test_a_first_conflict_is_no_failure_that_counts(begun, limit):
    running, passes = await begun(*[ValueError("no")] * (limit - 1), answered(Conflict, 409), retry_limit=limit)
    await until(lambda: len(passes) == limit + 1)
    await until(lambda: queue_of(running).statistics().retrying == 0)
    assert not running._controllers[0].parking


async def test_a_status_that_the_server_does_not_serve_is_told(cluster):
    """The CRD in the cluster has no status subresource, though the class has a status."""
    definition = copy.deepcopy(WIDGETS)
    definition["metadata"]["name"] = "plains.plain.example.com"
    definition["spec"] |= {
        "group": "plain.example.com",
        "names": {"plural": "plains", "singular": "plain", "kind": "Plain", "listKind": "PlainList"},
    }
    del definition["spec"]["versions"][0]["subresources"]
    await cluster.define(definition)

    class Plain(Widget, group="plain.example.com", version="v1"):
        pass

    async def reconcile(ctx, plain):
        plain.status.parts = 1

    operator = Operator("plain")
    operator.controller(Plain)(reconcile)
    async with working(operator, cluster) as running:
        await cluster.create(Plain, "p")
        await until(lambda: running.log.said("parked", "error"))
        assert running.log.said("declare `subresources: {status: {}}` in its CRD")


async def test_a_pass_that_swallows_its_cancellation_does_not_hold_up_the_stop(cluster, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP", 0.1)
    held = asyncio.Event()

    async def never(ctx, widget):
        while not held.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await held.wait()

    operator, _ = declare(passes := Passes(never))
    await cluster.create(Widget, "a")
    async with working(operator, cluster, drain_timeout=0.1) as stuck:
        await until(lambda: passes)
    (left,) = stuck.left
    assert left.startswith("pass of ")
    assert left.endswith("/a")
    assert stuck.log.said("a pass does not end, though it was cancelled")
    held.set()
    await until(lambda: not stuck.left)


async def test_an_object_that_can_not_be_decoded_is_parked_with_the_reason_and_others_go_on(begun, cluster):
    """The class was changed, the objects in the cluster were not."""
    await begun()

    class Spec(type(Widget().spec)):
        size: str = ""

    class Stricter(Widget, group="runtime.example.com", version="v1", kind="Widget", plural="widgets"):
        spec: Spec

    stricter = Passes()
    operator = Operator("other")
    operator.controller(Stricter)(stricter)
    async with working(operator, cluster, retry_limit=2) as other:
        await until(lambda: other.log.said("parked", "error"))
        assert other.log.said("spec.size: expected str, got int 1")
        assert [reason for reason, _ in await cluster.until_said("a")] == ["RetryLimitExceeded"]


@pytest.mark.parametrize(
    "refusal, said",
    [(None, None), (TerminalError("correct it", reason="Unreadable"), "correct it")],
    ids=["goes", "refused"],
)
async def test_an_object_that_can_not_be_decoded_is_cleaned_up_as_a_dict(cluster, refusal, said):
    class Spec(type(Widget().spec)):
        size: str = ""

    class Stricter(Widget, group="runtime.example.com", version="v1", kind="Widget", plural="widgets"):
        spec: Spec

    cleaned = []
    operator = Operator("test")

    @operator.controller(Stricter)
    async def reconcile(ctx, widget):
        raise AssertionError("it can't be decoded")

    @reconcile.finalizer("example.com/test")
    async def clean_up(ctx, widget):
        cleaned.append(widget["spec"]["size"])
        if refusal:
            raise refusal

    await cluster.create(Widget, "a")
    await cluster.patch(Widget, "a", {"metadata": {"finalizers": ["example.com/test"]}})
    await cluster.delete(Widget, "a")
    async with working(operator, cluster):
        if refusal:
            assert await cluster.until_said("a") == [("Unreadable", said)]
        else:
            await cluster.until_gone(Widget, "a")
    assert cleaned == [1]


async def test_reconcile_at_asks_for_a_pass_whatever_the_author_waits_for(cluster):
    operator, _ = declare(passes := Passes(), when=generation_changed)
    await cluster.create(Widget, "a")
    async with working(operator, cluster):
        await until(lambda: len(passes) == 1)
        await cluster.patch(Widget, "a", {"metadata": {"annotations": {"asyncctl/reconcile-at": "now"}}})
        await until(lambda: len(passes) == 2)


async def test_its_own_finalizer_does_not_cut_the_first_delay_short(cluster):
    operator, declared = declare(passes := Passes(ValueError("no")))

    @declared.finalizer("example.com/test")
    async def clean_up(ctx, widget): ...

    async with working(operator, cluster, retry_base=0.5, retry_max=0.5) as running:
        began = running.clock.monotonic()
        await cluster.create(Widget, "a")
        await until(lambda: len(passes) == 2)
        assert running.clock.monotonic() - began >= 0.5


async def test_an_apply_conflict_is_retried_slowly_and_says_whose_field_it_is(begun, cluster):
    async def write(ctx, widget):
        await ctx.client.apply(ConfigMap(name="shared", namespace=cluster.namespace, data={"size": "ours"}))

    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"size": "theirs"}}
    path = f"/api/v1/namespaces/{cluster.namespace}/configmaps/shared?fieldManager=kubectl"
    await cluster.send("PATCH", path, theirs, content_type="application/apply-patch+yaml")
    running, passes = await begun(write, retry_base=5.0, retry_max=60.0)
    await until(lambda: queue_of(running).statistics().delayed)
    key = (cluster.namespace, "a")
    assert 4.5 < queue_of(running)._delayed[key][0] - running.clock.monotonic() <= 6.25
    assert queue_of(running).failures(key) == 1
    assert len(passes) == 1
    (line,) = running.log.said("the pass has failed", "warning")
    assert "kubectl" in line["error"]
    assert ".data.size" in line["error"]

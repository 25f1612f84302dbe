"""From a change to a key: what an author's predicates and mappers raise costs no event and no watch."""

import asyncio

import pytest

from asyncctl.controller.sources import Predicate, Watch, of_object
from asyncctl.controller.sweep import LOW
from asyncctl.objects import ConfigMap
from tests.unit.controller.stage import Stage, declared
from tests.unit.harness import Widget


async def nothing(ctx, widget): ...


def watching(mapper, **options):
    return Stage(declared(nothing, watches=[Watch(ConfigMap, to=mapper)], **options))


def waiting(stage):
    return {key[1]: priority for key, priority in stage.queue._queued.items()}


async def drained(stage):
    for _ in range(len(stage.queue)):
        stage.queue.done(await stage.queue.get())


async def test_the_object_on_which_a_predicate_fails_is_enqueued_and_the_log_names_it():
    def fails(old, new):
        raise ZeroDivisionError("no size")

    stage = Stage(declared(nothing, when=Predicate(fails)))
    stage.there("a")
    await drained(stage)
    stage.changed("a", spec={"size": 2})
    assert waiting(stage) == {"a": 0}
    (line,) = stage.log.said("an author's function has failed", "error")
    assert (line["controller"], line["namespace"], line["name"]) == ("widgets", "team", "a")
    assert line["kind"] == "runtime.example.com/v1 Widget"
    assert line["error"] == "ZeroDivisionError: no size"
    assert line["exception"].endswith("ZeroDivisionError: no size")
    assert stage.counts.panics.value == 1
    stage.queue.close()


async def test_a_cancellation_that_an_authors_function_raises_is_an_error_like_any_other():
    """Such as that of a task whose result it asks for."""

    def fails(*_):
        raise asyncio.CancelledError

    stage = watching(fails, when=Predicate(fails))
    stage.there("a")
    await drained(stage)
    stage.changed("a", spec={"size": 2})
    assert waiting(stage) == {"a": 0}
    stage.there("config", kind=ConfigMap)
    assert stage.counts.panics.value == 2
    stage.queue.close()


def by_data(header):
    """Fails on the state of the object that has the label `broken`, after a first key."""
    yield "team", header.labels["to"]
    if "broken" in header.labels:
        raise KeyError("data")
    yield "team", "last"


async def test_whom_the_half_that_worked_has_named_is_enqueued_and_all_others_are_looked_at_again():
    stage = watching(by_data)
    stage.there("a", "b", "c", "old", "new", "last")
    async with stage.working():
        await stage.clock.settle()
        stage.there("config", kind=ConfigMap, metadata={"labels": {"to": "old", "broken": ""}})
        assert waiting(stage) == {"old": LOW}
        await stage.clock.settle()
        stage.changed("config", kind=ConfigMap, metadata={"labels": {"to": "new"}})
        assert waiting(stage) == {"old": 0, "new": 0, "last": 0}
        passes = stage.counts.reconcile_time.counts
        await stage.clock.settle()
        before = sum(passes)
        await stage.clock.elapse(10.1)
        assert sum(passes) - before == 6
        assert stage.counts.panics.value == 2
        await stage.clock.elapse(600.0)
        assert sum(passes) - before == 6


async def test_whom_an_object_named_before_is_enqueued_when_it_can_not_be_read_any_more():
    stage = watching(of_object(lambda config: [("team", config.data["to"])]))
    stage.changed("config", kind=ConfigMap, data={"to": "old"})
    assert waiting(stage) == {"old": 0}
    await drained(stage)
    stage.changed("config", kind=ConfigMap, data={})
    stage.changed("other", kind=ConfigMap, data=7)
    assert waiting(stage) == {"old": 0}
    first, second = stage.log.said("an author's function has failed", "error")
    assert first["error"] == "KeyError: 'to'"
    assert second["error"].startswith("DecodeError: ConfigMap team/other: data: expected ")
    assert stage.controller._sweep._asked.is_set()
    await drained(stage)
    stage.changed("config", kind=ConfigMap, data={"to": "new"})
    assert waiting(stage) == {"old": 0, "new": 0}
    stage.queue.close()


@pytest.mark.parametrize(
    "mapper, said",
    [
        (lambda header: None, "TypeError: 'NoneType' object is not iterable"),
        (lambda header: ["a"], "TypeError: a mapper returns (namespace, name) pairs, not 'a'"),
        (lambda header: [["team", "a"]], "TypeError: a mapper returns (namespace, name) pairs, not ['team', 'a']"),
        (lambda header: [("team", None)], "TypeError: a mapper returns (namespace, name) pairs, not ('team', None)"),
    ],
)
def test_a_mapper_that_returns_no_keys_is_told_so(mapper, said):
    stage = watching(mapper)
    stage.there("config", kind=ConfigMap)
    assert not waiting(stage)
    (line,) = stage.log.said("an author's function has failed", "error")
    assert line["error"] == said
    assert line["kind"] == "v1 ConfigMap"
    assert stage.controller._sweep._asked.is_set()


def test_a_function_that_always_fails_has_a_line_a_second_and_one_traceback():
    def fails(header):
        raise ValueError(header.name)

    stage = watching(fails)
    for number in range(100):
        stage.changed(f"config-{number}", kind=ConfigMap)
        stage.clock.advance(0.1)
    lines = stage.log.said("an author's function has failed", "error")
    assert 9 <= len(lines) <= 11
    assert sum("exception" in line for line in lines) == 1
    assert 89 <= sum(line["failures"] for line in lines) <= 100
    assert stage.counts.panics.value == 100


def test_two_places_that_fail_have_a_line_and_a_traceback_each():
    def fails(header):
        if header.name == "one":
            raise ValueError(header.name)
        raise ValueError(header.name)

    stage = watching(fails)
    stage.changed("one", kind=ConfigMap)
    stage.changed("two", kind=ConfigMap)
    assert [line["name"] for line in stage.log.said("Traceback")] == ["one", "two"]


async def test_the_first_list_comes_with_low_priority_and_a_change_overtakes_it():
    stage = Stage(declared(nothing))
    stage.there("a", "b", "c")
    stage.changed("c", spec={"size": 2}, metadata={"generation": 2})
    assert waiting(stage) == {"a": LOW, "b": LOW, "c": 0}
    assert await stage.queue.get() == ("team", "c")
    stage.queue.close()


async def test_what_is_deleted_is_neither_tried_again_nor_parked():
    stage = Stage(declared(nothing))
    stage.there("a")
    key = await stage.queue.get()
    stage.queue.retry(key)
    stage.queue.done(key)
    stage.controller.parking.enter(key)
    stage.there(kind=Widget)
    assert stage.queue.statistics()[:5] == (0, 0, 0, 0, 0)
    assert key not in stage.controller.parking
    assert stage.counts.parked.value == 0


async def test_a_paused_object_is_skipped_and_counted_until_it_goes_on_or_goes():
    seen = []

    async def reconcile(ctx, widget):
        seen.append(widget.name)

    stage = Stage(declared(reconcile))
    paused = {"annotations": {"asyncctl/paused": "true"}}
    stage.there("a", "b", metadata=paused)
    stage.changed("c")
    async with stage.working():
        await stage.clock.settle()
        assert seen == ["c"]
        assert stage.counts.paused.value == 2
        stage.changed("a")
        await stage.clock.settle()
        assert seen == ["c", "a"]
        assert stage.counts.paused.value == 1
        stage.there("c")
        assert stage.counts.paused.value == 0

"""What authors add to `/readyz`: seen by name, bounded in time, and never waited for by who asks."""

import asyncio

import pytest

from asyncctl.operator import Operator, readiness
from asyncctl.operator.readiness import Ready
from asyncctl.testing.clock import FakeClock
from tests.unit.harness import working
from tests.unit.operator.test_running import probe
from tests.unit.support import until


async def asking(ready):
    """The check's task; cancel it."""
    return asyncio.create_task(ready.run())


async def test_a_plain_function_is_asked_for_each_probe():
    said = [None, "no connection", "", 1 / 1]
    ready = Ready(said.pop, clock=FakeClock())
    with pytest.raises(TypeError, match=r"has to return None or the reason why not, and not 1\.0"):
        ready()
    assert [ready(), ready(), ready()] == [None, "no connection", None]
    await ready.run()  # has nothing to do, and ends


async def test_a_plain_function_that_gives_a_coroutine_is_told_of():
    async def check():
        return None

    with pytest.raises(TypeError, match="give the coroutine function itself, not one that calls it"):
        Ready(lambda: check(), clock=FakeClock())()  # noqa: PLW0108 - as a hurried author writes it


async def test_a_coroutine_function_is_asked_every_five_seconds_however_often_it_is_probed():
    clock, asked, answers = FakeClock(), [], ["warming up", None, "gone"]

    async def check():
        asked.append(clock.monotonic())
        await asyncio.sleep(0)
        return answers[len(asked) - 1]

    ready = Ready(check, clock=clock)
    assert ready() == "it has not answered yet"
    task = await asking(ready)
    seen = []
    for _ in range(3):
        await clock.settle()
        seen += [ready(), ready(), ready()]
        await clock.elapse(5.0)
        if len(asked) == 3:
            task.cancel()
    assert seen == ["warming up"] * 3 + [None] * 3 + ["gone"] * 3
    assert asked == [1000.0, 1005.0, 1010.0]
    await asyncio.wait([task])


async def test_one_that_awaits_what_is_cancelled_fails_and_is_asked_again():
    clock, asked = FakeClock(), []

    async def check():
        asked.append(1)
        task = asyncio.create_task(asyncio.Event().wait(), name="of the author's own")
        task.cancel()
        await task

    ready = Ready(check, clock=clock)
    task = await asking(ready)
    await clock.elapse(5.0)
    assert len(asked) == 2
    assert ready() == "the check itself failed: it has awaited what was cancelled"
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_one_that_hangs_has_not_answered_and_is_cancelled(monkeypatch):
    monkeypatch.setattr(readiness, "DEADLINE", 0.01)
    cancelled = asyncio.Event()

    async def check():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    ready = Ready(check, clock=FakeClock())
    task = await asking(ready)
    await cancelled.wait()
    await until(lambda: ready() == "it has not answered within 0.01 s")
    task.cancel()
    await asyncio.wait([task])


async def test_one_that_raises_says_what():
    async def check():
        raise TimeoutError("of its own")

    clock = FakeClock()
    ready = Ready(check, clock=clock)
    task = await asking(ready)
    await clock.settle()
    assert ready() == "the check itself failed: TimeoutError: of its own"
    task.cancel()
    await asyncio.wait([task])


async def test_the_checks_of_an_operator_are_shown_by_name_and_decide(cluster):
    operator, mail = Operator("test"), ["down for the night"]

    async def database():
        return None

    operator.ready_check("mail-server", lambda: mail[0])
    operator.ready_check("database", database)
    async with working(operator, cluster) as running:
        await until(lambda: running._checks["database"]() is None)
        code, text = await probe(running, "/readyz")
        assert code == 500
        assert "[-]mail-server failed: down for the night" in text
        assert "[+]database ok" in text
        mail[0] = None
        assert await probe(running, "/readyz") == (200, "ok")
        assert (await probe(running, "/livez"))[0] == 200


@pytest.mark.parametrize("name", ["", " ", "ping", "startup", "leader-election", "caught-up", "cache-widgets"])
def test_a_name_of_the_runtimes_own_is_refused(name):
    with pytest.raises(ValueError, match="can't be called"):
        Operator("test").ready_check(name, lambda: None)


def test_two_checks_of_one_name_are_refused():
    operator = Operator("test")
    operator.ready_check("mail", lambda: None)
    with pytest.raises(ValueError, match="has a ready check 'mail' already"):
        operator.ready_check("mail", lambda: None)

"""Says which code blocks the event loop, while it does.

A loop that is blocked can't say so itself: a thread asks it each quarter of a second for a sign of life. Where that is
more than a second late, the thread logs once what the loop's thread is doing, in which pass; and how long it took,
when it is over. Nothing is done about it here: what follows (the Lease, `/livez`) is others' business.
"""

import asyncio
import contextlib
import inspect
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

import anyio

from asyncctl.clock import Clock
from asyncctl.controller.controller import Controller
from asyncctl.observe.logs import Logger

LIMIT = 1.0  # seconds without a sign of life, after which the loop is blocked
_EVERY = 0.25  # seconds between two signs of life
_SHOWN = 10  # passes that a line names
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Watchdog:
    """Watches the loop that `run` runs in.

    Args:
        controllers: Whose passes it may be that block it; asked from another thread.
        logger: Where to say it; used from another thread.
        clock: What durations are measured by; used from another thread.
    """

    def __init__(self, controllers: Sequence[Controller], *, logger: Logger, clock: Clock) -> None:
        self._controllers = controllers
        self._logger = logger
        self._clock = clock
        self._stop = threading.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; the thread has ended then."""
        loop = asyncio.get_running_loop()
        watched = threading.get_ident()
        thread = threading.Thread(target=self._work, args=(loop, watched), name="watchdog", daemon=True)
        thread.start()
        try:
            await anyio.sleep_forever()
        finally:
            self._stop.set()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
                await asyncio.to_thread(thread.join)  # it has said its last word, and may still be about to end

    def _work(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        with contextlib.suppress(
            RuntimeError
        ):  # the loop was closed, and our task never ended: nobody is left to watch
            self._watch(loop, thread)
            loop.call_soon_threadsafe(self._ended.set)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._stop.wait(_EVERY):
            asked, alive = self._clock.monotonic(), threading.Event()
            loop.call_soon_threadsafe(alive.set)
            # Twice: where the whole process was stopped, or the machine, the loop answers as soon as we can ask.
            if alive.wait(LIMIT) or alive.wait(LIMIT / 20):
                continue
            frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented under this name
            self._tell(loop, frame, self._clock.monotonic() - asked)
            alive.wait()
            seconds = round(self._clock.monotonic() - asked, 1)
            self._logger.warning("the event loop runs again", seconds=seconds)

    def _tell(self, loop: asyncio.AbstractEventLoop, frame: FrameType | None, seconds: float) -> None:
        task = asyncio.current_task(loop)
        self._logger.error(
            "the event loop is blocked, and everything waits; what takes long belongs into asyncio.to_thread",
            seconds=round(seconds, 1), task=task.get_name() if task is not None else "",
            coroutine=_coroutine(frame), passes=self._passes(task),
            stack="".join(traceback.format_stack(frame)).rstrip() if frame is not None else "",
        )  # fmt: skip

    def _passes(self, task: "asyncio.Task[Any] | None") -> list[str]:
        """The pass that this task runs; if it runs none, it may have been begun by any."""
        here = [(each, key) for each in self._controllers if task and (key := each.at_work(task)) is not None]
        found = here or [(each, key) for each in self._controllers for key in each.held]
        return [f"{each.declaration.name} {'/'.join(part for part in key if part)}" for each, key in found[:_SHOWN]]


def _coroutine(frame: FrameType | None) -> str:
    """The innermost coroutine, and where it is."""
    while frame is not None and not frame.f_code.co_flags & _COROUTINE:
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"

"""Passes that do not end: their timeout has cancelled them, and they have swallowed it.

Nobody can end such a pass but the process's end: `/livez` tells of it, and the Lease is renewed no more. Here it is
found, and logged once, with where it waits.
"""

import asyncio
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from asyncctl.cache.header import Key
from asyncctl.controller.controller import Controller
from asyncctl.observe.logs import Logger

WATCHDOG = 30.0  # seconds past its timeout, after which a pass is stuck


class Stuck:
    """Looks for stuck passes of `controllers`, which may be filled later."""

    def __init__(self, controllers: Sequence[Controller], logger: Logger) -> None:
        self._controllers = controllers
        self._logger = logger
        self._told: set[tuple[str, Key]] = set()

    def problem(self) -> str | None:
        """Which pass is stuck, or None; logs it when it is new."""
        found = {
            (controller.declaration.name, key): controller
            for controller in self._controllers
            for key in controller.overdue(WATCHDOG)
        }
        for (name, key), controller in found.items():
            if (name, key) not in self._told:
                self._logger.error(
                    "a pass does not end, though its timeout has cancelled it; it must not swallow CancelledError",
                    controller=name, namespace=key[0], name=key[1], stack=stack_of(controller.worker_of(key)),
                )  # fmt: skip
        self._told = set(found)
        for name, key in found:
            return f"controller {name}: the pass over {'/'.join(key)} does not end"
        return None


def stack_of(task: "asyncio.Task[Any] | None") -> str:
    """Where a task waits, as a traceback shows it; through all the coroutines that await each other."""
    frames = frames_of(task)
    return "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()).rstrip()


def frames_of(task: "asyncio.Task[Any] | None") -> list[FrameType]:
    """The frames of the coroutines that await each other in a task, outermost first."""
    frames: list[FrameType] = []
    waits: Any = task.get_coro() if task is not None else None
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return frames

"""What the debug pages of an operator show: tasks, queues, caches, the Lease, the settings.

Names, numbers and states, bounded in number; never what an object holds, and no secret of a setting. Tasks are looked
at in the event loop, a hundred at a time; all else is copied in single steps from a thread, as a scrape does.
"""

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from types import FrameType
from typing import Any

from asyncctl.cache.header import Key
from asyncctl.cache.informers import Informers
from asyncctl.client.errors import Fenced
from asyncctl.client.transport.transport import Fence as WriteFence
from asyncctl.controller.controller import Controller
from asyncctl.ha.elector import Elector
from asyncctl.http import Look
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import resource_type_of
from asyncctl.operator.stuck import frames_of
from asyncctl.settings import Settings

KEYS = 200  # of each set of a queue
TASKS = 2000
_BATCH = 100  # tasks that are looked at before others may run
_FRAMES = 30


class Debug:
    """Makes the looks; what is there is asked for when somebody looks.

    Args:
        settings: What the process was told.
        controllers: May be filled later.
        informers: Returns them, once there are any.
    """

    def __init__(
        self,
        settings: Settings,
        controllers: Sequence[Controller],
        informers: Callable[[], Informers | None],
    ) -> None:
        self._settings = settings
        self._controllers = controllers
        self._informers = informers
        self._campaign: tuple[tuple[str, str], Elector, WriteFence] | None = None

    def campaign(self, lease: tuple[str, str] | None, elector: Elector | None, fence: WriteFence) -> None:
        """From now on show this campaign, if there is one."""
        if lease is not None and elector is not None:
            self._campaign = lease, elector, fence

    def looks(self) -> dict[str, Look]:
        """By their names."""
        return {
            "tasks": Look("what runs, and where it waits", tasks, in_loop=True),
            "queue": Look(
                "of each controller, the keys that are worked on, wait, are tried later or set aside", self.queue
            ),
            "cache": Look("of each cache, how much is in it and whether it is current", self.cache),
            "leases": Look("who leads, and for how long this process may write", self.leases),
            "settings": Look("what is in force; secrets are not shown", self._settings.in_force),
        }

    def queue(self) -> JsonObject:
        """How it stands with each controller's keys."""
        return {each.declaration.name: _queue(each) for each in list(self._controllers)}

    def cache(self) -> list[JsonObject]:
        """How it stands with each cache."""
        return [
            {
                "kind": each.kind.resource,
                "selector": each.selector,
                "scopes": [scope._asdict() for scope in each.report()],
            }
            for each in self._informers() or ()
        ]

    def leases(self) -> list[JsonObject]:
        """The Lease, if there is one."""
        if self._campaign is None:
            return []
        (namespace, name), elector, fence = self._campaign
        left, why = 0.0, None
        try:
            left = fence()
        except Fenced as error:
            why = str(error)
        return [{
            "namespace": namespace, "name": name, "holderAsSeen": elector.holder,
            "identity": elector.identity, "leading": elector.leading,
            "mayWriteForSeconds": round(left, 3), "mayNotWriteBecause": why,
            "problem": elector.problem, "blocked": elector.blocked, "lost": elector.lost,
        }]  # fmt: skip


def _queue(controller: Controller) -> JsonObject:
    numbers, keys = controller.queue.statistics(), controller.queue.contents(KEYS)
    parked, paused = controller.parking.keys(), controller.paused.keys()
    return {
        "kind": resource_type_of(controller.declaration.kind).resource,
        "workers": controller.workers,
        "counts": {
            "processing": numbers.processing, "queued": numbers.queued, "delayed": numbers.delayed,
            "retrying": numbers.retrying, "parked": len(parked), "paused": len(paused),
        },
        "processing": [
            {"key": _name(key), "seconds": round(seconds, 3), "again": again}
            for key, seconds, again in keys.processing
        ],
        "queued": [
            {"key": _name(key), "waits": round(seconds, 3), "priority": priority}
            for key, seconds, priority in keys.queued
        ],
        "delayed": [
            {"key": _name(key), "in": round(seconds, 3), "priority": priority}
            for key, seconds, priority in keys.delayed
        ],
        "parked": _names(parked),
        "paused": _names(paused),
        "shown": f"at most {KEYS} of each",
    }  # fmt: skip


def _name(key: Key) -> str:
    return "/".join(part for part in key if part)


def _names(keys: Iterable[Key]) -> list[str]:
    return [_name(key) for key in islice(keys, KEYS)]


async def tasks() -> JsonObject:
    """Every task and thread, and where it is."""
    loop = asyncio.get_running_loop()
    found = asyncio.all_tasks(loop)
    shown = []
    for number, task in enumerate(islice(found, TASKS), 1):
        shown.append(_task(task))
        if number % _BATCH == 0:
            await asyncio.sleep(0)
    frames = sys._current_frames()  # noqa: SLF001 - documented under this name
    threads = [
        {"name": each.name, "daemon": each.daemon, "stack": _walk(frames.get(each.ident or 0))}
        for each in threading.enumerate()
    ]
    shown.sort(key=lambda task: str(task["name"]))
    return {"count": len(found), "tasks": shown, "threads": threads}


def _task(task: "asyncio.Task[Any]") -> JsonObject:
    coroutine = task.get_coro()
    state = "done" if task.done() else "being cancelled" if task.cancelling() else _state(coroutine)
    return {
        "name": task.get_name(),
        "coroutine": getattr(coroutine, "__qualname__", "") or type(coroutine).__qualname__,
        "state": state,
        "stack": [_place(frame) for frame in frames_of(task)[:_FRAMES]],
    }


def _state(coroutine: object) -> str:
    return "running" if inspect.iscoroutine(coroutine) and coroutine.cr_running else "waiting"


def _walk(frame: FrameType | None) -> list[str]:
    """Outermost first, as of a task."""
    stack: list[str] = []
    while frame is not None and len(stack) < _FRAMES:
        stack.append(_place(frame))
        frame = frame.f_back
    return stack[::-1]


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"

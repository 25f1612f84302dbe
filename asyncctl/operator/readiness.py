"""What an author adds to `/readyz`: a function that says why the program is not ready, or nothing.

A plain function is asked for each probe, and looks at what is there already. A coroutine function is asked every few
seconds in a task, under a deadline, and a probe is told what it said last: so the kubelet never waits for a database,
and nobody can make the program ask more often.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from asyncctl.clock import Clock
from asyncctl.controller.declaration import is_coroutine_function

ReadyCheck = Callable[[], str | None] | Callable[[], Awaitable[str | None]]
"""Returns None when all is well, else the reason in one line."""
EVERY = 5.0  # seconds between two questions to a coroutine function
DEADLINE = 5.0  # seconds that it may take
RESERVED = frozenset({"ping", "shutdown", "startup", "leader-election", "leader", "caught-up", "fence-at-the-server"})


class Ready:
    """One such check, as a probe (`asyncctl.http.Probe`). `run` keeps the answer of a coroutine function."""

    def __init__(self, function: ReadyCheck, *, clock: Clock) -> None:
        self._function = function
        self._clock = clock
        self._waits = is_coroutine_function(function)
        self._said: str | None = "it has not answered yet"

    def __call__(self) -> str | None:
        """Returns None, or why not; what a plain function raises is the caller's to tell."""
        return self._said if self._waits else _reason(self._function())

    async def run(self) -> None:
        """Ask until cancelled; ends at once for a plain function."""
        while self._waits:
            self._said = await self._ask()
            await self._clock.sleep(EVERY)

    async def _ask(self) -> str | None:
        scope = asyncio.timeout(DEADLINE)
        try:
            async with scope:
                answer = self._function()
                assert inspect.isawaitable(answer)
                return _reason(await answer)
        except asyncio.CancelledError:
            if cancellations():
                raise
            return "the check itself failed: it has awaited what was cancelled"
        except Exception as error:  # noqa: BLE001 - a check that is broken is a check that fails, and says so
            if scope.expired():
                return f"it has not answered within {DEADLINE:g} s"
            return f"the check itself failed: {type(error).__name__}: {error}"


def cancellations() -> int:
    """How often the cancellation of the current task was asked for; 0: a `CancelledError` in it is an author's own."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _reason(answer: object) -> str | None:
    if answer is None or isinstance(answer, str):
        return answer or None
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("it has returned a coroutine: give the coroutine function itself, not one that calls it")
    raise TypeError(f"it has to return None or the reason why not, and not {answer!r}")

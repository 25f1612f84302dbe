"""A stream that says nothing any more is given up."""

import asyncio
from types import TracebackType
from typing import Self

from asyncctl.clock import Clock


class Silence:
    """Raises `TimeoutError` in what it stands around when `heard_at` is `seconds` ago: `async with Silence(…)`.

    It has one timer, whatever comes: who hears something sets `heard_at`, and nothing else. Both may be changed inside;
    `seconds` takes effect when the time set before is over.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.seconds = seconds
        self.heard_at = clock.monotonic()
        self._clock = clock
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def _look(self) -> None:
        due = self.heard_at + self.seconds
        if self._clock.monotonic() < due:
            self._timer = self._clock.call_at(due, self._look)
        else:
            self._scope.reschedule(asyncio.get_running_loop().time())

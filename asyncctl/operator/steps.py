"""The steps of a stop, one after the other: each has its time, tells how long it took, and holds up no other."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar

import anyio

from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger

T = TypeVar("T")


class Steps:
    """Takes steps, and logs one line for each: `stopped: <name>`, with its `seconds`."""

    def __init__(self, *, clock: Clock, logger: Logger) -> None:
        self._clock = clock
        self._logger = logger
        self._began: float | None = None

    def begin(self) -> None:
        """The stop begins."""
        self._began = self._clock.monotonic()

    def end(self) -> None:
        """The stop is over, if it has begun."""
        if self._began is not None:
            self._logger.info("stopped", seconds=self._since(self._began))

    async def take(self, name: str, step: Callable[[], Awaitable[object]], *, within: float, late: str) -> bool:
        """Take a step; go on after `within` seconds, or when it fails. True when it was done in time.

        Args:
            name: What is stopped.
            step: Stops it.
            within: Seconds that it may take.
            late: What to say, as a warning, when it has taken them: which setting they are, and what follows.
        """
        began = self._clock.monotonic()
        try:
            with anyio.move_on_after(within) as limit:
                await step()
        except Exception:
            self._logger.exception("a step of the stop has failed; the others follow", step=name)
            return False
        if limit.cancelled_caught:
            self._logger.warning(late, step=name, seconds=self._since(began))
            return False
        self._say(name, began)
        return True

    def leaving(self, name: str, owner: AbstractAsyncContextManager[T]) -> "_Leaving[T]":
        """`owner`, whose exit is a step: `async with steps.leaving("transport", transport)`."""
        return _Leaving(owner, self._clock.monotonic, lambda began: self._say(name, began))

    def _say(self, name: str, began: float) -> None:
        if self._began is not None:
            text = f"stopped: {name}"  # for who looks for the step
            self._logger.info(text, seconds=self._since(began))

    def _since(self, began: float) -> float:
        return round(self._clock.monotonic() - began, 3)


class _Leaving(Generic[T]):
    """A context manager that says how long its exit took."""

    def __init__(
        self, owner: AbstractAsyncContextManager[T], now: Callable[[], float], say: Callable[[float], None]
    ) -> None:
        self._owner = owner
        self._now = now
        self._say = say

    async def __aenter__(self) -> T:
        return await self._owner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        began = self._now()
        try:
            return await self._owner.__aexit__(kind, error, trace)
        finally:  # also where it hands on the error that has ended all
            self._say(began)

"""What a program does once at its start and once at its end, in every replica."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio

from asyncctl.client.errors import Fenced
from asyncctl.observe.logs import Logger
from asyncctl.operator.readiness import cancellations

T = TypeVar("T")
SHUTDOWN = 5.0  # seconds for each shutdown hook


class Hooks(Generic[T]):
    """The hooks of one operator.

    Args:
        startup: In the order in which they were declared.
        shutdown: The same way.
        given: What each is called with.
        logger: Told of what a shutdown hook raises.

    Attributes:
        now: Which startup hook runs, as `/readyz` shows it.
    """

    def __init__(
        self,
        startup: Sequence[Callable[[T], Awaitable[None]]],
        shutdown: Sequence[Callable[[T], Awaitable[None]]],
        given: T,
        *,
        logger: Logger,
    ) -> None:
        self._startup = startup
        self._shutdown = shutdown
        self._given = given
        self._logger = logger
        self.now: str | None = None

    @property
    def patience(self) -> float:
        """Seconds that the shutdown hooks which have not run may take together."""
        return SHUTDOWN * len(self._shutdown)

    async def start(self) -> None:
        """Run the startup hooks. What one raises ends the start."""
        for hook in self._startup:
            self.now = f"the startup hook {name_of(hook)} is running"
            try:
                await hook(self._given)
            except Fenced as error:
                raise Fenced(
                    f"the startup hook {name_of(hook)} wants to write: it runs in every replica, before the Lease is "
                    "held, and may only read. Write in a background task, which runs while this process leads"
                ) from error
            except asyncio.CancelledError as error:
                if cancellations():
                    raise
                raise RuntimeError(f"the startup hook {name_of(hook)} has awaited what was cancelled") from error
        self.now = None

    async def stop(self) -> None:
        """Run the shutdown hooks, once; the last that was declared first, as what was opened is closed."""
        hooks, self._shutdown = self._shutdown, ()
        for hook in reversed(hooks):
            before = cancellations()
            try:
                with anyio.fail_after(SHUTDOWN):
                    await hook(self._given)
            except asyncio.CancelledError:  # as a hook raises it that awaits a task which it has cancelled
                if cancellations() > before:
                    raise
                self._logger.exception("a shutdown hook has failed", hook=name_of(hook))
            except Exception:
                self._logger.exception("a shutdown hook has failed", hook=name_of(hook))


def name_of(function: Callable[..., object]) -> str:
    """What to call an author's function in the log."""
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.rpartition("<locals>.")[2]

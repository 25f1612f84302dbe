"""Tasks beside the passes, which run only while this process leads.

Each is started when the Lease is held, started again with growing delay when it raises, and cancelled and awaited
before the Lease is given back. One that returns has ended. Plain tasks, as a controller's workers are: an anyio scope
would cancel one again at each await of its clean-up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from asyncctl.client.errors import KubernetesError
from asyncctl.clock import Clock
from asyncctl.controller.cancellation import GIVE_UP, take_back
from asyncctl.controller.faults import Place, place_of
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.queue.backoff import Backoff, Random, Restarts

T = TypeVar("T")
RESTART = Backoff(base=1.0, maximum=60.0)
QUIET = 120.0  # seconds after which a failure is the first one again
TRACED = 1000  # places whose traceback was logged, that are remembered


class Backgrounds(Generic[T]):
    """The tasks of one operator. Call `start` once, and `stop` at the end whether or not they were started.

    Args:
        functions: By their names.
        given: What each is called with.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[[T], Awaitable[object]]],
        given: T,
        *,
        clock: Clock,
        random: Random,
        logger: Logger,
        metrics: Metrics,
    ) -> None:
        self._functions = functions
        self._given = given
        self._clock = clock
        self._random = random
        self._logger = logger
        self._failures = {name: metrics.background(name) for name in functions}
        self._tasks: set[asyncio.Task[None]] = set()
        self._traced: set[Place] = set()
        self._ending = False

    @property
    def there(self) -> bool:
        """Whether there are any to run."""
        return bool(self._functions)

    @property
    def left(self) -> set[asyncio.Task[None]]:
        """Tasks that have not ended."""
        return {task for task in self._tasks if not task.done()}

    def start(self) -> None:
        """Start each as a task; nothing after `stop`."""
        if not self._ending:
            for name, function in self._functions.items():
                self._tasks.add(asyncio.create_task(self._run(name, function), name=f"background {name}"))

    def cancel(self) -> None:
        """Cancel each, once; and start none any more."""
        if not self._ending:
            self._ending = True
            for task in self._tasks:
                task.cancel()

    async def stop(self) -> None:
        """Cancel each, and wait until it has cleaned up; one that does not end in time is told of."""
        self.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GIVE_UP)
        for task in self.left:
            self._logger.error("a background task does not end, though it was cancelled", task=task.get_name())

    async def _run(self, name: str, function: Callable[[T], Awaitable[object]]) -> None:
        restarts = Restarts(RESTART, quiet=QUIET, clock=self._clock, random=self._random)
        while True:
            error = await self._once(function)
            if self._ending:
                return
            if error is None:
                self._logger.info("a background task has ended", task=name)
                return
            self._failures[name].inc()
            delay = restarts.next()
            trace = error if self._first_time(error) else None
            self._logger.error(
                "a background task has failed", task=name, error=str(error) or repr(error),
                restart_in=round(delay, 3), exc_info=trace,
            )  # fmt: skip
            await self._clock.sleep(delay)

    def _first_time(self, error: BaseException) -> bool:
        """Whether its traceback is worth a line: what a server has answered is understood without, the rest once."""
        place = place_of(error)
        if isinstance(error, KubernetesError) or place in self._traced or len(self._traced) >= TRACED:
            return False
        self._traced.add(place)
        return True

    async def _once(self, function: Callable[[T], Awaitable[object]]) -> BaseException | None:
        """Returns what it raised."""
        try:
            await function(self._given)
        except asyncio.CancelledError as error:
            if self._ending:
                raise
            task = asyncio.current_task()
            assert task is not None
            await take_back(task, lambda: self._ending)
            return error
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            return error
        return None

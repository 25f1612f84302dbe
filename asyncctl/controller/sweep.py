"""Every object is looked at again: once a period, and soon after a mapper has failed, when nobody knows whom it meant.

Both walk over the cache, ask the server nothing, and hand the keys over at low priority, evenly over their time: a
key's place in a round follows from the key, so that the first round, directly after the first list, is as flat as all
others, and no object waits longer than a period for its turn. Nothing is kept per object.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import NoReturn

from asyncctl.cache.header import Entry, Key
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger
from asyncctl.queue.backoff import Backoff, Random, Restarts, spread
from asyncctl.queue.work_queue import WorkQueue

LOW = -100  # the priority of first lists and sweeps, controller-runtime's LowPriority
_SLICES = 16  # of a round: the cache is read once for each, so that what came meanwhile has its turn
_STEPS = 1000  # of a round: how often at most it wakes, but not more than each second
_GULP = 1000  # entries that are read before other tasks have their turn
_LONGEST = 600.0  # seconds from a mapper's failure to the sweep, and for the sweep, at most


class Sweep:
    """Sweeps over the objects of one controller; `each_period` and `when_asked` run until cancelled.

    Args:
        entries: Gives the objects as of now.
        queue: Where their keys go.
        period: Seconds for a round, ±10 %.
        delay: Seconds from `ask` to the sweep that it asks for; doubles up to ten minutes while it is asked again and
            again, since a mapper that always fails must not become a storm. The sweep itself takes as long once more.
        clock: Time.
        random: Draws the length of each round; returns a float in [0, 1).
        logger: Where it is said why all objects have a pass.
    """

    def __init__(
        self, entries: Callable[[], Iterator[Entry]], queue: WorkQueue[Key], *,
        period: float, delay: float, clock: Clock, random: Random, logger: Logger,
    ) -> None:  # fmt: skip
        self._entries = entries
        self._queue = queue
        self._period = period
        self._clock = clock
        self._random = random
        self._logger = logger
        backoff = Backoff(base=delay, maximum=max(delay, _LONGEST), jitter=0.0)
        self._delays = Restarts(backoff, quiet=2 * _LONGEST, clock=clock, random=random)
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have all objects looked at again soon. While that is to come, asking again adds nothing."""
        self._asked.set()

    async def when_asked(self) -> NoReturn:
        """Sweep whenever that was asked for."""
        while True:
            await self._asked.wait()
            delay = self._delays.next()
            self._logger.warning("a mapper has failed: every object is looked at again", after=delay, during=delay)
            await self._clock.sleep(delay)
            self._asked.clear()  # from here on, what fails may be about an object that was passed already
            await self._round(delay, failing=True)

    async def each_period(self) -> NoReturn:
        """Sweep once in each period. What failed is left to its own retry, which may not come any sooner."""
        while True:
            await self._round(spread(self._period, 0.1, self._random), failing=False)

    async def _round(self, seconds: float, *, failing: bool) -> None:
        began = self._clock.monotonic()
        step = min(1.0, seconds / _STEPS)
        for number in range(_SLICES):
            for place, key in await self._slice(number):
                early = began + place * seconds - self._clock.monotonic()
                if early > 0:
                    await self._clock.sleep(max(early, step))
                if failing or not self._queue.attempts(key):
                    self._queue.add(key, priority=LOW)
            await self._clock.sleep(began + (number + 1) / _SLICES * seconds - self._clock.monotonic())

    async def _slice(self, number: int) -> list[tuple[float, Key]]:
        """The keys whose place in the round is in this slice, in order."""
        found: list[tuple[float, Key]] = []
        for count, entry in enumerate(self._entries(), start=1):
            key = entry.header.key
            place = hash(key) % (1 << 32) / (1 << 32)
            if number <= place * _SLICES < number + 1:
                found.append((place, key))
            if count % _GULP == 0:
                await asyncio.sleep(0)
        found.sort()
        return found

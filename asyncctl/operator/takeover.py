"""After the Lease is won: no pass begins before its caches have what the predecessor has written last.

All caches at once, each in a task of its own (`Informer.catch_up`). It has no deadline: while the API server is away
there is nothing to reconcile either. What keeps it is in the log once, and in `/readyz?verbose`; the Lease's loss ends
it with the workers.
"""

import asyncio
from collections.abc import Collection, Iterable

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from asyncctl.cache.informer import Informer
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger


class Takeover:
    """Waits for the caches of one operator, once.

    Attributes:
        caught_up: Set when those have caught up that were filled when the Lease was won.
    """

    def __init__(self, *, clock: Clock, logger: Logger) -> None:
        self._clock = clock
        self._logger = logger
        self._open: dict[Informer, asyncio.Event] = {}
        self.caught_up = asyncio.Event()

    async def run(
        self, informers: Collection[Informer], *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        """Have each of these catch up; returns when all have, those that have yet to be filled as well."""
        began = self._clock.monotonic()
        self._open = {informer: asyncio.Event() for informer in informers}
        filled = [informer for informer in informers if informer.synced]
        task_status.started()
        async with anyio.create_task_group() as tasks:
            for informer in informers:
                tasks.start_soon(self._catch_up, informer, name=f"catch up {informer.kind.resource}")
            await self.wait(filled)  # one whose CRD is missing, say, is waited for by its own controllers alone
            self._logger.info("caught up", caches=len(filled), seconds=round(self._clock.monotonic() - began, 3))
            self.caught_up.set()

    async def wait(self, informers: Iterable[Informer]) -> None:
        """Return when these have caught up; of one that came later, the first list came after the Lease."""
        for informer in informers:
            if (opened := self._open.get(informer)) is not None:
                await opened.wait()

    @property
    def problem(self) -> str | None:
        """Which caches have not caught up, and why; None when all have, or nobody waits for it."""
        waits = [informer for informer, opened in self._open.items() if not opened.is_set()]
        reasons = (f"{each.kind.resource}: {each.behind or each.problem or 'under way'}" for each in waits)
        return "; ".join(reasons) or None

    async def _catch_up(self, informer: Informer) -> None:
        await informer.catch_up()
        self._open[informer].set()

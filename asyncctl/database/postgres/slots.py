"""Who may have one of our few sessions on a server next.

First in, first out would close the admin's session that is kept for each session in a database, to open it anew for
the next pass. So who can use the kept one goes first, one session less is for the others, and a second one of the
admin is opened when none of them waits. Nobody waits for ever: each pass needs one of the admin's first, and the
others after it.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from enum import Enum, auto


class Use(Enum):
    """What a session is for."""

    ADMIN = auto()
    """The admin in the maintenance database: it may be kept for its next use."""
    OTHER = auto()
    """A database, or a login: it ends with its use."""
    CLOSING = auto()


class Slots:
    """Those of one server: in use are at most `total` at once. A task has at most one.

    Args:
        idle: The sessions that are kept.
    """

    def __init__(self, idle: Sized) -> None:
        self.total = 1
        self._idle = idle
        self._in_use: Counter[Use] = Counter()
        self._waiting: dict[Use, deque[asyncio.Future[None]]] = {Use.ADMIN: deque(), Use.OTHER: deque()}
        self._holders: set[asyncio.Task[object] | None] = set()

    @property
    def in_use(self) -> int:
        """How many sessions are."""
        return self._in_use.total()

    @property
    def wanted(self) -> bool:
        """Whether anybody has one, or waits for it."""
        return bool(self.in_use or any(self._waiting.values()))

    def limit(self, total: int) -> None:
        """From now on there are so many; those in use stay."""
        if total != self.total:
            self.total = total
            self.let_in()

    async def acquire(self, use: Use) -> None:
        """Wait for one.

        Raises:
            RuntimeError: The task has one already.
        """
        if asyncio.current_task() in self._holders:
            raise RuntimeError("this task is already holding one of our sessions on that server")
        turn = asyncio.get_running_loop().create_future()
        self._waiting[use].append(turn)
        self.let_in()
        try:
            await turn
        except asyncio.CancelledError:
            self._in_use[use] -= not turn.cancelled()  # it had come at the same moment
            self.let_in()
            raise
        self._holders.add(asyncio.current_task())

    def release(self, use: Use) -> None:
        """Give back the task's."""
        self._holders.remove(asyncio.current_task())
        self._in_use[use] -= 1
        self.let_in()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Have an idle session counted in the block, that the server has not ended yet."""
        self._in_use[Use.CLOSING] += 1
        try:
            yield
        finally:
            self._in_use[Use.CLOSING] -= 1
            self.let_in()

    def let_in(self) -> None:
        """Let in those who may come now."""
        while (use := self._next()) is not None:
            self._in_use[use] += 1
            self._waiting[use].popleft().set_result(None)

    def _next(self) -> Use | None:
        for queue in self._waiting.values():
            while queue and queue[0].done():  # given up
                queue.popleft()
        admin, other = self._waiting[Use.ADMIN], self._waiting[Use.OTHER]
        free, idle = self.total - self.in_use, len(self._idle)
        if free <= 0:
            return None
        if admin and idle:
            return Use.ADMIN
        kept = idle + self._in_use[Use.ADMIN]
        if other and self._in_use[Use.OTHER] < max(1, self.total - 1) and (free > idle or kept > 1 or self.total == 1):
            return Use.OTHER
        return Use.ADMIN if admin and not (other and kept) else None

"""The connections of one lane: kept while they are of use, made when none is free, never more than the limit.

Who asks gets the first connection that comes free or is made, in the order of asking. An attempt whose asker is gone
goes on in peace and its connection waits for the next; a cancelled TLS handshake would be reported as an error by
uvloop. `close` waits for attempts, but not for long.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable

from asyncctl.client.transport.connection import Connection

KEEP = 75.0  # seconds for which an idle connection is kept; kube-apiserver keeps it for longer
SETTLE = 0.5  # seconds that attempts may take when the pool is closed; a handshake takes milliseconds

Dial = Callable[[ssl.SSLContext | None], Awaitable[Connection]]


class PoolClosed(ConnectionAbortedError):
    """Nobody asks any more."""

    def __init__(self) -> None:
        super().__init__("the client was closed")


class Pool:
    """At most `limit` connections (0: any number), which `dial` makes.

    Invariants: what is in `_open` counts, and is in `_idle` or lent; `_alive` has beside it those that were aborted and
    whose socket is still being closed. While a waiter waits, as many attempts as waiters are under way, or the limit is
    reached.
    """

    def __init__(self, dial: Dial, *, limit: int, name: str) -> None:
        self._dial = dial
        self._limit = limit
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._alive: set[Connection] = set()
        self._dead = asyncio.Event()
        self._idle: list[Connection] = []
        self._waiters: deque[asyncio.Future[Connection]] = deque()
        self._attempts: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False

    def idle(self, context: ssl.SSLContext | None) -> Connection | None:
        """Take a connection that is there, the one used last; None when there is none.

        The kernel is asked whether the peer has closed it meanwhile (a microsecond): not every request can be repeated.
        One that was made with another TLS context than `context` is closed.
        """
        self._context = context
        oldest = self._loop.time() - KEEP
        while self._idle:
            found = self._idle.pop()
            if found.closed or found.context is not context or found.idle_since < oldest or found.stale():
                self._drop(found)
            else:
                return found
        return None

    async def acquire(self, context: ssl.SSLContext | None) -> Connection:
        """Wait for a connection, made if need be; to be given to `release`.

        Raises:
            OSError: None could be made, as `dial` says; `PoolClosed`: it was closed.
        """
        while True:
            found = await self._next(context)
            if found.fresh or not (found.closed or found.stale()):  # as for one that was idle
                return found
            self._drop(found)

    async def _next(self, context: ssl.SSLContext | None) -> Connection:
        if self._closing:
            raise PoolClosed
        self._context = context
        waiter: asyncio.Future[Connection] = self._loop.create_future()
        self._waiters.append(waiter)
        self._attempt()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self._offer(waiter.result())  # it came in the step in which its asker left
            raise

    def release(self, connection: Connection) -> None:
        """Give back a connection after an exchange."""
        if connection.done():
            self._offer(connection)
        else:
            self._drop(connection)

    def unused(self, connection: Connection) -> None:
        """Give back a connection on which nothing was sent."""
        self._offer(connection)

    async def close(self) -> None:
        """Abort what is open; wait for the attempts."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(PoolClosed())
        if self._attempts:
            _, slow = await asyncio.wait(self._attempts, timeout=SETTLE)
            for attempt in slow:
                attempt.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        for connection in list(self._open):
            self._drop(connection)
        if self._alive:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dead.wait(), SETTLE)

    def _attempt(self) -> None:
        """Make as many connections as are waited for and allowed."""
        while len(self._attempts) < len(self._waiters) and (
            not self._limit or len(self._open) + len(self._attempts) < self._limit
        ):
            task = self._loop.create_task(self._make(self._context), name=f"connect {self._name}")
            self._attempts.add(task)
            task.add_done_callback(self._attempted)

    async def _make(self, context: ssl.SSLContext | None) -> None:
        connection = await self._dial(context)
        connection.on_close = self._lost
        self._open.add(connection)
        self._alive.add(connection)
        self._offer(connection)

    def _attempted(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            waiter = self._next_waiter()
            if waiter is not None:
                waiter.set_exception(error)
        if not self._closing:
            self._attempt()

    def _next_waiter(self) -> "asyncio.Future[Connection] | None":
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _offer(self, connection: Connection) -> None:
        if self._closing or connection.closed or connection.context is not self._context:
            self._drop(connection)
            return
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEP, self._sweep)

    def _lost(self, connection: Connection) -> None:
        self._alive.discard(connection)
        if self._closing and not self._alive:
            self._dead.set()
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        connection.abort()
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._closing:
            self._attempt()

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = self._loop.time() - KEEP
        for connection in [each for each in self._idle if each.idle_since <= oldest]:
            self._drop(connection)
        if self._idle:
            first = min(each.idle_since for each in self._idle)
            self._sweeper = self._loop.call_at(first + KEEP, self._sweep)

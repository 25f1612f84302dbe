"""How many sessions of ours each server has, and those of the admin that wait there for their next use.

Open ones, idle or not, are never more than the server's `max_connections`, as the server counts them: one is over
when the server has ended it. Only sessions of the maintenance database are kept: each database has one of its own,
and one that idles in it is in the way of who wants to drop or rename it. What is kept was used without any failure,
by the server's entry as it is now, and holds nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from asyncctl.database.postgres.errors import TooManyConnections
from asyncctl.database.postgres.server import Server, Session, close_session, open_session
from asyncctl.database.postgres.slots import Slots, Use
from asyncctl.database.postgres.threads import Threads

Observe = Callable[[str, float], None]
"""Called with what was done (`connect`, `SELECT`, `CREATE ROLE` …) and the seconds that it took, failed or not."""


@dataclass(frozen=True)
class _Idle:
    session: Session
    server: Server
    since: float  # by the loop's clock


@dataclass
class _Kept:
    """One server's. Those in use, a slot each, and the idle ones are together never more than there are slots."""

    server: Server  # as its entry was when it was asked for last
    idle: list[_Idle] = field(default_factory=list)  # the one that was used last is the last

    def __post_init__(self) -> None:
        self.slots = Slots(self.idle)

    @property
    def used(self) -> bool:
        """Whether anybody has, or waits for, a session."""
        return bool(self.idle or self.slots.wanted)

    @property
    def crowded(self) -> bool:
        """Whether there are too many."""
        return self.slots.in_use + len(self.idle) > self.slots.total

    def superfluous(self) -> _Idle | None:
        """Take an idle session that has to go, with what is in use by now: of another entry, else the oldest."""
        outdated = next((index for index, each in enumerate(self.idle) if each.server != self.server), None)
        if outdated is not None:
            return self.idle.pop(outdated)
        return self.idle.pop(0) if self.idle and self.crowded else None


class Limits:
    """The sessions of this process on each server: at most its `max_connections`.

    A task holds at most one of a server's sessions: a second would raise RuntimeError, since tasks that hold one
    while they wait for another could wait for each other forever.

    Args:
        observe: Gets the duration of each operation.
    """

    def __init__(self, *, observe: Observe = lambda _operation, _seconds: None) -> None:
        self.observe = observe
        self.slow: set[tuple[str, str]] = set()
        """Of which server, what the Lease's time was too short for when it was tried last."""
        self._by_server: dict[str, _Kept] = {}
        self._closed = False
        self._threads = Threads()

    @asynccontextmanager
    async def slot(self, server: Server, use: Use) -> AsyncIterator[None]:
        """Be counted as one of the server's sessions in the block; wait for it as long as for a connection.

        Raises:
            TooManyConnections: none was free in time.

        """
        kept = self._of(server)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(server.connect_timeout):
                await kept.slots.acquire(use)
        except TimeoutError:
            raise TooManyConnections(
                f"all {server.max_connections} connections that we may have to {server} were in use for"
                f" {server.connect_timeout:g} s: raise its maxConnections"
            ) from None
        finally:
            self.took("wait", began)
        try:
            yield
        finally:
            kept.slots.release(use)

    @asynccontextmanager
    async def session(self, server: Server, database: str, user: str, password: str) -> AsyncIterator[Session]:
        """Open a session of anybody for the length of the block, counted as one of ours."""
        async with self.slot(server, Use.OTHER):
            session = await self.open(server, database, user, password)
            try:
                yield session
            finally:
                await close_session(session)

    async def open(self, server: Server, database: str, user: str, password: str) -> Session:
        """Open a session, in a `slot`; an idle one ends for it where there would be too many."""
        kept = self._of(server)
        while (idle := kept.superfluous()) is not None:
            await close_session(idle.session)
        began = asyncio.get_running_loop().time()
        try:
            return await open_session(server, database, user, password, self._threads)
        finally:
            self.took("connect", began)

    def take(self, server: Server) -> Session | None:
        """Return the idle session that was used last, of the admin in the maintenance database; it may be dead."""
        idle = self._of(server).idle
        fit = next((each for each in reversed(idle) if each.server == server), None)
        if fit is None:
            return None
        idle.remove(fit)
        return fit.session

    def keep(self, server: Server, session: Session) -> bool:
        """Keep such a session for its next use; returns False where it is of no use, and is to be closed."""
        kept = self._by_server.get(server.name)
        if self._closed or kept is None or kept.server != server or kept.crowded:
            return False
        kept.idle.append(_Idle(session, server, asyncio.get_running_loop().time()))
        return True

    def took(self, operation: str, began: float) -> None:
        """Tell how long something took that began at a time of the loop's clock."""
        self.observe(operation, asyncio.get_running_loop().time() - began)

    async def close_idle(self, older_than: float) -> None:
        """Close the sessions that were not used for so many seconds, and forget servers that nobody uses any more."""
        latest = asyncio.get_running_loop().time() - older_than
        for name, kept in list(self._by_server.items()):
            await _end(kept, [idle for idle in kept.idle if idle.since <= latest])
            if not kept.used:
                del self._by_server[name]

    async def close_idle_of(self, server: Server) -> None:
        """Close the idle sessions of one server: one was found to be dead."""
        kept = self._of(server)
        await _end(kept, list(kept.idle))

    async def close(self) -> None:
        """Close all idle sessions, and keep none from now on."""
        self._closed = True
        await self.close_idle(0.0)

    def _of(self, server: Server) -> _Kept:
        """Return what is known of a server; `server` is its entry from now on."""
        kept = self._by_server.get(server.name)
        if kept is None:
            kept = self._by_server[server.name] = _Kept(server)
        kept.server = server
        kept.slots.limit(server.max_connections)
        return kept


async def _end(kept: _Kept, chosen: list[_Idle]) -> None:
    """Close idle sessions; until one is over it counts as one in use."""
    for idle in chosen:
        if idle not in kept.idle:
            continue  # taken while another one closed
        kept.idle.remove(idle)
        with kept.slots.closing():
            await close_session(idle.session)

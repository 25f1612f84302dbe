"""List, then watch, for ever: keeps one store equal to what the server has.

An explicit state machine. A list comes as a stream that goes on as the watch (`Streaming`, KEP-3157), or from a server
that has no such thing in pages (`Paging`); then `Watching`, and again after each end of a watch. `Probing` stands
between a broken or silent connection and the next watch: a server that was restored from a backup answers a watch from
its future with silence. `BackingOff` stands before whatever is tried again. What can be lost is nothing: a gap is
closed by a list, which announces what vanished in it. After client-go's `tools/cache/reflector.go`; where it differs:
a first list is as new as can be, and what is refused, broken or busy leads back to the watch and not to a list.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence, Set as AbstractSet
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Never

import anyio
import msgspec

from asyncctl.cache.causes import advice_on, cause_of, is_ahead, matter_of
from asyncctl.cache.event import NoEvent, read_bookmark, read_event
from asyncctl.cache.header import Entry, Key
from asyncctl.cache.lister import Lister
from asyncctl.cache.reader import Reader
from asyncctl.cache.silence import Silence
from asyncctl.cache.states import BackingOff, Paging, Probing, State, Streaming, Watching
from asyncctl.cache.store import Store
from asyncctl.cache.streaming import StreamingSupport
from asyncctl.cache.unread import Identity
from asyncctl.client.client import Client
from asyncctl.client.errors import (
    Gone,
    KubernetesError,
    StatusError,
    StreamError,
    Target,
    TransportError,
    error_from_reply,
)
from asyncctl.client.requests import Selection
from asyncctl.client.watch import Lines
from asyncctl.clock import Clock
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import InformerMetrics
from asyncctl.queue.backoff import Backoff, Random, Restarts

SILENT = 90.0  # seconds without an event or bookmark (they come each minute) until the server is asked where it stands
PATIENCE = 30.0  # seconds without an object in which a streamed list has to go on, or to end with its bookmark
BUSY = 6  # failures in a row after which a server is not taken for busy, but for one that can't do what was asked
BRIEF = 3  # seconds of a watch while somebody waits for the server's state: the last bookmark comes after 1 to 2
SHORT = 1.0  # seconds: a watch that ends sooner, without an event, is backed off from
_LATER = frozenset({401, 408, 429})  # 4xx that say nothing about what was asked
_ELSE = _LATER | {403, 404, 410}  # 4xx that say nothing about streaming
_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})


class Reflector:
    """Feeds one store with the objects of one kind.

    Args:
        client: Whom to ask.
        kind: What is kept.
        store: What is fed, by nobody else.
        clock: Time.
        random: Of jitter.
        logger: For what is wrong, once for each thing.
        metrics: What is counted.
        namespace: Where; None: everywhere.
        labels: A label selector.
        fields: A field selector.
        metadata_only: Whether objects come and are kept without their spec, status and data.
        manager: The field manager whose Apply entries are kept.
        streaming: What is known of the server, shared by those who ask it for this kind.

    Attributes:
        synced: Set when the first list has come.
        progressed: Set when the store may have changed, or come further; to be cleared by who waits for it.
        problem: Why the cache is not current, or None.
    """

    def __init__(
        self,
        client: Client,
        kind: ResourceType,
        store: Store,
        *,
        clock: Clock,
        random: Random,
        logger: Logger,
        metrics: InformerMetrics,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        metadata_only: bool = False,
        manager: str | None = None,
        streaming: StreamingSupport | None = None,
    ) -> None:
        self._client = client
        self._kind = kind
        self._store = store
        self._clock = clock
        self._random = random
        self._logger = logger
        self._metrics = metrics
        self._namespace = namespace
        self._which: Selection = {"namespace": namespace, "labels": labels, "fields": fields}
        self._metadata_only = metadata_only
        self._lister = Lister(client, kind, self._which, metadata_only=metadata_only)
        self._reader = Reader(kind.resource, manager=manager, logger=logger, unreadable=metrics.unreadable)
        self._streaming = streaming or StreamingSupport(clock)
        self._restarts = Restarts(Backoff(base=0.8, maximum=30.0, full=True), quiet=120.0, clock=clock, random=random)
        self._state: State = Streaming(None)
        self._heard_at = clock.monotonic()
        self._peer = ""
        self._brief = False
        self._told: set[str] = set()  # what was told since the cache was current
        self._scope = anyio.CancelScope()
        self.synced = asyncio.Event()
        self.progressed = asyncio.Event()
        self.problem: str | None = "the first list has not come yet"

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def unread(self) -> AbstractSet[Key | None]:
        """Objects that the server has, and that can't be read."""
        return self._reader.unread

    async def run(self) -> None:
        """Run until cancelled. No answer of the server ends it."""
        self._heard_at = self._clock.monotonic()
        close = self._metrics.reflector(
            idle=lambda: self._clock.monotonic() - self._heard_at,
            synced=lambda: self.problem is None,
            state=lambda: self._state.label,
        )
        try:
            self._state = self._list(None)
            while True:
                with anyio.CancelScope() as self._scope:
                    self._state = await self._step(self._state)
                if self._scope.cancel_called:
                    self._state = self._hurried(self._state)
        finally:
            close()

    @contextmanager
    def hurry(self) -> Iterator[None]:
        """Become as current as can be, at once: while inside, watches last `BRIEF` seconds.

        The server sends a bookmark before it ends one, with all that it had to tell by then; the bookmarks of others
        come each minute. A watch that is open is opened anew, from where it has come to, and nobody waits to try again.
        A list under way goes on.
        """
        self._brief = True
        if isinstance(self._state, Watching | BackingOff):
            self._scope.cancel()
        try:
            yield
        finally:
            self._brief = False

    def _hurried(self, state: State) -> State:
        match state:
            case BackingOff():
                return state.then
            case Watching():
                return Probing()  # who waits for the server's state waits in vain where that was restored to an old one
        return state

    async def _step(self, state: State) -> State:
        try:
            match state:
                case Streaming():
                    return await self._stream(state)
                case Paging():
                    return await self._page_through(state)
                case Watching():
                    return await self._watch(state)
                case Probing():
                    return await self._probe()
                case BackingOff():
                    await self._clock.sleep(self._restarts.next())
                    return state.then
        except KubernetesError as error:
            return self._after(self._state, error)

    def _after(self, state: State, error: KubernetesError) -> State:
        """The next state when `state` has failed."""
        match error:
            case Gone():  # backed off from too: all who watch lose their place at once, and would list at once
                self._metrics.restarted("expired")
                return BackingOff(self._list(None))
            case StatusError() if is_ahead(error):
                self._trouble("ahead", error)
                return BackingOff(self._list(None))
            case StatusError() if isinstance(state, Streaming) and 400 <= error.code < 500 and error.code not in _ELSE:
                return self._unstreamed(state, str(error))
        self._trouble(cause_of(error), error)
        match state, error:
            case Streaming(at_least), StreamError() | TransportError(sent=True):
                return BackingOff(Paging(at_least))  # what breaks before its end is had piece by piece
            case Streaming(at_least), StatusError() if error.code >= 500 and self._restarts.count >= BUSY:
                return BackingOff(Paging(at_least))
            case ((Streaming() | Paging() | Probing()), _):
                return BackingOff(state)
        code = error.code if isinstance(error, StatusError) else 0
        wrong = 400 <= code < 500 and code not in _LATER
        if wrong or isinstance(error, NoEvent) or (code >= 500 and self._restarts.count >= BUSY):
            return BackingOff(self._list(self._store.progress))  # the same watch would fail again
        # refused, 429 and 5xx: the server has enough to do, do not list anew
        return BackingOff(Watching() if isinstance(error, StatusError) else Probing())

    def _trouble(self, cause: str, error: KubernetesError) -> None:
        self._metrics.restarted(cause)
        self.problem = f"{error}{advice_on(error)}"
        if (matter := matter_of(cause, error)) not in self._told:  # an outage is told once, however its errors change
            self._told.add(matter)
            self._logger.warning("the cache is not current", resource=self._kind.resource, cause=self.problem)

    def _healthy(self) -> None:
        if self.problem is not None and self.synced.is_set():
            self._logger.info("the cache is current again", resource=self._kind.resource)
        self.problem = None
        self._told.clear()
        self._heard_at = self._clock.monotonic()

    # Lists.

    def _list(self, at_least: int | None) -> Streaming | Paging:
        """How the next list is asked for."""
        at_least = at_least or None
        return Streaming(at_least) if self._streaming.likely else Paging(at_least)

    def _replace(self, entries: Iterable[Entry], version: int) -> None:
        self._store.replace(entries, version)
        self._healthy()
        self.synced.set()
        self.progressed.set()

    async def _stream(self, state: Streaming) -> State:
        if not self._streaming.likely:  # another was refused meanwhile
            return Paging(state.at_least)
        self._reader.begin()
        async with self._opened(state.at_least, initial=True) as batches:
            self._peer = batches.peer
            try:
                async with Silence(self._clock, PATIENCE) as silence:
                    rest = await self._gather(batches, silence)
            except TimeoutError:
                rest = None
            if rest is None:
                return self._unstreamed(state, "the bookmark that ends a streamed list did not come")
            self._state = Watching()
            if self._brief:  # this one would go on for minutes
                return self._state
            return await self._follow(batches, rest)

    async def _gather(self, batches: Lines, silence: Silence) -> list[bytes] | None:
        """Replace what the store has by what comes until the bookmark; return the lines after it, None without it."""
        gathered: dict[Key | None, Entry] = {}
        async for batch in batches:
            for number, line in enumerate(batch, start=1):
                if not line:
                    continue
                kind, raw = read_event(line)
                if kind in _CHANGES:
                    found = self._reader.event(line, raw)
                    if isinstance(found, Identity):
                        key, entry = found.key, self._last_known(found, gathered.get(found.key))
                    else:
                        key, entry = found.header.key, found
                    if entry is None or kind == "DELETED":
                        gathered.pop(key, None)
                    else:
                        gathered[key] = entry
                elif kind == "BOOKMARK":
                    bookmark = read_bookmark(raw)
                    if not bookmark.ends:  # who knows of streams does not send these before its end
                        return None
                    self._replace(gathered.values(), bookmark.version)
                    return batch[number:]
                else:
                    self._raise(kind, raw)
            silence.heard_at = self._clock.monotonic()
        return None

    def _unstreamed(self, state: Streaming, why: str) -> Paging:
        self._streaming.refused()
        self._metrics.restarted("unstreamed")
        self._logger.info("the server does not stream this list: it is paged", resource=self._kind.resource, cause=why)
        return Paging(state.at_least)

    async def _page_through(self, state: Paging) -> State:
        self._reader.begin()
        self._replace(*await self._lister.all(
            lambda page: filter(None, map(self._last_known, self._reader.listed(page))), at_least=state.at_least
        ))  # fmt: skip
        return Watching()

    # Watches.

    def _opened(self, version: int | None, *, initial: bool = False) -> AbstractAsyncContextManager[Lines]:
        seconds = BRIEF if self._brief and not initial else 290 + int(290 * self._random())
        return self._client.watch(
            self._kind, resource_version=str(version) if version else None, initial=initial, timeout_seconds=seconds,
            metadata_only=self._metadata_only, **self._which,
        )  # fmt: skip

    async def _watch(self, state: Watching) -> State:
        async with self._opened(self._store.progress) as batches:
            moved = self._peer not in {"", batches.peer}
            self._peer = batches.peer
            if moved and not state.probed:
                self._metrics.restarted("moved")
                return Probing()
            self._healthy()
            return await self._follow(batches)

    async def _follow(self, batches: Lines, first: Sequence[bytes] = ()) -> State:
        """Deliver what comes until the watch ends."""
        now, deliver = self._clock.monotonic, self._deliver
        opened, begun, heard = now(), self._store.progress, False
        try:
            async with Silence(self._clock, SILENT) as silence:
                for line in first:
                    heard = (bool(line) and deliver(line)) or heard
                async for batch in batches:
                    for line in batch:
                        if line and deliver(line):
                            heard = True
                    silence.heard_at = self._heard_at = now()
                    self.progressed.set()
        except TimeoutError:
            self._metrics.restarted("silent")
            return Probing()
        except StatusError as error:
            if error.code < 500:
                raise
            # It took the watch and can't go on from this place, now or later (a compaction may have left an event
            # without its object): client-go lists then, too.
            return self._after(self._list(self._store.progress), error)
        self._metrics.restarted("end")
        on = (heard and self._store.progress > begun) or now() - opened >= SHORT
        return Watching() if on else BackingOff(Watching())

    async def _probe(self) -> State:
        """Does the server know our progress? One that was restored from a backup, or replaced, may not."""
        found = self._lister.version(await self._lister.page(limit=1))
        if found >= self._store.progress:
            return Watching(probed=True)
        self._trouble("probe", StreamError(
            f"the server is at resourceVersion {found}, we have seen {self._store.progress}: it was restored or "
            "replaced; listing anew"
        ))  # fmt: skip
        return BackingOff(self._list(None))

    def _deliver(self, line: bytes) -> bool:
        """Hand an event to the store; True when it was a change of an object."""
        kind, raw = read_event(line)
        if kind in _CHANGES:
            found = self._reader.event(line, raw)
            if isinstance(found, Identity):
                self._skip(kind, found)
            elif kind == "DELETED":
                self._store.remove(found)
            else:
                self._store.upsert(found)
            return True
        if kind != "BOOKMARK":
            self._raise(kind, raw)
        self._store.advance(read_bookmark(raw).version)
        return False

    def _skip(self, kind: str, of: Identity) -> None:
        """Go past an event whose object can't be read; that it, or its namesake, is gone is understood all the same."""
        shown = None if of.key is None else self._store.shown(of.key)
        if shown is not None:
            same = shown.header.uid == of.uid
            if same if kind == "DELETED" else of.uid and not same and shown.header.version < of.version:
                self._store.remove(shown)
        self._store.advance(of.version)

    def _last_known(self, found: Entry | Identity, listed: Entry | None = None) -> Entry | None:
        """What was read; where it can't be, what the server has last shown of it, in this list or before."""
        if not isinstance(found, Identity):
            return found
        known = listed or (None if found.key is None else self._store.shown(found.key))
        return known if known is not None and found.uid in {"", known.header.uid} else None

    def _raise(self, kind: str, raw: bytes | msgspec.Raw) -> Never:
        """Raise what an event that is no change says."""
        target = Target("watch", self._kind.resource, self._namespace)
        if kind == "ERROR":
            raise error_from_reply(target, 500, bytes(raw), {})
        raise NoEvent(f"{target}: unknown event type {kind!r}")

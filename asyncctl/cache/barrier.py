"""The barrier between winning the Lease and the first pass: the cache has all that was written before it was raised.

The predecessor's last writes were answered, and need not have come by the watch yet: it may be late by any time, and
its ordinary bookmarks come each minute. So the server is asked where it stands. A list that is as new as can be is
never below an answered write; where it has all objects in one page, it also tells what is missing, which is mostly
nothing. Else the watch is opened anew, for moments, since the server ends it with a bookmark; and where that does not
come either, what is missing is found by a whole list of metadata, and awaited. Versions are compared as integers, of
one resource only (KEP-5504). Nothing is put into the cache here: its reflector alone does that.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from asyncctl.cache.header import Key
from asyncctl.cache.lister import Lister
from asyncctl.cache.reflector import Reflector
from asyncctl.cache.silence import Silence
from asyncctl.cache.store import Store
from asyncctl.cache.unread import UNREADABLE
from asyncctl.client.errors import KubernetesError
from asyncctl.client.listing import PAGE, Page
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger
from asyncctl.queue.backoff import Backoff, Random, Restarts

FIRST, LATER = 5.0, 30.0  # seconds in which a watch that was opened anew has to come to where the server stood


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"


class _Object(msgspec.Struct, gc=False):
    metadata: _Metadata


class _Listed(NamedTuple):
    uid: str
    version: int


_decode = msgspec.json.Decoder(_Object).decode


class Barrier:
    """Stands before one store until that is as new as the server was when `wait` was called.

    Args:
        reflector: Who keeps the store current.
        store: Whose state it is.
        lister: Lists the metadata of what the store keeps.
        resource: What that is, for the log.
        clock: Time.
        random: Of jitter.
        logger: Told of what is in the way, once.

    Attributes:
        problem: What is in the way, or None.
    """

    def __init__(
        self, reflector: Reflector, store: Store, lister: Lister, resource: str, *,
        clock: Clock, random: Random, logger: Logger,
    ) -> None:  # fmt: skip
        self._reflector = reflector
        self._store = store
        self._lister = lister
        self._resource = resource
        self._clock = clock
        self._logger = logger
        self._restarts = Restarts(Backoff(base=0.2, maximum=5.0), quiet=60.0, clock=clock, random=random)
        self.problem: str | None = None

    async def wait(self) -> None:
        """Return when the store has all that the server had at the call. Tries until cancelled."""
        await self._reflector.synced.wait()  # that list may have been asked for before the call
        patience = FIRST
        while True:
            try:
                if await self._come_to(await self._server(whole=patience > FIRST), patience):
                    break
                why = self._reflector.problem or "it is open, and late"
                self._tell(f"the watch has not brought within {patience:g} s what the server has: {why}")
                patience = LATER
            except KubernetesError as error:
                self._tell(str(error))
                await self._clock.sleep(self._restarts.next())
        self.problem = None

    async def _server(self, *, whole: bool) -> "_Goal":
        """Where the server stands; with all that it has, where `whole` is asked for or it is one page."""
        progress = self._store.progress
        page = await self._lister.page(limit=PAGE if whole or len(self._store) <= PAGE else 1)
        if not whole and page.continue_token:
            return _Goal(self._lister.version(page), progress, {}, known=False)
        listed, version = await self._lister.all(self._read, page)
        return _Goal(version, progress, self._missing(dict(listed)), known=True)

    def _read(self, page: Page) -> Iterator[tuple[Key, _Listed]]:
        for item in page.items:
            with suppress(*UNREADABLE):
                metadata = _decode(item).metadata
                yield (metadata.namespace, metadata.name), _Listed(metadata.uid, int(metadata.resource_version))

    def _missing(self, listed: dict[Key, _Listed]) -> dict[Key, _Listed | None]:
        """What may be missing in the store: what was listed, and (None) what was not and is there."""
        unread = self._reflector.unread  # which is in no cache
        gone = (entry.header.key for entry in self._store.entries() if entry.header.key not in listed)
        return dict.fromkeys(gone) | {key: each for key, each in listed.items() if key not in unread}

    async def _come_to(self, goal: "_Goal", patience: float) -> bool:
        """Wait until the store has come to `goal`; False when that takes too long."""
        if goal.reached(self._store):
            return True
        with suppress(TimeoutError):
            async with Silence(self._clock, patience):
                with self._reflector.hurry():
                    while not goal.reached(self._store):
                        self._reflector.progressed.clear()
                        await self._reflector.progressed.wait()
                return True
        return False

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._logger.warning("no pass begins before the cache is caught up", resource=self._resource, cause=problem)


@dataclass(slots=True)
class _Goal:
    """What the server had.

    Attributes:
        version: Where it stood.
        before: Where the store stood when it was asked.
        missing: Of each object that the store may not have as it was then: what was listed of it; None: it was gone.
        known: Whether `missing` is all there may be.
    """

    version: int
    before: int
    missing: dict[Key, _Listed | None]
    known: bool

    def reached(self, store: Store) -> bool:
        """Whether `store` has all of it."""
        if self.version < self.before:  # the server was restored to an old state: what follows is of another history
            return store.progress < self.before
        if store.progress >= self.version:
            return True
        self.missing = {key: listed for key, listed in self.missing.items() if self._lacks(store, key, listed)}
        return self.known and not self.missing

    def _lacks(self, store: Store, key: Key, listed: _Listed | None) -> bool:
        shown = store.shown(key)
        if shown is None or listed is None:
            return shown is not None if listed is None else True
        version = shown.header.version
        return version < listed.version or (version == listed.version and shown.header.uid != listed.uid)

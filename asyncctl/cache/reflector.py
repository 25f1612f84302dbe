"""List, then watch, for ever: keeps one store equal to what the server has.

An explicit state machine: `Listing` -> `Watching` -> ... -> `BackingOff`, with `Probing` between a broken connection
and the next watch, because a server that has been restored from a backup answers a watch from its future with
silence. What can be lost is nothing: a gap is closed by a list, which announces what vanished in it. After
client-go's `tools/cache/reflector.go`; where it differs: lists are paged and without a resourceVersion, and only 410,
403, 404 and what can't be read lead to one.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass

import msgspec

from asyncctl.cache.header import Entry, read_change, read_entry
from asyncctl.cache.store import Store
from asyncctl.client.client import Client
from asyncctl.client.errors import (
    Forbidden,
    Gone,
    KubernetesError,
    NamespaceBoundaryExceeded,
    NotFound,
    StatusError,
    StreamError,
    Target,
    error_from_reply,
)
from asyncctl.client.listing import PAGE, Page
from asyncctl.clock import Clock
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import InformerMetrics
from asyncctl.queue.backoff import Backoff, Random, Restarts

SILENT = 90.0  # seconds without an event or bookmark (they come each minute) until the server is asked where it stands
SHORT = 1.0  # seconds: a watch that ends sooner, without an event, is backed off from


@dataclass(frozen=True, slots=True)
class Listing:
    """About to list."""


@dataclass(frozen=True, slots=True)
class Watching:
    """About to watch from the store's progress."""


@dataclass(frozen=True, slots=True)
class Probing:
    """About to ask whether the server still knows our progress."""


@dataclass(frozen=True, slots=True)
class BackingOff:
    """Waiting, then `then`."""

    then: "Listing | Watching | Probing"


State = Listing | Watching | Probing | BackingOff


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct):
    metadata: "_Version"


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_versioned = msgspec.json.Decoder(_Versioned).decode


class Reflector:
    """Feeds `store` with the objects of `kind` in `namespace` (None: everywhere)."""

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
    ) -> None:
        self._client = client
        self._kind = kind
        self._store = store
        self._clock = clock
        self._random = random
        self._logger = logger
        self._metrics = metrics
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        if metadata_only:
            raise NotImplementedError("metadata-only watches are not there yet")
        self._manager = manager
        self._restarts = Restarts(Backoff(base=0.8, maximum=30.0, full=True), quiet=120.0, clock=clock, random=random)
        self.synced = asyncio.Event()
        self.problem: str | None = "the first list has not come yet"
        """Why the cache is not current, or None."""

    async def run(self) -> None:
        """Run until cancelled. No answer of the server ends it."""
        state: State = Listing()
        while True:
            match state:
                case Listing():
                    state = await self._guard(self._list(), state)
                case Watching():
                    state = await self._guard(self._watch(), state)
                case Probing():
                    state = await self._guard(self._probe(), state)
                case BackingOff():
                    await self._clock.sleep(self._restarts.next())
                    state = state.then

    async def _guard(self, step: Coroutine[object, object, State], state: Listing | Watching | Probing) -> State:
        """The next state after `step`, also where it failed."""
        try:
            return await step
        except Gone:  # backed off from too: all who watch lose their place at once, and would list at once
            self._metrics.restarted("expired")
            return BackingOff(Listing())
        except (NotFound, Forbidden, msgspec.DecodeError, ValueError, RecursionError) as error:
            self._trouble("error", error)
            return BackingOff(Listing())
        except KubernetesError as error:
            self._trouble("error", error)
            if isinstance(state, Listing):
                return BackingOff(state)
            # refused, 429 and 5xx: the server has enough to do, do not list anew
            return BackingOff(Watching() if isinstance(error, StatusError) else Probing())

    def _trouble(self, cause: str, error: Exception) -> None:
        self._metrics.restarted(cause)
        self._metrics.synced(False)
        text = f"{error}{self._advice(error)}"
        if text != self.problem:  # an outage is told once, not each time it is met
            self._logger.warning("the cache is not current", resource=self._kind.resource, cause=text)
        self.problem = text

    def _advice(self, error: Exception) -> str:
        """What the error does not say itself."""
        needs_both = isinstance(error, Forbidden) and not isinstance(error, NamespaceBoundaryExceeded)
        return "; a cache needs the verbs list and watch" if needs_both else ""

    def _healthy(self) -> None:
        if self.problem is not None and self.synced.is_set():
            self._logger.info("the cache is current again", resource=self._kind.resource)
        self.problem = None
        self._metrics.synced(True)

    async def _list(self) -> State:
        entries, version = await self._list_pages()
        self._store.replace(entries, version)
        self._healthy()
        self.synced.set()
        return Watching()

    async def _list_pages(self) -> tuple[list[Entry], int]:
        entries: list[Entry] = []
        token = ""
        while True:
            try:
                page = await self._page(token)
            except Gone:
                if not token:
                    raise
                entries.clear()
                page = await self._page("", limit=0)  # one that can't expire half way
            entries += [read_entry(item, self._manager) for item in page.items]
            token = page.continue_token
            if not token:
                return entries, int(page.resource_version)

    async def _page(self, token: str, limit: int = PAGE) -> Page:
        return await self._client.list_page(
            self._kind,
            namespace=self._namespace,
            labels=self._labels,
            fields=self._fields,
            limit=limit,
            continue_token=token,
        )

    async def _watch(self) -> State:
        opened = self._clock.monotonic()
        heard = False
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout(SILENT) as silence,
                self._client.watch(
                    self._kind,
                    resource_version=str(self._store.progress),
                    timeout_seconds=290 + int(290 * self._random()),
                    namespace=self._namespace,
                    labels=self._labels,
                    fields=self._fields,
                ) as batches,
            ):
                self._healthy()
                async for batch in batches:
                    for line in batch:
                        if line and self._deliver(line):
                            heard = True
                    silence.reschedule(loop.time() + SILENT)
                    self._metrics.heard()
        except TimeoutError:
            self._metrics.restarted("silent")
            return Probing()
        self._metrics.restarted("end")
        if not heard and self._clock.monotonic() - opened < SHORT:
            return BackingOff(Watching())
        return Watching()

    async def _probe(self) -> State:
        """Does the server know our progress? One that was restored from a backup, or replaced, may not."""
        page = await self._client.list_page(self._kind, namespace=self._namespace, limit=1)
        if int(page.resource_version) < self._store.progress:
            self._trouble("probe", StreamError(
                f"the server is at resourceVersion {page.resource_version}, we have seen {self._store.progress}: "
                "it was restored or replaced; listing anew"
            ))  # fmt: skip
            return Listing()
        return Watching()

    def _deliver(self, line: bytes) -> bool:
        """Hand an event to the store; True when it was a change of an object."""
        change = read_change(line, self._manager)
        if change is not None:
            kind, entry = change
            if kind == "DELETED":
                self._store.remove(entry)
            else:
                self._store.upsert(entry)
            return True
        event = _decode_event(line)
        match event.type:
            case "ADDED" | "MODIFIED":
                self._store.upsert(read_entry(event.object, self._manager))
            case "DELETED":
                self._store.remove(read_entry(event.object, self._manager))
            case "BOOKMARK":
                self._store.advance(int(_decode_versioned(event.object).metadata.resource_version))
                return False
            case "ERROR":
                target = Target("watch", self._kind.resource, self._namespace)
                raise error_from_reply(target, 500, bytes(event.object), {})
            case unknown:
                raise StreamError(f"watch {self._kind.resource}: unknown event type {unknown!r}")
        return True

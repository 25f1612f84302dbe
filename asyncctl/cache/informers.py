"""All informers of a process: one for each thing that is watched, shared by those who use it, gone with the last.

Who uses one says so for as long as a block lasts. The first user starts it, the last one stops it and waits until its
task has ended; one who comes in that moment gets a new one. Their tasks belong to the block in which `Informers` is
entered, and none outlives that.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import anyio
from anyio.abc import TaskGroup

from asyncctl.cache.informer import Informer
from asyncctl.client.client import Client
from asyncctl.clock import Clock
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.queue.backoff import Random

ENDING = 5.0  # seconds for a cancelled informer to end, after which who leaves no longer waits for it


class What(NamedTuple):
    """What an informer watches, by which it is shared."""

    kind: ResourceType
    namespaces: tuple[str, ...] | None
    """None: those of the process, whichever they are by now."""
    labels: str | None
    fields: str | None
    metadata_only: bool


@dataclass(slots=True)
class _Shared:
    informer: Informer
    users: int = 0
    cancel: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Informers:
    """Gives out informers of one cluster, inside of `async with informers:`.

    Args:
        client: Whom they ask.
        namespaces: Which are watched where a user does not say; empty means all.
        manager: The field manager whose Apply entries are kept.
    """

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock,
        random: Random,
        logger: Logger,
        metrics: Metrics,
        namespaces: Iterable[str] = (),
        manager: str | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._random = random
        self._logger = logger
        self._metrics = metrics
        self._namespaces = tuple(namespaces)
        self._manager = manager
        self._shared: dict[What, _Shared] = {}
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        self._shared.clear()
        return await tasks.__aexit__(kind, error, trace)

    def __iter__(self) -> Iterator[Informer]:
        """Those that run now."""
        return iter([shared.informer for shared in self._shared.values()])

    @asynccontextmanager
    async def use(
        self,
        kind: ResourceType,
        *,
        namespaces: Iterable[str] | None = None,
        labels: str | None = None,
        fields: str | None = None,
        metadata_only: bool = False,
        caller: str | None = None,
    ) -> AsyncIterator[Informer]:
        """Have an informer while inside: `async with informers.use(kind) as informer`.

        It is the same for all who ask for the same, and runs; its first list may not have come (`wait_synced`).

        Args:
            kind: What is kept.
            namespaces: Which are watched; None: those of the process, also when they change; empty: all.
            labels: A label selector.
            fields: A field selector.
            metadata_only: Whether of each object only the metadata are kept.
            caller: In whose name the server is asked where this user is the first.

        Raises:
            RuntimeError: The `Informers` are not entered, or were left.
        """
        if self._tasks is None:
            raise RuntimeError(f"no cache of {kind} can be had outside of `async with informers`")
        scopes = None if namespaces is None else tuple(sorted(set(namespaces)))
        what = What(kind, scopes, labels, fields, metadata_only)
        shared = self._shared.get(what)
        if shared is None:
            shared = self._shared[what] = _Shared(self._make(what, caller))
            self._tasks.start_soon(self._run, shared, name=f"informer {kind.resource}")
        shared.users += 1
        try:
            yield shared.informer
        finally:
            shared.users -= 1
            if not shared.users:
                if self._shared.get(what) is shared:  # else all have ended by now
                    del self._shared[what]  # before anything is awaited: who comes now must not get one that ends
                shared.cancel.cancel()
                with anyio.move_on_after(ENDING, shield=True):
                    await shared.ended.wait()

    def set_namespaces(self, namespaces: Iterable[str]) -> None:
        """The process' namespaces are these from now on; empty means all. Who asked for others keeps them."""
        self._namespaces = tuple(namespaces)
        for what, shared in self._shared.items():
            if what.namespaces is None:
                shared.informer.set_namespaces(self._namespaces)

    def _make(self, what: What, caller: str | None) -> Informer:
        return Informer(
            self._client if caller is None else self._client.with_caller(caller), what.kind,
            namespaces=self._namespaces if what.namespaces is None else what.namespaces,
            labels=what.labels, fields=what.fields, metadata_only=what.metadata_only, manager=self._manager,
            clock=self._clock, random=self._random, logger=self._logger, metrics=self._metrics,
        )  # fmt: skip

    async def _run(self, shared: _Shared) -> None:
        try:
            with shared.cancel:
                await shared.informer.run()
        finally:
            shared.ended.set()

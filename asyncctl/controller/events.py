"""Events (events.k8s.io/v1) about objects: said in passing, written by one task of their own.

Saying something never blocks or fails a pass: what the API server refuses is logged, and what does not fit into the
waiting line is counted and dropped. Each is an Event of its own; series come later.
"""

import asyncio
from dataclasses import dataclass
from uuid import uuid4

from asyncctl.client.client import Client
from asyncctl.clock import Clock
from asyncctl.objects.builtin import Event, ObjectReference, micro_time
from asyncctl.objects.meta import ObjectMeta
from asyncctl.observe.logs import Logger

LIMIT = 1000  # events that wait; more are dropped
NOTE = 1024  # bytes: the API server refuses longer ones


@dataclass(frozen=True, slots=True)
class _Said:
    regarding: ObjectReference
    kind: str
    reason: str
    note: str
    action: str


class EventRecorder:
    """Takes events from any pass and writes them in order. `run` writes until cancelled, `flush` what is left."""

    def __init__(self, client: Client, *, controller: str, instance: str, clock: Clock, logger: Logger) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance[:128]
        self._clock = clock
        self._logger = logger
        self._waiting: asyncio.Queue[_Said] = asyncio.Queue(LIMIT)
        self.dropped = 0

    def say(self, regarding: ObjectReference, kind: str, reason: str, note: str, action: str = "Reconcile") -> None:
        """Say `reason` and `note` (kind `Normal` or `Warning`) about the object reference `regarding`."""
        try:
            self._waiting.put_nowait(_Said(regarding, kind, reason, note, action))
        except asyncio.QueueFull:
            self.dropped += 1
            if self.dropped == 1:
                self._logger.warning("events are said faster than the API server takes them; some are dropped")

    async def run(self) -> None:
        """Write what is said, until cancelled."""
        while True:
            said = await self._waiting.get()
            try:
                await self._write(said)
            finally:
                self._waiting.task_done()

    async def flush(self) -> None:
        """Return when `run` has written what still waits."""
        await self._waiting.join()

    async def _write(self, said: _Said) -> None:
        name = f"{said.regarding.name[:200]}.{uuid4().hex[:16]}"
        try:
            event = Event(
                metadata=ObjectMeta(name=name, namespace=said.regarding.namespace or "default"),
                event_time=micro_time(self._clock.now()),
                reporting_controller=self._controller,
                reporting_instance=self._instance,
                action=said.action,
                reason=said.reason,
                regarding=said.regarding,
                note=said.note.encode()[:NOTE].decode(errors="ignore"),
                type=said.kind,
            )
            await self._client.create(event)
        except Exception as error:  # noqa: BLE001 - whatever an author says, it must not end the program
            self._logger.warning("an event could not be written", reason=said.reason, error=str(error))

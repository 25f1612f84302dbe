"""What all passes of one controller share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol
from uuid import UUID, uuid4

from asyncctl.cache.informer import Informer
from asyncctl.client.client import Client
from asyncctl.clock import Clock
from asyncctl.controller.applied import Applied
from asyncctl.controller.events import EventRecorder
from asyncctl.objects.resource import Kind, ResourceType, resource_type_of
from asyncctl.observe.logs import Logger


class Fence(Protocol):
    """Whether this process may still act, on the cluster or on the outside of it."""

    def check(self) -> float:
        """Seconds for which it still may, as far as it can tell; infinite where nobody else may.

        Raises:
            Fenced: It may not: another process may be at work by now.
        """
        ...


@dataclass(slots=True)
class Environment:
    """What all passes of one controller share."""

    controller: str
    kind: Kind
    client: Client
    informers: dict[ResourceType, Informer]
    events: EventRecorder
    clock: Clock
    logger: Logger
    fence: Fence
    owns: frozenset[ResourceType] = frozenset()
    """The declared kinds that it makes and deletes."""
    applied: Applied = field(default_factory=Applied)
    _ids: Iterator[int] = field(default_factory=lambda: count(uuid4().int >> 62 << 62))

    def new_id(self) -> str:
        """An id of a pass: a UUID whose last part counts. Asking the system for randomness each time is slow."""
        return str(UUID(int=next(self._ids)))

    @property
    def resource(self) -> ResourceType:
        """The kind that is reconciled."""
        return resource_type_of(self.kind)

    def informer(self, kind: ResourceType) -> Informer:
        """The cache of `kind`; it has to be declared."""
        found = self.informers.get(kind)
        if found is None:
            raise LookupError(
                f"controller {self.controller!r} has not declared {kind}: add it to owns=, watches= or reads=, so that "
                "it is cached and its RBAC rule is generated (unless wanted= says no to these settings); or read "
                "it live, with ctx.client"
            )
        return found

"""Reads objects into entries, and goes past those that can't be read: each is told of once, and hides no other."""

from collections.abc import Callable, Iterator, Set as AbstractSet

import msgspec

from asyncctl.cache.event import read_any_event
from asyncctl.cache.header import Entry, Key, read_entry
from asyncctl.cache.unread import UNREADABLE, Identity, identify
from asyncctl.client.listing import Page
from asyncctl.observe.logs import Logger


class Reader:
    """Reads what a server lists and tells.

    Args:
        resource: What is read, for the log.
        manager: The field manager whose Apply entries are kept.
        logger: Told of what can't be read: once of each object, until `begin`.
        unreadable: Called each time.
    """

    def __init__(self, resource: str, *, manager: str | None, logger: Logger, unreadable: Callable[[], object]) -> None:
        self._resource = resource
        self._manager = manager
        self._logger = logger
        self._unreadable = unreadable
        self._told: set[Key | None] = set()

    @property
    def unread(self) -> AbstractSet[Key | None]:
        """What could not be read since `begin`."""
        return self._told

    def begin(self) -> None:
        """A list begins: what can't be read is told anew."""
        self._told.clear()

    def listed(self, page: Page) -> Iterator[Entry | Identity]:
        """The objects of a page."""
        for item in page.items:
            try:
                yield read_entry(item, self._manager)
            except UNREADABLE as error:
                yield self._tell(item, error)

    def event(self, line: bytes, raw: bytes | msgspec.Raw) -> Entry | Identity:
        """The object of an event, or which it is where it can't be read. Raises `NoEvent` when `line` is none."""
        try:
            return read_entry(raw, self._manager)
        except UNREADABLE:
            _, raw = read_any_event(line)  # what looked like the object may not be all of it
        try:
            return read_entry(raw, self._manager)
        except UNREADABLE as error:
            return self._tell(raw, error)

    def _tell(self, raw: bytes | msgspec.Raw, error: Exception) -> Identity:
        found = identify(bytes(raw))
        self._unreadable()
        if found.key not in self._told:
            self._told.add(found.key)
            self._logger.warning(
                "an object can't be read: its last known state is kept, and the others are kept current",
                resource=self._resource, object=str(found), cause=str(error),
            )  # fmt: skip
        return found

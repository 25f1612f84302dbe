"""A watch: the objects that are there, then every change, filtered and written to one client.

It reads the shared history at its own pace. It ends when its time is up, when the history has overtaken it, when its
resource is no longer served, or when the server stops; a client then goes on from the last resourceVersion it saw.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from asyncctl.apiserver.errors import ApiError
from asyncctl.apiserver.forms import Unwritable, Writer, error_line
from asyncctl.apiserver.listing import ListOptions
from asyncctl.apiserver.store import Change, Collection, Cursor, Record, Store
from asyncctl.apiserver.wire import JsonObject

_BATCH = 256
"""Changes written at once: enough to fill a packet, few enough that the loop stays free."""

_LAST_BOOKMARK = 2.0
"""Seconds before the end of a watch at which it gets a last bookmark."""


class Refused:
    """A watch that is told why it can't be, in its only event: once it is a watch, it has been answered with 200."""

    def __init__(self, error: ApiError) -> None:
        self._error = error

    def stop(self) -> None:
        """Do nothing: it ends by itself."""

    async def run(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write the event."""
        await write(error_line(self._error.status()))


class Watch:
    """One watch.

    Args:
        store: where the version counter stands.
        collection: what is watched.
        prefix: of the keys: `namespace/` or nothing.
        wanted: the options of the request.
        writer: gives the lines.
        bookmark_interval: seconds between two bookmarks.
        timeout: seconds until the watch ends.
    """

    def __init__(
        self,
        store: Store,
        collection: Collection,
        prefix: str,
        wanted: ListOptions,
        writer: Writer,
        bookmark_interval: float,
        timeout: float,
    ) -> None:
        self._store = store
        self._collection = collection
        self._prefix = prefix
        self._wanted = wanted
        self._writer = writer
        self._interval = bookmark_interval
        self._timeout = timeout
        self._stopped = False
        self._cursor: Cursor | None = None

    def stop(self) -> None:
        """Let the watch end after what it is writing."""
        self._stopped = True
        if self._cursor is not None:
            self._cursor.wake()

    async def run(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write events until the watch ends; `write` waits while the client is slow."""
        wanted, store = self._wanted, self._store
        initial = wanted.initial if wanted.initial is not None else not wanted.version
        since = store.version if not wanted.version or initial else wanted.version
        try:
            cursor = self._cursor = Cursor(store, self._collection, since)
        except ApiError as error:
            await Refused(error).run(write)
            return
        # The objects are taken in the same step as the place in the history, so no change falls between the two.
        present = list(self._collection.scan(self._prefix)) if initial else []
        with cursor, suppress(Unwritable):
            await self._write_present(present, write)
            if wanted.initial and wanted.bookmarks:
                await write(self._writer.bookmark(since, initial=True))
            await self._follow(cursor, since, write)

    async def _write_present(self, present: list[Record], write: Callable[[bytes], Awaitable[None]]) -> None:
        selects = self._wanted.selects
        for start in range(0, len(present), _BATCH):
            lines = [
                self._writer.event("ADDED", record)
                for record in present[start : start + _BATCH]
                if selects is None or selects(record.object)
            ]
            if lines:
                await write(b"".join(lines))

    async def _follow(self, cursor: Cursor, since: int, write: Callable[[bytes], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        last = max(end - _LAST_BOOKMARK, loop.time())
        bookmark = loop.time() + self._interval if self._wanted.bookmarks else end
        while not self._stopped and loop.time() < end:
            lost = cursor.lost
            changes = cursor.take(_BATCH)
            lines = [line for change in changes if change.version > since and (line := self._line(change)) is not None]
            if lines:
                await write(b"".join(lines))
            if lost and not changes:
                return
            if len(changes) == _BATCH or lost:
                continue
            now = loop.time()
            if now >= bookmark and self._wanted.bookmarks:
                await write(self._writer.bookmark(cursor.version))
                bookmark = now + self._interval if now < last else end
            due = min(bookmark, last if self._wanted.bookmarks and now < last else end, end)
            if due == last:
                bookmark = min(bookmark, last)
            timer = loop.call_at(due, cursor.wake)
            try:
                await cursor.wait()
            finally:
                timer.cancel()

    def _line(self, change: Change) -> bytes | None:
        record, selects = change.record, self._wanted.selects
        if not record.key.startswith(self._prefix):
            return None
        if selects is None:
            return self._writer.line(change, change.type, record)
        matches = change.type != "DELETED" and selects(record.object)
        matched = change.previous is not None and selects(change.previous.object)
        if change.type == "DELETED":
            return self._writer.line(change, "DELETED", record) if matched else None
        if matches:
            return self._writer.line(change, "MODIFIED" if matched else "ADDED", record)
        if matched and change.previous is not None:
            return self._writer.line(change, "DELETED", _under(change.previous, change.version))
        return None


def _under(previous: Record, version: int) -> Record:
    """Return an object as it was, under the version at which it left what was selected."""
    obj: JsonObject = dict(previous.object)
    obj["metadata"] = {**obj["metadata"], "resourceVersion": str(version)}
    return Record(previous.key, version, obj)

"""A model of an API server that serves one kind, and misbehaves when told to: what a `Reflector` asks is `Client`'s."""

import asyncio
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import orjson

from asyncctl.client.errors import StreamError, Target, TransportError, error_from_reply
from asyncctl.client.listing import Page
from asyncctl.client.watch import Lines
from tests.unit.cache.scripted import bookmark, event, item

PAGE = 2
END = {"k8s.io/initial-events-end": "true"}
TARGET = Target("watch", "configmaps")


class Change(NamedTuple):
    version: int
    type: str
    name: str
    uid: str

    @property
    def line(self):
        return event(self.type, item(self.name, self.version, self.uid)).rstrip(b"\n")


def failure(code, reason, message="no such luck", **more):
    body = {"kind": "Status", "code": code, "reason": reason, "message": message} | more
    return error_from_reply(TARGET, code, orjson.dumps(body), {})


def expired():
    return failure(410, "Expired", "too old resource version")


def ahead(asked, current):
    return failure(504, "Timeout", f"Timeout: Too large resource version: {asked}, current: {current}")


ANSWERS = {
    "refused": lambda: TransportError("connection refused", sent=False),
    "reset": lambda: TransportError("connection reset", sent=True),
    "429": lambda: failure(429, "TooManyRequests"),
    "500": lambda: failure(500, "InternalError"),
    "403": lambda: failure(403, "Forbidden"),
    "404": lambda: failure(404, "NotFound"),
    "410": expired,
}
"""What a request may be answered with instead."""

ENDS = {
    "end": None,
    "break": lambda: TransportError("the connection broke", sent=True),
    "half a line": lambda: StreamError("the watch ended in the middle of an event"),
    "garbage": b"not json",
    "ERROR 410": event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}).rstrip(b"\n"),
    "ERROR 500": event("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError"}).rstrip(b"\n"),
}
"""How a watch may end."""


class Watch:
    """An open watch: what is to be sent, and how far it was sent."""

    def __init__(self, server, since, lines):
        self.server = server
        self.since = since
        self.lines = lines
        self.place = sum(change.version <= since for change in server.log)
        self.began = self.place
        self.silent = False
        self.ended = False
        self._ready = asyncio.Event()
        self._outbox = []

    def send(self, limit=None):
        """Hand over at most `limit` lines: those it begins with, then what has changed since."""
        if self.silent:
            return
        batch = self.lines[:limit]
        self.lines = self.lines[limit:] if limit is not None else []
        left = None if limit is None else limit - len(batch)
        changes = self.server.log[self.place :][:left]
        self.place += len(changes)
        batch += [change.line for change in changes if change.version > self.since]
        self._put(batch)

    def repeat(self, count):
        """Send once more what it has sent of late."""
        self._put([change.line for change in self.server.log[self.began : self.place][-count:]])

    def bookmark(self):
        if not self.silent and not self.lines and self.place == len(self.server.log):
            self._put([bookmark(self.server.version).rstrip(b"\n")])

    def end(self, how):
        if not self.silent:
            self._outbox.append(ENDS[how])
            self.ended = True
            self._ready.set()

    def _put(self, batch):
        if batch and not self.ended:
            self._outbox.append(batch)
            self._ready.set()

    async def batches(self):
        while True:
            while not self._outbox:
                self._ready.clear()
                await self._ready.wait()
            match self._outbox.pop(0):
                case None:
                    return
                case bytes() as line:
                    yield [line]
                    return
                case list() as batch:
                    yield batch
                case make:
                    raise make()


class ModelServer:
    """Objects by name, their history, and what is wrong with it at the moment.

    Attributes:
        log: The changes it remembers, the oldest first.
        forgotten: The version up to which it has forgotten them.
        streaming: Whether it streams lists: `yes`, `refuses`, or `ignores` the wish, as servers before 1.27 do.
        answers: What the next requests are answered with.
        latency: Seconds that each request takes.
        delayed: Nothing is sent on watches unless `send` says so.
        lag: How many versions behind a list may be that is asked for one not older than so and so.
        between: Called, once each, before a list is continued.
        closes: Whether a watch that was asked for as a short one gets a bookmark, before it ends.
        went_back: A backup was restored, and nobody was told yet.
        restored: A backup was restored, once.
    """

    def __init__(self, clock):
        self.clock = clock
        self.version = 10
        self.objects = {}
        self.log = []
        self.forgotten = 0
        self.streaming = "yes"
        self.answers = []
        self.latency = 0.0
        self.delayed = False
        self.lag = 0
        self.between = []
        self.closes = True
        self.went_back = False
        self.restored = False
        self.address = "10.0.0.1:6443"
        self.watches = []
        self.asked = []
        self._pages = {}
        self._uids = 0

    # What others do with it.

    def write(self, name):
        """Change the object, or make it."""
        if name in self.objects:
            self._change("MODIFIED", name, self.objects[name][0])
        else:
            self._uids += 1
            self._change("ADDED", name, f"uid-{self._uids}")

    def delete(self, name):
        self._change("DELETED", name, self.objects[name][0])

    def _change(self, kind, name, uid):
        self.version += 1
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = (uid, self.version)
        self.log.append(Change(self.version, kind, name, uid))
        self.send()

    def advance(self):
        """Other kinds change too."""
        self.version += 1

    def compact(self):
        self.forgotten = self.version
        self._pages.clear()

    def backup(self):
        return self.version, dict(self.objects), list(self.log)

    def restore(self, backup, how):
        """Be again as it was; the watches end in some way."""
        self.version, objects, log = backup
        self.objects, self.log = dict(objects), list(log)
        self.forgotten = min(self.forgotten, self.version)
        self._pages.clear()
        self.went_back = self.restored = True
        self.end_all(how)
        for watch in self.watches:
            watch.silent = True
        self.watches.clear()

    def send(self):
        if not self.delayed:
            for watch in self.watches:
                watch.send()

    def end_all(self, how):
        for watch in self.watches:
            watch.end(how)

    # What a reflector asks.

    def _at_least(self, asked):
        """A version that a list may have which is not to be older than `asked`, and the objects there were at it."""
        version = max(int(asked), self.version - self.lag) if asked else self.version
        objects = {}
        for change in self.log:
            if change.version <= version:
                objects.pop(change.name, None)
                if change.type != "DELETED":
                    objects[change.name] = change.uid, change.version
        return version, objects

    async def _answer(self, what):
        self.asked.append(what)
        if self.latency:
            await self.clock.sleep(self.latency)
        if self.answers:
            make = ANSWERS[self.answers.pop(0)]
            raise make()

    async def list_page(self, kind, *, limit, continue_token="", resource_version=None, not_older=False, **_):
        probe = limit == 1
        await self._answer("probe" if probe else "list")
        if continue_token:
            if self.between:
                self.between.pop(0)()
            if continue_token not in self._pages:
                raise expired()
            version, rest = self._pages[continue_token]
        else:
            if resource_version and int(resource_version) > self.version:
                raise ahead(resource_version, self.version)
            version, objects = self._at_least(resource_version)
            rest = sorted(objects.items())
            self.went_back = False
        size = min(limit, PAGE) or len(rest)
        token = ""
        if len(rest) > size and not probe:
            token = f"{version}/{len(rest)}"
            self._pages[token] = version, rest[size:]
        items = [msgspec.Raw(orjson.dumps(item(name, version, uid))) for name, (uid, version) in rest[:size]]
        return Page(items, str(version), token)

    @asynccontextmanager
    async def watch(self, kind, *, resource_version=None, initial=False, timeout_seconds=300, **_):
        await self._answer("stream" if initial else "watch")
        version = int(resource_version or 0)
        lines = []
        if not initial:
            if version < self.forgotten:
                raise expired()
            watch = Watch(self, version, lines)
            watch.silent = version > self.version  # for ever, as the real server is
        else:
            if self.streaming == "refuses":
                raise failure(422, "Invalid", "sendInitialEvents: Forbidden")
            if version > self.version:
                raise ahead(version, self.version)
            listed, objects = self._at_least(version)
            lines = [Change(version, "ADDED", name, uid).line for name, (uid, version) in objects.items()]
            if self.streaming == "yes":
                lines.append(bookmark(listed, END).rstrip(b"\n"))
                self.went_back = False
            watch = Watch(self, listed, lines)
        self.watches.append(watch)
        self.send()
        if timeout_seconds < 10:
            self.clock.call_at(self.clock.monotonic() + 1, lambda: self.closes and watch.bookmark())
            self.clock.call_at(self.clock.monotonic() + timeout_seconds, lambda: watch.end("end"))
        try:
            batches = watch.batches()
            yield Lines(batches, self.address)
        finally:
            await batches.aclose()
            if watch in self.watches:
                self.watches.remove(watch)

"""A cache at work for a test: an informer, and one who is told of all that it says and holds it to its promises."""

import asyncio
from contextlib import asynccontextmanager

import orjson

from asyncctl.cache.header import read_entry
from asyncctl.cache.informer import Informer
from asyncctl.clock import SystemClock
from asyncctl.observe.metrics import Metrics
from tests.unit.support import Log, connected, until


class Listener:
    """Plays what it is told after, and notes what can't be.

    Attributes:
        known: the headers of what is there, by key.
        gone: the last header of each object that is said to be gone, in order.
        wrong: what was said against the rules: an old state that is not the last one told, a version that goes back.
    """

    def __init__(self):
        self.known = {}
        self.gone = []
        self.wrong = []

    def __call__(self, old, new, initial):
        key = (new or old).key
        if self.known.get(key) != old:
            self.wrong.append(f"{key} was {self.known.get(key)}, and is said to have been {old}")
        if new is None:
            self.known.pop(key, None)
            self.gone.append(old)
            return
        if old is not None and (old.uid != new.uid or new.version <= old.version):
            self.wrong.append(f"{key} went from {old} to {new}")
        self.known[key] = new


class Cache:
    """An informer at work.

    Attributes:
        informer: itself.
        listener: who is told.
        log: what it logs.
    """

    def __init__(self, informer, log, metrics):
        self.informer = informer
        self.log = log
        self._metrics = metrics
        self.listener = Listener()
        informer.subscribe(self.listener)

    def names(self, namespace=None):
        """The names of what is there."""
        return {entry.header.name for entry in self.informer.entries(namespace)}

    def gone(self):
        """The names of what is said to be gone, in order."""
        return [header.name for header in self.listener.gone]

    def objects(self):
        """What is there, decoded, by its key."""
        return {entry.header.key: plain(entry.data) for entry in self.informer.entries()}

    def restarts(self, cause):
        """How many watches were opened again for this reason."""
        family = self._metrics.families.watch_restarts.collect()
        return sum(sample.value for sample in family.samples if sample.labels["cause"] == cause)

    async def has(self, *names, seconds=30.0):
        """Return when exactly these names are there."""
        try:
            await until(lambda: self.names() == set(names), seconds)
        except TimeoutError:
            raise AssertionError(f"{self.names()} and not {set(names)}; {self.informer.problem}") from None

    async def agrees(self, client, namespace, **which):
        """Return when it has what the server has now, object by object."""
        kind = self.informer.kind
        live = {}
        async for item in client.list(kind, namespace=namespace, **which):
            live[read_entry(item).header.key] = plain(item)

        def equal():
            return {key: value for key, value in self.objects().items() if key[0] == (namespace or key[0])} == live

        await until(equal)


def plain(data):
    """An object as a dict, without what only some answers have in them."""
    found = orjson.loads(data)
    found["metadata"].pop("managedFields", None)
    return {name: value for name, value in found.items() if name not in {"apiVersion", "kind"}}


@asynccontextmanager
async def caching(config, kind, *, clock=None, synced=True, **options):
    """An informer of `kind` at work as `config` says, filled when `synced`; held to its promises at the end."""
    log, metrics = Log(), Metrics(process=False)
    async with connected(config, log=log) as client:
        informer = Informer(
            client, kind.resource_type, clock=clock or SystemClock(), random=lambda: 0.02, logger=log.logger,
            metrics=metrics, **options,
        )  # fmt: skip
        cache = Cache(informer, log, metrics)
        task = asyncio.create_task(informer.run(), name="the informer of the test")
        try:
            if synced:
                async with asyncio.timeout(30):
                    await informer.wait_synced()
            yield cache
            assert not task.done(), "the informer has ended"
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert not cache.listener.wrong, cache.listener.wrong
        kept = {entry.header.key: entry.header for entry in informer.entries()}
        assert cache.listener.known == kept, f"told: {cache.listener.known}; kept: {kept}"

"""An API server over a real socket that follows a script, and an informer of it."""

import asyncio
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from asyncctl.cache.informer import Informer
from asyncctl.objects.builtin import ConfigMap
from asyncctl.observe.metrics import Metrics
from tests.unit.support import ImpatientClock, Log, connected, http_server, status, until

KIND = ConfigMap.resource_type


def item(name, version, uid=None, namespace="team"):
    return {"metadata": {"name": name, "namespace": namespace, "uid": uid or name, "resourceVersion": str(version)}}


def page(version, *items, token=""):
    body = {"metadata": {"resourceVersion": str(version), "continue": token}, "items": list(items)}
    return lambda: web.json_response(body)


def event(kind, obj):
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"


def bookmark(version, annotations=None):
    metadata = {"resourceVersion": str(version)} | ({"annotations": annotations} if annotations else {})
    return event("BOOKMARK", {"kind": "ConfigMap", "metadata": metadata})


EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
HANG = object()


class Watch:
    """An answer to a watch: writes its parts, then ends, or hangs when the last part is HANG."""

    def __init__(self, *parts):
        self.parts = parts

    async def begin(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    async def answer(self, request):
        response = await self.begin(request)
        for part in self.parts:
            if part is HANG:
                await asyncio.sleep(3600)
            await response.write(part)
        return response


def unstreamed():
    """What a server without the feature says."""
    return status(422, "Invalid", "sendInitialEvents: Forbidden: the WatchList feature gate is not enabled")


class Api:
    """Gives `lists`, `watches` and `streams` in turn; when there is none left, it repeats the last list, hangs in a
    watch, and refuses to stream."""

    def __init__(self, *, lists=(), watches=(), streams=()):
        self.lists = list(lists)
        self.watches = list(watches)
        self.streams = list(streams)
        self.asked = []

    async def __call__(self, request):
        query = dict(request.query)
        what = "stream" if "sendInitialEvents" in query else "watch" if "watch" in query else "list"
        self.asked.append((what, request.path, query))
        if what == "stream":
            answer = self.streams.pop(0) if self.streams else unstreamed
        elif what == "watch":
            answer = self.watches.pop(0) if self.watches else Watch(HANG)
        else:
            answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, Watch):
            return await answer.answer(request)
        return answer() if callable(answer) else answer

    def of(self, what):
        return [query for kind, _, query in self.asked if kind == what]


class Heard(list):
    def __init__(self):
        super().__init__()
        self.initial = []

    def __call__(self, old, new, initial):
        self.initial.append(initial)
        kind = "add" if old is None else "delete" if new is None else "update"
        self.append((kind, (new or old).name, (new or old).version))


class Running:
    def __init__(self, informer, log, clock, heard, metrics):
        self.informer, self.log, self.clock, self.heard, self.metrics = informer, log, clock, heard, metrics

    async def names(self, *names):
        await until(lambda: {entry.header.name for entry in self.informer.entries()} == set(names))

    def restarts(self):
        """How often, by cause."""
        family = self.metrics.families.watch_restarts.collect()
        return {
            sample.labels["cause"]: int(sample.value) for sample in family.samples if sample.name.endswith("_total")
        }

    def version(self, name, namespace="team"):
        found = self.informer.get((namespace, name))
        return found and found.header.version


@asynccontextmanager
async def informing(url, kind=KIND, tries=1, namespaces=(), labels=None, fields=None, clock=None, **options):
    log, clock, heard = Log(), clock or ImpatientClock(), Heard()
    metrics = Metrics(process=False, clock=clock)
    async with connected(url, tries=tries, log=log, **options) as client:
        informer = Informer(
            client, kind, clock=clock, random=lambda: 0.5, logger=log.logger, metrics=metrics,
            namespaces=namespaces, labels=labels, fields=fields,
        )  # fmt: skip
        informer.subscribe(heard)
        task = asyncio.create_task(informer.run(), name="informer")
        try:
            yield Running(informer, log, clock, heard, metrics)
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def reflecting(api, **options):
    async with http_server(api) as url, informing(url, **options) as running:
        yield running

"""A small API server of one kind whose lists can be held back, namespace by namespace; and an informer at it."""

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager

import orjson
from aiohttp import web
from prometheus_client import generate_latest

from asyncctl.cache.informer import Informer
from asyncctl.objects.builtin import ConfigMap
from asyncctl.observe.metrics import Metrics
from tests.unit.support import ImpatientClock, Log, connected, http_server, status

KIND = ConfigMap.resource_type


class Api:
    """Objects by namespace and name; `hold(namespace)` keeps its lists waiting until `release`."""

    def __init__(self):
        self.version = 10
        self.objects = {}
        self.forbidden = set()
        self._log = []
        self.watches = defaultdict(list)  # by namespace, None for all: the queues of those that are open
        self._held = {}
        self.waits = set()
        """Namespaces, None for all, whose lists have waited."""

    def put(self, namespace, name, **metadata):
        self.version += 1
        kind = "MODIFIED" if (namespace, name) in self.objects else "ADDED"
        made = {
            "name": name,
            "namespace": namespace,
            "uid": f"{namespace}-{name}",
            "resourceVersion": str(self.version),
        }
        self.objects[namespace, name] = {"metadata": made | metadata}
        self._tell(kind, self.objects[namespace, name])

    def delete(self, namespace, name):
        self.version += 1
        gone = self.objects.pop((namespace, name))
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", gone)

    def hold(self, namespace):
        self._held[namespace] = asyncio.Event()

    def release(self, namespace):
        self._held.pop(namespace).set()

    def _tell(self, kind, item):
        namespace, line = item["metadata"]["namespace"], orjson.dumps({"type": kind, "object": item}) + b"\n"
        self._log.append((self.version, namespace, line))
        for each in (None, namespace):
            for queue in self.watches[each]:
                queue.put_nowait(line)

    async def __call__(self, request):
        parts = request.path.split("/")
        namespace = parts[4] if len(parts) > 4 else None
        if "sendInitialEvents" in request.query:
            return status(400, "BadRequest", "no streams here")
        if namespace in self.forbidden:
            return status(403, "Forbidden", f"{namespace} is none of yours")
        if "watch" in request.query:
            return await self._watch(request, namespace)
        if namespace in self._held:
            self.waits.add(namespace)
            await self._held[namespace].wait()
        items = [item for key, item in self.objects.items() if namespace in {None, key[0]}]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _watch(self, request, namespace):
        response = web.StreamResponse()
        queue = asyncio.Queue()
        for version, where, line in self._log:
            if version > int(request.query["resourceVersion"]) and namespace in {None, where}:
                queue.put_nowait(line)
        self.watches[namespace].append(queue)
        try:
            await response.prepare(request)
            while True:
                await response.write(await queue.get())
        finally:
            self.watches[namespace].remove(queue)


class Heard(list):
    def __call__(self, old, new, initial):
        kind = "add" if old is None else "delete" if new is None else "update"
        header = new or old
        self.append((kind, f"{header.namespace}/{header.name}"))


@asynccontextmanager
async def client_of(url):
    log = Log()
    async with connected(url, tries=1, log=log) as client:
        yield client, log


@asynccontextmanager
async def informing(api, kind=KIND, **options):
    """An informer at work; with its `log`, its `metrics`, and what it has `heard`."""
    async with asyncio.timeout(60), http_server(api) as url, client_of(url) as (client, log):
        metrics = Metrics(process=False)
        informer = Informer(
            client, kind, clock=ImpatientClock(), random=lambda: 0.5, logger=log.logger, metrics=metrics, **options
        )
        informer.log, informer.metrics, informer.heard = log, metrics, Heard()
        informer.unsubscribe = informer.subscribe(informer.heard)
        task = asyncio.create_task(informer.run(), name="informer")
        try:
            yield informer
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def names(entries):
    return sorted(f"{entry.header.namespace}/{entry.header.name}" for entry in entries)


def reflectors():
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("reflector")]


def shown(metrics):
    """The lines that a scrape shows of caches, without what only counts up."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith(("asyncctl_cache", "asyncctl_watch")) and "_total" not in line]

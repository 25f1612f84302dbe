"""A controller at work on a clock that is moved by hand: the real store, queue and loop, and in the place of the API
server a dictionary that can be taken away."""

import asyncio
from contextlib import asynccontextmanager

import orjson

from asyncctl.cache.header import read_entry
from asyncctl.cache.store import Store
from asyncctl.client.client import Client
from asyncctl.client.errors import NotFound, Target, TransportError
from asyncctl.client.transport.transport import Reply
from asyncctl.controller.controller import Controller
from asyncctl.controller.environment import Environment
from asyncctl.ha.fence import NoFence
from asyncctl.objects.resource import resource_type_of
from asyncctl.observe.metrics import Metrics
from asyncctl.operator import Operator
from asyncctl.queue import Backoff, WorkQueue
from asyncctl.testing.clock import FakeClock
from tests.unit.harness import Widget
from tests.unit.support import Log


class Cache(Store):
    """The store of one kind, as an informer shows it."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def entries(self, namespace=None):
        return (entry for entry in super().entries() if namespace in {None, entry.header.namespace})

    def filling(self, _):
        return False


class Server:
    """What a transport talks to: it gives objects and takes merge patches, unless `answer` says otherwise."""

    def __init__(self):
        self.objects = {}
        self.version = 100
        self.requests = []
        self.error = None  # what a request raises

    def put(self, kind, name, **members):
        self.version += 1
        metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 1}
        metadata |= members.pop("metadata", {}) | {"resourceVersion": str(self.version)}
        resource = resource_type_of(kind)
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata} | members
        self.objects[resource.plural, name] = body
        return orjson.dumps(body)

    async def request(self, request):
        self.requests.append(request)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error() if callable(self.error) else self.error
        parts = request.path.partition("?")[0].split("/")
        found = self.objects.get((parts[6], parts[7]))
        if found is None:
            raise NotFound(request.target, 404, {"reason": "NotFound", "message": "it is gone"})
        if request.method == "PATCH":
            merge(found, orjson.loads(request.body))
            self.version += 1
            found["metadata"]["resourceVersion"] = str(self.version)
        return Reply(200, orjson.dumps(found), {})


def merge(into, change):
    for key, value in change.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value


class Said(list):
    """Events, as (name, type, reason, note)."""

    def say(self, regarding, kind, reason, note, action=""):
        self.append((regarding.name, kind, reason, note))


class Stage:
    def __init__(self, declaration, random=lambda: 0.5, **settings):
        self.clock = FakeClock(monotonic=0.0)
        self.log = Log()
        self.metrics = Metrics(clock=self.clock, process=False)
        self.server = Server()
        self.events = Said()
        client = Client(self.server, field_manager="test", namespaces=(), clock=self.clock, random=random)
        kinds = [resource_type_of(kind) for kind in (declaration.kind, *(watch.kind for watch in declaration.watches))]
        self.caches = {kind: Cache(kind) for kind in kinds}
        environment = Environment(
            controller=declaration.name, kind=declaration.kind, client=client, informers=self.caches,
            events=self.events, clock=self.clock, logger=self.log.logger, fence=NoFence(),
        )  # fmt: skip
        # No resync, unless asked for: when an object's turn is goes by a hash that differs from run to run.
        settings = {"workers": 10, "timeout": 300.0, "resync": 1e9, "retry_limit": 10, "retry_base": 5.0} | settings
        limits = {name: settings.pop(name) for name in ("interval", "rate", "burst") if name in settings}
        self.queue = WorkQueue(
            clock=self.clock, random=random, metrics=self.metrics.queue(declaration.name),
            retry=Backoff(base=settings["retry_base"], maximum=60.0), **limits,
        )  # fmt: skip
        self.counts = self.metrics.controller(declaration.name, workers=settings["workers"])
        self.controller = Controller(
            declaration, environment, self.queue, random=random, metrics=self.counts, **settings
        )
        self.controller.wire()

    def there(self, *names, kind=Widget, **members):
        """The first list has these objects."""
        entries = [read_entry(self.server.put(kind, name, **members), "test") for name in names]
        self.caches[resource_type_of(kind)].replace(entries, self.server.version)

    def changed(self, name, kind=Widget, **members):
        """The watch shows a change."""
        self.caches[resource_type_of(kind)].upsert(read_entry(self.server.put(kind, name, **members), "test"))

    def status(self, name, kind=Widget):
        return self.server.objects[resource_type_of(kind).plural, name].get("status", {})

    def condition(self, name):
        found = {each["type"]: each for each in self.status(name).get("conditions", [])}
        return found.get("Stalled")

    def delay(self, name):
        """Seconds until `name` comes, or None."""
        found = self.queue._delayed.get(("team", name))
        return None if found is None else found[0] - self.clock.monotonic()

    @asynccontextmanager
    async def working(self):
        work = asyncio.create_task(self.controller.work(), name="controller")
        await self.clock.settle()
        try:
            yield self
        finally:
            self.queue.close()
            await asyncio.wait_for(work, 30)
            assert self.clock.timers == []


def declared(reconcile, kind=Widget, **options):
    return Operator("test").controller(kind, **options)(reconcile)


def refused():
    return TransportError("connection refused", sent=False)


TARGET = Target("update", "widgets", "team", "a")

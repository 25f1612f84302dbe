"""A kind, a cluster of it, and an operator at work in it: for tests of the runtime as a whole."""

import itertools
from contextlib import asynccontextmanager, suppress

import orjson

from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import AlreadyExists, NotFound, Target, TooManyRequests
from asyncctl.client.patch import Patch
from asyncctl.client.transport.transport import Lane, Request
from asyncctl.generate import crd
from asyncctl.objects import Namespace, Resource, Spec, Status, field
from asyncctl.settings import Address, Settings
from tests.unit.support import Log, answered, connected, until


class WidgetSpec(Spec):
    size: int = 1


class WidgetStatus(Status):
    parts: int | None = None
    note: str | None = None


class Widget(Resource, group="runtime.example.com", version="v1"):
    spec: WidgetSpec = field(default_factory=WidgetSpec)
    status: WidgetStatus = field(default_factory=WidgetStatus)


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = crd(Widget)  # at import: it reads the source for its docstrings
_numbers = itertools.count(1)


class Cluster:
    """A cluster as somebody else sees it, with a namespace of the test's own."""

    def __init__(self, config: ClusterConfig, client: Client, namespace: str):
        self.config = config
        self.client = client
        self.namespace = namespace

    async def send(self, method, path, body=None, content_type="application/json"):
        lane = Lane.READ if method == "GET" else Lane.WRITE
        request = Request(
            target=Target(method, path), method=method, path=path, lane=lane, content_type=content_type,
            body=None if body is None else orjson.dumps(body),
        )  # fmt: skip
        return orjson.loads((await self.client._transport.request(request)).body)

    async def define(self, definition):
        """Make a CustomResourceDefinition, if it is not there; return when what it defines can be listed.

        A server that has accepted one answers 404 for a moment, and a real one "storage is (re)initializing" after it.
        """
        with suppress(AlreadyExists):
            await self.send("POST", CRDS, definition)
        spec = definition["spec"]
        (version,) = (version["name"] for version in spec["versions"] if version["storage"])
        path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}?limit=1"
        await answered(lambda: self.send("GET", path), but=(NotFound, TooManyRequests))

    async def get(self, kind, name):
        return await self.client.get(kind, name, namespace=self.namespace)

    async def gone(self, kind, name):
        try:
            await self.get(kind, name)
        except NotFound:
            return True
        return False

    async def create(self, kind, name, **values):
        return await self.client.create(kind(name=name, namespace=self.namespace, **values))

    async def patch(self, kind, name, change, *, subresource=None, patch=Patch.MERGE):
        return await self.client.patch(
            kind.resource_type, name, change, patch=patch, namespace=self.namespace, subresource=subresource
        )

    async def delete(self, kind, name):
        return await self.client.delete(kind.resource_type, name, namespace=self.namespace)

    async def until(self, kind, name, condition, seconds=30.0):
        """Return the object as soon as `condition` is true of it."""
        return await answered(lambda: self.get(kind, name), condition, but=(NotFound,), seconds=seconds)

    async def until_gone(self, kind, name, seconds=30.0):
        await answered(lambda: self.gone(kind, name), bool, seconds=seconds)

    async def until_said(self, regarding, seconds=30.0):
        """Return the events about an object when there are any."""
        return await answered(lambda: self.events(regarding), bool, seconds=seconds)

    async def events(self, regarding):
        """Return (reason, note) of each event about an object."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        found = (await self.send("GET", path))["items"]
        return [(each["reason"], each["note"]) for each in found if each["regarding"]["name"] == regarding]


@asynccontextmanager
async def cluster_at(config: ClusterConfig):
    """A `Cluster` with the kind Widget, in a namespace of its own."""
    async with connected(config) as client:
        cluster = Cluster(config, client, f"runtime-{next(_numbers)}")
        await cluster.define(WIDGETS)
        await cluster.client.create(Namespace(name=cluster.namespace))
        yield cluster


def quick_settings(kind=Settings, **values):
    """No Lease, a free port, and retries that a test can wait for."""
    quick = {
        "leader_election": False, "http_address": Address("127.0.0.1", 0), "debug_address": None, "pod_name": "test",
        "retry_base": 0.01, "retry_max": 0.02, "drain_timeout": 5.0, "request_timeout": 5.0,
    }  # fmt: skip
    return kind(**(quick | values))


@asynccontextmanager
async def working(operator, cluster, log=None, **settings):
    """`operator` at work in `cluster`, touching no namespace but the test's."""
    settings = {"namespaces": (cluster.namespace,)} | settings
    log = log or Log()
    async with operator.running(
        settings=quick_settings(operator.settings, **settings), logger=log.logger, config=cluster.config
    ) as running:
        running.log = log
        await until(running.ready.is_set)
        yield running

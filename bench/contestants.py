"""One client of the API server, measured in a process of its own: `python -m bench.contestants NAME …`.

Each contestant is what its user gets when he follows its documentation, and all read and patch the same ConfigMap.
Printed is one line of JSON: CPU seconds of the whole process for each request, by the operating system's accounting,
and how often a thread other than the event loop's own was woken.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

NAME, NAMESPACE = "bench", "default"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}"
CHANGE = {"data": {"key-0": "changed"}}
WARM_UP = 200  # requests

Call = Callable[[], Awaitable[object]]


class Server(NamedTuple):
    """Whom to talk to."""

    url: str
    ca: str
    token: str


class Calls(NamedTuple):
    """What is measured."""

    get: Call
    patch: Call


def make_transport(server: Server) -> Any:  # noqa: ANN401 - imported in here only
    """Ours, with all that the daemon has switched on; only the limit of requests a second is off."""
    from asyncctl.client.config.cluster import ClusterConfig
    from asyncctl.client.transport.transport import Transport
    from asyncctl.clock import SystemClock
    from asyncctl.observe.logs import make_logger
    from asyncctl.observe.metrics import Metrics

    return Transport(
        ClusterConfig(server=server.url, ca_file=server.ca or None, authorization=f"Bearer {server.token}"),
        clock=SystemClock(),
        random=random.random,
        logger=make_logger("info", "json", sys.stderr),
        metrics=Metrics().requests("bench"),
        fence=lambda: 10.0,
        qps=0.0,
    )


@asynccontextmanager
async def asyncctl(server: Server) -> AsyncIterator[Calls]:
    """Ours, as a controller's author uses it."""
    from asyncctl.client.client import Client
    from asyncctl.client.patch import Patch
    from asyncctl.objects import ConfigMap
    from asyncctl.objects.codec import decode

    async with make_transport(server) as transport:
        client = Client(transport, field_manager="bench")

        async def patch() -> object:
            body = await client.patch(ConfigMap.resource_type, NAME, CHANGE, patch=Patch.MERGE, namespace=NAMESPACE)
            return decode(ConfigMap, body)

        yield Calls(lambda: client.get(ConfigMap, NAME, namespace=NAMESPACE), patch)


@asynccontextmanager
async def asyncctl_raw(server: Server) -> AsyncIterator[Calls]:
    """Ours, without decoding the object."""
    from asyncctl.client.client import Client
    from asyncctl.client.patch import Patch
    from asyncctl.objects import ConfigMap

    kind = ConfigMap.resource_type
    async with make_transport(server) as transport:
        client = Client(transport, field_manager="bench")
        yield Calls(
            lambda: client.get(kind, NAME, namespace=NAMESPACE),
            lambda: client.patch(kind, NAME, CHANGE, patch=Patch.MERGE, namespace=NAMESPACE),
        )


@asynccontextmanager
async def kubernetes_asyncio(server: Server) -> AsyncIterator[Calls]:
    """`CoreV1Api`, whose answers are models."""
    from kubernetes_asyncio.client import CoreV1Api

    async with _api_client(server) as client:
        core = CoreV1Api(client)
        yield Calls(
            lambda: core.read_namespaced_config_map(NAME, NAMESPACE),
            lambda: core.patch_namespaced_config_map(
                NAME, NAMESPACE, CHANGE, _content_type="application/merge-patch+json"
            ),
        )


@asynccontextmanager
async def kubernetes_asyncio_raw(server: Server) -> AsyncIterator[Calls]:
    """`ApiClient.call_api`, whose answers are bytes."""
    async with _api_client(server) as client:

        async def call(method: str, headers: dict[str, str], body: object = None) -> bytes:
            response = await client.call_api(
                PATH, method, header_params={"Accept": "application/json"} | headers, body=body,
                auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True,
            )  # fmt: skip
            content: bytes = await response.read()
            return content

        merge = {"Content-Type": "application/merge-patch+json"}
        yield Calls(lambda: call("GET", {}), lambda: call("PATCH", merge, CHANGE))


def _api_client(server: Server) -> Any:  # noqa: ANN401 - imported in here only
    from kubernetes_asyncio.client import ApiClient, Configuration

    configuration = Configuration(host=server.url)
    configuration.ssl_ca_cert = server.ca or None
    configuration.api_key = {"BearerToken": f"Bearer {server.token}"}
    return ApiClient(configuration)


@asynccontextmanager
async def lightkube(server: Server) -> AsyncIterator[Calls]:
    """Its `AsyncClient`, whose answers are data classes."""
    from lightkube import AsyncClient, KubeConfig
    from lightkube.config.models import Cluster, User
    from lightkube.resources.core_v1 import ConfigMap
    from lightkube.types import PatchType

    config = KubeConfig.from_one(
        cluster=Cluster(server=server.url, certificate_auth=server.ca or None), user=User(token=server.token)
    )
    client = AsyncClient(config=config)
    try:
        yield Calls(
            lambda: client.get(ConfigMap, NAME, namespace=NAMESPACE),
            lambda: client.patch(ConfigMap, NAME, CHANGE, namespace=NAMESPACE, patch_type=PatchType.MERGE),
        )
    finally:
        await client.close()


@asynccontextmanager
async def aiohttp(server: Server) -> AsyncIterator[Calls]:
    """The floor of those that are made on it: a bare session, a fixed address, bytes."""
    import ssl

    from aiohttp import ClientSession, TCPConnector

    tls = ssl.create_default_context(cafile=server.ca) if server.ca else True
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/json"}
    content = {"Content-Type": "application/merge-patch+json"}
    async with ClientSession(connector=TCPConnector(ssl=tls), headers=headers) as session:

        async def get() -> bytes:
            async with session.get(server.url + PATH) as response:
                return await response.read()

        async def patch() -> bytes:
            body = json.dumps(CHANGE).encode()
            async with session.patch(server.url + PATH, data=body, headers=content) as response:
                return await response.read()

        yield Calls(get, patch)


CONTESTANTS = {
    "asyncctl": asyncctl,
    "asyncctl, bytes": asyncctl_raw,
    "kubernetes-asyncio": kubernetes_asyncio,
    "kubernetes-asyncio, bytes": kubernetes_asyncio_raw,
    "lightkube": lightkube,
    "aiohttp alone, bytes": aiohttp,
}
PEERS = frozenset({"kubernetes-asyncio", "kubernetes-asyncio, bytes", "lightkube"})
"""Who is installed apart, by bench/requirements.txt."""


async def _repeat(call: Call, count: int, at_once: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(work() for _ in range(at_once)))


def wakes() -> int:
    """How often the threads other than the first have waited and been woken."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        if task.name != str(os.getpid()):
            status = (task / "status").read_text()
            total += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


async def measure(name: str, server: Server, count: int, at_once: int) -> dict[str, dict[str, float]]:
    """CPU seconds, and wakes of other threads, for each request."""
    figures = {}
    async with CONTESTANTS[name](server) as calls:
        for verb, call in (("GET", calls.get), ("PATCH", calls.patch)):
            await _repeat(call, min(WARM_UP, count), at_once)
            woken, began = wakes(), time.process_time()
            await _repeat(call, count, at_once)
            figures[verb] = {"cpu": (time.process_time() - began) / count, "wakes": (wakes() - woken) / count}
    return figures


def main() -> None:
    """Measure one contestant."""
    parser = argparse.ArgumentParser(prog="python -m bench.contestants", description=__doc__)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--server", required=True)
    parser.add_argument("--ca", default="")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], required=True)
    options = parser.parse_args()
    server = Server(options.server, options.ca, os.environ.get("BENCH_TOKEN", "made-up"))
    measuring = measure(options.name, server, options.count, options.at_once)
    if options.loop == "uvloop":
        import uvloop

        print(json.dumps(uvloop.run(measuring)))
    else:
        print(json.dumps(asyncio.run(measuring)))


if __name__ == "__main__":
    main()

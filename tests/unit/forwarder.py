"""An HTTP proxy of an API server that a test makes late, forgetful or backward."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import orjson
from aiohttp import web

from asyncctl.client.config.cluster import ClusterConfig
from tests.unit.harness import Cluster
from tests.unit.support import connected, http_server


class Forwarder:
    """What it does to the answers it passes on. At first: nothing.

    Attributes:
        flowing: While it is not set, no event of a watch comes through; that it has ended does.
        streams: Whether a watch may begin with what is there; a server that can't is asked for a list.
        change: What each object, list or event is made into.
    """

    def __init__(self, server):
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.streams = True
        self.change = lambda answer: answer
        self.lists = []  # (path, the answer) of each list that came through, but for those that ask for one object
        self.stale = {}  # path -> the answer that each list of it is given
        self._server = server
        self._watches = set()

    def cut(self):
        """End all watches, in the middle of what they say."""
        for watch in self._watches:
            watch.cancel()

    async def handle(self, session, request):
        headers = {key: value for key, value in request.headers.items() if key in {"Content-Type", "Accept"}}
        watches = "watch" in request.query
        if watches and "sendInitialEvents" in request.query and not self.streams:
            return web.json_response(
                {"kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid"}, status=422
            )
        url, body = self._server + str(request.rel_url), await request.read()
        async with session.request(request.method, url, data=body, headers=headers) as answer:
            kind = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            if watches and answer.status == 200:
                return await self._watch(request, answer, kind)
            found = self.change(orjson.loads(await answer.read()))
        if request.method == "GET" and found["kind"].endswith("List"):
            found = self.stale.get(request.path, found)
            if request.query.get("limit") != "1":
                self.lists.append((request.path, found))
        return web.Response(status=answer.status, body=orjson.dumps(found), headers=kind)

    async def _watch(self, request, answer, kind):
        response = web.StreamResponse(headers=kind)
        await response.prepare(request)
        task = asyncio.current_task()
        self._watches.add(task)
        try:
            async for line in answer.content:
                event = orjson.loads(line)
                if event["type"] != "ERROR":
                    await self.flowing.wait()
                await response.write(orjson.dumps(self.change(event)) + b"\n")
        finally:
            self._watches.discard(task)
        return response


@asynccontextmanager
async def forwarding(cluster):
    """`cluster` as it is seen through a `Forwarder`, and that."""
    made = Forwarder(cluster.config.server)
    async with (
        aiohttp.ClientSession() as session,
        http_server(lambda request: made.handle(session, request)) as url,
        connected(url) as client,
    ):
        yield Cluster(ClusterConfig(server=url), client, cluster.namespace), made

"""A proxy between a client and a backend, that does to watches what networks, proxies and old servers do to them.

It speaks plain HTTP to the client, and to the backend whatever that wants. What comes from the backend is its own: it
can be refused, kept back or cut into other pieces, and nothing is added to it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.unit.support import http_server, status

_KEPT_BACK = {"content-length", "transfer-encoding", "connection", "keep-alive"}


class Between:
    """What passes, and what is done to it; each attribute may be changed at any time.

    Attributes:
        asked: the requests that came, as `METHOD /path?query`.
        ask: changes a request's query, in place.
        line: what is passed on of a line of a watch; nothing keeps it back.
        cut: cuts what is passed on of a watch into pieces, each sent by itself.
        flow: while it is cleared, what watches bring is held back, and comes later in its order.
        forbidden: the resources, by plural, that nobody may read: as a server says it that knows of rights.
    """

    def __init__(self, session):
        self.url = ""
        self.asked: list[str] = []
        self.ask: Callable[[dict[str, str]], None] = lambda query: None
        self.line: Callable[[bytes], bytes] = lambda line: line
        self.cut: Callable[[bytes], Iterable[bytes]] = lambda line: (line,)
        self.flow = asyncio.Event()
        self.flow.set()
        self.forbidden: set[str] = set()
        self._session = session
        self._severed = False
        self._open = set()

    def sever(self):
        """Break every connection, and each new one, until `mend`."""
        self._severed = True
        for transport in self._open:
            transport.abort()

    def mend(self):
        """Let requests through again."""
        self._severed = False

    def watches(self):
        """The watches that were asked for."""
        return [line for line in self.asked if "watch=" in line]

    async def _handle(self, request):
        self.asked.append(f"{request.method} {request.path_qs}")
        transport = request.transport
        if self._severed:
            transport.abort()
            return web.Response(status=502)  # which nobody hears
        if (resource := request.path.rpartition("/")[2]) in self.forbidden:
            return status(403, "Forbidden", f'{resource} is forbidden: User "test" cannot list resource "{resource}"')
        self._open.add(transport)
        try:
            return await self._pass(request)
        finally:
            self._open.discard(transport)

    async def _pass(self, request):
        query = dict(request.query)
        watch = "watch" in query
        if watch:
            self.ask(query)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {*_KEPT_BACK, "host"}}
        async with self._session.request(
            request.method, request.path, params=query, headers=headers, data=await request.read()
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _KEPT_BACK}
            if not watch or answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
            response = web.StreamResponse(status=answer.status, headers=kept)
            response.enable_chunked_encoding()
            await response.prepare(request)
            async for line in answer.content:
                await self.flow.wait()
                for piece in self.cut(self.line(line)):
                    await response.write(piece)
                    for _ in range(3):  # the client reads this piece before the next one is there
                        await asyncio.sleep(0)
            await response.write_eof()
            return response


@asynccontextmanager
async def between(backend) -> AsyncIterator[Between]:
    """A `Between` in front of `backend`."""
    async with backend.session(auto_decompress=False, read_bufsize=2**24) as session:
        proxy = Between(session)
        async with http_server(proxy._handle) as proxy.url:
            yield proxy

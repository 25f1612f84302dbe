"""A reconcile in the test's own hands, pass by pass, and what its operator sends."""

import asyncio
from contextlib import asynccontextmanager, suppress

from asyncctl.client.errors import AlreadyExists
from asyncctl.objects import ConfigMap, Secret
from asyncctl.operator import Operator
from tests.unit.harness import Widget, working
from tests.unit.support import informer_of, until


class Sent(list):
    """What an operator's transport has sent: (method, path)."""

    def __init__(self, running):
        transport = running.client._transport
        request = transport.request

        async def noting(asked):
            if asked.method != "GET" and "/events" not in asked.path:
                self.append((asked.method, asked.path.partition("?")[0].rpartition("/")[2]))
            return await request(asked)

        transport.request = noting


class Hands:
    """A reconcile that hands its context to the test and does what the test says, pass by pass."""

    def __init__(self):
        self.asked = asyncio.Queue()

    async def reconcile(self, ctx, widget):
        done = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((ctx, widget, done))
        return await done

    @asynccontextmanager
    async def taking(self, name=None):
        """One pass, over the Widget of that name, with the test in it; those over others before it do nothing."""
        async with asyncio.timeout(30):
            ctx, widget, done = await self.asked.get()
            while name not in {None, widget.name}:
                done.set_result(None)
                ctx, widget, done = await self.asked.get()
            try:
                yield ctx, widget
            except BaseException as error:
                done.set_exception(error if isinstance(error, Exception) else RuntimeError("the test has failed"))
                raise
            else:
                done.set_result(None)


@asynccontextmanager
async def hands(cluster, name="w", **options):
    """A Widget, and the hands that reconcile it; ConfigMaps are owned, Secrets are read."""
    made = Hands()
    operator = Operator("test")
    operator.controller(Widget, **({"owns": [ConfigMap], "reads": [Secret]} | options))(made)
    with suppress(AlreadyExists):
        await cluster.create(Widget, name)
    async with working(operator, cluster, drain_timeout=0.0) as running:
        made.sent = Sent(running)
        made.running = running
        yield made


def poke(cluster, made, name="w"):
    made.running._controllers[0].queue.add((cluster.namespace, name))


async def settle(cluster, made, kind=ConfigMap):
    """Return when the operator's cache has seen all that was written so far."""
    await cluster.create(kind, f"marker-{len(made.sent)}-{id(object())}")
    informer = informer_of(made.running, kind.resource_type)
    names = {each.name async for each in cluster.client.list(kind, namespace=cluster.namespace)}
    await until(lambda: names <= {entry.header.name for entry in informer.entries()})

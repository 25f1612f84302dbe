"""The pool by itself: which connection goes to whom when the TLS context changes meanwhile."""

import asyncio
import ssl

from asyncctl.client.transport.connection import Connection
from asyncctl.client.transport.pool import Pool
from tests.unit.support import raw_server, until


async def test_a_connection_that_was_begun_with_the_old_context_goes_to_nobody():
    """After a rotation, who asks with the new certificate must not be given a connection made with the old one."""
    old, new = ssl.create_default_context(), ssl.create_default_context()
    gates = {old: asyncio.Event(), new: asyncio.Event()}

    async def handler(reader, writer):
        await reader.read()

    async with raw_server(handler) as url:
        port = int(url.rpartition(":")[2])

        async def dial(context):
            await gates[context].wait()
            connection = Connection(context=context)
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
            return connection

        pool = Pool(dial, limit=2, name="test")
        first = asyncio.create_task(pool.acquire(old), name="first")
        await until(lambda: pool._attempts)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(pool.acquire(new), name="second")
        await asyncio.sleep(0)
        gates[old].set()
        await until(lambda: len(pool._attempts) == 1)
        assert not second.done()
        gates[new].set()
        assert (await second).context is new
        assert len(pool._open) == 1
        await pool.close()

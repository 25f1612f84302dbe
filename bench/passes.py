"""The shipped operator, which makes `Database`s of two users and a schema, and then looks at each of them anew.

All that a user gets is on, but leader election and the limit of requests a second. `python -m bench.passes` is a
contestant as `bench.turns` says.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncctl import ClusterConfig
from asyncctl.database.accounts import accounts
from asyncctl.database.operator import database_operator
from asyncctl.database.postgres.database import lock_key
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import (
    Database,
    DatabaseSpec,
    ExternalSpec,
    Phase,
    Privileges,
    Provisioner,
    SchemaSpec,
    UserSpec,
)
from asyncctl.objects import Secret
from asyncctl.observe.instruments import Numbers
from asyncctl.observe.logs import make_logger
from asyncctl.operator.process import loop_factory
from asyncctl.operator.running import Running
from bench.turns import NAMESPACE, SERVER, WORKERS, Given, Turn, serve

POLL = 0.02  # seconds between two looks at whether all is done
SPEC = DatabaseSpec(
    provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name=SERVER), schemas=[SchemaSpec(name="app")],
    users=[UserSpec(name="app", privileges=Privileges.OWNER), UserSpec(name="look", privileges=Privileges.READ_ONLY)],
)  # fmt: skip


@asynccontextmanager
async def operating(given: Given) -> AsyncIterator[tuple[Given, Turn]]:
    """Make as many databases as `count`, on the server of `catalogue`, by the API server at `url`."""
    settings = DatabaseSettings.from_environment({
        "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0", "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_LEADER_ELECTION": "false", "ASYNCCTL_QPS": "0", "ASYNCCTL_WORKERS": str(WORKERS),
        "ASYNCCTL_DATABASE_SERVERS": given["catalogue"], "ASYNCCTL_DATABASE_RESYNC": "24h",
    })  # fmt: skip
    config = ClusterConfig(server=given["url"], source="bench")
    logger = make_logger("warning", "json", sys.stderr)
    names = [f"settled-{number:04}" for number in range(given["count"])]
    async with database_operator().running(settings=settings, logger=logger, config=config) as running:

        async def turn() -> Given:
            before, requests = _passes(running), _sum(running.metrics.families.requests)
            for name in names:
                running.wake(Database, name, namespace=NAMESPACE)
            while _passes(running) < before + len(names):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(POLL)
            await idle()
            return {"passes": _passes(running) - before, "requests": _sum(running.metrics.families.requests) - requests}

        async def idle() -> None:  # or what goes on would be the next turn's
            busy = running.metrics.families.active_workers, running.metrics.families.queue_depth
            while any(_sum(each) for each in busy):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(POLL)

        await running.ready.wait()
        for name in names:
            await running.client.create(Database(name=name, namespace=NAMESPACE, spec=SPEC))
        databases = [await _settled(running, name) for name in names]
        await idle()  # what the making of their Secrets has woken is over
        yield {"databases": databases}, turn


def _passes(running: Running) -> float:
    samples = {sample.labels["result"]: sample.value for sample in running.metrics.families.reconcile.collect().samples}
    if samples["error"]:
        raise RuntimeError("a pass has failed: the log says why")
    return sum(samples.values())


def _sum(family: Numbers) -> float:
    return sum(sample.value for sample in family.collect().samples)


async def _settled(running: Running, name: str) -> Given:
    """Return its database, and who logs in there with which password, when it is Running."""
    found = await running.client.get(Database, name, namespace=NAMESPACE)
    while found.status.phase is not Phase.RUNNING:
        await asyncio.sleep(POLL)
        found = await running.client.get(Database, name, namespace=NAMESPACE)
    database, logins = found.status.database_name, []
    assert database is not None
    for account in accounts(found, database):
        secret = await running.client.get(Secret, account.secret, namespace=NAMESPACE)
        logins.append([secret.data[key].decode() for key in ("username", "password")])
    return {"name": database, "lock": lock_key(database), "logins": logins}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(operating))

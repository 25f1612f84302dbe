"""A program whose passes block the event loop, one by itself and one by a task that it has begun; it logs to stdout.

They block it until the log has told of it; a watchdog that does not tell of it holds it up for half a minute.
"""

import asyncio
import io
import sys
import threading

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import SystemClock
from asyncctl.observe.logs import make_logger
from asyncctl.operator import Operator
from tests.unit.harness import Widget, cluster_at, quick_settings
from tests.unit.support import until

operator = Operator("test")
passes = []
told = threading.Event()


class Output(io.TextIOBase):
    """What is logged, which is looked at as it passes."""

    def write(self, text):
        if "the event loop is blocked" in text and "work_hard" in text:
            told.set()
        return sys.stdout.write(text)

    def flush(self):
        sys.stdout.flush()


def work_hard():
    told.clear()
    told.wait(30.0)


async def wait_in_vain():
    work_hard()


@operator.controller(Widget, workers=1)
async def reconcile(ctx, widget):
    if widget.name == "by-a-child":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait_in_vain(), name="child")
    else:
        await wait_in_vain()
    passes.append(widget.name)


async def main():
    logger = make_logger("warning", "json", Output(), SystemClock())
    async with ApiServer() as server, cluster_at(ClusterConfig(server=server.url)) as cluster:
        await cluster.create(Widget, "by-itself")
        await cluster.create(Widget, "by-a-child")
        async with operator.running(
            settings=quick_settings(namespaces=(cluster.namespace,)), logger=logger, config=cluster.config
        ):
            await until(lambda: len(passes) == 2)
        assert "watchdog" not in [thread.name for thread in threading.enumerate()]


asyncio.run(main())

"""An operator that is busy: its ten workers are all in a pass, and thousands of keys wait behind them.

`python -m bench.busy --server URL --keys 5000` makes so many ConfigMaps, and works on each again and again: a live read
and a little computing. Beside it, in the same event loop, is the barest server there can be: what that takes longer for
is the loop's doing, and the rest is the side server's. It prints one line of JSON when all is under way, and one more
with what it has done when its standard input ends.
"""

import argparse
import asyncio
import json
import sys

from asyncctl import ClusterConfig, Context, Operator, Settings
from asyncctl.objects import ConfigMap
from asyncctl.observe.logs import make_logger
from asyncctl.operator.process import loop_factory
from asyncctl.operator.running import Running

NAMESPACE = "default"
AT_ONCE = 32  # objects that are made at a time
FIELDS = 10  # of each object
COPIES = 5  # of it that a pass computes with: 10 KB
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Work:
    def __init__(self) -> None:
        self.running: Running | None = None
        self.passes = 0

    def operator(self) -> Operator:
        operator = Operator("busy")

        @operator.controller(ConfigMap, workers=10)
        async def work(ctx: Context, found: ConfigMap) -> None:
            live = await ctx.client.get(ConfigMap, found.name, namespace=found.namespace)
            json.loads(json.dumps([live.data] * COPIES))
            self.passes += 1
            assert self.running is not None
            self.running.wake(ConfigMap, found.name, namespace=found.namespace)  # to the end of the queue

        return operator


async def fill(running: Running, keys: int) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> None:
        async with turns:
            data = {f"key-{each}": "v" * 200 for each in range(FIELDS)}
            await running.client.create(ConfigMap(name=f"busy-{number}", namespace=NAMESPACE, data=data))

    async with asyncio.TaskGroup() as tasks:
        for number in range(keys):
            tasks.create_task(make(number), name=f"make {number}")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    writer.close()
    await writer.wait_closed()


async def work(server: str, keys: int) -> None:
    settings = Settings.from_environment({
        "ASYNCCTL_QPS": "0", "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0", "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_LEADER_ELECTION": "false", "ASYNCCTL_NAMESPACES": NAMESPACE,
    })  # fmt: skip
    doing = Work()
    config = ClusterConfig(server=server, source="bench")
    logger = make_logger("warning", "json", sys.stderr)
    async with doing.operator().running(settings=settings, logger=logger, config=config) as running:
        doing.running = running
        await fill(running, keys)
        bare = await asyncio.start_server(answer, "127.0.0.1", 0)
        while doing.passes < keys:  # noqa: ASYNC110 - each key has been worked on once, and waits again
            await asyncio.sleep(0.05)
        before = doing.passes
        print(json.dumps({"livez": running.port, "bare": bare.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(json.dumps({"passes": doing.passes - before}), flush=True)
        bare.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.busy", description=__doc__)
    parser.add_argument("--server", required=True, help="URL of the API server")
    parser.add_argument("--keys", type=int, default=5000)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(options.server, options.keys))


if __name__ == "__main__":
    main()

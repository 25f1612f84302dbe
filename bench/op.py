"""Our contestant among the controller runtimes: an operator as an author writes it, with all that a user gets on.

`python -m bench.op --server URL` works on Widgets of `bench.example.com/v1` at that API server. With `MODE=noop` a pass
reads the object; with `MODE=child` it makes one owned ConfigMap of it, and its status says so. `WORKERS` are the passes
at once. Printed is, at most every 50 ms and only when it has changed, `C <passes> <largest spec.size seen>`. Metrics,
logs, deadlines, retries, leader election and the fence are on; the limit of requests a second is off, as it is for the
others.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys

from asyncctl import ClusterConfig, Context, Operator, Part, Resource, Settings, Spec, Status, field
from asyncctl.objects import ConfigMap
from asyncctl.observe.logs import make_logger
from asyncctl.operator.process import loop_factory

PERIOD = 0.05  # seconds between two lines at least


class EnvVar(Part):
    name: str
    value: str = ""


class Resources(Part):
    limits: dict[str, str] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)


class WidgetSpec(Spec):
    args: list[str] = field(default_factory=list)
    env: list[EnvVar] = field(default_factory=list)
    image: str = ""
    replicas: int = 0
    resources: Resources = field(default_factory=Resources)
    schedule: str = ""
    size: int = 0


class Widget(Resource, group="bench.example.com", version="v1"):
    spec: WidgetSpec = field(default_factory=WidgetSpec)


class Parent(Resource, group="bench.example.com", version="v1", kind="Widget"):
    spec: WidgetSpec = field(default_factory=WidgetSpec)
    status: Status = field(default_factory=Status)


class Seen:
    """How many passes there were, and the largest size in them."""

    def __init__(self) -> None:
        self.passes = 0
        self.largest = 0

    def take(self, size: int) -> None:
        self.passes += 1
        self.largest = max(self.largest, size)

    async def tell(self) -> None:
        told = -1
        while True:
            if self.passes != told:
                told = self.passes
                print("C", self.passes, self.largest, flush=True)
            await asyncio.sleep(PERIOD)


def make_operator(seen: Seen, *, child: bool) -> Operator:
    operator = Operator("bench")
    if not child:

        @operator.controller(Widget)
        async def look(_: Context, widget: Widget) -> None:
            seen.take(widget.spec.size)

    else:

        @operator.controller(Parent, owns=[ConfigMap])
        async def make(ctx: Context, widget: Parent) -> None:
            await ctx.apply(ConfigMap(name=widget.name, data={"size": str(widget.spec.size)}))
            seen.take(widget.spec.size)

    return operator


async def work(server: str, *, child: bool, workers: int) -> None:
    settings = Settings.from_environment({
        "ASYNCCTL_WORKERS": str(workers), "ASYNCCTL_QPS": "0", "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
        "ASYNCCTL_LEASE_NAMESPACE": "default", "ASYNCCTL_LEASE_NAME": "bench",
    })  # fmt: skip
    logger = make_logger(settings.log_level, "json", sys.stderr)
    config = ClusterConfig(server=server, authorization="Bearer x", source="bench")
    seen = Seen()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    telling = asyncio.create_task(seen.tell(), name="telling")
    async with make_operator(seen, child=child).running(settings=settings, logger=logger, config=config):
        await stop.wait()
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await telling


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.op", description=__doc__)
    parser.add_argument("--server", default=os.environ.get("BENCH_SERVER"), help="URL of the API server")
    server = parser.parse_args().server
    if not server:
        parser.error("say which --server, or set BENCH_SERVER")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(
            work(server, child=os.environ.get("MODE") == "child", workers=int(os.environ.get("WORKERS") or 0) or 10)
        )


if __name__ == "__main__":
    main()

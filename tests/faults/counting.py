"""A small operator as a process, which contends for a Lease and does what a test tells it by files in a folder.

For each Counter it keeps a ConfigMap that says the counter's turn and who wrote it, so that whoever comes to lead has
something to write everywhere; then it writes the turn into the status. All of it is the real runtime. The files:

- `hold`: passes wait before they write anything, as long as it is there;
- `gate`: passes wait between the ConfigMap and the status;
- `block`: the next pass blocks the event loop for as many seconds as it says;
- `stop`: the process stops itself right before it hands the next request that begins like this to the socket: behind
  the check of the fence, and before `send()`;
- `clock`: seconds by which the wall's clock is wrong.
"""

import asyncio
import os
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

from asyncctl import Context, Operator, Resource, Spec, Status, field
from asyncctl.client.transport.connection import Connection
from asyncctl.clock import SystemClock
from asyncctl.ha import elector, fence
from asyncctl.objects import ConfigMap
from asyncctl.operator import operator as operators, running


class CounterSpec(Spec):
    turn: int = 0


class CounterStatus(Status):
    turn: int | None = None


class Counter(Resource, group="faults.example.com", version="v1"):
    spec: CounterSpec = field(default_factory=CounterSpec)
    status: CounterStatus = field(default_factory=CounterStatus)


class Reconciler:
    def __init__(self, pod, folder):
        self._pod = pod
        self._folder = folder

    async def reconcile(self, ctx: Context, counter: Counter) -> None:
        await self._while_there("hold")
        wanted = {"turn": str(counter.spec.turn), "by": self._pod}
        if (seconds := take(self._folder / "block")) is not None:
            time.sleep(float(seconds))  # noqa: ASYNC251 - what an author must not do
        await ctx.apply(ConfigMap(name=counter.name, data=wanted))
        await self._while_there("gate")
        counter.status.turn = counter.spec.turn

    async def _while_there(self, name):
        while (self._folder / name).exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)


class WrongClock(SystemClock):
    """Its wall is wrong by what the file says at the moment."""

    def __init__(self, file):
        self._file = file

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(self._file.read_text() if self._file.exists() else 0))


def take(file):
    """What the file says, which is gone then; None when it is not there."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    file.unlink()
    return text


def stop_before_sending(file):
    send = Connection.send

    def stop_and_send(self, data, *, streaming=False):
        stops = threading.current_thread() is threading.main_thread() and file.exists()
        if stops := stops and data.startswith(file.read_bytes()):
            file.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        send(self, data, streaming=streaming)
        if stops:  # else the connection is aborted at once, and a server may not look at what came by it
            time.sleep(0.5)

    Connection.send = stop_and_send


def take_the_fence_down():
    """Let a process write that has lost the Lease: what the judge has to find."""

    async def for_ever(self, elector):
        elector.start()
        await asyncio.Event().wait()

    fence.Fence.__call__ = lambda self: float("inf")
    running.Running._campaign = for_ever
    running.Running._led = lambda *_: None


def operator(reconciler=None):
    made = Operator("contender")
    made.controller(Counter, owns=[ConfigMap])(reconciler or Reconciler("", Path()))
    return made


def main():
    folder = Path(os.environ["CONTENDER_FOLDER"])
    stop_before_sending(folder / "stop")
    operators.SystemClock = lambda: WrongClock(folder / "clock")
    if "CONTENDER_UNFENCED" in os.environ:
        take_the_fence_down()
    if "CONTENDER_DEAF" in os.environ:
        elector.DEAF = float(os.environ["CONTENDER_DEAF"])
    operator(Reconciler(os.environ["ASYNCCTL_POD_NAME"], folder)).run()


if __name__ == "__main__":
    main()

"""A program: random calls on a queue while real tasks work it off, and get cancelled wherever they wait.

`python burn.py asyncio|uvloop SEED OPERATIONS` prints what it did, as JSON. It fails when a key is handed out twice at
once or more often than asked for, when one that was added does not come, or when anything is left in the end.
"""

import asyncio
import json
import random
import sys
from collections import Counter

from asyncctl.clock import SystemClock
from asyncctl.queue import Backoff, QueueClosed, WorkQueue

WORKERS = 20
KEYS = range(500)
LIMITS = [{}, {"interval": 0.002}, {"rate": 40_000.0, "burst": 10}, {"interval": 0.001, "rate": 60_000.0, "burst": 50}]


class Burn:
    def __init__(self, dice, limits):
        self.dice = dice
        self.limits = limits
        retry = Backoff(base=0.0005, maximum=0.002)
        self.queue = WorkQueue(clock=SystemClock(), random=dice.random, retry=retry, **limits)
        self.owed = set()  # keys that were added and not handed out since
        self.working = set()
        self.started = {}
        self.workers = set()
        self.did = Counter()

    def add(self, key, **how):
        self.queue.add(key, **how)
        self.owed.add(key)

    async def work(self):
        while True:
            try:
                key = await self.queue.get()
            except QueueClosed:
                return
            except asyncio.CancelledError:
                self.did["cancelled while it waited"] += 1
                raise
            self.begin(key)
            try:
                for _ in range(self.dice.randrange(4)):
                    await asyncio.sleep(0 if self.dice.random() < 0.99 else 0.0005)
                self.end(key)
            except asyncio.CancelledError:
                self.did["cancelled in a pass"] += 1
                self.add(key)
                raise
            finally:
                self.working.remove(key)
                self.queue.done(key)

    def begin(self, key):
        assert key not in self.working, f"{key} is handed out twice at once"
        assert key in self.owed, f"{key} is handed out though nobody asked for it"
        now = self.queue._processing[key].since
        assert now - self.started.get(key, 0.0) >= self.limits.get("interval", 0.0) - 1e-9, f"{key} comes too early"
        self.started[key] = now
        self.working.add(key)
        self.owed.remove(key)
        self.did["passes"] += 1

    def end(self, key):
        match self.dice.randrange(8):
            case 0:
                self.queue.retry(key)
            case 1:
                self.queue.retry_fast(key)
            case 2:
                self.queue.retry(key, counted=False, at_least=0.001)
            case _:
                self.queue.forget(key)
                return
        self.owed.add(key)
        self.did["retries"] += 1

    def hire(self):
        worker = asyncio.get_running_loop().create_task(self.work(), name="worker")
        self.workers.add(worker)
        worker.add_done_callback(self.left)

    def left(self, worker):
        self.workers.discard(worker)
        if worker.cancelled():
            self.hire()
        elif (error := worker.exception()) is not None:
            raise error

    async def step(self):
        key, dice = self.dice.choice(KEYS), self.dice
        match dice.randrange(20):
            case 0 | 1 | 2:
                self.add(key, after=dice.random() * 0.003, priority=dice.choice((0, 0, -100, 7)))
            case 3:
                self.queue.discard(key)
                self.owed.discard(key)
            case 4 | 5:
                dice.choice([*self.workers]).cancel()
            case 6 | 7:
                await asyncio.sleep(0)
            case 8:
                self.queue.forget(key)
            case _:
                self.add(key, priority=dice.choice((0, 0, 0, -100, 7)))

    async def quiet(self, failures):
        """Each key that was added comes, though nobody adds another one."""
        async with asyncio.timeout(60):
            while (self.owed or self.working) and not failures:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.0005)

    async def run(self, operations):
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        for _ in range(WORKERS):
            self.hire()
        for number in range(1, operations + 1):
            await self.step()
            if number % 2000 == 0:
                await self.quiet(failures)
        assert not failures, failures
        assert len(self.workers) == WORKERS
        for key in KEYS:
            self.add(key)
        for _ in range(3):
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            given_up = asyncio.create_task(self.queue.drain(), name="given up")
            await asyncio.sleep(0)  # it has begun, and nothing is handed out from here on
            passes = self.did["passes"]
            given_up.cancel()
            await self.queue.drain()
            assert not self.working, "the drain has not waited"
            await asyncio.gather(*self.workers)
        assert self.did["passes"] == passes, "the drain has handed out a key"
        assert not self.working
        assert self.queue.statistics()[:4] == (0, 0, 0, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not failures, failures
        return self.did


def main(loop, seed, operations):
    factory = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    did = Counter()
    for number, limits in enumerate(LIMITS):
        with asyncio.Runner(loop_factory=factory) as runner:
            did += runner.run(Burn(random.Random(seed + number), limits).run(operations // len(LIMITS)))
    print(json.dumps(did))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""How a contestant in a process of its own is told to make a turn over all databases, and says what that took.

On its standard input it gets what to work on, a line of JSON, and answers with another when all is settled. For each
further line it makes a turn, and answers with what was done, and the seconds of CPU and on the clock.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

NAMESPACE = "bench"
SERVER = "bench"
WORKERS = 10  # passes at once: the runtime's default
SESSIONS = 5  # at once: the catalogue's default

Given = dict[str, Any]
Turn = Callable[[], Awaitable[Given]]
Contestant = Callable[[Given], AbstractAsyncContextManager[tuple[Given, Turn]]]


async def serve(contestant: Contestant) -> None:
    """Make turns until the input ends."""
    loop = asyncio.get_running_loop()

    async def line() -> str:
        return await loop.run_in_executor(None, sys.stdin.readline)

    if not (given := await line()):
        return
    async with contestant(json.loads(given)) as (told, turn):
        print(json.dumps(told), flush=True)
        while await line():
            cpu, seconds = time.process_time(), time.perf_counter()
            done = await turn()
            done |= {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - seconds}
            print(json.dumps(done), flush=True)

"""Whether watches hold up a write: how long a PATCH takes with none open, and with hundreds, each with its events.

One process, one `Transport`: writes come at an even pace, in turns with no watch open and with all of them, on the same
server of canned answers. `python -m bench.watches URL …` is that process.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

from bench import DETAIL, Figures
from bench.contestants import CHANGE, NAME, NAMESPACE, Server, make_transport
from bench.requests import ROOT, canned

PACE = 0.005  # seconds from one write to the next
TIMEOUT = 600  # seconds


async def measure(server: Server, runs: int, count: int, watches: int) -> dict[str, list[list[float]]]:
    """Seconds that each write took: a list for each run without watches, and with them; and events seen meanwhile."""
    from asyncctl.client.client import Client
    from asyncctl.client.patch import Patch
    from asyncctl.objects import ConfigMap

    kind = ConfigMap.resource_type
    events = 0

    async def follow(client: Client, opened: asyncio.Semaphore) -> None:
        nonlocal events
        async with client.watch(kind, resource_version="1", timeout_seconds=600, namespace=NAMESPACE) as batches:
            opened.release()
            async for batch in batches:
                events += len(batch)

    async def write(client: Client) -> list[float]:
        took = []
        due = time.perf_counter()
        for _ in range(count):
            began = time.perf_counter()
            await client.patch(kind, NAME, CHANGE, patch=Patch.MERGE, namespace=NAMESPACE)
            took.append(time.perf_counter() - began)
            due += PACE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        return took

    found: dict[str, list[list[float]]] = {"without": [], "with": [], "events": []}
    async with make_transport(server) as transport:
        client = Client(transport, field_manager="bench")
        await client.patch(kind, NAME, CHANGE, patch=Patch.MERGE, namespace=NAMESPACE)
        for _ in range(runs):
            found["without"].append(await write(client))
            async with asyncio.TaskGroup() as group:
                opened = asyncio.Semaphore(0)
                following = [group.create_task(follow(client, opened), name="watch") for _ in range(watches)]
                for _ in following:
                    await opened.acquire()
                before = events
                found["with"].append(await write(client))
                found["events"].append([events - before])
                for task in following:
                    task.cancel()
    return found


def figures(runs: int, *, count: int, watches: int, loop: str) -> Figures:
    """Measure so many times without and with so many watches."""
    with canned() as addresses:
        done = subprocess.run(
            [
                sys.executable, "-m", "bench.watches", addresses["http"], "--runs", str(runs),
                "--count", str(count), "--watches", str(watches), "--loop", loop,
            ],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT,
        )  # fmt: skip
    measured = json.loads(done.stdout)
    found: Figures = {}
    for name, rank in (("p50", 0.5), ("p99", 0.99)):
        without, beside = ([_rank(took, rank) for took in measured[key]] for key in ("without", "with"))
        ratios = [b / w for b, w in zip(beside, without, strict=True)]
        found[f"PATCH, no watch open, {name}, ms"] = statistics.median(without) * 1e3
        key = f"PATCH, {watches} watches open, {name}, ms"
        found[key] = statistics.median(beside) * 1e3
        found[f"{key}{DETAIL}times that without"] = statistics.median(ratios)
        found[f"{key}{DETAIL}spread of that"] = max(ratios) - min(ratios)
    found["events beside each write"] = statistics.median(seen / count for (seen,) in measured["events"])
    return found


def _rank(took: list[float], rank: float) -> float:
    return sorted(took)[min(int(len(took) * rank), len(took) - 1)]


def main() -> None:
    """Measure in this process, and print what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.watches", description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--watches", type=int, required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], required=True)
    options = parser.parse_args()
    measuring = measure(Server(options.server, "", "made-up"), options.runs, options.count, options.watches)
    if options.loop == "uvloop":
        import uvloop

        print(json.dumps(uvloop.run(measuring)))
    else:
        print(json.dumps(asyncio.run(measuring)))


if __name__ == "__main__":
    main()

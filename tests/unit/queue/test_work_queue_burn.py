"""200,000 random operations, on both event loops at once, each in its own process: no key is lost, no task is left."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from asyncctl.operator.process import loop_factory

HERE = Path(__file__).parent


def burn(loop, seed):
    return subprocess.Popen(
        [sys.executable, HERE / "burn.py", loop, str(seed), "100000"], cwd=HERE.parents[2], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_nothing_is_lost_and_nothing_is_left_after_200_000_operations_with_cancellations_anywhere():
    with ExitStack() as stack:
        loops = ("asyncio", "uvloop" if loop_factory() else "asyncio")
        burns = [stack.enter_context(burn(loop, seed)) for seed, loop in zip((20, 40), loops, strict=True)]
        for each in burns:
            stack.callback(each.kill)
        for each in burns:
            out, _ = each.communicate(timeout=600)
            assert each.returncode == 0, out
            did = json.loads(out)
            assert did["passes"] > 50_000
            assert did["retries"] > 10_000
            assert did["cancelled while it waited"] > 500
            assert did["cancelled in a pass"] > 1000

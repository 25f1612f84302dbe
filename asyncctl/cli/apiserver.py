"""`asyncctl apiserver`: the embedded API server by itself."""

import asyncio
import sys
from pathlib import Path

from asyncctl.apiserver import ApiServer
from asyncctl.operator.process import handle_signals, loop_factory


def main(kubeconfig: Path, port: int) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(kubeconfig, port))


async def _serve(kubeconfig: Path, port: int) -> int:
    stop = asyncio.Event()
    handle_signals(stop)
    try:
        async with ApiServer(port=port) as server:
            server.write_kubeconfig(kubeconfig)
            print(f"ready {kubeconfig}", flush=True)
            await stop.wait()
    except OSError as error:
        print(f"asyncctl apiserver: port {port} or {kubeconfig} can't be used: {error}", file=sys.stderr)
        return 2
    return 0

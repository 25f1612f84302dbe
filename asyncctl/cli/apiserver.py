"""`asyncctl apiserver`: the embedded API server by itself."""

import asyncio
import sys
from pathlib import Path

import yaml

from asyncctl.apiserver import ApiServer
from asyncctl.operator.process import handle_signals, loop_factory


def main(kubeconfig: Path, port: int) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    if not _may_write(kubeconfig):
        print(
            f"asyncctl apiserver: {kubeconfig} exists and was not written by this command: it is left as it is; give "
            "another path, or remove it",
            file=sys.stderr,
        )
        return 2
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


def _may_write(path: Path) -> bool:
    """Whether nothing is lost by writing there: it is new, empty, or what this command wrote before."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        return found is None or [each["name"] for each in found["contexts"]] == ["asyncctl-apiserver"]
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return False

"""What a check says while it waits, so that nobody takes it for one that hangs."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asyncctl.client.config import exec_plugin
from asyncctl.client.config.cluster import ClusterConfig

PATIENCE = 2.0  # seconds that nobody wonders about

Tell = Callable[[str], object]
"""Takes a line for whoever sits before the terminal."""


@contextmanager
def waiting_for(what: str, tell: Tell) -> Iterator[None]:
    """Tell what is waited for, once, where the block takes longer than `PATIENCE`."""
    timer = asyncio.get_running_loop().call_later(PATIENCE, tell, f"waiting for {what}")
    try:
        yield
    finally:
        timer.cancel()


def answer_of(config: ClusterConfig, seconds: float) -> str:
    """What a request waits for, and how long at most: who gives the credentials, then the server."""
    server = f"{config.server} (at most {seconds:g} s for an answer)"
    if config.exec_plugin is not None:
        return f"the exec plugin {config.exec_plugin.command} (at most {exec_plugin.DEADLINE:g} s), then for {server}"
    if config.oidc is not None:
        return f"the identity provider, then for {server}"
    return server

"""The certificate that an API server shows, to read in it until when it is good and who has signed it.

It is fetched over a connection of its own, the way that requests take, without judging it; nothing is sent there.
"""

import anyio.to_thread

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.tls.certificates import Certificate, read_der
from asyncctl.client.tls.context import make_context
from asyncctl.client.transport.dial import Dialer


async def shown_certificate(config: ClusterConfig) -> bytes:
    """The server's certificate as DER; empty where it speaks no TLS. Raises `OSError` where it can't be reached."""
    unverified = ClusterConfig(server=config.server, verify=False)
    context = await anyio.to_thread.run_sync(make_context, unverified)
    if context is None:
        return b""
    dialer = Dialer(config.server, proxy=config.proxy, server_name=config.tls_server_name)
    return await dialer.peer_certificate(context)


async def server_certificate(config: ClusterConfig) -> Certificate | None:
    """Return the server's certificate; None where it speaks no TLS, or shows none that can be read."""
    try:
        der = await shown_certificate(config)
        return await anyio.to_thread.run_sync(read_der, der) if der else None
    except (OSError, ValueError):
        return None

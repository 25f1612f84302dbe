"""The certificate that an API server shows, to read in it until when it is good and who has signed it.

It is fetched over a connection of its own, the way that requests take, without judging it; nothing is sent there.
"""

import anyio.to_thread

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.tls.certificates import Certificate, read_der
from asyncctl.client.tls.context import make_context
from asyncctl.client.transport.dial import Dialer


async def server_certificate(config: ClusterConfig) -> Certificate | None:
    """Return the server's certificate; None where it speaks no TLS, or shows none that can be read."""
    unverified = ClusterConfig(server=config.server, verify=False)
    context = await anyio.to_thread.run_sync(make_context, unverified)
    if context is None:
        return None
    dialer = Dialer(config.server, proxy=config.proxy, server_name=config.tls_server_name)
    try:
        der = await dialer.peer_certificate(context)
        return await anyio.to_thread.run_sync(read_der, der)
    except (OSError, ValueError):
        return None

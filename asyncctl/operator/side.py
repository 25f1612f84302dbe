"""The listeners of an operator: probes, metrics (among the probes, or apart and guarded), debug pages.

They are the first that start and the last that stop. Who reads metrics by a token is let in once there is an API server
to ask. That the debug pages' usual port is taken is told and lived with: two programs on one machine are no mistake.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from asyncctl.client.transport.transport import Transport
from asyncctl.clock import Clock
from asyncctl.http import (
    Access,
    ListenError,
    Look,
    Probes,
    Server,
    ServingTLS,
    debug_pages,
    metrics_page,
    only_from_here,
    probe_pages,
)
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import Metrics
from asyncctl.settings import DEBUG_ADDRESS, Address, Settings


class Side:
    """The listeners, while they are up; made by `serving`.

    Attributes:
        port: Of the probes.
        metrics_port: Of a metrics listener of its own, where there is one.
        debug_port: Of the debug pages, where they are on.
    """

    def __init__(self) -> None:
        self.port = 0
        self.metrics_port: int | None = None
        self.debug_port: int | None = None
        self.access: Access | None = None

    def connect(self, transport: Transport) -> None:
        """Ask by `transport` who may read metrics."""
        if self.access is not None:
            self.access.connect(transport)


@asynccontextmanager
async def serving(
    settings: Settings, probes: Probes, metrics: Metrics, looks: Mapping[str, Look], *, clock: Clock, logger: Logger
) -> AsyncIterator[Side]:
    """Listen while inside.

    Raises:
        ListenError: An address can't be listened on.
        BadCertificateFile: The certificate for metrics can't be used.
    """
    side = Side()
    async with AsyncExitStack() as stack:
        apart = settings.metrics_address
        pages = probe_pages(probes) | ({} if apart is not None else metrics_page(metrics.registry))
        main = Server(settings.http_address, pages, metrics, variable="ASYNCCTL_HTTP_ADDRESS")
        side.port = (await stack.enter_async_context(main)).port
        logger.info("the side server is up", address=str(Address(settings.http_address.host, side.port)))
        if apart is not None:
            await _serve_metrics(side, apart, settings, metrics, stack, clock=clock, logger=logger)
        if settings.debug_address is not None:
            side.debug_port = await _serve_debug(settings.debug_address, metrics, looks, stack, logger)
        yield side


async def _serve_metrics(
    side: Side, address: Address, settings: Settings, metrics: Metrics, stack: AsyncExitStack, *, clock: Clock,
    logger: Logger,
) -> None:  # fmt: skip
    tls = None
    if settings.metrics_tls:
        tls = ServingTLS(
            settings.metrics_cert, settings.metrics_key, setting="ASYNCCTL_METRICS", names=(settings.pod_name,),
            clock=clock, logger=logger,
        )  # fmt: skip
    if settings.metrics_auth == "token":
        side.access = Access("/metrics", clock=clock, logger=logger)
        stack.push_async_callback(side.access.aclose)
    server = Server(
        address, metrics_page(metrics.registry), metrics, variable="ASYNCCTL_METRICS_ADDRESS", tls=tls,
        guard=side.access,
    )  # fmt: skip
    side.metrics_port = (await stack.enter_async_context(server)).port
    logger.info(
        "the metrics listener is up", address=str(Address(address.host, side.metrics_port)),
        tls=settings.metrics_tls, auth=settings.metrics_auth,
    )  # fmt: skip


async def _serve_debug(
    address: Address, metrics: Metrics, looks: Mapping[str, Look], stack: AsyncExitStack, logger: Logger
) -> int | None:
    server = Server(
        address, debug_pages(looks), metrics, variable="ASYNCCTL_DEBUG_ADDRESS", guard=only_from_here,
        timed_as="/debug/",
    )  # fmt: skip
    try:
        port = (await stack.enter_async_context(server)).port
    except ListenError as error:
        if address != DEBUG_ADDRESS:  # somebody has asked for it
            raise
        logger.warning("there are no debug pages", cause=str(error))
        return None
    logger.info("the debug pages are up", address=str(Address(address.host, port)))
    return port

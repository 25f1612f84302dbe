"""Tells at the start whether the fence at the API server is in force, and what to do where it is not.

Asked beside everything else: nothing waits for it, and no answer ends anything; a replica whose writes it would all
refuse is not ready, so that a rollout of such ones goes no further. It is the same for a leader and for a standby.
While it is not in force it is asked again, so that who installs it sees that it took effect; then no more, since each
answer of a fence in force is a 403, in our metrics and in the server's audit log.
"""

from asyncctl.client.transport.transport import Transport
from asyncctl.clock import Clock
from asyncctl.ha.probe import Finding, State, probe
from asyncctl.observe.logs import Logger

AGAIN = 30.0  # seconds until it is asked again where nobody can tell
LATER = 300.0  # and where it is known not to be in force, or to be wrong


class ServerFence:
    """What is known of it.

    Args:
        transport: Asks; as this process.
        lease: Namespace and name of the Lease; None where there is none.
        pod_name: How this process's identity in the Lease begins.
        clock: Time.
        logger: Where it is told.
    """

    def __init__(
        self, transport: Transport, lease: tuple[str, str] | None, pod_name: str, *, clock: Clock, logger: Logger
    ) -> None:
        self._transport = transport
        self._lease = lease
        self._pod_name = pod_name
        self._clock = clock
        self._logger = logger
        self._found: Finding | None = None

    async def run(self) -> None:
        """Ask until it is in force; tell how it stands, each time that this is news."""
        if self._lease is None:
            return
        while True:
            before = self._found
            found = await probe(self._transport, *self._lease, self._pod_name, clock=self._clock)
            if before is None or found.state is not State.UNKNOWN:  # an outage makes nothing unknown that was known
                self._found = found
                if before is None or before.state is not found.state:
                    self._tell(found)
            if self._found is not None and self._found.state is State.IN_FORCE:
                return
            await self._clock.sleep(AGAIN if found.state is State.UNKNOWN else LATER)

    @property
    def problem(self) -> str | None:
        """What is wrong with it, or missing; None when it is in force."""
        if self._lease is None:
            return "not needed: there is no leader election"
        if self._found is None:
            return "not asked for yet"
        return None if self._found.state is State.IN_FORCE else self._found.text

    @property
    def refuses(self) -> str | None:
        """Why it refuses all that this process writes, whoever leads; None when it does not, as far as is known."""
        return self._found.text if self._found is not None and self._found.state is State.WRONG else None

    def _tell(self, found: Finding) -> None:
        about, what = {"state": str(found.state), "cause": found.text}, "the fence at the API server"
        if found.state is State.WRONG:
            self._logger.error(what, **about)
        elif found.state is State.OFF:
            self._logger.warning(what, **about)
        else:
            self._logger.info(what, **about)

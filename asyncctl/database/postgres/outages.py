"""Which servers do not let our admin in, told once for each: when that begins, and when it is over.

What keeps the admin out keeps all the databases of a server waiting: a line for each of them, again and again, would
hide all else. Each says so in its own status and by its own event.
"""

from dataclasses import dataclass, field

from asyncctl import Clock, Logger
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.postgres.server import Server

_FORGOTTEN = 3600.0  # seconds without a failure: its databases are gone, or what sessions it has kept were enough


@dataclass
class _Outage:
    began: float
    failed: int = 0
    last: float = 0.0
    told: set[str] = field(default_factory=set)


class Outages:
    """Those of the servers of one process.

    Args:
        logger: Where to say it.
        clock: Time.
    """

    def __init__(self, logger: Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._by_server: dict[str, _Outage] = {}

    def failed(self, server: Server, error: DatabaseError) -> None:
        """Our admin was not let in; from now on `error` is known to be told. Another reason is told, too."""
        now = self._clock.monotonic()
        outage = self._by_server.get(server.name)
        if outage is None or now - outage.last >= _FORGOTTEN:
            self._by_server = {name: each for name, each in self._by_server.items() if now - each.last < _FORGOTTEN}
            outage = self._by_server[server.name] = _Outage(now)
        outage.failed += 1
        outage.last = now
        error.told = True
        if error.reason not in outage.told:
            outage.told.add(error.reason)
            self._logger.warning("a server can't be used", server=str(server), cause=str(error))

    def over(self, server: Server) -> None:
        """Our admin was let in."""
        outage = self._by_server.pop(server.name, None)
        if outage is not None:
            self._logger.info(
                "a server can be used again", server=str(server), failed=outage.failed,
                seconds=round(self._clock.monotonic() - outage.began, 3),
            )  # fmt: skip

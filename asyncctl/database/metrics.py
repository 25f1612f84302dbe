"""What the shipped controller counts: databases by phase, how old passwords are, drift, and what SQL takes.

How many databases there are is counted where they are, in the cache, when somebody scrapes: what is gone is counted no
more. Only the process that leads shows them, or each replica would.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import product

import anyio

from asyncctl import Cached, Clock, Metrics, Running, SystemClock
from asyncctl.database.catalogue import Catalogue
from asyncctl.database.types import CredentialsStatus, Database, Phase, Provisioner
from asyncctl.objects import DecodeError

SQL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OPERATIONS = 60  # that are told apart: ours are some twenty, all written in this package
_PROVISIONER = {"provisioner": "`InCluster`, `External`"}
Rows = Iterator[tuple[tuple[str, ...], float]]


class DatabaseMetrics:
    """The metrics, declared beside the runtime's.

    Args:
        metrics: The program's.
        clock: What ages are measured by; the system's when not given.
    """

    def __init__(self, metrics: Metrics, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._operations: set[str] = set()
        phases = ", ".join(f"`{phase}`" for phase in Phase)
        self._there = metrics.gauge(
            "asyncctl_databases", "Databases there are.", {"phase": phases} | _PROVISIONER,
            section="The shipped controller", appears="on the process that leads",
            advice="Alert on phase `Failed`: each has condition `Stalled`, which says what somebody has to do. On "
            "`Terminating` for long: a deletion is blocked, and `Ready` says by what.",
        )  # fmt: skip
        self._age = metrics.gauge(
            "asyncctl_database_rotation_age_seconds",
            "Time since passwords changed, where that is longest ago of all that change by an interval.",
            _PROVISIONER, appears="on the process that leads, with the first of them",
            advice="More than the longest `spec.credentials.rotation.interval` and the grace period: look at those "
            "whose `status.credentials.nextRotationTime` is past. What is suspended is left out.",
        )  # fmt: skip
        self._catalogue = metrics.gauge(
            "asyncctl_database_catalogue_good", "1 while the catalogue's files as they are now are in use, else 0.",
            appears="on the process that leads",
            advice="At 0 the last good state is in use: the log and `/readyz?verbose` say which file is bad, and in "
            "which line and field.",
        )  # fmt: skip
        self._corrections = metrics.counter(
            "asyncctl_database_drift_corrections_total", "What was not as wanted, and was put right.",
            {"field": "what it is called in the spec, such as `connectionLimit` or `users`; no name of anything in it"},
            appears="with the first of its field",
            advice="Somebody changes behind our back what a Database manages; its event `DriftCorrected` says where.",
        )  # fmt: skip
        self._sql = metrics.histogram(
            "asyncctl_database_sql_duration_seconds", "How long something takes on a PostgreSQL server.",
            {"operation": "`wait` (for a connection of ours), `connect`, or the words that a statement begins with"},
            SQL_BUCKETS, appears="with the first of its operation",
            advice="`wait` is long: raise the server's `maxConnections` in the catalogue.",
        )  # fmt: skip

    async def count(self, running: Running, catalogue: Catalogue) -> None:
        """Show how many databases there are, and whether the catalogue is good, for as long as this runs."""
        async with running.informer(Database) as databases:
            with ExitStack() as shown:
                shown.callback(self._there.source(lambda: _by_phase(databases)))
                shown.callback(self._age.source(lambda: self._ages(databases)))
                shown.callback(self._catalogue.source(lambda: [((), float(catalogue.problem is None))]))
                await anyio.sleep_forever()

    def corrected(self, fields: Iterable[str]) -> None:
        """Count what was put right, by the spec's names: `users[app]` is one of `users`."""
        for field in fields:
            self._corrections.shared(field.partition("[")[0]).inc()

    def took(self, operation: str, seconds: float) -> None:
        """Count something on a server that took so long."""
        if operation not in self._operations:
            if len(self._operations) >= OPERATIONS:
                operation = "other"
            self._operations.add(operation)
        self._sql.shared(operation).observe(seconds)

    def _ages(self, databases: Cached[Database]) -> Rows:
        oldest: dict[str, float] = {}
        now = self._clock.now()
        for db in _readable(databases):
            rotated = _oldest(db)
            if rotated is not None and _rotates(db):
                age = max(0.0, (now - rotated).total_seconds())
                oldest[db.spec.provisioner] = max(oldest.get(db.spec.provisioner, 0.0), age)
        for provisioner, age in oldest.items():
            yield (provisioner,), age


def _oldest(db: Database) -> datetime | None:
    """When the password was made that is the oldest of its users'."""
    said = db.status.credentials or CredentialsStatus()
    times = [each.last_rotation_time for each in said.users if each.last_rotation_time is not None]
    return min(times, default=said.last_rotation_time)


def _rotates(db: Database) -> bool:
    """Whether its passwords are to change by themselves: else their age says nothing."""
    rotation = db.spec.credentials.rotation if db.spec.credentials else None
    return rotation is not None and rotation.interval is not None and db.status.phase is not Phase.SUSPENDED


def _by_phase(databases: Cached[Database]) -> Rows:
    found = Counter((db.status.phase or Phase.PENDING, db.spec.provisioner) for db in _readable(databases))
    for phase, provisioner in product(Phase, Provisioner):
        yield (phase, provisioner), found[phase, provisioner]


def _readable(databases: Cached[Database]) -> Iterator[Database]:
    """Those in the cache but what can't be decoded; asked in the thread of a scrape."""
    each = databases.list()
    while True:
        try:
            db = next(each)
        except StopIteration:
            return
        except DecodeError:
            continue
        yield db

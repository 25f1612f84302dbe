"""A failure of the table as it is told, retried and over: what is the same of each, and where it happens."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from tests.e2e.cluster import Team, condition
from tests.e2e.daemon import Daemon
from tests.e2e.proxy import Proxy
from tests.e2e.server import Superuser
from tests.e2e.waiting import until

BACKOFF, SLOW = "backoff", "slow"
QUICK = {
    "retry_base": "50ms",
    "retry_max": "1s",
    "retry_limit": 2,
    "database_resync": "1s",
    "log_level": "debug",  # of what is told of a server, each object's own line is there too
}


@dataclass
class World:
    """What a row of the table has at hand."""

    team: Team
    superuser: Superuser
    proxy: Proxy
    admin: str  # our admin's role, of this test alone
    write_catalogue: Callable[..., object]  # with a password
    password: str

    @property
    def name(self) -> str:
        """The database that is asked for."""
        return self.team.namespace.replace("-", "_")

    @contextlib.contextmanager
    def altered(self, attribute: LiteralString, back: LiteralString) -> Iterator[None]:
        """Our admin without something."""
        self.superuser.do("ALTER ROLE {} " + attribute, self.admin)
        try:
            yield
        finally:
            self.superuser.do("ALTER ROLE {} " + back, self.admin)

    @contextlib.contextmanager
    def taken(self, create: LiteralString, drop: LiteralString) -> Iterator[None]:
        """A DBA has made something of a name of ours."""
        names = {"name": sql.Identifier(self.name), "owner": self._of("owner"), "a": self._of("a")}
        self.superuser.ask(sql.SQL(create).format(**names))
        try:
            yield
        finally:
            self.superuser.ask(sql.SQL(drop).format(**names))

    def _of(self, role: str) -> sql.Identifier:
        return sql.Identifier(f"{self.name}_{role}")


@dataclass(frozen=True)
class Row:
    """One row: what is wrong, and what is said of it."""

    name: str
    wrong: Callable[[World], AbstractContextManager[object]]
    reason: str
    retry: str
    writes: bool = True  # whether something may have been written to PostgreSQL


def warnings(team: Team, name: str = "orders") -> list[tuple[str, Any]]:
    return [(event["reason"], event.get("series")) for event in team.events(name) if event["type"] == "Warning"]


def is_retried(daemon: Daemon, how: str, name: str = "orders") -> None:
    """What goes by itself soon and ever later, though two counted failures would park it; the other hardly ever."""

    def said(message: str) -> list[dict[str, Any]]:
        return [record for record in daemon.said(message) if record["name"] == name]

    if how == SLOW:
        parked = until(lambda: said("parked until the object changes"))
        assert 480 <= parked[0]["retry_in"] <= 720
        return
    failed = until(lambda: said("the pass has failed"), lambda found: len(found) >= 3)
    first, second, third = [record["retry_in"] for record in failed[:3]]
    assert first < second < third
    assert not said("parked until the object changes")


def is_told(
    team: Team, daemon: Daemon, reason: str, retry: str, aspect: str = "DatabaseReady", *, name: str = "orders"
) -> None:
    """The condition, the reason, one Warning, the phase, and how it is retried."""
    team.until_refused(reason, name)
    is_retried(daemon, retry, name)
    found = team.database(name)
    about, ready = condition(found, aspect), condition(found, "Ready")
    assert (about["status"], about["reason"], about["message"]) == ("False", reason, ready["message"])
    assert found["status"]["phase"] == ("Failed" if retry == SLOW else "Pending")
    assert condition(found, "Stalled").get("status", "False") == str(retry == SLOW)
    assert until(lambda: warnings(team, name)) == [(reason, None)]


def is_over(team: Team, reason: str, retry: str, aspect: str = "DatabaseReady", *, name: str = "orders") -> None:
    """It comes right by itself, or when somebody touches it, and nothing more is said of it."""
    if retry == SLOW:
        team.look_again(name)
    found = team.until_running(name)
    assert condition(found, "Stalled").get("status", "False") == "False"
    assert condition(found, aspect)["status"] == "True"
    assert warnings(team, name) == [(reason, None)]

"""Each failure of the table, provoked for real: its condition, its reason, one Warning, how it is retried, its end.

What goes by itself is retried with growing delay, is not counted, and comes right when its cause goes. What somebody
has to mend is parked, Stalled and Failed, and comes right when the object is touched, or after the slow retry.
"""

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.e2e.cluster import Team, condition
from tests.e2e.conftest import write_catalogue
from tests.e2e.proxy import Proxy
from tests.e2e.server import Superuser
from tests.e2e.waiting import until

BACKOFF, SLOW = "backoff", "slow"
QUICK = {"retry_base": "50ms", "retry_max": "1s", "retry_limit": 2, "database_resync": "1s"}


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
    def altered(self, attribute: str, back: str) -> Iterator[None]:
        """Our admin without something."""
        change = "ALTER ROLE {} " + attribute
        self.superuser.ask(sql.SQL(change).format(sql.Identifier(self.admin)))
        try:
            yield
        finally:
            self.superuser.ask(sql.SQL("ALTER ROLE {} " + back).format(sql.Identifier(self.admin)))

    @contextlib.contextmanager
    def taken(self, create: str, drop: str) -> Iterator[None]:
        """A DBA has made something of a name of ours."""
        self.superuser.ask(
            sql.SQL(create).format(name=sql.Identifier(self.name), owner=self._of("owner"), a=self._of("a"))
        )
        try:
            yield
        finally:
            self.superuser.ask(
                sql.SQL(drop).format(name=sql.Identifier(self.name), owner=self._of("owner"), a=self._of("a"))
            )

    def _of(self, role: str) -> sql.Identifier:
        return sql.Identifier(f"{self.name}_{role}")


@dataclass(frozen=True)
class Row:
    """One row: what is wrong, and what is said of it."""

    name: str
    wrong: Callable[[World], AbstractContextManager[object]]
    reason: str
    retry: str
    aspect: str = "DatabaseReady"
    writes: bool = True  # whether something may have been written to PostgreSQL


@contextlib.contextmanager
def down(world: World) -> Iterator[None]:
    world.proxy.down()
    yield
    world.proxy.up()


@contextlib.contextmanager
def wrong_password(world: World) -> Iterator[None]:
    world.write_catalogue("not-the-one")
    yield
    world.write_catalogue(world.password)


@contextlib.contextmanager
def shut_out(world: World) -> Iterator[None]:
    """A line in pg_hba.conf rejects our admin."""
    ((file,),) = world.superuser.ask("SHOW hba_file")
    path = Path(file)
    before = path.read_text()
    path.write_text(f"host all {world.admin} 127.0.0.1/32 reject\n{before}")
    world.superuser.ask("SELECT pg_reload_conf()")
    yield
    path.write_text(before)
    world.superuser.ask("SELECT pg_reload_conf()")


@contextlib.contextmanager
def held_up(world: World) -> Iterator[None]:
    """Somebody's transaction holds the name of our role, and what waits for it is cancelled."""
    with psycopg.connect(world.superuser.postgres.uri()) as session:
        session.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(f"{world.name}_owner")))
        done = threading.Event()

        def cancel() -> None:
            while not done.wait(0.05):
                waits = "usename = %s AND wait_event_type = 'Lock'"
                world.superuser.ask(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waits}", [world.admin])

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            yield
        finally:
            done.set()
            canceller.join()
            session.rollback()


ROWS = [
    Row("the server is down", down, "ServerUnreachable", BACKOFF, writes=False),
    Row("a statement was cancelled", held_up, "ServerUnreachable", BACKOFF),
    Row("wrong admin password", wrong_password, "AuthenticationFailed", BACKOFF, writes=False),
    Row("rejected by pg_hba.conf", shut_out, "AuthenticationFailed", BACKOFF, writes=False),
    Row("no LOGIN", lambda w: w.altered("NOLOGIN", "LOGIN"), "AuthenticationFailed", BACKOFF, writes=False),
    Row(
        "no CREATEROLE", lambda w: w.altered("NOCREATEROLE", "CREATEROLE"),
        "InsufficientPrivilege", SLOW, writes=False,
    ),
    Row("no CREATEDB", lambda w: w.altered("NOCREATEDB", "CREATEDB"), "InsufficientPrivilege", SLOW),
    Row(
        "too many connections", lambda w: w.altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
        "TooManyConnections", BACKOFF, writes=False,
    ),
    Row(
        "a foreign database", lambda w: w.taken("CREATE DATABASE {name}", "DROP DATABASE {name}"),
        "NameConflict", SLOW, writes=False,
    ),
    Row(
        "a foreign owner role", lambda w: w.taken("CREATE ROLE {owner}", "DROP ROLE {owner}"),
        "NameConflict", SLOW, writes=False,
    ),
    Row(
        "a role of another object", lambda w: w.taken(
            "CREATE ROLE {owner}; COMMENT ON ROLE {owner} IS 'asyncctl:other/ns/name/uid'", "DROP ROLE {owner}"
        ),
        "NameConflict", SLOW, writes=False,
    ),
    Row("a foreign login", lambda w: w.taken("CREATE ROLE {a}", "DROP ROLE {a}"), "NameConflict", SLOW),
]  # fmt: skip


@pytest.fixture
def world(own_admin, team, superuser, admin, proxy, tmp_path, catalogue):
    def write(password):
        server = replace(admin, port=proxy.port, admin_user=own_admin, admin_password=password)
        return write_catalogue(tmp_path, server)

    write("of-this-test-alone")
    return World(team, superuser, proxy, own_admin, write, "of-this-test-alone")


@pytest.fixture
def own_admin(superuser):
    """A role as our admin's, of this test alone; dropped after what it made is cleared away."""
    name = f"admin_{secrets.token_hex(4)}"
    superuser.do("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD 'of-this-test-alone'", name)
    yield name
    superuser.do("DROP OWNED BY {} CASCADE; DROP ROLE {}", name, name)


def warnings(team):
    return [(event["reason"], event.get("series")) for event in team.events() if event["type"] == "Warning"]


def retries(daemon):
    """The delays before the next pass, as they were told; and whether it was parked."""
    return [record["retry_in"] for record in daemon.said("the pass has failed")]


def is_retried(daemon, how):
    if how == SLOW:
        parked = daemon.until_said("parked until the object changes")
        assert 480 <= parked["retry_in"] <= 720
        return
    first, second, third = until(lambda: retries(daemon), lambda found: len(found) >= 3)[:3]
    assert first < second < third
    assert not daemon.said("parked until the object changes")  # though two counted failures would do


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_failure_is_told_retried_and_over_when_its_cause_is_gone(row, world, fork, tmp_path):
    team = world.team
    daemon = fork(**QUICK)
    daemon.until_working()
    with row.wrong(world):
        before = world.superuser.versions()
        team.create(databaseName=world.name)
        said = team.until_refused(row.reason)
        is_retried(daemon, row.retry)
        found = team.database()
        assert condition(found, row.aspect)["status"] == "False"
        assert condition(found, row.aspect)["reason"] == row.reason
        assert said["message"] == condition(found, row.aspect)["message"]
        stalled = row.retry == SLOW
        assert found["status"]["phase"] == ("Failed" if stalled else "Pending")
        assert condition(found, "Stalled").get("status", "False") == str(stalled)
        assert until(lambda: warnings(team)) == [(row.reason, None)]
        assert not team.secrets()
        if not row.writes:
            assert world.superuser.versions() == before
    if row.retry == SLOW:
        team.look_again()
    found = team.until_running()
    assert condition(found, "Stalled").get("status", "False") == "False"
    assert condition(found, row.aspect)["status"] == "True"
    assert warnings(team) == [(row.reason, None)]

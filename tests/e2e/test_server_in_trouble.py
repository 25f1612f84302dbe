"""A server in trouble, as the failure table has it: what lives on it is left alone, and all is well when it is.

The server is this file's own, and breaks for real. What can be shown of the one that all have is in `test_failures`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import psycopg
import pytest

from tests.e2e.cluster import is_running
from tests.e2e.failing import BACKOFF, QUICK, is_over, is_told
from tests.e2e.server import VERSIONS, Superuser
from tests.e2e.waiting import until
from tests.postgres.machine import Machine, own_machine


@dataclass(frozen=True)
class Trouble:
    """What is wrong with the server, and what is said of it."""

    name: str
    begin: Callable[[Machine], AbstractContextManager[psycopg.Connection]]
    reason: str
    serves: bool  # what needs no change can still be used, and is looked at


TROUBLES = [
    Trouble("a DBA has made it read-only", lambda machine: machine.read_only(), "ServerReadOnly", serves=True),
    Trouble("it has become a standby", lambda machine: machine.standby(), "ServerReadOnly", serves=True),
    Trouble("others use it up", lambda machine: machine.used_up("tenant"), "TooManyConnections", serves=False),
    Trouble("it is out of locks", lambda machine: machine.out_of_locks(VERSIONS), "ServerExhausted", serves=False),
]


@pytest.fixture(scope="module")
def machine(backends):
    with own_machine(backends) as machine:
        yield machine


@pytest.fixture(scope="module")
def postgres(machine):
    return machine.server


@pytest.fixture(scope="module")
def superuser(postgres):
    return Superuser(postgres)


@pytest.fixture(scope="module")
def admin(machine):
    return replace(machine.admin, name="main")


@pytest.fixture
def disk(machine):
    """A small one, for the databases that are made; what is on it is gone before it is."""
    with machine.small_disk(32 << 20) as folder:
        yield folder


@pytest.fixture
def settled(world, fork):
    """A daemon, and a Database that is Running: what there is of it must stay as it is."""
    daemon = fork(**QUICK)
    daemon.until_working()
    world.team.create("settled")
    name = world.team.until_running("settled")["status"]["databaseName"]

    def look():
        superuser = world.superuser
        return superuser.portrait(name), superuser.interior(name), world.team.secret("settled-credentials")

    before = look()
    yield daemon
    world.team.until_running("settled")
    assert look() == before


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_a_server_in_trouble_is_told_left_alone_and_used_when_it_is_well(trouble, machine, world, settled):
    team, daemon = world.team, settled
    with begun(trouble, machine, world) as session:
        before = session.execute(VERSIONS).fetchall()
        team.create(databaseName=world.name)
        is_told(team, daemon, trouble.reason, BACKOFF)
        if trouble.serves:
            still_looks_after(team, daemon)
        else:
            team.until_refused(trouble.reason, "settled")
        assert session.execute(VERSIONS).fetchall() == before
        assert [secret["metadata"]["name"] for secret in team.secrets()] == ["settled-credentials"]
    is_over(team, trouble.reason, BACKOFF)


@contextmanager
def begun(trouble, machine, world):
    """The trouble; where all of something is to be taken, nothing of it is the daemon's, who would give it back."""
    if not trouble.serves:
        world.proxy.down()
        until(lambda: not machine.do("SELECT 1 FROM pg_stat_activity WHERE usename = %s", world.admin))
    with trouble.begin(machine) as session:
        if not trouble.serves:
            world.proxy.up()
        yield session


def test_a_full_disk_is_told_and_used_when_it_has_room(disk, machine, world, settled):
    team, daemon = world.team, settled
    with machine.full(disk):
        team.create(databaseName=world.name)
        is_told(team, daemon, "ServerFull", BACKOFF)
        still_looks_after(team, daemon)
        assert world.name not in world.superuser.databases()
        assert [secret["metadata"]["name"] for secret in team.secrets()] == ["settled-credentials"]
    is_over(team, "ServerFull", BACKOFF)


def still_looks_after(team, daemon):
    """What is settled is looked at and stays so, while the other fails."""

    def passes():
        return daemon.metric("controller_runtime_reconcile_total", result="requeue_after")

    before = passes()
    until(lambda: passes() > before)
    assert is_running(team.database("settled"))

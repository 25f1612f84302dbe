"""A server that does not let our admin in is told once, with its reason, and told to be back, whoever waits for it."""

import asyncio
from dataclasses import replace

import pytest

from asyncctl.clock import SystemClock
from asyncctl.database.postgres.connection import Limits, connect
from asyncctl.database.postgres.errors import AuthenticationFailed, DatabaseError, DatabaseMissing, ServerUnreachable
from asyncctl.database.postgres.outages import Outages
from asyncctl.database.postgres.server import Server
from asyncctl.testing.clock import FakeClock
from tests.e2e.proxy import Proxy
from tests.unit.support import Log

AWAY, BACK = "a server can't be used", "a server can be used again"


@pytest.fixture
def log():
    return Log()


@pytest.fixture
async def limits(log):
    limits = Limits(outages=Outages(log.logger, SystemClock()))
    yield limits
    await limits.close()


@pytest.fixture
def proxied(admin):
    """A way to the server that can be cut, and two sessions of ours on it at once."""
    with Proxy(admin.port) as proxy:
        yield replace(admin, port=proxy.port, max_connections=2), proxy


async def use(server, limits, database=None):
    async with connect(server, database, limits=limits) as session:
        await session.read("SELECT 1")


async def failures(server, limits, count, database=None):
    """What so many fail by that want to use it at once."""
    found = await asyncio.gather(*(use(server, limits, database) for _ in range(count)), return_exceptions=True)
    assert all(isinstance(each, DatabaseError) for each in found)
    return found


async def test_a_server_that_is_down_is_told_once_and_that_it_is_back(proxied, limits, log):
    server, proxy = proxied
    await use(server, limits)
    proxy.down()
    for _ in range(2):
        for error in await failures(server, limits, 3):
            assert error.told
    (line,) = log.lines
    said = line["msg"], line["level"], line["server"]
    assert said == (
        AWAY,
        "warning",
        f"server main ({server.host}:{server.port})",
    )
    assert "Connection refused" in line["cause"]
    proxy.up()
    await use(server, limits)
    await use(server, limits)
    (line,) = log.lines[1:]
    assert (line["msg"], line["level"], line["failed"]) == (BACK, "info", 6)
    assert line["seconds"] > 0
    proxy.down()
    await failures(server, limits, 1)
    assert [line["msg"] for line in log.lines] == [AWAY, BACK, AWAY]


async def test_another_reason_is_told_too(proxied, limits, log):
    server, proxy = proxied
    proxy.down()
    await failures(server, limits, 2)
    proxy.up()
    wrong = replace(server, admin_password="wrong")
    assert {type(each) for each in await failures(wrong, limits, 2)} == {AuthenticationFailed}
    assert [line["msg"] for line in log.lines] == [AWAY, AWAY]
    assert "password authentication failed" in log.lines[1]["cause"]


@pytest.mark.parametrize("idle", [True, False])
async def test_a_server_that_says_nothing_is_not_short_of_our_connections(idle, proxied, limits, log):
    """Also where more wait for it than may connect."""
    server, proxy = proxied
    brief = replace(server, connect_timeout=0.3)
    if idle:
        await use(brief, limits)
    with proxy.held():
        found = await failures(brief, limits, 6)
    assert {type(each) for each in found} == {ServerUnreachable}
    assert [line["msg"] for line in log.lines] == [AWAY]


async def test_what_is_wrong_with_one_database_is_not_told_of_the_server(admin, limits, log):
    (missing,) = await failures(admin, limits, 1, database="nosuch")
    (gone,) = await failures(replace(admin, maintenance_database="nosuch"), limits, 1)  # each is parked, and told once
    assert type(missing) is type(gone) is DatabaseMissing
    assert not missing.told
    assert not gone.told
    assert log.lines == []


def test_a_server_that_nobody_waits_for_is_forgotten(log):
    clock = FakeClock()
    outages = Outages(log.logger, clock)
    for name in ("a", "b"):
        outages.failed(Server(name=name, host="h", admin_user="u", admin_password="p"), ServerUnreachable("away"))
    clock.advance(3600)
    outages.failed(Server(name="c", host="h", admin_user="u", admin_password="p"), ServerUnreachable("away"))
    assert list(outages._by_server) == ["c"]


def test_a_failure_long_after_the_last_is_told_again(log):
    """Nobody was let in meanwhile: what sessions were kept did for all, and hold no more."""
    clock = FakeClock()
    outages = Outages(log.logger, clock)
    server = Server(name="a", host="h", admin_user="u", admin_password="p")
    for seconds in (0, 3599, 3600):
        clock.advance(seconds)
        outages.failed(server, ServerUnreachable("away"))
    assert [line["msg"] for line in log.lines] == [AWAY, AWAY]
    outages.over(server)
    assert log.lines[-1]["failed"] == 1

"""How the daemon ends: drained, the Lease given back, quickly, with a code that says how it went."""

import signal
import time

import pytest

from tests.e2e.waiting import until

WITHIN = 2.0  # seconds


def lease_name(daemon):
    return daemon.until_said("became the leader")["lease"].partition("/")[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_gives_the_lease_back_and_ends_with_0(start, team, cluster, number):
    daemon = start()
    daemon.until_working()
    team.create()
    team.until_running()
    lease = lease_name(daemon)
    assert cluster.lease(lease)["holderIdentity"].startswith("daemon-a_")
    began = time.monotonic()
    daemon.signal(number)
    assert daemon.wait() == 0
    took = time.monotonic() - began
    print(f"figure: stopped in {took:.3f} s")
    assert took < WITHIN
    assert cluster.lease(lease)["holderIdentity"] == ""
    said = [record["msg"] for record in daemon.records]
    assert said[said.index("stopping") :] == [
        "stopping", "stopped: workers", "stopped: background tasks", "stopped: hooks", "stopped: events",
        "gave the Lease back", "stopped: lease", "stopped: caches", "stopped: transport", "stopped: side server",
        "stopped",
    ]  # fmt: skip


def test_a_pass_in_flight_is_finished_first(start, team, cluster):
    daemon = start()
    daemon.until_working()
    for number in range(8):
        team.create(f"db-{number}")
    until(lambda: any(db.get("status", {}).get("databaseName") for db in team.databases()))
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    states = [db.get("status", {}).get("phase") for db in team.databases()]
    print(f"figure: {states}")
    assert set(states) <= {"Running", None}  # begun and finished, or not begun; not one in between
    assert all(write.code < 300 for write in cluster.written_by("a") if write.namespace == team.namespace)


@pytest.mark.parametrize("moment", ["the side server is up", "the cluster", "ready", "became the leader"])
def test_a_signal_during_the_start_ends_it_with_0_and_leaves_no_socket(start, moment):
    for _ in range(2):
        daemon = start()
        daemon.until_said(moment)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert not daemon.blemishes()


def test_a_standby_stops_with_0_and_leaves_the_lease_alone(start, cluster):
    leader = start()
    leader.until_working()
    standby = start("b")
    standby.until_ready()
    until(lambda: standby.said("not leading"))
    standby.signal(signal.SIGTERM)
    assert standby.wait() == 0
    assert cluster.lease(lease_name(leader))["holderIdentity"].startswith("daemon-a_")


def test_while_it_stops_it_is_live_and_not_ready(start, team, cut_off, proxy):
    """A pass that waits for PostgreSQL holds up the drain; meanwhile the probes tell."""
    daemon = start(database_servers=cut_off)
    daemon.until_working()
    assert daemon.get("/readyz")[0] == 200
    with proxy.held():
        team.create()
        until(lambda: proxy.holding)
        daemon.signal(signal.SIGTERM)
        _, text = until(lambda: daemon.get("/readyz"), lambda answer: answer[0] == 500)
        assert "the process is stopping" in text
        assert daemon.get("/livez")[0] == 200
    assert daemon.wait() == 0


def test_a_second_signal_ends_it_at_once(start, team, cut_off, proxy):
    daemon = start(database_servers=cut_off)
    daemon.until_working()
    with proxy.held():
        team.create()
        until(lambda: proxy.holding)
        daemon.signal(signal.SIGTERM)
        daemon.until_said("stopping")
        until(
            lambda: not daemon.alive or daemon.signal(signal.SIGTERM), deadline=2
        )  # not one that comes with the first
        assert daemon.wait(2) == 128 + signal.SIGTERM

"""The API server goes away in the middle of the work, and comes back: nothing is parked, nothing is lost."""

import time

from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

OUTAGE = 10.0  # seconds
LONGER = {"lease_duration": "60s", "renew_deadline": "45s"}  # than the outage, or the leader would rightly end


def test_the_api_server_is_away_for_ten_seconds(start, team, cluster, plane, superuser):
    daemon = start(retry_base="200ms", retry_max="1s", database_resync="1s", **LONGER)
    daemon.until_working()
    team.create("settled")
    settled = superuser.portrait(team.until_running("settled")["status"]["databaseName"])
    for number in range(5):
        team.create(f"db-{number}")
    until(lambda: any(db.get("status", {}).get("databaseName") for db in team.databases()))
    began = time.monotonic()
    plane.stop_apiserver(kill=True)
    try:
        until(lambda: "can't be reached" in daemon.get("/readyz?verbose")[1])
        assert daemon.get("/readyz")[0] == 200  # an outage must not block a rollout
        until(lambda: time.monotonic() - began, lambda away: away > OUTAGE, deadline=2 * OUTAGE)
        assert daemon.alive
    finally:
        plane.start_apiserver()
    for name in ("settled", *(f"db-{number}" for number in range(5))):
        found = team.until_running(name, deadline=40)
        assert superuser.portrait(found["status"]["databaseName"]) == settled
        assert ask_as_tenant(team.binding(f"{name}-credentials")["uri"], "SELECT 1") == [(1,)]
    assert daemon.metric("asyncctl_parked_keys") == 0
    team.create("later")
    team.until_running("later", deadline=40)
    assert until(lambda: team.reasons("later")) == ["Provisioned"]
    assert len(superuser.claimed(cluster.id, team.namespace)) == 2 * 7


def test_an_outage_longer_than_the_renew_deadline_ends_the_leader_and_the_next_one_goes_on(start, team, plane):
    leader = start(lease_duration="2s", renew_deadline="1500ms", retry_period="300ms")
    leader.until_working()
    plane.stop_apiserver(kill=True)
    try:
        assert leader.wait(15) == 1
        assert "could not be renewed" in leader.said("ends, because the Lease is lost")[0]["cause"]
    finally:
        plane.start_apiserver()
    team.create()
    start(lease_duration="2s", renew_deadline="1500ms", retry_period="300ms").until_working()
    team.until_running()

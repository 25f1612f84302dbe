"""A server that is away is told once, however many databases are on it; each of them says so for itself."""

from tests.e2e.cluster import condition, is_running
from tests.e2e.failing import warnings
from tests.e2e.waiting import until

AWAY, BACK = "a server can't be used", "a server can be used again"
NAMES = [f"db-{number}" for number in range(6)]


def test_a_server_that_is_away_is_told_once_and_each_of_its_databases_says_so(fork, team, cut_off, proxy):
    daemon = fork(database_servers=cut_off, retry_base="50ms", retry_max="500ms", database_resync="1s")
    daemon.until_working()
    for name in NAMES[:5]:
        team.create(name)
    until(lambda: len(team.databases()) == 5 and all(map(is_running, team.databases())), deadline=20.0)

    proxy.down()
    team.create(NAMES[5])
    for name in NAMES:
        team.until_refused("ServerUnreachable", name)
        until(lambda name=name: "Connection refused" in condition(team.database(name), "Ready")["message"])
    failed = daemon.metric("controller_runtime_reconcile_total", result="error")
    until(lambda: daemon.metric("controller_runtime_reconcile_total", result="error") >= failed + 12)
    (away,) = daemon.said(AWAY)
    assert (away["level"], away["server"]) == ("warning", f"server main (127.0.0.1:{proxy.port})")
    assert "can't connect to server main" in away["cause"]
    cut = [record["name"] for record in daemon.said("the pass has failed")]  # in its middle, as each tells
    assert len(set(cut)) == len(cut)
    assert not daemon.said(BACK)

    proxy.up()
    for name in NAMES:
        team.until_running(name)
    (back,) = daemon.said(BACK)
    assert (back["level"], back["server"]) == ("info", away["server"])
    assert back["failed"] >= 12
    for name in NAMES:
        assert until(lambda name=name: warnings(team, name)) == [("ServerUnreachable", None)]

    proxy.down()
    until(lambda: len(daemon.said(AWAY)) == 2)

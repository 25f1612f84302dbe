"""A real Prometheus scrapes a leader and a standby, and promtool finds nothing to say of what they show."""

import http.client
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from tests.e2e.waiting import until
from tests.prometheus.server import INTERVAL, Prometheus
from tests.unit.client.tls_kit import Issued

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ABSENT = {"asyncctl_background_failures_total"}  # as the page says: with the first, and these tasks do not fail
SHIPPED = "asyncctl_database"
CACHES = 2 * 6.0  # of both: databases, Secrets, and what an instance is made of
SECONDS = 60.0 if "ASYNCCTL_TEST_SOAK" in os.environ else 4.0


def documented():
    """The type of each metric that the page names."""
    found = dict(re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", PAGE.read_text(), re.MULTILINE))
    assert len(found) > 45
    return found


def series_of(name, kind):
    return {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}


def address_of(daemon):
    return daemon.until_said("the side server is up")["address"]


def check_metrics(folder, text):
    """What `promtool check metrics` says."""
    done = subprocess.run(
        [folder / "promtool", "check", "metrics"], input=text, check=False, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def pair(start, team, superuser):
    """A leader that has made a database and put it right, and a standby."""
    longer = {"lease_duration": "60s", "renew_deadline": "45s"}  # than an outage
    leader = start("a", database_resync="1s", **longer)
    leader.until_working()
    standby = start("b", **longer)
    standby.until_ready()
    team.create(credentials={"rotation": {"interval": "24h"}})
    superuser.do("ALTER DATABASE {} CONNECTION LIMIT 7", team.until_running()["status"]["databaseName"])
    until(lambda: "DriftCorrected" in team.reasons())
    return leader, standby


def test_every_documented_metric_of_leader_and_standby_is_scraped(prometheus, plane, pair, tmp_path):
    leader, standby = pair
    job = {"static_configs": [{"targets": [address_of(leader), address_of(standby)]}]}
    with Prometheus(prometheus, tmp_path, {"asyncctl": job}) as server:
        plane.stop_apiserver()  # what is counted of outages appears with the first
        for daemon in pair:
            until(lambda: daemon.metric("rest_client_request_retries_total") > 0, deadline=30)  # noqa: B023
            until(lambda: daemon.metric("asyncctl_watch_restarts_total") > 0, deadline=30)  # noqa: B023
        plane.start_apiserver()
        until(lambda: server.query("count(asyncctl_cache_synced == 1)") == [({}, CACHES)], deadline=60)
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > SECONDS, deadline=SECONDS + 10)
        assert [target["lastError"] for target in server.targets() if target["health"] != "up"] == []
        assert [value for _, value in server.query("min_over_time(up[1h])")] == [1.0, 1.0]
        scrapes = [value for _, value in server.query("count_over_time(up[1h])")]
        assert min(scrapes) >= SECONDS / INTERVAL
        for daemon in pair:
            shown = server.names(instance=address_of(daemon)) | ABSENT
            lacking = {n for name, kind in documented().items() for n in series_of(name, kind) if n not in shown}
            # A standby has to do with no database.
            assert {name for name in lacking if daemon is leader or not name.startswith(SHIPPED)} == set()
        types = server.types()
        for name, kind in documented().items():
            assert name in ABSENT or types.get(name, types.get(name.removesuffix("_total"))) == kind, name
        assert server.query("sum(leader_election_master_status)") == [({}, 1.0)]
        assert server.query("sum(controller_runtime_reconcile_total) > 0")


def test_promtool_and_the_openmetrics_parser_have_nothing_to_say(prometheus, start):
    assert check_metrics(prometheus, "# TYPE wrong_total gauge\nwrong_total 1\n")[0] != 0  # it does look
    daemon = start()
    daemon.until_working()
    assert check_metrics(prometheus, daemon.get("/metrics")[1]) == (0, "")
    connection = http.client.HTTPConnection(address_of(daemon), timeout=10)
    connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert list(parse_openmetrics(response.read().decode()))
    connection.close()


@pytest.fixture
def reader(cluster):
    """The token of user `c`, who may do nothing but read metrics."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrole"
    meta = {"metadata": {"name": "e2e-metrics-reader"}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "e2e-metrics-reader"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "c"}
    cluster.call("POST", f"{path}s", meta | {"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]})
    cluster.call("POST", f"{path}bindings", meta | {"roleRef": role, "subjects": [subject]})
    yield cluster.plane.tokens["c"]
    for kind in ("bindings", "s"):
        cluster.call("DELETE", f"{path}{kind}/e2e-metrics-reader")


def test_a_prometheus_with_a_token_scrapes_the_tls_listener_and_one_with_another_does_not(
    prometheus, cluster, start, reader, tmp_path
):
    Issued("127.0.0.1", names=["127.0.0.1"]).write(tmp_path, "metrics")
    certificate, key = tmp_path / "metrics.crt", tmp_path / "metrics.key"
    cluster.secrets.add(key.read_text())
    daemon = start(metrics_address="127.0.0.1:0", metrics_cert=certificate, metrics_key=key)
    address = daemon.until_said("the metrics listener is up")["address"]
    daemon.until_working()
    jobs = {}
    for name, token in {"reader": reader, "stranger": "no-such-token-0123456789abcdef"}.items():
        file = tmp_path / f"token-{name}"
        file.touch(0o600)
        file.write_text(token)
        jobs[name] = {
            "scheme": "https",
            "tls_config": {"ca_file": str(certificate)},
            "authorization": {"credentials_file": str(file)},
            "static_configs": [{"targets": [address]}],
        }
    with Prometheus(prometheus, tmp_path, jobs) as server:
        until(lambda: server.query("sum(count_over_time(up[1h])) > 5"))
        health = {target["labels"]["job"]: (target["health"], target["lastError"]) for target in server.targets()}
        assert health["reader"] == ("up", "")
        assert health["stranger"][0] == "down"
        assert "401" in health["stranger"][1]
        assert "leader_election_master_status" in server.names(job="reader")
        assert "leader_election_master_status" not in server.names(job="stranger")

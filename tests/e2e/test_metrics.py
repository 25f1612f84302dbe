"""Metrics behind TLS and a token, of daemons as their own ServiceAccount, on a real API server."""

import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.generate.rbac import rules
from tests.e2e.account import RBAC, Account
from tests.e2e.daemon import ROOT
from tests.e2e.waiting import until
from tests.prometheus.server import Prometheus

GUARDED = {"ASYNCCTL_METRICS_ADDRESS": "127.0.0.1:0"}
REVIEWS = {"tokenreviews.authentication.k8s.io", "subjectaccessreviews.authorization.k8s.io"}


@pytest.fixture
def account(cluster):
    account = Account(cluster)
    yield account
    account.clear()


@pytest.fixture
def scraper(cluster):
    """The token of somebody else's ServiceAccount, who may get /metrics once it is allowed."""
    account = Account(cluster)
    accounts = f"/api/v1/namespaces/controllers/serviceaccounts/{account.name}"
    account.token = cluster.call("POST", f"{accounts}/token", {"spec": {}})["status"]["token"]

    def allow():
        meta, rule = {"metadata": {"name": account.name}}, {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
        account._make(f"{RBAC}/clusterroles", meta | {"rules": [rule]})
        subject = {"kind": "ServiceAccount", "name": account.name, "namespace": "controllers"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account.name}
        account._make(f"{RBAC}/clusterrolebindings", meta | {"roleRef": role, "subjects": [subject]})

    account.allow = allow
    yield account
    account.clear()


def scrape(daemon, token=None):
    """Return the status and the text."""
    address = daemon.until_said("the metrics listener is up")["address"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://{address}/metrics")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def needed(environ):
    return rules(database_operator(), DatabaseSettings.from_environment(environ), lease_namespace="controllers")


def test_leader_and_standby_let_in_whom_rbac_allows_and_nobody_else(
    start, environment, account, scraper, tmp_path, plane, prometheus
):
    base = environment() | GUARDED
    account.grant(needed(base))
    environ = base | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "kubeconfig-account"))}
    leader = start(environ=environ)
    leader.until_working()
    standby = start(environ=environ)
    standby.until_ready()
    assert leader.get("/metrics")[0] == 404
    for daemon in (leader, standby):
        assert scrape(daemon)[0] == 401
        assert scrape(daemon, "no-token")[0] == 401
        code, said = scrape(daemon, scraper.token)
        assert (code, f"{scraper.username} may not get /metrics" in said) == (403, True)
    scraper.allow()
    other = scraper.cluster.call(
        "POST", f"/api/v1/namespaces/controllers/serviceaccounts/{scraper.name}/token", {"spec": {}}
    )["status"]["token"]  # of which nothing is remembered
    for daemon, leading in ((leader, "1.0"), (standby, "0.0")):
        # The API server's own authorizer hears of the rule by a watch.
        code, text = until(lambda daemon=daemon: scrape(daemon, other), lambda answer: answer[0] != 403, deadline=60)
        assert code == 200
        assert any(
            line.startswith("leader_election_master_status") and line.endswith(leading) for line in text.splitlines()
        )
    (tmp_path / "token").write_text(other)
    addresses = [daemon.until_said("the metrics listener is up")["address"] for daemon in (leader, standby)]
    job = {
        "scheme": "https", "authorization": {"credentials_file": str(tmp_path / "token")},
        "tls_config": {"insecure_skip_verify": True}, "static_configs": [{"targets": addresses}],
    }  # fmt: skip
    with Prometheus(prometheus, tmp_path, {"guarded": job}) as server:
        until(lambda: sorted(value for _, value in server.query("up")), lambda values: values == [1.0, 1.0])
    plane.stop_apiserver()
    try:
        assert scrape(standby, other)[0] == 200
        code, said = scrape(standby, "another")
        assert code == 503
        assert "API server" in said
    finally:
        plane.start_apiserver()
    for daemon in (leader, standby):
        assert scraper.token not in daemon.text
        assert other not in daemon.text


def test_without_the_rules_the_check_fails_and_the_listener_says_which_are_missing(
    start, environment, account, scraper, tmp_path
):
    base = environment() | GUARDED
    account.grant(rule for rule in needed(base) if str(rule) not in REVIEWS)
    environ = base | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "kubeconfig-account"))}
    done = subprocess.run(
        [sys.executable, "-m", "asyncctl", "check", "--output", "json"], env=environ, cwd=ROOT, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    failed = {row["check"] for row in json.loads(done.stdout)["checks"] if row["state"] == "failed"}
    assert failed >= {f"rbac {rule}" for rule in REVIEWS}
    daemon = start(environ=environ)
    daemon.until_ready()
    code, said = scrape(daemon, scraper.token)
    assert (code, "its log says which rule it needs" in said) == (503, True)
    assert (
        "create on tokenreviews.authentication.k8s.io" in daemon.said("access to metrics can't be reviewed")[0]["cause"]
    )

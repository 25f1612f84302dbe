"""`asyncctl check` against a real API server and PostgreSQL: what it says of good and of bad clusters, and is right.

All is well for a ServiceAccount that has exactly the rules that are generated; and with them the daemon does its work.
"""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql

from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.generate.rbac import rules
from tests.e2e.account import Account
from tests.e2e.cluster import CRD_FILE, CRD_PATH
from tests.e2e.conftest import write_catalogue
from tests.e2e.daemon import ROOT
from tests.e2e.waiting import until

CRD_ROW = "crd databases.apps.example.com"


@pytest.fixture
def environment(environment, plane, tmp_path):
    """As elsewhere, but the users' tokens are in files of their own: in a kubeconfig they are warned of."""

    def make(user="a", **settings):
        environ = environment(user, **settings)
        token, path = tmp_path / f"token-{user}", Path(environ["KUBECONFIG"])
        token.write_text(plane.tokens[user])
        config = yaml.safe_load(path.read_text())
        config["users"][0]["user"] = {"tokenFile": str(token)}
        path.write_text(yaml.safe_dump(config))
        return environ

    return make


@pytest.fixture
def account(cluster):
    account = Account(cluster)
    yield account
    account.clear()


def needed(environ):
    return rules(database_operator(), DatabaseSettings.from_environment(environ), lease_namespace="controllers")


@pytest.fixture
def check(plane):
    """Run the command; returns its rows by name. Its exit code and its summary have to agree with them."""

    def run(environ):
        command = [sys.executable, "-m", "asyncctl", "check", "--output", "json"]
        done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        found = json.loads(done.stdout)
        rows = {row["check"]: row for row in found["checks"]}
        failed = [name for name, row in rows.items() if row["state"] == "failed"]
        assert (done.returncode, found["summary"]["passed"], found["summary"]["failed"]) == (
            int(bool(failed)), not failed, len(failed),
        )  # fmt: skip
        assert not any(token in done.stdout + done.stderr for token in plane.tokens.values())
        return rows

    return run


def states(rows, *but):
    """The rows that are not well; but for what the API server could refuse, which is not installed."""
    found = {name: row["state"] for name, row in rows.items() if row["state"] != "ok" and name not in but}
    return {name: state for name, state in found.items() if not name.startswith(("fence ", "protection "))}


@pytest.fixture(params=["everywhere", "in its namespaces", "External alone"])
def own(request, tmp_path, environment, account, team):
    """An environment with the account's credentials, and its rules: as ClusterRole, or as Roles."""
    settings = {
        "everywhere": {},
        "in its namespaces": {"namespaces": team.namespace, "cluster_id": "c1"},
        "External alone": {"database_provisioners": "External"},
    }[request.param]
    environ = environment(**settings) | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "account"))}
    account.grant(needed(environ))
    return environ


def test_with_exactly_the_generated_rules_all_is_well_and_the_daemon_works(check, own, account, team, start):
    rows = check(own)
    assert states(rows) == {}
    assert account.username in rows["user"]["message"]
    assert "as the server publishes it" in rows[CRD_ROW]["message"]  # for it may not read the CRD
    daemon = start(environ=own)
    daemon.until_working()
    team.create(reclaimPolicy="Delete")
    team.until_running()
    team.delete_secret()
    until(team.secret)
    assert until(team.reasons, lambda found: len(found) > 1) == ["DriftCorrected", "Provisioned"]
    team.delete()
    team.until_gone()
    assert not team.secret()
    assert not [line for line in daemon.text.splitlines() if "orbidden" in line]
    rows = check(own)
    assert states(rows) == {}
    (lease,) = (row for name, row in rows.items() if name.startswith("lease "))
    assert lease["message"].startswith("held by daemon-a_")


def test_a_token_bound_to_a_pod_is_told(check, tmp_path, environment, account):
    environ = environment() | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "account", pod="operator-0"))}
    assert "bound to pod operator-0" in check(environ)["user"]["message"]


@pytest.mark.parametrize(
    ("resource", "verb", "row"),
    [
        ("databases", "watch", "rbac databases.apps.example.com"),
        ("databases/status", "patch", "rbac databases.apps.example.com/status"),
        ("secrets", "create", "rbac secrets"),
        ("namespaces", "get", "rbac namespaces kube-system"),
    ],
)
def test_a_verb_that_is_missing(check, tmp_path, environment, account, resource, verb, row):
    environ = environment() | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "account"))}
    account.grant(_without(rule, resource, verb) for rule in needed(environ))
    rows = check(environ)
    assert states(rows) == {row: "failed"}
    group = "apps.example.com" if "databases" in resource else "''"
    named = "resourceNames: [kube-system], " if resource == "namespaces" else ""
    assert rows[row]["message"].endswith(
        f"bind {account.username} to a ClusterRole with the rule {{apiGroups: [{group}], resources: [{resource}], "
        f"{named}verbs: [{verb}]}}"
    )
    assert rows[row]["details"]["missing"] == [verb]


def _without(rule, resource, verb):
    return replace(rule, verbs=tuple(each for each in rule.verbs if (rule.resource, each) != (resource, verb)))


def test_what_an_apply_makes_takes_the_right_to_create(tmp_path, environment, account, team, start):
    """That the rule has `create` beside `patch` is no mistake."""
    environ = environment() | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "account"))}
    account.grant(_without(rule, "secrets", "create") for rule in needed(environ))
    start(environ=environ).until_working()
    team.create()
    refused = team.until_refused("Forbidden")
    assert "create" in refused["message"]


def test_without_the_lease_s_rules_its_row_is_skipped(check, tmp_path, environment, account):
    environ = environment() | {"KUBECONFIG": str(account.kubeconfig(tmp_path / "account"))}
    account.grant(rule for rule in needed(environ) if rule.resource != "leases")
    found = states(check(environ))
    assert {name.partition(" ")[0] for name in found} == {"rbac", "lease"}
    assert [state for name, state in found.items() if name.startswith("lease ")] == ["skipped"]


def test_a_user_who_may_nothing_is_told_all_that_is_missing(check, environment):
    rows = check(environment("c"))
    assert {name.partition(" ")[0] for name, state in states(rows).items() if state == "failed"} == {"rbac"}
    assert len(states(rows)) >= 8


def test_nothing_is_written(check, environment, cluster):
    before, environ = cluster.written_by("d"), environment("d")
    assert states(check(environ)) == {}
    written = cluster.written_by("d")[len(before) :]
    assert {write.resource for write in written} == {"selfsubjectaccessreviews", "selfsubjectreviews"}
    assert not cluster.lease(environ["ASYNCCTL_LEASE_NAME"])  # that was a dry run


def test_a_token_that_is_not_accepted(check, environment, tmp_path):
    environ = environment()
    (tmp_path / "token-a").write_text("expired-long-ago")
    rows = check(environ)
    assert rows["user"]["state"] == "failed"
    assert "does not accept" in rows["user"]["message"]
    assert rows["rbac"]["message"] == "not reached because the server does not accept the credentials"
    assert rows["catalogue: main"]["state"] == "ok"  # that needs no cluster


@pytest.fixture
def definition(cluster):
    """Change the CRD as it stands in the cluster; afterwards it is as the file has it."""

    def change(by):
        wanted = copy.deepcopy(yaml.safe_load(CRD_FILE.read_text()))
        by(wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
        wanted["metadata"]["resourceVersion"] = cluster.call("GET", CRD_PATH)["metadata"]["resourceVersion"]
        cluster.call("PUT", CRD_PATH, wanted)

    yield change
    if not cluster.call("GET", CRD_PATH):
        cluster.install_crd()
    else:
        change(lambda _: None)


def test_a_crd_of_an_older_schema(check, environment, definition):
    definition(lambda spec: spec.pop("connectionLimit"))
    rows = check(environment())
    assert states(rows) == {CRD_ROW: "failed"}
    assert rows[CRD_ROW]["message"].startswith("older than this program's")
    assert "- spec.connectionLimit: the cluster does not know this field" in rows[CRD_ROW]["message"]


def test_a_crd_of_a_newer_schema(check, environment, definition):
    definition(lambda spec: spec.update(colour={"type": "string"}))
    rows = check(environment())
    assert states(rows) == {CRD_ROW: "warning"}
    assert rows[CRD_ROW]["message"].startswith("newer than this program's")


def test_a_crd_that_is_missing(check, environment, cluster, definition):
    cluster.remove_crd()
    rows = check(environment())
    assert states(rows) == {"api apps.example.com/v1 Database": "failed", CRD_ROW: "failed"}


def test_a_lease_without_its_namespace(check, environment):
    rows = check(environment(lease_namespace="nowhere"))
    (name,) = states(rows)
    assert name.startswith("lease nowhere/")
    assert "namespace nowhere does not exist" in rows[name]["message"]


def test_a_server_that_is_down(check, environment, plane):
    environ = environment()
    plane.stop_apiserver()
    try:
        rows = check(environ)
    finally:
        plane.start_apiserver()
    assert rows["api-server"]["state"] == "failed"
    assert rows["rbac"]["message"] == "not reached because the server can't be reached"


def test_an_authority_that_is_not_the_server_s(check, environment, tmp_path, kube):
    environ = environment()
    config = yaml.safe_load((tmp_path / "kubeconfig-a").read_text())
    config["clusters"][0]["cluster"] = {
        "server": config["clusters"][0]["cluster"]["server"], "certificate-authority": str(kube.ca_file),
    }  # fmt: skip
    (tmp_path / "kubeconfig-a").write_text(yaml.safe_dump(config))
    rows = check(environ)
    assert rows["tls"]["state"] == "failed"
    assert "CA" in rows["tls"]["message"]


def test_a_catalogue_that_is_not_there(check, environment, tmp_path):
    rows = check(environment(database_servers=tmp_path / "none.yaml"))
    assert states(rows) == {"catalogue": "failed"}
    assert "none.yaml" in rows["catalogue"]["message"]


def test_a_catalogue_that_is_not_valid(check, environment, tmp_path):
    (tmp_path / "bad.yaml").write_text("servers:\n- name: main\n  hots: x\n")
    rows = check(environment(database_servers=tmp_path / "bad.yaml"))
    assert states(rows) == {"catalogue": "failed"}
    assert "bad.yaml:3: servers[0].hots" in rows["catalogue"]["message"]


def test_a_postgresql_that_is_down(check, environment, cut_off, proxy):
    environ = environment(database_servers=cut_off)
    assert states(check(environ)) == {}
    proxy.down()
    rows = check(environ)
    assert states(rows) == {
        "catalogue: main": "failed", "catalogue: main TLS": "skipped", "catalogue: main version": "skipped",
        "catalogue: main admin": "skipped",
    }  # fmt: skip
    assert "check that the server runs" in rows["catalogue: main"]["message"]


def test_a_password_that_is_wrong(check, environment, admin, tmp_path):
    (tmp_path / "wrong").mkdir()
    path = write_catalogue(tmp_path / "wrong", replace(admin, admin_password="not-the-one"))
    rows = check(environment(database_servers=path))
    assert rows["catalogue: main"]["state"] == "failed"
    assert rows["catalogue: main"]["details"]["reason"] == "AuthenticationFailed"
    assert "not-the-one" not in json.dumps(rows)


def test_an_admin_who_may_not_make_databases(check, environment, admin, postgres):
    role = sql.Identifier(admin.admin_user)
    with psycopg.connect(postgres.uri(), autocommit=True) as superuser:
        superuser.execute(sql.SQL("ALTER ROLE {} NOCREATEDB").format(role))
        try:
            rows = check(environment())
        finally:
            superuser.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(role))
    assert states(rows) == {"catalogue: main admin": "failed"}
    assert (
        f'{admin.admin_user} lacks CREATEDB; as a superuser: ALTER ROLE "{admin.admin_user}" CREATEDB'
        in (rows["catalogue: main admin"]["message"])
    )

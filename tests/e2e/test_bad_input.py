"""Bad input, and what does not answer: one clear message each, the right end or none, and nothing lost meanwhile."""

import json
import re
from dataclasses import replace

import pytest

from tests.e2e.cluster import Team, condition
from tests.e2e.conftest import write_catalogue
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

PATIENT = {"retry_base": "200ms", "retry_max": "1s"}


def last_words(daemon):
    """Return the exit code, and the errors that were told."""
    code = daemon.wait(20)
    lines = [record for record in daemon.records if record.get("level", "error") in {"error", "critical"}]
    return code, [record["msg"] for record in lines]


# What ends the start: exit code 2, and one message.


def test_no_cluster_names_the_three_places(start, environment):
    environ = environment()
    del environ["KUBECONFIG"]
    code, (message,) = last_words(start(environ=environ))
    assert code == 2
    for place in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG", f"{environ['HOME']}/.kube/config"):
        assert place in message
    assert "asyncctl dev" in message


def test_a_kubeconfig_that_is_not_yaml_is_named(start, environment, tmp_path):
    file = tmp_path / "broken"
    file.write_text("clusters: [\n{{ nonsense")
    code, (message,) = last_words(start(environ=environment() | {"KUBECONFIG": str(file)}))
    assert code == 2
    assert f"KUBECONFIG: {file} is not YAML" in message


def test_a_kubeconfig_that_is_not_there_is_named(start, environment, tmp_path):
    file = tmp_path / "absent"
    code, (message,) = last_words(start(environ=environment() | {"KUBECONFIG": str(file)}))
    assert code == 2
    assert str(file) in message
    assert "no such file" in message


def test_a_ca_that_is_not_there_is_named(start, environment, tmp_path, plane):
    file = tmp_path / "kubeconfig-ca"
    content = plane.kubeconfig(file).read_text()
    file.write_text(re.sub("certificate-authority-data: .*", f"certificate-authority: {tmp_path}/absent.crt", content))
    code, (message,) = last_words(start(environ=environment() | {"KUBECONFIG": str(file)}))
    assert code == 2
    assert f"{tmp_path}/absent.crt" in message


def test_all_bad_settings_are_told_at_once(start):
    code, messages = last_words(start(workers="many", resync="soon", log_level="loud", http_address="here"))
    assert code == 2
    text = "\n".join(messages)
    assert "the settings are not usable" in text
    for setting in ("WORKERS=many", "RESYNC=soon", "LOG_LEVEL=loud", "HTTP_ADDRESS=here"):
        (line,) = [line for line in text.splitlines() if f"ASYNCCTL_{setting}" in line]
        assert "must be" in line


def test_an_unknown_setting_is_a_warning_that_names_the_nearest(start):
    daemon = start(lease_durations="20s")
    daemon.until_working()
    assert daemon.said("ASYNCCTL_LEASE_DURATIONS is not a setting; did you mean ASYNCCTL_LEASE_DURATION?")


def test_a_port_that_is_taken_is_named(start):
    address = start().until_said("the side server is up")["address"]
    code, (message,) = last_words(start(http_address=address))
    assert code == 2
    assert address in message


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("servers:\n  - name: main\n    prot: 5432\n", 3, "prot"),
        ("servers:\n  - name: main\n    port: many\n", 3, "port"),
        ("servers: [\n", 2, "not YAML"),
    ],
)
def test_a_broken_catalogue_is_told_with_file_line_and_field(start, catalogue, text, where, what):
    catalogue.write_text(text)
    code, (message,) = last_words(start())
    assert code == 2
    assert f"{catalogue}:{where}: " in message
    assert what in message
    assert "ASYNCCTL_DATABASE_SERVERS" in message


# What the process lives through.


def test_an_unreachable_server_is_told_and_waited_for(start, team, plane):
    plane.stop_apiserver()
    try:
        daemon = start()
        answer = until(lambda: daemon.get("/readyz"), lambda answer: "can't be reached" in answer[1])
        assert answer[0] == 500
        assert plane.url in answer[1]
        assert daemon.get("/livez")[0] == 200
    finally:
        plane.start_apiserver()
    daemon.until_working(deadline=40)
    assert until(lambda: daemon.get("/readyz"))[0] == 200
    team.create()
    team.until_running()


@pytest.fixture
def without_crd(cluster):
    cluster.remove_crd()
    yield
    if not cluster.served():
        cluster.install_crd()


def test_a_missing_crd_is_told_and_waited_for(start, team, cluster, without_crd):
    daemon = start()
    answer = until(lambda: daemon.get("/readyz"), lambda answer: "404" in answer[1])
    assert answer[0] == 500
    assert "databases.apps.example.com" in answer[1]
    assert "install the CustomResourceDefinition" in answer[1]
    assert daemon.get("/livez")[0] == 200
    (told,) = daemon.said("the cache is not current")
    assert "install the CustomResourceDefinition" in told["cause"]
    cluster.install_crd()
    daemon.until_working(deadline=40)
    team.create()
    team.until_running()


def test_what_rbac_forbids_is_told_with_the_rule_and_waited_for(start, team, cluster):
    daemon = start("c")
    for resource in ("databases.apps.example.com", "secrets"):
        plural = resource.partition(".")[0]
        told = rf"watch {resource}: 403 .*a ClusterRole would allow it .*\[{plural}\], verbs: \[watch\].*list and watch"
        code, _ = until(lambda: daemon.get("/readyz"), lambda answer, told=told: re.search(told, answer[1]))
        assert code == 500
    assert daemon.get("/livez")[0] == 200
    with cluster.admin("c"):
        daemon.until_working(deadline=40)
        team.create()
        team.until_running()


def test_credentials_that_are_not_accepted_are_told(start, environment, tmp_path, plane):
    file = tmp_path / "kubeconfig-old"
    file.write_text(re.sub("token: .*", "token: out-of-date", plane.kubeconfig(file).read_text()))
    daemon = start(environ=environment() | {"KUBECONFIG": str(file)})
    answer = until(lambda: daemon.get("/readyz"), lambda answer: "401" in answer[1])
    assert answer[0] == 500
    assert "the credential is not accepted: has it expired, or is it of another cluster?" in answer[1]
    assert "out-of-date" not in daemon.text
    assert daemon.get("/livez")[0] == 200


def test_postgresql_that_is_down_is_told_and_waited_for(start, team, cut_off, proxy):
    proxy.down()
    daemon = start(database_servers=cut_off, **PATIENT)
    team.create()
    said = team.until_refused("ServerUnreachable")
    assert f"127.0.0.1:{proxy.port}" in said["message"]
    found = team.database()
    assert found["status"]["phase"] == "Pending"
    assert condition(found, "Stalled") == {}
    assert daemon.get("/livez")[0] == daemon.get("/readyz")[0] == 200
    proxy.up()
    team.until_running()
    assert until(team.reasons, lambda found: len(found) > 1) == ["Provisioned", "ServerUnreachable"]


def test_postgresql_that_goes_away_and_comes_back_loses_nothing(start, team, cut_off, proxy, superuser):
    daemon = start(database_servers=cut_off, database_resync="1s", **PATIENT)
    daemon.until_working()
    team.create()
    name = team.until_running()["status"]["databaseName"]
    before, secret = superuser.portrait(name), team.secret()
    proxy.down()
    team.until_refused("ServerUnreachable")
    proxy.up()
    team.until_running()
    assert superuser.portrait(name) == before
    assert team.secret() == secret
    assert ask_as_tenant(team.binding()["uri"], "SELECT 1") == [(1,)]


def test_a_wrong_admin_password_is_told_and_read_again_when_it_is_mended(start, team, tmp_path, admin):
    catalogue = write_catalogue(tmp_path, replace(admin, admin_password="not-the-one"))
    daemon = start(database_servers=catalogue, **PATIENT)
    team.create()
    said = team.until_refused("AuthenticationFailed")
    assert admin.admin_user in said["message"]
    assert "not-the-one" not in json.dumps(team.database())
    assert daemon.get("/livez")[0] == 200
    write_catalogue(tmp_path, admin)
    team.until_running()


def test_a_catalogue_that_is_broken_later_is_told_and_the_last_good_one_is_used(start, team, catalogue):
    daemon = start(database_resync="1s", **PATIENT)
    daemon.until_working()
    team.create()
    team.until_running()
    catalogue.write_text("servers: nothing")
    cause = daemon.until_said("the catalogue's new state is not used")["cause"]
    assert f"{catalogue}:1: servers:" in cause
    team.create("stock")
    team.until_running("stock")


def test_a_server_that_the_catalogue_does_not_have_is_told(start, team):
    start(**PATIENT)
    team.create(server="mian")
    said = team.until_refused("ServerUnknown")
    assert "mian" in said["message"]
    assert "may use: main" in said["message"]


def test_a_name_that_a_dba_took_is_left_alone(start, team, superuser):
    start(**PATIENT)
    name = team.namespace.replace("-", "_")
    superuser.do("CREATE DATABASE {}", name)
    try:
        before = superuser.portrait(name)
        team.create(databaseName=name, reclaimPolicy="Delete")
        said = team.until_refused("NameConflict")
        assert f'"{name}"' in said["message"]
        assert "make a new Database with another databaseName" in said["message"]
        assert condition(team.database(), "Stalled")["reason"] == "NameConflict"
        assert superuser.portrait(name) == before
        assert not team.secrets()
        team.delete()
        team.until_gone()
        assert superuser.portrait(name) == before
    finally:
        superuser.do("DROP DATABASE {}", name)


@pytest.fixture
def rivals(cluster, superuser):
    """Another team."""
    rivals = Team(cluster)
    cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": rivals.namespace}})
    yield rivals
    rivals.clear()
    superuser.clear(cluster.id, rivals.namespace)


def test_a_name_that_another_team_has_is_theirs_whatever_the_loser_does(rivals, start, team, superuser):
    start(**PATIENT)
    name = f"shop_{team.namespace[-8:]}"
    rivals.create(databaseName=name)
    winner = rivals.until_running()
    ask_as_tenant(rivals.binding()["uri"], "CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (7)")
    before = superuser.portrait(name)
    team.create(databaseName=name, reclaimPolicy="Delete")
    said = team.until_refused("NameConflict")
    assert "claimed by another Database" in said["message"]
    assert rivals.namespace not in said["message"]  # who they are is not ours to tell
    assert not team.secrets()
    team.delete()
    team.until_gone()
    assert superuser.portrait(name) == before
    assert rivals.database() == winner
    assert ask_as_tenant(rivals.binding()["uri"], "SELECT id FROM invoices") == [(7,)]


def test_a_secret_of_that_name_that_is_not_ours_is_left_alone(start, team):
    start(**PATIENT)
    theirs = team.make_secret("orders-credentials", password="of-somebody-else")
    team.create()
    said = team.until_refused("SecretNotOwned")
    assert "Secret orders-credentials exists" in said["message"]
    assert "not touched" in said["message"]
    assert "spec.credentials.secretName" in said["message"]
    assert team.secret() == theirs
    team.delete_secret()
    team.look_again()
    team.until_running()

"""The users of a Database and their Secrets: they come, go, change names, and are put right after a person's hand."""

import psycopg
import pytest

from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

MAIN, REPORT = "orders-credentials", "orders-report-credentials"
LABEL, NOTES = "apps.example.com/database", "apps.example.com/"
APP, READER = {"name": "app"}, {"name": "report", "privileges": "ReadOnly"}


@pytest.fixture
def daemon(start):
    daemon = start(database_resync="1s", retry_base="200ms", retry_max="1s")
    daemon.until_working()
    return daemon


def works(uri):
    try:
        return ask_as_tenant(uri, "SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def drift(daemon):
    return daemon.metric("asyncctl_database_drift_corrections_total", field="credentials")


def names(team):
    return {each["metadata"]["name"] for each in team.secrets()}


def logins(superuser, name):
    return {
        role.removeprefix(name) for role in superuser.roles() if role.startswith(name) and role[-2:] in ("_a", "_b")
    }


def test_users_come_and_go_and_their_secrets_and_logins_with_them(daemon, team, superuser):
    team.create()
    name = team.until_running()["status"]["databaseName"]
    alone = team.binding()
    team.patch({"spec": {"users": [APP, READER]}})
    status = team.until_running()["status"]
    assert status["binding"]["name"] == MAIN
    assert sorted(status["credentials"]["activeUsers"]) == [f"{name}_app_a", f"{name}_report_a"]
    assert names(team) == {MAIN, REPORT}
    both = team.binding(), team.binding(REPORT)
    assert [found["username"] for found in both] == status["credentials"]["activeUsers"]
    assert all(works(found["uri"]) for found in both)
    assert works(alone["uri"])  # in its grace period: who has read the Secret before is not shut out
    assert logins(superuser, name) == {"_a", "_app_a", "_report_a"}

    team.patch({"spec": {"users": [APP]}})
    until(lambda: names(team) == {MAIN})
    until(lambda: logins(superuser, name) == {"_a", "_app_a"})
    assert not works(both[1]["uri"])
    assert team.binding() == both[0]

    team.patch({"spec": {"users": [APP, READER]}})
    again = until(lambda: team.binding(REPORT))
    assert again["username"] == both[1]["username"]
    assert again["password"] != both[1]["password"]
    assert works(again["uri"])

    team.patch({"spec": {"users": [APP, READER | {"secretName": "readers"}]}})
    until(lambda: names(team) == {MAIN, "readers"})
    assert team.binding("readers") == again
    team.patch({"spec": {"users": [APP | {"secretName": "readers"}, READER | {"secretName": MAIN}]}})
    until(lambda: team.binding("readers")["username"] == both[0]["username"])
    until(lambda: team.database()["status"]["binding"]["name"] == "readers")
    assert team.binding("readers") == both[0]  # they have changed places, and nobody's password has changed
    assert team.binding(MAIN) == again


def test_two_users_for_one_secret_and_a_secret_of_somebody_else_are_told_and_nothing_is_touched(
    daemon, team, superuser
):
    team.create(users=[APP, READER | {"secretName": MAIN}])
    said = team.until_refused("SecretNameTaken")
    assert 'users "app" and "report"' in said["message"]
    assert not team.secrets()
    team.make_secret("theirs", password="theirs")
    team.patch({"spec": {"users": [APP, READER | {"secretName": "theirs"}]}})
    said = team.until_refused("SecretNotOwned")
    assert "spec.users[report].secretName" in said["message"]
    assert team.binding("theirs") == {"password": "theirs"}
    assert names(team) == {"theirs"}
    assert not superuser.claimed(team.cluster.id, team.namespace)
    team.patch({"spec": {"users": [APP, READER]}})
    team.until_running()
    team.create("stock", users=[READER | {"secretName": REPORT}])
    said = team.until_refused("SecretNotOwned", "stock")
    assert works(team.binding(REPORT)["uri"])


HANDS = {
    "a user name": {"data": {"username": "bWU="}},
    "a password": {"data": {"password": "MnNob3J0"}},
    "both, in the keys for people": {"data": {"username": "bWU=", "user": "bWU=", "password": "MnNob3J0"}},
    "a host": {"data": {"host": "bm93aGVyZQ=="}},
    "no URIs": {"data": {"uri": None, "pgpass": None}},
    "no label": {"metadata": {"labels": {LABEL: None}}},
    "no labels": {"metadata": {"labels": None}},
    "no record": {"metadata": {"annotations": {NOTES + key: None for key in ("rotated-at", "rotation-trigger")}}},
    "a record of nothing": {"metadata": {"annotations": {NOTES + "previous-login": "-", NOTES + "rotated-at": "soon"}}},
}


def test_what_a_hand_has_changed_in_a_secret_is_put_right_and_told_and_nobodys_password_changes(
    daemon, team, superuser
):
    team.create()
    team.until_running()
    before, metadata = team.binding(), team.secret()["metadata"]
    verifiers = superuser.verifiers()
    for what, change in HANDS.items():
        corrected = drift(daemon)
        team.patch_secret(change)
        until(lambda: drift(daemon), lambda count, corrected=corrected: count > corrected)
        found = team.secret()["metadata"]
        assert team.binding() == before, what
        assert found["labels"] == metadata["labels"], what
        assert found["annotations"].keys() == metadata["annotations"].keys(), what
    assert superuser.verifiers() == verifiers
    assert works(before["uri"])
    until(lambda: "DriftCorrected" in team.reasons())
    told = {event["note"] for event in team.events() if event["reason"] == "DriftCorrected"}
    assert {note.rpartition(": ")[2] for note in told} == {f"credentials[{MAIN}]"}


def test_what_a_hand_has_added_to_a_secret_stays_and_is_no_drift(daemon, team):
    team.create()
    team.until_running()
    team.patch_secret({"data": {"mine": "eA=="}, "metadata": {"labels": {"team": "x"}}})
    version = team.secret()["metadata"]["resourceVersion"]
    passes = daemon.metric("controller_runtime_reconcile_total")
    until(lambda: daemon.metric("controller_runtime_reconcile_total") >= passes + 2)
    assert team.secret()["metadata"]["resourceVersion"] == version
    assert "DriftCorrected" not in team.reasons()


def test_a_secret_of_another_type_or_one_that_was_made_immutable_is_made_anew(daemon, team):
    team.create()
    team.until_running()
    before, ours = team.binding(), team.secret()
    team.patch_secret({"immutable": True, "data": {"host": "bm93aGVyZQ=="}})
    until(lambda: team.binding() == before)
    assert "immutable" not in team.secret()

    copy = {"metadata": {key: ours["metadata"][key] for key in ("name", "labels", "annotations")}}
    team.patch({"spec": {"suspend": True}})
    until(lambda: team.database()["status"]["phase"] == "Suspended")
    team.delete_secret()
    team.cluster.call("POST", f"/api/v1/namespaces/{team.namespace}/secrets", copy | {"data": ours["data"]})
    assert team.secret()["type"] == "Opaque"
    team.patch({"spec": {"suspend": False}})
    until(lambda: team.secret().get("type") == "servicebinding.io/postgresql")
    assert team.binding() == before
    assert works(before["uri"])

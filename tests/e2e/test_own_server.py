"""A `Database` on a server that the tenant brings: `adminSecretRef`, from a Secret that is not there yet to the end."""

import select
import socket

import pytest

from tests.e2e.cluster import condition
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

LABEL = "apps.example.com/database"


@pytest.fixture
def begin(start):
    """Start a daemon for which tenants may name these hosts."""

    def with_hosts(hosts):
        # No retry comes while the test lasts: what is put right has to wake the object.
        daemon = start(retry_base="10m", retry_max="10m", database_resync="1h", database_admin_hosts=hosts)
        daemon.until_working()
        return daemon

    return with_hosts


@pytest.fixture
def own(team, postgres):
    """A Database on a server that Secret `boss` names."""

    def create(**spec):
        external = {"adminSecretRef": {"name": "boss"}, "sslMode": "disable"}
        return team.create(external=external, **spec)

    return create


@pytest.fixture
def make_boss(team, admin):
    """Make that Secret; what is said of it beside is another value, or the name of the Database whose changes count."""

    def make(**values):
        data = {"host": admin.host, "port": str(admin.port), "username": admin.admin_user}
        team.make_secret("boss", **data | {"password": admin.admin_password} | values)
        team.patch_secret({"metadata": {"labels": {LABEL: "orders"}}}, "boss")

    return make


def test_a_secret_that_comes_later_and_is_corrected_is_all_it_takes(begin, team, own, make_boss, admin, postgres):
    begin(admin.host)
    own()
    assert "Secret boss is not there: make it in namespace" in team.until_refused("SecretMissing")["message"]
    assert team.database()["status"]["phase"] == "Pending"
    make_boss(port="none")
    assert "the value of port is not a number" in team.until_refused("SecretInvalid")["message"]
    team.patch_secret({"stringData": {"port": str(admin.port)}}, "boss")
    status = team.until_running()["status"]
    assert (status["host"], status["port"]) == (postgres.host, postgres.port)
    found = team.binding()
    assert ask_as_tenant(found["uri"], "SELECT current_database()") == [(status["databaseName"],)]
    assert admin.admin_password not in str(team.database()) + str(team.events()) + str(found)


def test_a_host_that_the_operator_does_not_allow_is_not_connected_to(begin, team, own, make_boss):
    begin("*.example.com,10.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        make_boss(host="127.0.0.1", port=str(listener.getsockname()[1]))
        own()
        said = team.until_refused("HostNotAllowed")
        until(lambda: condition(team.database(), "Stalled").get("status") == "True")
        assert not select.select([listener], [], [], 0)[0]
    assert "ask for it to be added to ASYNCCTL_DATABASE_ADMIN_HOSTS (*.example.com, 10.0.0.1)" in said["message"]
    assert team.reasons() == ["HostNotAllowed"]


def test_a_wrong_password_of_the_admin_is_told_and_put_right_by_a_change_of_the_secret(
    begin, team, own, make_boss, admin
):
    begin(admin.host)
    make_boss(password="wrong")
    own(reclaimPolicy="Delete")
    team.until_refused("AuthenticationFailed")
    team.patch_secret({"stringData": {"password": admin.admin_password}}, "boss")
    team.until_running()
    team.delete()
    team.until_gone()
    assert not team.secret()
    assert team.secret("boss")

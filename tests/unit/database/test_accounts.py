"""Which users a `Database` has, and what their logins and Secrets are called."""

import re

import pytest

from asyncctl.controller.outcome import TerminalError
from asyncctl.database.accounts import accounts
from asyncctl.database.naming import label, secret_name
from asyncctl.database.types import CredentialsSpec, Database, DatabaseSpec, ExternalSpec, Provisioner, UserSpec
from asyncctl.objects import from_dict

LONG = "o" * 50


def database(*users, name="orders", secret=None):
    spec = DatabaseSpec(
        provisioner=Provisioner.EXTERNAL,
        external=ExternalSpec(server_name="main"),
        users=[UserSpec(**user) for user in users],
        credentials=CredentialsSpec(secret_name=secret) if secret else None,
    )
    return Database(name=name, namespace="team", spec=spec)


def found(*users, **wanted):
    return {account.user: account for account in accounts(database(*users, **wanted), "team_orders")}


def test_a_database_that_lists_no_users_has_one_owner():
    (account,) = found().values()
    assert (account.user, account.privileges, account.connection_limit) == ("", "Owner", -1)
    assert account.logins == ("team_orders_a", "team_orders_b")
    assert account.secret == "orders-credentials"
    assert account.main
    assert account.former == ()


def test_the_first_owner_has_the_secret_of_the_database_and_takes_over_from_the_one_owner():
    users = found({"name": "report", "privileges": "ReadOnly"}, {"name": "app"}, {"name": "admin"})
    assert {user: account.secret for user, account in users.items()} == {
        "report": "orders-report-credentials", "app": "orders-credentials", "admin": "orders-admin-credentials",
    }  # fmt: skip
    assert [user for user, account in users.items() if account.main] == ["app"]
    assert users["app"].former == ("team_orders_a", "team_orders_b")
    assert users["report"].former == users["admin"].former == ()
    assert users["report"].logins == ("team_orders_report_a", "team_orders_report_b")


def test_without_an_owner_the_first_user_has_it():
    users = found({"name": "report", "privileges": "ReadOnly"}, {"name": "app", "privileges": "ReadWrite"})
    assert [user for user, account in users.items() if account.main] == ["report"]


def test_a_chosen_name_is_used_and_the_users_own_before_the_databases():
    assert found(secret="chosen")[""].secret == "chosen"
    listed = found({"name": "app"}, {"name": "report", "secret_name": "theirs"}, secret="chosen")
    assert {user: account.secret for user, account in listed.items()} == {"app": "chosen", "report": "theirs"}
    assert found({"name": "app", "secret_name": "own"}, secret="chosen")["app"].secret == "own"


@pytest.mark.parametrize(
    "users, secret",
    [
        ([{"name": "app"}, {"name": "report", "secret_name": "orders-credentials"}], None),
        ([{"name": "app"}, {"name": "b"}, {"name": "report", "secret_name": "orders-b-credentials"}], None),
        ([{"name": "app"}, {"name": "report"}], "orders-report-credentials"),
        ([{"name": "app", "secret_name": "one"}, {"name": "report", "secret_name": "one"}], None),
    ],
)
def test_two_users_that_would_have_one_secret_are_told(users, secret):
    with pytest.raises(TerminalError, match=r'users "\w+" and "report" would both have Secret') as caught:
        found(*users, secret=secret)
    assert caught.value.reason == "SecretNameTaken"


def test_logins_fit_into_postgresql_and_tell_users_apart():
    names = ["u", "u_a", "u_b", LONG[:-1], LONG, LONG[:-1] + "p", "_u", "a", "b", "owner"]
    for name in ("x", LONG, LONG[:-1] + "_"):
        made = [login for account in accounts(database(*({"name": user} for user in names)), name)
                for login in (*account.logins, *account.former)]  # fmt: skip
        assert len(made) == len(set(made)) == 2 * len(names) + 2
        assert all(len(login) <= 63 and re.fullmatch("[a-z_][a-z0-9_]*", login) for login in made)
        assert f"{name}_owner" not in made


def test_users_with_underscores_have_secrets_that_the_api_server_takes():
    secrets = {account.secret for account in found({"name": "_a_b"}, {"name": "__"}, {"name": "ab_"}).values()}
    assert len(secrets) == 3
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) for name in secrets)


@pytest.mark.parametrize("user", ["", "u", LONG])
@pytest.mark.parametrize("name", ["orders", "a" * 241, "a" * 242, "a" * 253, "a" * 230 + "." * 1 + "b" * 22])
def test_the_secrets_name_fits_and_tells_databases_apart(name, user):
    found = secret_name(database(name=name), user)
    assert len(found) <= 253
    assert found.endswith("-credentials")
    assert found != secret_name(database(name=name[:-1] + "c"), user)


@pytest.mark.parametrize("name", ["orders", "a" * 63, "a" * 64, "a" * 253, "a" * 53 + "." + "b" * 30])
def test_the_label_fits_and_is_the_name_where_it_can_be(name):
    assert len(label(name)) <= 63
    assert re.fullmatch("[a-z0-9]([-a-z0-9._]*[a-z0-9])?", label(name))
    assert label(name) == name or len(name) > 63
    assert label(name) != label(name[:-1] + "c")


def test_users_are_read_as_they_are_written():
    wanted = {"provisioner": "External", "users": [{"name": "app", "secretName": "s", "connectionLimit": 3}]}
    db = from_dict(Database, {"metadata": {"name": "orders", "namespace": "team"}, "spec": wanted})
    (account,) = accounts(db, "x")
    assert (account.user, account.secret, account.connection_limit) == ("app", "s", 3)

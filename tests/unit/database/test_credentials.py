"""The content of the Secret: each client finds the place of the database in the form that it reads."""

from urllib.parse import urlsplit

import psycopg.conninfo
import pytest

from asyncctl.database.credentials import known, new_password, values
from asyncctl.database.postgres.connection import Server
from asyncctl.database.provisioners.place import Place
from asyncctl.objects import Secret

PASSWORD = "p" * 32


def made(host="pg.example.com", ca=None, password=PASSWORD, login="team_orders_a"):
    server = Server(name="main", host="10.0.0.9", port=1, admin_user="admin", admin_password="secret")
    return values(Place(server, host, 5433, ca), "team_orders", login, password)


def text(**wanted):
    return {key: value.decode() for key, value in made(**wanted).items()}


@pytest.mark.parametrize("host", ["pg.example.com", "10.0.0.5", "fd00::5", "orders.team.svc"])
def test_libpq_reads_the_uri_as_it_was_meant(host):
    for key in ("uri", "fqdn-uri"):
        assert psycopg.conninfo.conninfo_to_dict(text(host=host)[key]) == {
            "host": host, "port": "5433", "dbname": "team_orders", "user": "team_orders_a", "password": PASSWORD,
            "sslmode": "verify-full",
        }  # fmt: skip


@pytest.mark.parametrize("host", ["pg.example.com", "fd00::5"])
def test_the_jdbc_uri_names_the_same_place(host):
    found = urlsplit(text(host=host)["jdbc-uri"].removeprefix("jdbc:"))
    assert (found.hostname, found.port, found.path) == (host, 5433, "/team_orders")


def test_pgpass_escapes_what_separates_its_fields():
    assert text(host="fd00::5")["pgpass"].startswith(r"fd00\:\:5:5433:team_orders:team_orders_a:")


def test_a_ca_of_ones_own_goes_along_and_none_where_the_systems_serve():
    assert text(ca=b"-----BEGIN CERTIFICATE-----")["ca.crt"] == "-----BEGIN CERTIFICATE-----"
    assert "ca.crt" not in made()


@pytest.mark.parametrize("host", ["pg.example.com", "fd00::5", "::1"])
def test_what_we_wrote_is_known_again(host):
    password = new_password()
    assert known(Secret(data=made(host=host, password=password))) == ("team_orders_a", password)


@pytest.mark.parametrize("key", sorted(made()))
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"postgresql://[", b"team_orders_b", b"q" * 32])
def test_one_key_that_a_person_changed_or_removed_is_outvoted(key, value):
    data = made() | {key: value}
    assert known(Secret(data={key: value for key, value in data.items() if value is not None})) == (
        "team_orders_a",
        PASSWORD,
    )


def test_a_user_name_and_a_password_that_a_person_changed_are_outvoted():
    data = made() | {"username": b"me", "password": b"mine", "user": b"me"}
    assert known(Secret(data=data)) == ("team_orders_a", PASSWORD)


@pytest.mark.parametrize("password", ["", "a:b", "a\nb", "p" * 31, "é" * 32])
def test_a_password_that_is_none_of_ours_is_not_known(password):
    assert known(Secret(data=made(password=password))) is None


def test_nothing_is_known_where_there_is_no_majority():
    mine, other = made(), made(password="q" * 32)
    split = mine | {key: other[key] for key in ("uri", "jdbc-uri")} | {"pgpass": b""}
    assert known(Secret(data=split)) is None
    assert known(Secret(data={key: mine[key] for key in ("username", "password")})) is None
    assert known(Secret()) is None
    assert known(None) is None

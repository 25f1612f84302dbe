"""The content of the Secret: each client finds the place of the database in the form that it reads."""

from urllib.parse import urlsplit

import psycopg.conninfo
import pytest

from asyncctl.database.credentials import known_password, new_password, secret_for
from asyncctl.database.naming import secret_name
from asyncctl.database.postgres.connection import Server
from asyncctl.database.types import Database, DatabaseSpec, ExternalSpec, Provisioner
from asyncctl.objects import Secret

SPEC = DatabaseSpec(provisioner=Provisioner.EXTERNAL, external=ExternalSpec(server_name="main"))


def database(name="orders"):
    return Database(name=name, namespace="team", spec=SPEC)


def made(host="pg.example.com", ca=None, password="p" * 32):
    server = Server(name="main", host=host, port=5433, admin_user="admin", admin_password="secret")
    secret = secret_for(database(), server, "team_orders", "team_orders_a", password, ca=ca)
    return {key: value.decode() for key, value in secret.data.items()}


@pytest.mark.parametrize("host", ["pg.example.com", "10.0.0.5", "fd00::5"])
def test_libpq_reads_the_uri_as_it_was_meant(host):
    found = psycopg.conninfo.conninfo_to_dict(made(host)["uri"])
    assert found == {
        "host": host, "port": "5433", "dbname": "team_orders", "user": "team_orders_a", "password": "p" * 32,
        "sslmode": "verify-full",
    }  # fmt: skip


@pytest.mark.parametrize("host", ["pg.example.com", "fd00::5"])
def test_the_jdbc_uri_names_the_same_place(host):
    found = urlsplit(made(host)["jdbc-uri"].removeprefix("jdbc:"))
    assert (found.hostname, found.port, found.path) == (host, 5433, "/team_orders")


def test_pgpass_escapes_what_separates_its_fields():
    assert made("fd00::5")["pgpass"].startswith(r"fd00\:\:5:5433:team_orders:team_orders_a:")


def test_a_ca_of_ones_own_goes_along_and_none_where_the_systems_serve():
    assert made(ca=b"-----BEGIN CERTIFICATE-----")["ca.crt"] == "-----BEGIN CERTIFICATE-----"
    assert "ca.crt" not in made()


def test_a_password_of_ours_is_known_again():
    password = new_password()
    data = {"username": b"team_orders_a", "password": password.encode()}
    assert known_password(Secret(data=data), "team_orders_a") == password


@pytest.mark.parametrize("password", [b"", b"a:b", b"a\nb", b"p" * 31, b"p" * 32 + b"\n", b"\xff" * 32])
def test_a_password_that_somebody_wrote_is_not(password):
    assert known_password(Secret(data={"username": b"u", "password": password}), "u") is None


def test_a_password_for_another_login_is_not():
    assert known_password(Secret(data={"username": b"other", "password": b"p" * 32}), "u") is None
    assert known_password(None, "u") is None


@pytest.mark.parametrize("name", ["orders", "a" * 241, "a" * 242, "a" * 253, "a" * 230 + "." * 1 + "b" * 22])
def test_the_secrets_name_fits_and_tells_databases_apart(name):
    found = secret_name(database(name))
    assert len(found) <= 253
    assert found.endswith("-credentials")
    assert found != secret_name(database(name[:-1] + "c"))

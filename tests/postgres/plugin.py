"""Gives tests a real PostgreSQL: the one that `ASYNCCTL_TEST_POSTGRES` (a URI) names, else a temporary one."""

import os
import secrets
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable
from asyncctl.database.postgres.connection import Server


@pytest.fixture(scope="session")
def postgres(backends):
    """A server and its superuser: `.host .port .superuser .password .version .uri(database)`."""
    with first(backends) as server:
        yield server


@contextmanager
def first(backends):
    """Run the server that all tests have that need one."""
    if uri := os.environ.get("ASYNCCTL_TEST_POSTGRES"):
        given = conninfo_to_dict(uri)
        with psycopg.connect(uri) as connection:
            version = connection.info.parameter_status("server_version").partition(" ")[0]
            host, port = connection.info.host, connection.info.port
        backends.have("postgres", version)
        yield PostgresServer(host, port, str(given["user"]), str(given.get("password", "")), version)
        return
    running = PostgresServer.running()
    try:
        server = running.__enter__()
    except PostgresUnavailable as error:
        backends.lack("postgres", str(error))
    backends.have("postgres", server.version)
    yield server
    running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def admin(postgres):
    """Our admin on that server, as the design wants it: CREATEROLE and CREATEDB, no superuser."""
    with admin_of(postgres) as admin:
        yield admin


@contextmanager
def admin_of(postgres):
    """Have an admin of ours on a server, for the length of the block."""
    name, password = f"asyncctl_{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    role = sql.Identifier(name)
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        create = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}")
        connection.execute(create.format(role, sql.Literal(password)))
        yield Server(
            name="main",
            host=postgres.host,
            port=postgres.port,
            ssl_mode="disable",
            admin_user=name,
            admin_password=password,
        )
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))

"""`sslMode`: what each mode accepts of a server, and how a refusal reads. On a temporary server that speaks TLS."""

import re
from dataclasses import fields, replace

import psycopg
import pytest
import trustme
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable
from asyncctl.clock import SystemClock
from asyncctl.database.check import check_tls
from asyncctl.database.postgres.connection import Server, connect
from asyncctl.database.postgres.errors import AuthenticationFailed, ServerUnreachable
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import SslMode
from asyncctl.operator.checking import Checking
from tests.unit.support import Log


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def server(authority, ca_file, backends):
    issued = authority.issue_cert("localhost")
    try:
        running = PostgresServer.running()
        temporary = running.__enter__()
    except PostgresUnavailable as error:
        backends.lack("postgres", str(error))
    with psycopg.connect(temporary.uri(), autocommit=True) as session:
        # Written by the server itself: it insists on owning its key.
        write = "COPY (SELECT unnest(string_to_array({}, E'\\n'))) TO PROGRAM {}"
        chain = "".join(pem.bytes().decode() for pem in issued.cert_chain_pems)
        for name, pem in (("server.crt", chain), ("server.key", issued.private_key_pem.bytes().decode())):
            session.execute(sql.SQL(write).format(pem.strip(), f"umask 077; cat > {name}"))
        try:
            session.execute("ALTER SYSTEM SET ssl = on")
        except psycopg.Error as error:
            running.__exit__(None, None, None)
            pytest.skip(f"this PostgreSQL is built without TLS: {error}")
        session.execute("SELECT pg_reload_conf()")
    yield Server(
        name="main",
        host="localhost",
        port=temporary.port,
        ca_file=ca_file,
        admin_user=temporary.superuser,
        admin_password=temporary.password,
    )
    running.__exit__(None, None, None)


async def uses_tls(server, limits):
    async with connect(server, limits=limits) as session:
        rows = await session.read("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    return rows[0][0]


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_server_with_a_certificate_of_the_right_authority(mode, server, limits):
    assert await uses_tls(replace(server, ssl_mode=mode), limits)


async def test_disable_uses_no_tls(server, limits):
    assert not await uses_tls(replace(server, ssl_mode="disable"), limits)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_certificate_of_another_authority_is_refused(mode, server, limits, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.crt")
    with pytest.raises(ServerUnreachable, match="certificate verify failed: check sslMode, caFile and the server's"):
        await uses_tls(replace(server, ssl_mode=mode, ca_file=tmp_path / "other.crt"), limits)


async def test_certificate_of_no_authority_that_the_machine_trusts_is_refused(server, limits):
    with pytest.raises(ServerUnreachable, match="certificate verify failed"):
        await uses_tls(replace(server, ca_file=None), limits)


async def test_certificate_for_another_host_is_refused_by_verify_full(server, limits):
    elsewhere = replace(server, host="127.0.0.1")
    assert await uses_tls(replace(elsewhere, ssl_mode="verify-ca"), limits)
    with pytest.raises(ServerUnreachable, match=r'does not match host name "127\.0\.0\.1"'):
        await uses_tls(elsewhere, limits)


async def test_server_without_tls_is_refused_by_default(admin, limits):
    with pytest.raises(ServerUnreachable, match=r"server does not support SSL.*: check sslMode"):
        await uses_tls(replace(admin, ssl_mode="verify-full"), limits)


async def test_wrong_password_over_tls_is_still_told_as_that(server, limits):
    with pytest.raises(AuthenticationFailed):
        await uses_tls(replace(server, admin_password="wrong"), limits)


class Elsewhere(Server):
    """A server that is taken for one on another machine."""

    is_loopback = False


@pytest.mark.parametrize(
    ("mode", "state", "said"),
    [
        ("verify-full", "ok", "TLSv1.3, .*; verify-full by .*ca.crt"),
        ("require", "warning", "TLSv1.3, .*; sslMode require proves nothing of who the server is"),
        ("disable", "warning", "sslMode disable: the data goes over the network in clear"),
    ],
)
async def test_check_tells_how_a_server_is_verified(server, limits, mode, state, said):
    values = {field.name: getattr(server, field.name) for field in fields(server)} | {"ssl_mode": SslMode(mode)}
    elsewhere = Elsewhere(**values)
    checking = Checking("catalogue", settings=DatabaseSettings(), logger=Log().logger, clock=SystemClock(), client=None)
    async with connect(elsewhere, limits=limits) as session:
        await check_tls(checking, elsewhere, session)
    (row,) = checking.rows
    assert (row.check, row.state) == ("catalogue: main TLS", state)
    assert re.match(said, row.message)

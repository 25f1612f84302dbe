"""What the pod of an instance in the cluster is told to run, run against real servers of each version at hand."""

import os
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer, find_binaries
from asyncctl.database.postgres.verifier import verifier
from asyncctl.database.provisioners.manifests import stateful_set
from asyncctl.database.types import Database, DatabaseSpec, InClusterSpec, Provisioner, StorageSpec
from asyncctl.objects import Quantity
from tests.e2e.waiting import until


@pytest.fixture(scope="module")
def container():
    wanted = InClusterSpec(version="15", storage=StorageSpec(size=Quantity("1Gi")))
    db = Database(
        name="orders", namespace="team", spec=DatabaseSpec(provisioner=Provisioner.IN_CLUSTER, in_cluster=wanted)
    )
    return stateful_set(db, repository="postgres", verifier="v")["spec"]["template"]["spec"]["containers"][0]


def answer(container, probe, port):
    """The exit code of a probe, asked of the server at this port."""
    command = [each.replace("-p 5432", f"-p {port}") for each in container[probe]["exec"]["command"]]
    environment = {"PATH": f"{find_binaries()}:{os.defpath}"}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_a_verifier_that_we_made_is_as_good_as_a_password(postgres, superuser, database):
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    superuser.execute(statement.format(sql.Identifier(database), sql.Literal(verifier("hush"))))
    place = {"host": postgres.host, "port": postgres.port, "user": database, "dbname": "postgres"}
    psycopg.connect(**place, password="hush").close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**place, password="Hush")


def test_a_server_that_works_passes_all_probes(container, postgres):
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    assert [answer(container, probe, postgres.port) for probe in probes] == [0, 0, 0]


def test_a_server_that_lets_nobody_in_for_now_lives_and_is_not_ready(container):
    """SQLSTATE 57P03, as of one that reads its log after a crash: it must not be ended for that."""
    with PostgresServer.running() as server, psycopg.connect(server.uri(), autocommit=True) as session:
        (folder,) = session.execute("SHOW data_directory").fetchone()
        postmaster = int(Path(folder, "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGTERM)  # which waits for the session, and refuses others
        until(lambda: answer(container, "readinessProbe", server.port) != 0)
        assert [answer(container, probe, server.port) for probe in ("startupProbe", "livenessProbe")] == [0, 0]
        assert answer(container, "readinessProbe", server.port) == 1


def test_where_no_server_is_nothing_lives(container):
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    assert all(answer(container, probe, 1) != 0 for probe in probes)

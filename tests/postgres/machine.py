"""A PostgreSQL server of its own, which is broken in all ways and mended, and what its superuser does to it.

Each way is a block: the trouble is there in it, and its cause is gone after it; it yields a session of the superuser
that has no part in it. What the server's own user may do, and a test may not, is done by the server's hand.
"""

import secrets
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from asyncctl.cli.postgres import PostgresServer, PostgresUnavailable
from asyncctl.database.postgres.connection import Server
from tests.postgres.steps import until

PLACES = 10  # for sessions: with some of a superuser's open, too, there is room for all that a daemon has at once
RESERVED = 3  # of them, a superuser's: the server's default
READ_ONLY = "default_transaction_read_only"
_OTHERS = """
    SELECT 1 FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename IN ('tenant', 'postgres') AND pid <> pg_backend_pid()
    """


@contextmanager
def own_machine(backends):
    """Run one for the length of the block."""
    with ExitStack() as stack:
        running = PostgresServer.running(max_connections=str(PLACES), max_prepared_transactions="2")
        try:
            server = stack.enter_context(running)
        except PostgresUnavailable as error:
            backends.lack("postgres", str(error))
        backends.have("postgres", server.version)
        yield Machine(server)


class Machine:
    """The server, its superuser, and our admin on it."""

    def __init__(self, server):
        self.server = server
        self._uri = server.uri()
        password = secrets.token_urlsafe(12)
        with self.superuser() as session:
            session.execute(f"CREATE ROLE boss LOGIN CREATEROLE CREATEDB PASSWORD '{password}'")
        self.admin = Server(
            name="own", host=server.host, port=server.port, ssl_mode="disable", admin_user="boss",
            admin_password=password, max_connections=2, connect_timeout=5.0,
        )  # fmt: skip

    def superuser(self, *, options="-c default_transaction_read_only=off", **rest):
        return psycopg.connect(self._uri, autocommit=True, options=options, **rest)

    def do(self, statement, *parameters):
        with self.superuser() as session:
            cursor = session.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else None

    def shows(self, name):
        """Return a setting as it is for who sets nothing."""
        with self.superuser(options="") as session:
            return session.execute(f"SHOW {name}").fetchone()[0]

    def shell(self, command):
        """Run a command as the server's own user, in its folder."""
        with self.superuser() as session:
            session.execute(sql.SQL("COPY (SELECT) TO PROGRAM {}").format(f"cat > /dev/null; {command}"))

    def crash(self):
        """Have it lose all its sessions and start anew, as after a power cut; what was committed is kept.

        It does not wait for the disk at a commit, as it is made for tests: a checkpoint does.
        """
        self.do("CHECKPOINT")
        before = self._life()
        with self.superuser() as session, pytest.raises(psycopg.Error):
            session.execute(sql.SQL("COPY (SELECT) TO PROGRAM {}").format("cat > /dev/null; kill -9 $PPID"))
        until(lambda: self.answers() and self._life() not in {None, before})  # it answers before it knows, too

    def _life(self):
        """Return what is another one after a crash; None where it is having one."""
        with suppress(psycopg.Error):
            return self.do("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")[0]

    def answers(self):
        try:
            return self.do("SELECT 1") == [(1,)]
        except psycopg.Error:
            return False

    @contextmanager
    def read_only(self, whose="SYSTEM"):
        """A DBA has said so of all, of a role, or of a database."""
        self.do(f"ALTER {whose} SET {READ_ONLY} = on")
        self.do("SELECT pg_reload_conf()")
        try:
            until(lambda: whose == "ROLE boss" or self.shows(READ_ONLY) == "on")
            with self.superuser() as session:
                yield session
        finally:
            self.do(f"ALTER {whose} RESET {READ_ONLY}")
            self.do("SELECT pg_reload_conf()")
        until(lambda: self.shows(READ_ONLY) == "off")

    @contextmanager
    def standby(self):
        """It has become one, and is promoted again."""
        self.shell("touch standby.signal")
        self.crash()
        try:
            with self.superuser() as session:
                assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
                yield session
        finally:
            self.do("SELECT pg_promote()")

    @contextmanager
    def used_up(self, who="postgres"):
        """Others have all the places that there are for `who`: a superuser, or a tenant, whom some are kept from.

        What idles of the admin's gives way to them.
        """
        self.do("CREATE ROLE tenant LOGIN PASSWORD 'x'")
        options = {} if who == "postgres" else {"user": "tenant", "password": "x"}
        places = PLACES if who == "postgres" else PLACES - RESERVED
        try:
            with ExitStack() as others:
                first = others.enter_context(self.superuser())
                taken = [first]

                def full():
                    with suppress(psycopg.OperationalError):
                        while True:
                            taken.append(others.enter_context(self.superuser(**options)))
                    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> ALL (%s)"
                    first.execute(ends, [["tenant", "postgres"]])
                    return len(taken) == places  # one that has just ended is not seen, and still has its place

                until(full)
                yield first
            until(self.answers)
            until(lambda: not self.do(_OTHERS))
        finally:
            self.do("DROP ROLE tenant")

    @contextmanager
    def out_of_locks(self, *needed):
        """Somebody has all the locks that there are, but for those that these questions need."""
        with self.superuser() as session:
            session.execute("BEGIN")
            for query in needed:
                session.execute(query)
            with self.superuser() as hoarder:
                with pytest.raises(psycopg.errors.OutOfMemory):
                    hoarder.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) AS n")
                yield session
        until(self.answers)

    @contextmanager
    def full(self, disk):
        """Somebody's file takes all that there is of one."""
        ballast = disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as content:
            while content.write(bytes(1 << 16)):
                pass
        with self.superuser() as session:
            yield session
        ballast.unlink()

    @contextmanager
    def small_disk(self, size):
        """Have new databases made on a file system of so many bytes, which is taken away at the end; needs root."""
        ((data,),) = self.do("SHOW data_directory")
        folder = Path(data).parent / "small"
        folder.mkdir()
        owner = Path(data).stat()
        options = f"size={size},uid={owner.st_uid},gid={owner.st_gid},mode=700"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            folder.rmdir()
            pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
        try:
            self.do(f"CREATE TABLESPACE small LOCATION '{folder}'")
            self.do("ALTER DATABASE template0 SET TABLESPACE small")
            yield folder
            self.do("ALTER DATABASE template0 SET TABLESPACE pg_default")
            self.do("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", folder], check=True)
            folder.rmdir()

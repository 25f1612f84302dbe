"""Many databases on one server: what a settled one costs, and that nothing is written for it.

With `ASYNCCTL_TEST_SOAK` there are five hundred.
"""

import json
import os
import secrets
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

from asyncctl.database.settings import DatabaseSettings
from tests.e2e.cluster import MERGE, is_running
from tests.e2e.waiting import until

MANY = 500 if os.environ.get("ASYNCCTL_TEST_SOAK") else 12
CONNECTIONS = 5  # the catalogue's default
WORKERS = 10  # likewise
# Each object has one pass while a test looks. The runtime's own round over all of them begins with the work, and is
# even: of one that takes ten hours, some second of a test has an object that was looked at already.
RARE = {"database_resync": "1h", "resync": "8760h"}
RARELY = 0.5 if MANY > 100 else 0.03  # seconds: a scrape costs the daemon, and who reads it, as much as a pass
SPEC = {
    "schemas": [{"name": "app"}],
    "users": [{"name": "app", "privileges": "Owner"}, {"name": "look", "privileges": "ReadOnly"}],
}


@contextmanager
def counted(postgres):
    """Collect in a list how many sessions of ours the server has, again and again."""
    seen, done = [], threading.Event()

    def look():
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncctl'"
        with psycopg.connect(postgres.uri(), autocommit=True) as session:
            while not done.wait(0.01):
                seen.append(session.execute(query).fetchone()[0])

    thread = threading.Thread(target=look, name="counting")
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def used(pid):
    """Return the seconds of CPU of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def passes(daemon):
    return daemon.metric("controller_runtime_reconcile_total", result="requeue_after")


def until_audited(team):
    """Return when the audit log tells of all that was answered up to now."""
    name = f"mark-{secrets.token_hex(4)}"
    team.make_secret(name)
    until(lambda: any(each.get("objectRef", {}).get("name") == name for each in team.cluster.audited()))
    team.delete_secret(name)


def looked_at(start, postgres):
    """Have a new daemon look at all of them once, and tell what that took."""
    with counted(postgres) as sessions:
        daemon = start(**RARE)
        daemon.until_working()
        began, before = time.monotonic(), used(daemon.pid)
        until(lambda: passes(daemon) >= MANY, deadline=60.0 + MANY, every=RARELY)
        took, cpu = time.monotonic() - began, used(daemon.pid) - before
    results = daemon.metrics("controller_runtime_reconcile_total", "result")
    assert {result: number for result, number in results.items() if number} == {"requeue_after": MANY}
    done = daemon.metrics("asyncctl_database_sql_duration_seconds_count", "operation")
    figures = {
        "seconds": round(took, 2),
        "CPU ms per database": round(1000 * cpu / MANY, 2),
        "sessions at most": max(sessions),
        "per database": {operation: round(number / MANY, 2) for operation, number in done.items()},
    }
    print(f"resync of {MANY}: {json.dumps(figures)}")
    assert took < 60
    assert max(sessions) <= CONNECTIONS
    assert set(done) <= {"wait", "connect", "SET", "RESET", "SELECT"}  # and none that writes
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_many_databases_of_one_server(start, team, cluster, superuser, postgres):
    assert DatabaseSettings().workers == WORKERS
    daemon = start(**RARE)
    daemon.until_working()
    with counted(postgres) as sessions:
        began = time.monotonic()
        for index in range(MANY):
            team.create(f"db-{index:03}", **SPEC)
        until(lambda: all(map(is_running, team.databases())), deadline=60.0 + 2 * MANY, every=RARELY)
        print(f"{MANY} made in {time.monotonic() - began:.1f} s, with at most {max(sessions)} sessions")
    assert len(team.databases()) == MANY
    assert max(sessions) <= CONNECTIONS
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0

    until_audited(team)
    versions, state = superuser.versions(), team.versions()
    written = len(cluster.written_by("a"))
    assert written >= MANY
    looked_at(start, postgres)
    assert superuser.versions() == versions
    assert team.versions() == state
    until_audited(team)
    assert cluster.written_by("a")[written:] == []

    for found in team.databases():
        path = f"{team._databases}/{found['metadata']['name']}/status"
        long_ago = {"status": {"lastReconcileTime": "2020-01-01T00:00:00Z"}}
        cluster.call("PATCH", path, long_ago, content_type=MERGE)
    looked_at(start, postgres)
    assert superuser.versions() == versions
    until_audited(team)
    wrote = [(each.verb, each.resource) for each in cluster.written_by("a")[written:]]
    assert wrote == [("patch", "databases/status")] * MANY
    for found in team.databases():
        assert found["status"]["lastReconcileTime"] > "2020-01-02"

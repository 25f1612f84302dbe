"""Nothing that a daemon of this run has said holds a secret. It is looked at after all other tests.

Said is: its log in both forms, what its pages show, its termination message, its events, its objects' status, its
Lease, and the paths and user agents of its requests. A secret is every token and key of the control plane, every
password in a Secret or of PostgreSQL, every verifier there; and sixteen characters of one are one, however encoded.
"""

import re

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.leaks import Leaks
from tests.e2e.plugin import USERS
from tests.e2e.waiting import until

VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]{8}")  # any, also one that nobody remembers


def leaks_of(cluster, superuser, postgres, admin):
    passwords = cluster.passwords_sent()
    verifiers = superuser.verifiers()
    assert passwords
    assert verifiers
    own = {postgres.password, admin.admin_password, "changed-by-a-dba", "not-the-one"}
    return Leaks(cluster.secrets | passwords | verifiers | own)


def test_a_console_log_of_everything_is_written(start, team, plane):
    """The form that no other test reads, at its wordiest: provisioning, a refusal, an outage, the end."""
    daemon = start(
        log_format="console", log_level="debug", database_resync="1s", lease_duration="60s", renew_deadline="45s"
    )
    team.create()
    before = team.until_running()["status"]["databaseName"]
    team.delete_secret()
    until(lambda: team.secret().get("data"))
    team.create("odd", server="nowhere")
    until(lambda: team.database("odd").get("status", {}).get("conditions"))
    plane.stop_apiserver(kill=True)
    until(lambda: "can't be reached" in daemon.text, deadline=30)
    plane.start_apiserver()
    team.look_again()
    assert team.until_running(deadline=40)["status"]["databaseName"] == before
    assert "[info" in daemon.text


def test_nothing_that_was_said_holds_a_secret(cluster, superuser, postgres, admin):
    said = [path for path in Daemon.told if path.exists()]
    if not said:
        pytest.skip("no daemon has run")
    leaks = leaks_of(cluster, superuser, postgres, admin)
    verifiers = superuser.verifiers()
    assert leaks.found_in(f"a log that leaks {next(iter(verifiers))}")
    assert any(VERIFIER.search(verifier) for verifier in verifiers)
    for path in said:
        text = path.read_text(errors="replace")
        assert leaks.found_in(text) == [], path
        assert VERIFIER.findall(text) == [], path
    sent = cluster.said_by(USERS)
    assert "reportingController" in sent
    assert "conditions" in sent
    assert leaks.found_in(sent) == []

"""No log of any daemon of this run holds a password, a verifier or a token. It is looked at after all other tests."""

import re

import pytest

from tests.e2e.conftest import LOGS


def test_no_log_holds_a_secret(request, cluster, plane, superuser, postgres, admin):
    logs = request.config.stash[LOGS]
    if not logs:
        pytest.skip("no daemon has run")
    known = cluster.passwords_sent() | superuser.verifiers() | set(plane.tokens.values())
    known |= {postgres.password, admin.admin_password, "changed-by-a-dba", "not-the-one"}
    assert len(known) > len(plane.tokens) + 4
    for log in logs:
        text = log.read_text()
        told = [secret for secret in known if secret in text]
        assert not told, f"{log} holds {told}"
        assert not re.search(r"SCRAM-SHA-256\$(?!\*)", text), log

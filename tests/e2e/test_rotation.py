"""Passwords change while applications log in all the time, and none of them is ever turned away."""

import os
import random
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.e2e.client import Application
from tests.e2e.forked import Forked
from tests.e2e.server import ask_as_tenant
from tests.e2e.waiting import until

ROTATIONS = 10
GRACE = 1.0  # seconds
KILLS = 40 if os.environ.get("ASYNCCTL_TEST_SOAK") else 4
SEED = int(os.environ.get("ASYNCCTL_TEST_SEED", random.SystemRandom().randrange(10**6)))
QUICK = {"leader_election": "false", "retry_base": "200ms"}  # one that is gone before the next begins needs no Lease


@pytest.fixture
def daemon(start):
    daemon = start(database_resync="1s", retry_base="200ms", retry_max="1s")
    daemon.until_working()
    return daemon


def stamp(ahead=0.0):
    return (datetime.now(UTC) + timedelta(seconds=ahead)).isoformat()


def rotation(**wanted):
    return {"credentials": {"rotation": {"gracePeriod": f"{GRACE:g}s"} | wanted}}


def trigger(team, ahead=0.0):
    """Ask for a rotation; returns for when."""
    when = stamp(ahead)
    team.patch({"spec": rotation(trigger=when)})
    return datetime.fromisoformat(when)


def until_rotated(team, before, secret="orders-credentials", deadline=15.0):
    return until(lambda: team.binding(secret), lambda found: found["username"] != before, deadline=deadline)


def applications(stack, team, *secrets):
    """Two of each Secret: one that reads it before each login, and one that relies on it for half a grace period."""
    return [
        stack.enter_context(Application(team, secret, trusted=trusted).at_work())
        for secret in secrets
        for trusted in (0.0, GRACE / 2)
    ]


def logins_of(superuser, name):
    return {role for role in superuser.roles() if role.startswith(name) and role.endswith(("_a", "_b"))}


def rotated(team):
    return team.reasons().count("PasswordRotated")


def test_ten_rotations_and_not_one_login_fails(daemon, team, superuser):
    team.create(**rotation())
    name = team.until_running()["status"]["databaseName"]
    seen = [team.binding()]
    with ExitStack() as stack:
        working = applications(stack, team, "orders-credentials")
        for _ in range(ROTATIONS):
            trigger(team)
            seen.append(until_rotated(team, seen[-1]["username"]))
        until(lambda: logins_of(superuser, name), lambda found: found == {seen[-1]["username"]})
    assert [failure for each in working for failure in each.failures] == []
    for each in working:
        assert {f"{name}_a", f"{name}_b"} == set(each.logins)
        assert len(each.logins) > 2 * ROTATIONS
    assert [found["username"] for found in seen] == [f"{name}_{'ab'[turn % 2]}" for turn in range(ROTATIONS + 1)]
    assert len({found["password"] for found in seen}) == ROTATIONS + 1
    assert len([record for record in daemon.records if record.get("reason") == "PasswordRotated"]) == ROTATIONS
    until(lambda: rotated(team), lambda count: count == ROTATIONS)
    assert "DriftCorrected" not in team.reasons()
    status = team.database()["status"]["credentials"]
    notes = team.secret()["metadata"]["annotations"]
    assert status["activeUsers"] == [seen[-1]["username"]]
    assert status["lastRotationTime"] == notes["apps.example.com/rotated-at"][:19] + "Z"
    assert notes["apps.example.com/previous-login"] == "none"
    assert "nextRotationTime" not in status


def test_what_the_login_before_has_made_and_does_ends_with_its_grace_period(daemon, team, superuser):
    team.create(**rotation())
    name = team.until_running()["status"]["databaseName"]
    before = team.binding()
    with psycopg.connect(before["uri"], autocommit=True) as session:
        session.execute("RESET ROLE; CREATE SCHEMA mine; CREATE TABLE mine.invoices (id int)")
        trigger(team)
        after = until_rotated(team, before["username"])
        session.execute("INSERT INTO mine.invoices VALUES (7)")
        until(lambda: logins_of(superuser, name), lambda found: found == {after["username"]})
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("SELECT 1")
    assert ask_as_tenant(after["uri"], "SELECT id FROM mine.invoices") == [(7,)]
    owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname = 'invoices'"
    assert superuser.ask(owners, database=name) == [(f"{name}_owner",)]
    with pytest.raises(psycopg.OperationalError):
        ask_as_tenant(before["uri"], "SELECT 1")


def test_a_trigger_in_the_future_is_told_and_happens_at_its_time(daemon, team):
    team.create(**rotation())
    first = team.until_running()["status"]["databaseName"] + "_a"
    when = trigger(team, ahead=2.5)
    told = until(lambda: team.database()["status"]["credentials"].get("nextRotationTime"))
    assert abs(datetime.fromisoformat(told) - when) < timedelta(seconds=1)
    assert team.binding()["username"] == first
    until_rotated(team, first)
    assert datetime.fromisoformat(team.secret()["metadata"]["annotations"]["apps.example.com/rotated-at"]) >= when
    until(lambda: "nextRotationTime" not in team.database()["status"]["credentials"])


@pytest.fixture
def begin(tmp_path, environment):
    """Start a daemon that is there in a moment; none outlives the test, none leaves a blemish."""
    daemons = []

    def start():
        daemons.append(Forked(environment(**QUICK), tmp_path / f"daemon-{len(daemons)}.log"))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.kill()
        print(f"--- {daemon.log.name}\n{daemon.text[-3000:]}")
    assert not [line for daemon in daemons for line in daemon.blemishes()]


def test_killed_at_random_moments_while_passwords_change_not_one_login_fails(begin, team, superuser):
    print(f"seed {SEED}; set ASYNCCTL_TEST_SEED to repeat it")
    moments = random.Random(SEED)
    users = [{"name": "app"}, {"name": "report", "privileges": "ReadOnly"}]
    daemon = begin()
    team.create(users=users, **rotation())
    name = team.until_running()["status"]["databaseName"]
    with ExitStack() as stack:
        working = applications(stack, team, "orders-credentials", "orders-report-credentials")
        for _ in range(KILLS):
            before = team.binding()["username"]
            trigger(team)
            time.sleep(moments.uniform(0, 0.4))  # the random moment itself, not a way to wait
            daemon.kill()
            daemon = begin()
            until_rotated(team, before)
        left = {team.binding(secret)["username"] for secret in ("orders-credentials", "orders-report-credentials")}
        until(lambda: logins_of(superuser, name), lambda found: found == left, deadline=20)
    assert [failure for each in working for failure in each.failures] == []
    assert {login for each in working for login in each.logins} == {
        f"{name}_{user}_{turn}" for user in ("app", "report") for turn in "ab"
    }
    for secret in ("orders-credentials", "orders-report-credentials"):
        assert team.secret(secret)["metadata"]["annotations"]["apps.example.com/previous-login"] == "none"

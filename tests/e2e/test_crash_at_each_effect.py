"""SIGKILL at each single effect, on PostgreSQL or the API server, and start again: the end is the same as without it.

The effects are those of an undisturbed life of one Database. Ordinarily another one lives through the same, and its
daemon is killed in each step at each kind of them once (those of several logins are one), after it has happened and
before the answer is seen: to the world that is the moment before the next one, too. With ASYNCCTL_TEST_SOAK each effect
also has a Database of its own, which is crashed at that one only: before it is sent, and after it took effect.
"""

import itertools
import os
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from tests.e2e.cluster import Team
from tests.e2e.conftest import write_catalogue
from tests.e2e.forked import Forked
from tests.e2e.life import NAME, Life, Step
from tests.e2e.wires import UNDONE, Wires

SOAK = "ASYNCCTL_TEST_SOAK" in os.environ
QUICK = {"leader_election": "false", "retry_base": "50ms", "retry_max": "200ms", "database_resync": "1s"}
# What is said once or never, as it dies with who would have said it; and what is undone, as if it had not been sent.
LOGIN = re.compile(r"\$db_(app_a|app_b|report_a|setup)|(?<=/)orders(-report)?-credentials")
SPARED = re.compile(rf"\w+ events\b|{UNDONE}")

APP = {"name": "app"}
REPORT = {"name": "report", "privileges": "ReadOnly", "connectionLimit": 3}


def rotated(life):
    """The login is the second of its user, and the first is gone, and forgotten."""
    there = {role for role in life.roles() if role.startswith("app_")}
    secret = life.team.secret().get("metadata", {}).get("annotations", {})
    return life.running and there == {"app_b"} and "apps.example.com/previous-login" not in secret


STEPS = [
    Step(
        "create",
        lambda life: life.team.create(
            NAME, databaseName=life.database, reclaimPolicy="Delete", connectionLimit=20,
            schemas=[{"name": "app"}], extensions=[{"name": "citext", "schema": "app"}], users=[APP, REPORT],
        ),
        lambda life: life.running,
    ),
    Step(
        "change",
        lambda life: life.team.patch({"spec": {
            "connectionLimit": 10, "schemas": [{"name": "app"}, {"name": "audit"}],
            "users": [APP | {"connectionLimit": 8}, REPORT],
        }}),
        lambda life: life.running,
    ),
    Step(
        "remove a user",
        lambda life: life.team.patch({"spec": {"users": [APP]}}),
        lambda life: life.running and not any("report" in role for role in life.roles()),
    ),
    Step(
        "rotate",
        lambda life: life.team.patch({"spec": {"credentials": {"rotation": {
            "trigger": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "gracePeriod": "1s",
        }}}}),
        rotated,
    ),
    Step("delete", lambda life: life.team.delete(), lambda life: not life.object() and not life.roles()),
]  # fmt: skip


def unowned(life):
    """A database that somebody made as our admin is to be taken over."""
    life.superuser.do("CREATE DATABASE {} OWNER {}", life.database, life.admin)
    life.superuser.do("CREATE TABLE invoices (id int)", database=life.database)
    life.team.create(NAME, databaseName=life.database, reclaimPolicy="Delete", adoptionPolicy="IfUnowned")


ADOPTION = [Step("adopt", unowned, lambda life: life.running), STEPS[-1]]


@pytest.fixture(scope="module")
def wires(plane, cluster, postgres):
    with Wires(plane, postgres.port) as wires:
        yield wires


@pytest.fixture
def lives(cluster, superuser, wires, admin, environment, tmp_path):
    """Return a context manager that begins a life; what was made in it is gone afterwards."""
    daemons = []
    catalogue = write_catalogue(tmp_path, replace(admin, port=wires.port))
    environ = environment(database_servers=catalogue, cluster_id=cluster.id, **QUICK)
    kubeconfig = tmp_path / "kubeconfig-wires"
    kubeconfig.touch(0o600)
    kubeconfig.write_text((tmp_path / "kubeconfig-a").read_text().replace(cluster.plane.url, wires.url))

    @contextmanager
    def begin():
        team = Team(cluster)
        cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": team.namespace}})

        def daemon():
            only = {"KUBECONFIG": str(kubeconfig), "ASYNCCTL_NAMESPACES": team.namespace}
            daemons.append(Forked(environ | only, tmp_path / f"daemon-{len(daemons)}.log"))
            return daemons[-1]

        try:
            yield Life(team, wires, superuser, admin.admin_user, daemon)
        finally:
            team.clear()
            superuser.clear(cluster.id, team.namespace)

    yield begin
    blemishes = [line for daemon in daemons for line in daemon.blemishes()]
    assert not blemishes, "\n".join(blemishes)


@dataclass(frozen=True)
class Outcome:
    """What a step came to."""

    effects: list[str]
    end_state: dict
    counts: Counter


def after(step, life, **how):
    effects = life.live(step, **how)
    life.logins_work()
    return Outcome(effects, life.end_state(), life.counts())


@pytest.fixture(params=[STEPS, ADOPTION], ids=["made", "adopted"])
def steps(request):
    return request.param


@pytest.fixture
def undisturbed(lives, steps):
    """What each step came to in a life without a crash, and what was said."""
    with lives() as life:
        outcomes = [after(step, life) for step in steps]
        return outcomes, set(life.team.reasons())


def kind_of(effect):
    """The same for each login and its Secret."""
    return LOGIN.sub("$login", effect)


def once_at(name, how):
    """Cut at the first effect of this name."""
    left = [name]
    return lambda seen: how if seen == name and left and left.pop() else None


def test_a_life_in_which_each_effect_is_crashed_once_comes_to_the_same(lives, steps, undisturbed):
    wanted, reasons = undisturbed
    with lives() as life:
        for step, outcome in zip(steps, wanted, strict=True):
            crashed_at = set()

            def once(name, crashed_at=crashed_at):
                kind = kind_of(name)
                if kind in crashed_at or SPARED.match(name):
                    return None
                crashed_at.add(kind)
                return "after"

            found = after(step, life, cut=once)
            at = f"{step.name}, crashed {'; '.join(life.crashes)}"
            assert {kind_of(name) for name in outcome.effects if not SPARED.match(name)} <= crashed_at, at
            assert found.end_state == outcome.end_state, at
            assert found.counts == outcome.counts, at
        assert set(life.team.reasons()) <= reasons
    print(f"figure: {len(life.crashes)} crashes")


@pytest.mark.skipif(not SOAK, reason="each effect alone takes a Database of its own: with ASYNCCTL_TEST_SOAK")
def test_each_effect_crashed_alone_before_and_after_it_comes_to_the_same(lives, steps, undisturbed):
    wanted, reasons = undisturbed
    crashes, wrong = 0, []
    for number, outcome in enumerate(wanted):
        for effect, how in itertools.product(outcome.effects, ["before", "after"]):
            with lives() as life:
                for step in steps[:number]:
                    life.live(step)
                found = after(steps[number], life, cut=once_at(effect, how))
                said = set(life.team.reasons())
            crashes += 1
            at = f"{steps[number].name}, crashed {life.crashes}"
            if life.crashes != [f"{how} {effect}"]:
                wrong.append(f"{at}, and not {how} {effect}")
            if (found.end_state, found.counts) != (outcome.end_state, outcome.counts):
                wrong.append(f"{at}: {found}, not {outcome}")
            if not said <= reasons:
                wrong.append(f"{at}: says {said}, not {reasons}")
    print(f"figure: {crashes} effects crashed alone")
    assert not wrong, "\n".join(wrong)

"""SIGKILL at each single effect, on PostgreSQL or the API server, and start again: the end is the same as without it.

The effects are those of an undisturbed life of one Database, on a server that is there or in an instance of its own.
Ordinarily another one lives through the same, and its daemon is killed in each step at each kind of them once (those of
several logins are one), after it has happened and before the answer is seen: to the world that is the moment before the
next one, too. With ASYNCCTL_TEST_SOAK each effect also has a Database of its own, which is crashed at that one only:
before it is sent, and after it took effect.
"""

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
from tests.e2e.homes import Instance, Shared
from tests.e2e.life import NAME, Life, Step
from tests.e2e.wires import UNDONE, Wires

SOAK = "ASYNCCTL_TEST_SOAK" in os.environ
QUICK = {"leader_election": "false", "retry_base": "50ms", "retry_max": "200ms", "database_resync": "1s"}
LOGIN = re.compile(r"\$db_(app_a|app_b|report_a|setup)|(?<=/)orders(-report)?-credentials")
# What is said once or never, as it dies with who would have said it; and what is undone, as if it had not been sent.
SPARED = re.compile(rf"\w+ events\b|{UNDONE}")
# How far the cluster is with an instance when it is looked at: said or not said, as it happens to be.
WAITING = re.compile(r"PATCH databases/orders/status( Pending| Terminating)?( Starting| VolumePending| Removing)$")

APP = {"name": "app"}
REPORT = {"name": "report", "privileges": "ReadOnly", "connectionLimit": 3}


def rotated(life):
    """The login is the second of its user, and the first is gone, and forgotten."""
    there = {role for role in life.roles() if role.startswith("app_")}
    noted = life.team.secret()["metadata"]["annotations"]["apps.example.com/previous-login"]
    return life.running and there == {"app_b"} and noted == "none"


def unowned(life):
    """A database that somebody made as our admin is to be taken over."""
    superuser = life.home.superuser()
    superuser.do("CREATE DATABASE {} OWNER {}", life.database, life.home.admin)
    superuser.do("CREATE TABLE invoices (id int)", database=life.database)
    create(life, adoptionPolicy="IfUnowned")


def create(life, **spec):
    life.team.create(NAME, databaseName=life.database, reclaimPolicy="Delete", **life.home.spec, **spec)


def change(life, **spec):
    life.team.patch({"spec": spec})


def is_running(life):
    return life.running


CREATE = Step(
    "create",
    lambda life: create(
        life, connectionLimit=20, schemas=[{"name": "app"}], extensions=[{"name": "citext", "schema": "app"}],
        users=[APP, REPORT],
    ),
    is_running,
)  # fmt: skip
CREATE_PLAIN = Step("create a plain one", lambda life: create(life, users=[APP]), is_running)
ADOPT = Step("adopt", unowned, is_running)
CHANGE = Step(
    "change",
    lambda life: change(
        life, connectionLimit=10, schemas=[{"name": "app"}, {"name": "audit"}],
        users=[APP | {"connectionLimit": 8}, REPORT],
    ),
    is_running,
)  # fmt: skip
CHANGE_INSTANCE = Step(
    "change the instance",
    lambda life: change(
        life, inCluster={"version": "15.99", "storage": {"size": "2Gi"}, "parameters": {"work_mem": "5MB"}}
    ),
    is_running,
)
REMOVE = Step(
    "remove a user",
    lambda life: change(life, users=[APP]),
    lambda life: life.running and not any("report" in role for role in life.roles()),
)
ROTATE = Step(
    "rotate",
    lambda life: change(life, credentials={
        "rotation": {"trigger": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "gracePeriod": "1s"}
    }),
    rotated,
)  # fmt: skip
DELETE = Step(
    "delete",
    lambda life: life.team.delete(),
    lambda life: not life.object() and not life.home.objects() and not life.roles(),
)
# A step whose effects another life has is left out: a rotation is the same in an instance.
LIVES = {
    "made": ("External", [CREATE, CHANGE, REMOVE, ROTATE, DELETE]),
    "adopted": ("External", [ADOPT]),
    "instance": ("InCluster", [CREATE_PLAIN, CHANGE_INSTANCE, DELETE]),
}
# The last step is crashed, after the others.
SHORT_LIVES = {
    "External": [
        [CREATE], [CREATE, CHANGE], [CREATE, REMOVE], [CREATE_PLAIN, ROTATE], [CREATE, DELETE], [ADOPT],
        [ADOPT, DELETE],
    ],
    "InCluster": [
        [CREATE_PLAIN], [CREATE_PLAIN, CHANGE_INSTANCE], [CREATE_PLAIN, ROTATE], [CREATE_PLAIN, DELETE],
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def wires(plane, cluster, postgres):
    with Wires(plane) as wires:
        yield wires


@pytest.fixture
def home(request, wires, postgres, superuser, admin):
    """Return a context manager in which a team's database has its place."""

    @contextmanager
    def shared(team):
        wires.lead_to(postgres.host, postgres.port)
        yield Shared(superuser, admin.admin_user)

    return (lambda team: Instance.of(team, wires)) if request.param == "InCluster" else shared


@pytest.fixture
def lives(cluster, superuser, wires, admin, environment, tmp_path, home):
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

        with home(team) as place:
            try:
                yield Life(team, wires, place, daemon)
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


@pytest.mark.parametrize(("home", "steps"), LIVES.values(), ids=LIVES, indirect=["home"])
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
            certain = {name for name in outcome.effects if not SPARED.match(name) and not WAITING.match(name)}
            assert set(map(kind_of, certain)) <= crashed_at, at
            assert found.end_state == outcome.end_state, at
            assert found.counts == outcome.counts, at
        assert set(life.team.reasons()) <= reasons
    print(f"figure: {len(life.crashes)} crashes")


@pytest.mark.skipif(not SOAK, reason="each effect alone takes a Database of its own: with ASYNCCTL_TEST_SOAK")
@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize(
    ("home", "steps"),
    [
        pytest.param(home, steps, id=f"{home}-{'-'.join(step.name for step in steps)}")
        for home, lives in SHORT_LIVES.items()
        for steps in lives
    ],
    indirect=["home"],
)
def test_each_effect_of_a_step_crashed_alone_comes_to_the_same(lives, steps, how, undisturbed):
    (*_, wanted), reasons = undisturbed
    (*before, last), crashes, wrong = steps, 0, []
    for effect in wanted.effects:
        with lives() as life:
            for step in before:
                life.live(step)
            try:
                found = after(last, life, cut=once_at(effect, how))
                if life.crashes != [f"{how} {effect}"]:
                    assert WAITING.match(effect), f"crashed {life.crashes}"
                    assert not life.crashes, life.crashes
                assert found.end_state == wanted.end_state
                assert found.counts == wanted.counts
                assert set(life.team.reasons()) <= reasons
            except AssertionError as error:
                wrong.append(f"{last.name}, crashed {how} {effect}: {error}")
                print(wrong[-1])  # now: the others take long
        crashes += len(life.crashes)
    print(f"figure: {crashes} crashes {how} each effect of {last.name}")
    assert not wrong, "\n".join(wrong)

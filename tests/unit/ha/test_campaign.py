"""A campaign in virtual time, against a Lease that is edited, taken, deleted, and answered late or not at all."""

import json
from datetime import UTC, datetime
from itertools import pairwise

import orjson
import pytest

from asyncctl.client.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    Forbidden,
    NotFound,
    ServiceUnavailable,
    Target,
    TransportError,
    error_from_reply,
)
from asyncctl.ha.campaign import Campaign
from asyncctl.ha.fence import Fence
from asyncctl.ha.lease import LeaseSettings
from tests.unit.ha.virtual import LocalClock, Loop
from tests.unit.support import Log

SETTINGS = LeaseSettings(name="l", namespace="team", duration=15.0, renew_deadline=10.0, retry_period=2.0)
THEIRS = {"holderIdentity": "other", "leaseDurationSeconds": 15, "leaseTransitions": 3}


class Scene:
    """One candidate, one Lease, and whatever happens between them."""

    def __init__(self, loop, spec=None, metadata=None):
        self.loop = loop
        self.clock = LocalClock(loop, start=500.0)
        self.fence = Fence(self.clock)
        self.log = Log()
        self.asked = []
        self.wins, self.ends = [], []
        self.fault = lambda verb: None
        self.takes = 0.01  # seconds from question to answer
        self.stuck = None
        self.lease = None
        self._version = 0
        if spec is not None or metadata is not None:
            self.put({"metadata": {"name": "l", **(metadata or {})}, "spec": spec})
        self.campaign = Campaign(
            "me", SETTINGS, self.fence, self._ask, clock=self.clock, random=lambda: 0.0, logger=self.log.logger,
            stuck=lambda: self.stuck, on_won=lambda: self.wins.append(loop.now),
            on_end=lambda: self.ends.append(loop.now),
        )  # fmt: skip
        self.task = loop.create_task(self.campaign.run())

    @property
    def spec(self):
        return self.lease["spec"]

    def put(self, lease):
        self._version += 1
        self.lease = lease | {"kind": "Lease", "metadata": lease["metadata"] | {"resourceVersion": str(self._version)}}

    def edit(self, **spec):
        self.put(self.lease | {"spec": (self.lease["spec"] or {}) | spec})

    def label(self, **labels):
        self.put(self.lease | {"metadata": self.lease["metadata"] | {"labels": labels}})

    def elapse(self, seconds):
        self.loop.run_until(self.loop.now + seconds)

    def leads(self, within=60.0):
        self.loop.run_until(self.loop.now + within, lambda: self.wins)
        assert self.wins, self.log.lines
        return self.loop.now

    def may_write(self):
        try:
            return self.fence() > 0
        except Fenced:
            return False

    async def _ask(self, target, body, seconds):
        self.asked.append((self.loop.now, target.verb))
        fault = self.fault(target.verb)
        if isinstance(fault, Exception):
            raise fault
        if fault == "hang":
            await self.clock.sleep(1000.0)
        if fault != "late":
            await self.clock.sleep(self.takes)
        answer = self._serve(target, body)
        if fault in {"lose", "late"}:
            await self.clock.sleep(1000.0)
        return answer

    def _serve(self, target, body):
        if target.verb == "create":
            if self.lease is not None:
                raise AlreadyExists(target, 409, {})
            self.put(orjson.loads(body))
        elif self.lease is None:
            raise NotFound(target, 404, {"details": {"kind": "leases"}})
        elif target.verb == "update":
            new = orjson.loads(body)
            if new["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Conflict(target, 409, {})
            self.put(new)
        return orjson.dumps(self.lease)


@pytest.fixture
def loop():
    with Loop() as loop:
        yield loop


def target(verb):
    return Target(verb, "leases.coordination.k8s.io", "team", "l")


def once(what):
    """A fault that happens to the first request of that verb."""
    left = [1]
    return lambda verb: left.pop() and what[1] if verb == what[0] and left else None


def test_the_record_is_what_client_go_writes(loop):
    scene = Scene(loop)
    scene.leads()
    moment = scene.spec["acquireTime"]
    assert datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert len(moment) == len("2026-01-02T03:04:05.678901Z")
    assert scene.spec == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": moment,
        "renewTime": moment,
        "leaseTransitions": 0,
    }


def test_what_others_have_put_there_is_kept_byte_for_byte_and_told_once(loop):
    metadata = {
        "labels": {"app.kubernetes.io/name": "theirs"}, "annotations": {"é": "\n"}, "finalizers": ["x/y"],
        "ownerReferences": [{"kind": "Deployment", "name": "theirs", "uid": "u"}],
    }  # fmt: skip
    spec = {"strategy": "OldestEmulationVersion", "preferredHolder": "other", "unknown": [1.5, None, {"a": "b"}]}
    scene = Scene(loop, spec | {"holderIdentity": ""}, metadata)

    def kept():
        found = scene.lease["metadata"] | scene.spec
        return json.dumps({key: found[key] for key in (metadata | spec)})

    before = kept()
    scene.leads()
    assert kept() == before
    scene.elapse(30)
    assert kept() == before
    scene.campaign.call_off()
    scene.elapse(1)
    assert scene.spec["holderIdentity"] == ""
    assert kept() == before
    (told,) = scene.log.said("the Lease has labels or owners, which are kept", "info")
    assert (told["labels"], told["owners"]) == ({"app.kubernetes.io/name": "theirs"}, ["theirs"])


def test_a_silent_holder_is_waited_for_from_when_it_was_first_seen_and_not_longer(loop):
    """The times in the record may be anything."""
    times = {"renewTime": "2099-01-01T00:00:00.000000Z", "acquireTime": "1970-01-01T00:00:00.000000Z"}
    scene = Scene(loop, THEIRS | times)
    assert 15.0 < scene.leads() < 15.2
    assert scene.spec["leaseTransitions"] == 4
    assert scene.campaign.problem is None


def test_a_longer_duration_of_another_is_respected_and_told(loop):
    scene = Scene(loop, THEIRS | {"leaseDurationSeconds": 3600})
    scene.elapse(3590)
    assert scene.campaign.problem == "other leads, by a Lease that is free when it was not renewed for 3600 s"
    assert len(scene.log.said("other leads")) == 1
    assert 3600 < scene.leads() < 3601
    assert scene.spec["leaseDurationSeconds"] == 15


@pytest.mark.parametrize("seconds", [0, -5, None, "60", 1.5, True])
def test_a_duration_that_makes_no_sense_is_taken_for_our_own_and_told_once(loop, seconds):
    scene = Scene(loop, THEIRS | {"leaseDurationSeconds": seconds})
    scene.elapse(5)
    scene.edit(renewTime="later")
    assert 20 < scene.leads() < 23
    assert len(scene.log.said("leaseDurationSeconds is no number of seconds above zero; 15 are taken for it")) == 1


@pytest.mark.parametrize("holder", [3, True, {"name": "x"}, 0])
def test_a_holder_that_is_no_text_is_waited_for(loop, holder):
    scene = Scene(loop, THEIRS | {"holderIdentity": holder})
    assert 15 < scene.leads() < 16
    assert len(scene.log.said("holderIdentity is no text", "warning")) == 1
    assert scene.spec["holderIdentity"] == "me"


@pytest.mark.parametrize(
    "spec", [None, {}, {"holderIdentity": ""}, {"holderIdentity": None}, THEIRS | {"holderIdentity": ""}]
)
def test_a_lease_that_nobody_holds_is_taken_at_once(loop, spec):
    assert Scene(loop, spec, {}).leads() < 0.1


def test_a_label_that_changes_is_no_sign_of_life(loop):
    scene = Scene(loop, THEIRS)
    for number in range(14):
        scene.elapse(1)
        scene.label(a=str(number))
    assert 15 < scene.leads() < 15.2
    assert scene.lease["metadata"]["labels"] == {"a": "13"}


def test_each_change_of_the_record_is_a_sign_of_life(loop):
    scene = Scene(loop, THEIRS)
    for number in range(60):
        scene.elapse(5)
        scene.edit(renewTime=str(number))
    assert not scene.wins
    assert 315 - 5 < scene.leads() < 318


def test_a_standby_that_slept_takes_nothing_too_early(loop):
    """What it knows of another gets no older in its sleep, whatever the other does meanwhile."""
    scene = Scene(loop, THEIRS)
    scene.elapse(10)
    scene.clock.freeze(100, suspend=True)
    scene.elapse(100)
    scene.elapse(4)
    assert not scene.wins
    assert scene.leads() < 116


def test_a_leader_that_slept_for_too_long_may_not_write_when_it_wakes(loop):
    scene = Scene(loop)
    scene.leads()
    scene.clock.freeze(11, suspend=True)
    scene.elapse(11)
    assert not scene.may_write()
    scene.elapse(3)
    assert "could not be renewed within 10 s" in scene.campaign.lost


def test_renewals_and_tries_are_a_retry_period_apart_or_a_fifth_less(loop):
    scene = Scene(loop)
    drawn = iter([0.0, 0.999] * 40)
    scene.campaign._random = lambda: next(drawn)
    scene.elapse(40)
    when = [at for at, verb in scene.asked if verb == "update"]
    apart = {round(later - at, 1) for at, later in pairwise(when)}
    assert apart == {2.0, 1.6}


def test_a_server_that_is_as_slow_as_can_be_borne_costs_no_leader(loop):
    scene = Scene(loop)
    scene.takes = 4.9
    scene.leads()
    scene.elapse(600)
    assert scene.campaign.lost is None
    assert scene.may_write()
    assert not scene.log.said("with trouble")


@pytest.mark.parametrize("again", [False, True])
def test_a_lease_that_is_deleted_is_lost(loop, again):
    scene = Scene(loop)
    scene.leads()
    scene.lease = None
    if again:
        scene.put({"metadata": {"name": "l"}, "spec": THEIRS})
    scene.elapse(3)
    assert scene.campaign.lost == (
        "somebody else has changed the Lease: other holds it now" if again else "the Lease was deleted"
    )
    assert not scene.may_write()
    assert scene.task.done()
    assert len(scene.ends) == 1


def test_a_path_that_is_not_there_is_no_deletion(loop):
    """Something before the server that is not itself for a moment, as its own 404 looks."""
    scene = Scene(loop)
    scene.leads()
    scene.fault = lambda verb: error_from_reply(target(verb), 404, b"404 page not found\n", {})
    scene.elapse(5)
    assert scene.campaign.lost is None
    scene.fault = lambda verb: None
    scene.elapse(3)
    assert scene.campaign.problem is None


def test_a_lease_that_is_edited_but_still_ours_is_kept(loop):
    scene = Scene(loop)
    scene.leads()
    scene.edit(leaseDurationSeconds=900, leaseTransitions=41, preferredHolder="other")
    scene.elapse(5)
    assert scene.campaign.lost is None
    assert scene.spec["leaseDurationSeconds"] == 15
    assert scene.spec["leaseTransitions"] == 41
    assert scene.spec["preferredHolder"] == "other"


@pytest.mark.parametrize("holder, told", [("", "nobody"), ("other", "other"), (None, "nobody")])
def test_a_lease_whose_holder_is_edited_is_lost_and_not_touched(loop, holder, told):
    scene = Scene(loop)
    scene.leads()
    scene.edit(holderIdentity=holder, leaseDurationSeconds=3600)
    before = scene.lease
    scene.elapse(3)
    assert scene.campaign.lost == f"somebody else has changed the Lease: {told} holds it now"
    scene.elapse(30)
    assert scene.lease == before


@pytest.mark.parametrize("fault", ["lose", "late", "hang"])
def test_a_take_whose_answer_is_lost_is_resolved_by_reading(loop, fault):
    scene = Scene(loop)
    scene.fault = once(("create", fault))
    assert scene.leads() < 8
    assert scene.spec["leaseTransitions"] == 0


def test_a_renewal_whose_answer_is_lost_is_resolved_by_reading(loop):
    scene = Scene(loop)
    scene.leads()
    scene.fault = once(("update", "lose"))
    scene.elapse(30)
    assert scene.campaign.lost is None
    assert scene.campaign.problem is None
    assert scene.may_write()
    assert [verb for _, verb in scene.asked[3:6]] == ["update", "get", "update"]


def test_renewal_stops_while_the_main_loop_is_stuck_and_goes_on_when_it_is_not(loop):
    scene = Scene(loop)
    scene.leads()
    scene.stuck = "the event loop has been stuck"
    before = len(scene.asked)
    scene.elapse(9)
    assert len(scene.asked) == before
    assert scene.campaign.problem == "could not renew: the event loop has been stuck"
    scene.stuck = None
    scene.elapse(5)
    assert scene.may_write()
    assert scene.campaign.lost is None
    scene.stuck = "the event loop has been stuck"
    scene.elapse(13)
    assert scene.campaign.lost == "it could not be renewed within 10 s: the event loop has been stuck"
    assert scene.spec["holderIdentity"] == "me"  # it lapses


def test_trouble_is_told_once_however_it_changes_and_that_it_is_over_as_well(loop):
    scene = Scene(loop)
    scene.leads()
    faults = iter([ServiceUnavailable(target("update"), 503, {}), TransportError("refused", sent=False)])
    scene.fault = lambda verb: next(faults, None)
    scene.elapse(7)
    scene.stuck = "stuck for 5 s"
    scene.elapse(2)
    scene.stuck = "stuck for 6 s"
    scene.elapse(2)
    scene.stuck = None
    scene.elapse(5)
    leading = [line["msg"] for line in scene.log.lines][1:]
    assert leading == ["leading, with trouble", "the Lease is renewed again"] * 2
    assert scene.campaign.problem is None


def test_the_loss_is_known_as_soon_as_the_validity_ends(loop):
    scene = Scene(loop)
    scene.leads()
    scene.fault = lambda verb: ServiceUnavailable(target(verb), 503, {})
    scene.loop.run_until(60, lambda: scene.campaign.lost)
    assert not scene.may_write()
    assert scene.loop.now - (scene.fence._until - 500.0) < 0.02
    assert "503" in scene.campaign.lost


def forbidden(verb):
    said = f'leases.coordination.k8s.io "l" is forbidden: User "x" cannot {verb} resource "leases"'
    return Forbidden(target(verb), 403, {"message": said})


def test_what_keeps_it_from_even_campaigning_is_told_as_long_as_it_lasts(loop):
    scene = Scene(loop)
    scene.fault = forbidden
    scene.elapse(10)
    assert "get leases.coordination.k8s.io team/l: 403" in scene.campaign.blocked
    assert "needs a Role in namespace 'team' with get, create and update on leases" in scene.campaign.blocked
    assert len(scene.log.said("needs a Role", "warning")) == 1
    scene.fault = lambda verb: TransportError("away", sent=False)
    scene.elapse(5)
    assert scene.campaign.blocked is None
    assert scene.campaign.problem == "away"
    scene.fault = lambda verb: (
        NotFound(target(verb), 404, {"details": {"kind": "namespaces"}}) if verb == "create" else None
    )
    scene.elapse(5)
    assert "create the namespace first, or set ASYNCCTL_LEASE_NAMESPACE" in scene.campaign.blocked
    scene.fault = lambda verb: None
    scene.put({"metadata": {"name": "l"}, "spec": THEIRS})
    scene.elapse(5)
    assert scene.campaign.blocked is None
    assert scene.campaign.problem == "other leads"


def test_it_is_given_back_though_the_answer_of_the_last_renewal_is_on_its_way(loop):
    scene = Scene(loop)
    scene.leads()
    scene.fault = once(("update", "lose"))
    scene.elapse(2.1)
    began = scene.loop.now
    scene.campaign.call_off()
    scene.loop.run_until(60, scene.task.done)
    assert scene.loop.now - began < 1.2
    assert scene.spec["holderIdentity"] == ""
    assert scene.log.said("gave the Lease back", "info")
    assert len(scene.ends) == 1


def test_giving_back_whose_own_answer_is_lost_harms_nobody(loop):
    scene = Scene(loop)
    scene.leads()
    scene.fault = once(("update", "lose"))
    scene.campaign.call_off()
    scene.elapse(0.5)
    assert scene.spec["holderIdentity"] == ""
    scene.edit(**THEIRS)
    after = scene.lease
    scene.elapse(10)
    assert scene.task.done()
    assert scene.lease == after
    assert scene.log.said("gave the Lease back", "info")
    assert not scene.log.said("could not be given back")


def test_giving_back_is_tried_for_four_seconds_and_then_left_to_lapse(loop):
    scene = Scene(loop)
    scene.leads()
    scene.fault = lambda verb: TransportError("away", sent=False)
    began = scene.loop.now
    scene.campaign.call_off()
    scene.loop.run_until(60, scene.task.done)
    assert 3.9 < scene.loop.now - began < 4.1
    assert scene.log.said("could not be given back; the next leader has to wait", "warning")[0]["error"] == "away"


def test_giving_back_asks_a_server_that_is_not_itself_no_more_than_any_other(loop):
    scene = Scene(loop)
    scene.leads()
    most = len(scene.asked) + 20

    def lost(verb):
        assert len(scene.asked) < most
        return error_from_reply(target(verb), 404, b"404 page not found\n", {})

    scene.fault = lost
    scene.campaign.call_off()
    scene.loop.run_until(60, scene.task.done)
    scene.task.result()
    assert scene.log.said("could not be given back", "warning")


def test_a_renewal_that_is_asked_for_again_while_it_is_called_off_leaves_time_to_give_back(loop):
    scene = Scene(loop)
    scene.leads()
    scene.label(touched="yes")
    scene.takes = 0.5
    scene.elapse(2.6)  # the label was met, and the Lease is read again
    assert [verb for _, verb in scene.asked][-2:] == ["update", "get"]
    began = scene.loop.now
    scene.fault = once(("update", "hang"))
    scene.campaign.call_off()
    scene.loop.run_until(scene.loop.now + 60, scene.task.done)
    assert scene.spec["holderIdentity"] == ""
    assert scene.loop.now - began < 4


def test_a_lease_whose_validity_has_ended_is_not_given_back(loop):
    """A write may have been given up when it ended, and be on its way still."""
    scene = Scene(loop)
    scene.leads()
    scene.clock.call_at(scene.clock.monotonic() + 1, scene.campaign.call_off)
    scene.clock.freeze(11)
    scene.elapse(20)
    assert scene.task.done()
    assert scene.spec["holderIdentity"] == "me"


def test_a_take_that_is_on_its_way_when_it_is_called_off_is_undone(loop):
    scene = Scene(loop, THEIRS | {"holderIdentity": ""})
    scene.fault = once(("update", "lose"))
    scene.elapse(0.5)
    assert scene.spec["holderIdentity"] == "me"
    scene.campaign.call_off()
    scene.elapse(3)
    assert scene.task.done()
    assert scene.spec["holderIdentity"] == ""
    assert not scene.wins


def test_a_standby_that_is_called_off_asks_nothing_more(loop):
    scene = Scene(loop, THEIRS)
    scene.elapse(5)
    before = len(scene.asked)
    scene.campaign.call_off()
    scene.elapse(0)
    assert scene.task.done()
    assert len(scene.asked) == before


@pytest.mark.parametrize("fault", [None, "hang"])
def test_a_lease_that_counts_as_lost_is_so_from_that_moment_and_not_given_back(loop, fault):
    scene = Scene(loop)
    scene.leads()
    scene.fault = lambda verb: fault
    scene.elapse(2.1)
    scene.campaign.lose("the server says so")
    assert not scene.may_write()
    assert scene.campaign.lost == "the server says so"
    scene.campaign.wake()
    scene.elapse(0)
    assert scene.task.done()
    assert scene.spec["holderIdentity"] == "me"
    assert len(scene.ends) == 1
    assert not scene.log.said("leading, with trouble")
    scene.campaign.lose("again")
    assert scene.campaign.lost == scene.campaign.problem == "the server says so"


def test_an_answer_that_comes_after_the_deadline_gives_no_right_to_write(loop):
    scene = Scene(loop)

    def freeze(verb):
        if verb == "create":
            scene.loop.call_later(0.001, scene.clock.freeze, 12)
            scene.fault = lambda verb: None

    scene.fault = freeze
    scene.elapse(12.005)
    assert not scene.wins
    assert scene.leads() < 15
    assert scene.may_write()

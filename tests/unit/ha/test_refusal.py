"""What a refusal of the API server's fence means: the loss of the Lease, or a server that is behind, or a bad token."""

import pytest

from asyncctl.ha.refusal import Refusals, read, unfit
from asyncctl.testing.clock import FakeClock
from tests.unit.support import Log

OURS = "pod-1_5f"
DENIED = "update widgets team/a: widgets is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: "


def refusal(holder, writer="pod-1"):
    return f"{DENIED}asyncctl-fenced: writer {writer}, the Lease is held by {holder}"


class Stage:
    def __init__(self, identity=OURS):
        self.clock, self.log, self.lost = FakeClock(), Log(), []
        self.refusals = Refusals(identity, self.lost.append, patience=10, clock=self.clock, logger=self.log.logger)


@pytest.mark.parametrize("holder", ["pod-0_1", "nobody"])
def test_a_server_that_has_not_seen_the_takeover_yet_ends_no_new_leader(holder):
    stage = Stage()
    stage.refusals.won()
    stage.clock.advance(9.9)
    assert [stage.refusals(refusal(holder)) for _ in range(3)] == [True] * 3
    assert stage.lost == []
    assert len(stage.log.said("has not seen yet that we hold the Lease", "warning")) == 1


@pytest.mark.parametrize("message", [refusal("pod-0_1"), refusal("nobody"), f"{DENIED}asyncctl-fenced: that is all"])
def test_later_a_refusal_is_the_loss_of_the_lease(message):
    stage = Stage()
    stage.refusals.won()
    stage.clock.advance(10)
    assert stage.refusals(message) is False
    assert stage.lost == [f"the API server refuses our writes: {message}"]


def test_who_has_never_led_is_not_waited_for():
    stage = Stage()
    assert stage.refusals(refusal("pod-0_1")) is False
    assert stage.lost


@pytest.mark.parametrize(
    "writer, said",
    [
        ("(no pod-bound token)", "is bound to no pod; use the one that is mounted into the pod"),
        ("pod-2", "is bound to pod pod-2, and ASYNCCTL_POD_NAME is pod-1; set that from the downward API"),
    ],
)
def test_a_holder_that_is_refused_has_the_wrong_token_and_no_waiting_helps(writer, said):
    stage = Stage()
    stage.refusals.won()
    assert stage.refusals(refusal(OURS, writer)) is False
    assert said in stage.lost[0]
    assert stage.lost[0].startswith("the API server refuses our writes though we hold the Lease: ")


def test_without_leader_election_it_is_told_once_what_to_do():
    stage = Stage(identity=None)
    assert [stage.refusals(refusal("pod-0_1")) for _ in range(3)] == [False] * 3
    (line,) = stage.log.said("the API server refuses our writes", "warning")
    assert "set validationActions of the ValidatingAdmissionPolicyBinding that the cause names to" in line["advice"]
    assert "'p' with binding 'p'" in line["cause"]
    assert stage.lost == []


def test_what_the_policy_says_can_be_read_whatever_stands_in_the_lease():
    assert read(refusal("a, the Lease is held by b\nc")) == ("pod-1", "a, the Lease is held by b\nc")
    assert read("asyncctl-fenced: the writer's pod does not hold the Lease") is None


def test_a_token_of_the_pod_is_fit():
    assert unfit("pod-1", "pod-1") is None

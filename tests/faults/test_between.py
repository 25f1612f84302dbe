"""A leader that is stopped exactly between the fence's check and the `send()`, and goes on when another leads.

No process can prevent this by itself. What the promise says of it: the API server refuses the write once it has seen
the takeover, where the policy is in force; without, the write may take effect, but never over the new leader's work.
"""

import contextlib
import signal

import pytest

from tests.faults.policy import in_force
from tests.faults.rounds import SOAK

MAP = "/api/v1/namespaces/{}/configmaps/counter-0?"
STATUS = "/apis/faults.example.com/v1/namespaces/{}/counters/counter-0/status?"
CASES = [
    (path, touched, policy)
    for path in (MAP, STATUS)
    for touched in (False, True)
    for policy in (False, True)
    if SOAK or (path == MAP and not (touched and policy))
]


def name_of(case):
    path, touched, policy = case
    return f"{'map' if path == MAP else 'status'}{', touched' if touched else ''}{', policy' if policy else ''}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_write_already_past_the_fence_overwrites_nothing(contest, seed, case, figure, anchor):
    path, touched, policy = case
    with in_force(contest) if policy else contextlib.nullcontext():
        leader, standby = contest.pair()
        hold = standby.tell("hold")
        leader.tell("stop", f"PATCH {path.format(contest.namespace)}")
        contest.turn()
        leader.until_taken("stop")
        contest.until_held(standby)
        if touched:  # by the next one, before the write comes
            hold.unlink()
            contest.turn()
            contest.until_done(standby)
        leader.signal(signal.SIGCONT)
        assert leader.wait() == 1
        hold.unlink(missing_ok=True)
        contest.until_done(standby)
        judge = contest.judged()
    figure(judge, leader, standby)
    assert judge.overwrites == []
    assert judge.steps_back == []
    assert len(judge.late) == int(not touched and not policy)
    if not touched:  # else it is the older resourceVersion that is refused, before admission or behind it
        assert judge.refused.count(leader.pod) == int(policy)

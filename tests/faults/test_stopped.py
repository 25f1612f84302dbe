"""A leader that is stopped by SIGSTOP for longer than its Lease, and goes on."""

import random
import signal

from tests.e2e.waiting import until
from tests.faults.contest import DURATION, pause


def test_a_leader_stopped_under_load_for_twice_its_lease_overwrites_nothing(contest, seed, figure):
    leader, standby = contest.pair()
    with contest.load():
        pause(random.Random(seed).uniform(0.1, 1.0))
        leader.signal(signal.SIGSTOP)
        pause(2 * DURATION)
        leader.signal(signal.SIGCONT)
        assert leader.wait() == 1
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert judge.by(leader.pod)
    assert judge.by(standby.pod)
    assert judge.overwrites == []
    assert judge.steps_back == []
    assert len(judge.late) <= 1  # of what was between the check and the `send()` at that moment
    assert leader.said("ends, because the Lease is lost")


def test_without_the_fence_the_judge_finds_what_is_overwritten(contest):
    """Not every round of it: one that finds nothing is played on."""
    leader, standby = contest.pair(CONTENDER_UNFENCED="yes")
    leader.signal(signal.SIGSTOP)
    contest.until_held(standby)
    leader.signal(signal.SIGCONT)
    with contest.load():
        judge = until(contest.judge, lambda judge: judge.overwrites and judge.after_the_next, deadline=20.0)
    assert {commit.who for commit in judge.late} == {leader.pod}
    assert until(lambda: leader.said("the Lease is lost"))  # it knows, and goes on

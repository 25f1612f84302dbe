"""A standby whose watches are late when it comes to lead: it must not act on what was true before."""

import signal

from tests.faults.contest import pause


def test_a_standby_whose_watches_are_late_waits_for_them_before_its_first_pass(contest, seed, figure, soak):
    leader, standby = contest.pair(gated=True)
    with standby.gateway.watches_held():
        contest.turn()
        contest.until_done(leader)
        leader.signal(signal.SIGTERM)
        assert leader.wait() == 0
        contest.until_held(standby)
        pause(30.0 if soak else 1.5)
    contest.until_done(standby, deadline=30.0)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert judge.steps_back == []
    assert judge.late == []

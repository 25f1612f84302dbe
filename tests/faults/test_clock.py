"""The wall's clock may say what it likes: who leads is measured by clocks that nobody sets."""

from datetime import UTC, datetime

from tests.e2e.waiting import until
from tests.faults.contest import CRASH, DURATION, pause

HOUR = 3600


def hours_off(contest):
    renewed = datetime.fromisoformat(contest.cluster.lease(contest.lease)["renewTime"])
    return round((renewed - datetime.now(UTC)).total_seconds() / HOUR)


def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing_about_who_leads(contest, seed, figure):
    leader, standby = contest.pair()
    with contest.load():
        for ahead in (1, -1):
            leader.tell("clock", str(ahead * HOUR))
            standby.tell("clock", str(-ahead * HOUR))
            until(lambda ahead=ahead: hours_off(contest) == ahead)
            pause(DURATION * 1.2)
            assert contest.holder() == leader.pod
        leader.kill()
        contest.until_held(standby)
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert [tenure.who for tenure in judge.tenures] == [leader.pod, standby.pod]
    assert (judge.tenure(standby.pod).at - judge.renewed(leader.pod)).total_seconds() < CRASH
    assert judge.late == []
    assert judge.steps_back == []

"""How a leader's end is seen by the API server: told to stop, killed, or stuck."""

import random
import signal

from tests.faults.contest import CRASH, DURATION, RETRY, pause


def test_told_to_stop_in_mid_pass_it_finishes_and_then_gives_the_lease_back(contest, seed, figure):
    leader, standby = contest.pair()
    gate = leader.tell("gate")
    turn = contest.turn()
    contest.until_written(leader)
    leader.signal(signal.SIGTERM)
    leader.until_said("stopping")
    assert contest.holder() == leader.pod
    gate.unlink()
    assert leader.wait() == 0
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    given_back = judge.end_of(leader.pod)
    assert given_back.who == ""
    statuses = [commit for commit in judge.by(leader.pod) if commit.resource == "counters/status"]
    assert {commit.name for commit in statuses if commit.turn == turn} == {commit.name for commit in statuses}
    assert judge.late == []  # also none between giving it back and the next one's taking it
    assert (judge.tenure(standby.pod).at - given_back.at).total_seconds() < RETRY + 1
    assert judge.steps_back == []


def test_killed_under_load_it_is_followed_when_the_lease_has_run_out(contest, seed, figure):
    leader, standby = contest.pair()
    with contest.load():
        pause(random.Random(seed).uniform(0.1, 0.5))
        leader.kill()
        contest.until_held(standby)
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert (judge.tenure(standby.pod).at - judge.renewed(leader.pod)).total_seconds() < CRASH
    assert judge.late == []
    assert judge.steps_back == []


def test_a_leader_whose_loop_is_blocked_is_not_renewed_and_writes_nothing_afterwards(contest, seed, figure, soak):
    deaf, spare = ({}, 5.0) if soak else ({"CONTENDER_DEAF": "1.5"}, 1.5)
    leader, standby = contest.pair(**deaf)
    leader.tell("block", str(spare + DURATION + 4 * RETRY))
    contest.turn()
    leader.until_taken("block")
    contest.until_held(standby)
    contest.turn()
    contest.until_done(standby)
    assert leader.wait(20) == 1
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert "stuck" in leader.said("ends, because the Lease is lost")[0]["cause"]
    assert judge.late == []
    assert judge.steps_back == []

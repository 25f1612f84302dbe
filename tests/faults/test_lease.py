"""The Lease deleted, taken by hand, or out of its holder's reach."""

from tests.faults.policy import in_force


def ends_for(leader, cause):
    assert leader.wait() == 1
    assert cause in leader.said("ends, because the Lease is lost")[0]["cause"]


def test_a_deleted_lease_is_lost_and_the_next_one_works(contest, seed, figure):
    leader, standby = contest.pair()
    with contest.load():
        contest.delete_lease()
        ends_for(leader, "deleted")
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert judge.late == []
    assert judge.steps_back == []


def test_a_lease_deleted_under_the_policy_stops_nobody_else(contest, seed, figure, anchor):
    """Who turns the Counters is somebody else, and has to succeed each time."""
    with in_force(contest):
        leader, standby = contest.pair()
        with contest.load():
            contest.delete_lease()
            ends_for(leader, "deleted")
            contest.until_held(standby)
        contest.until_done(standby)
        judge = contest.judged()
    figure(judge, leader, standby)
    assert all(who.startswith("contest-") for who in judge.refused)  # contenders, of this round or another
    assert judge.late == []
    assert judge.steps_back == []


def test_a_lease_taken_by_hand_is_lost_and_nothing_follows(contest, seed, figure):
    leader, standby = contest.pair()
    with contest.load():
        contest.cluster.take_lease(contest.lease, "somebody-else")
        ends_for(leader, "somebody else")
        contest.until_held(standby)
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert judge.after_the_next == []
    assert judge.overwrites == []
    assert judge.steps_back == []


def test_a_leader_whose_lease_traffic_is_cut_has_ended_before_the_next_one_leads(contest, seed, figure):
    leader, standby = contest.pair(gated=True)
    with contest.load():
        leader.gateway.cut_leases()
        ends_for(leader, "could not be renewed")
        contest.until_held(standby)
    contest.until_done(standby)
    judge = contest.judged()
    figure(judge, leader, standby)
    assert judge.late == []
    assert judge.by(leader.pod)[-1].at < judge.tenure(standby.pod).at
    assert judge.steps_back == []

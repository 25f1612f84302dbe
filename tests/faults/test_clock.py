"""The wall's clock may say what it likes: who leads is measured by clocks that nobody sets.

It is wrong in two ways: the clock that the runtime is given is, and where there is libfaketime (Debian has it as a
package, or `ASYNCCTL_TEST_FAKETIME` names the file) the C library's, for all that is in the process.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.waiting import until
from tests.faults.contest import CRASH, RETRY, pause

HOUR = 3600
DEBIAN = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), "")
LIBRARY = os.environ.get("ASYNCCTL_TEST_FAKETIME", str(DEBIAN))
FAKED = pytest.param("faketime", marks=pytest.mark.skipif(not LIBRARY, reason="no libfaketime"))


def hours_off(contest):
    renewed = datetime.fromisoformat(contest.cluster.lease(contest.lease)["renewTime"])
    return round((renewed - datetime.now(UTC)).total_seconds() / HOUR)


@pytest.mark.parametrize("clock", ["clock", FAKED])
def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing_about_who_leads(contest, seed, figure, clock):
    leader, standby = contest.pair(faketime=LIBRARY if clock == "faketime" else "")
    with contest.load():
        for ahead in (1, -1):
            leader.tell(clock, f"{ahead * HOUR:+}")
            standby.tell(clock, f"{-ahead * HOUR:+}")
            until(lambda ahead=ahead: hours_off(contest) == ahead)
            pause(4 * RETRY)  # whoever compared clocks would have taken it by now
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

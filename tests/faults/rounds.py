"""What a fault is tried on: contests of small operators over a Lease, on a real API server whose audit log judges.

Each scenario is one round in the ordinary suite. With `ASYNCCTL_TEST_SOAK` (`make soak`) it is ten, and what is
shortened here is of the length that it has in a cluster. A round's seed is in the name of its test.
"""

import os

import pytest

from tests.faults.contest import Contest, install_counters
from tests.faults.policy import anchor as anchor_of

SOAK = "ASYNCCTL_TEST_SOAK" in os.environ


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(1, 11 if SOAK else 2), ids="seed {}".format)


@pytest.fixture(scope="session")
def soak():
    """Whether the full measure is asked for."""
    return SOAK


@pytest.fixture(scope="session")
def counters(cluster):
    """The cluster, which has Counters."""
    install_counters(cluster)
    return cluster


@pytest.fixture(scope="session")
def anchor(counters):
    """See `policy.anchor`."""
    with anchor_of(counters):
        yield


@pytest.fixture
def figure(request):
    """Print what a round came to, by the judge's word."""

    def tell(judge, leader, standby):
        taken = judge.tenure(standby.pod).at
        first = next(commit.at for commit in judge.by(standby.pod) if commit.at > taken)
        print(
            f"figure: {request.node.originalname} [{request.node.callspec.id}]: writes {len(judge.by(leader.pod))}"
            f" + {len(judge.by(standby.pod))}, late {len(judge.late)}, after the next one's first"
            f" {len(judge.after_the_next)}, overwrites {len(judge.overwrites)}, refused by the policy"
            f" {judge.refused.count(leader.pod)}; led {(taken - judge.renewed(leader.pod)).total_seconds():.2f} s after"
            f" the last renewal, wrote {(first - taken).total_seconds():.2f} s later"
        )

    return tell


@pytest.fixture
def contest(counters, tmp_path):
    contest = Contest(counters, tmp_path)
    yield contest
    contest.clear()
    for contender in contest.contenders:
        print(f"--- {contender.pod}\n{contender.text[-6000:]}")
    blemishes = [line for contender in contest.contenders for line in contender.blemishes()]
    assert not blemishes, "\n".join(blemishes)

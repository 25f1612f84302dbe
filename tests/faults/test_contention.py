"""Three electors and one Lease: asyncctl's, client-go's and kubernetes-asyncio's, killed and stopped at random moments.

The judge is the API server's audit log. Two things are known of the others. kubernetes-asyncio's does not count
`leaseTransitions`, and gives nothing back when it ends. client-go's compares records with times in whole seconds, so
that of several renewals within one second it sees the first: it may take a Lease up to a second early, where the
holder's retry period is below a second.
"""

import os
import random
import signal
import time
from collections import Counter
from datetime import timedelta
from itertools import pairwise, permutations

import pytest

from tests.e2e.cluster import LEASES, MERGE
from tests.e2e.waiting import until
from tests.faults.lease_timeline import audited, breaches, terms, writes
from tests.faults.rival import CLIENT_GO, KINDS, KUBERNETES_ASYNCIO, QUICK, Times, pause

SOAK = "ASYNCCTL_TEST_SOAK" in os.environ
SEED = int(os.environ.get("ASYNCCTL_TEST_SEED", random.SystemRandom().randrange(10**6)))
ENDS = (signal.SIGKILL, signal.SIGTERM)
# Each kind is followed by each other one: a way through all six pairs.
A, C, K = KINDS
ROUND = (A, C, K, A, K, C, A)
COMPLAINTS = ("record is odd", "Failed to parse time")  # of ours, and of kubernetes-asyncio's
MARKS = {"labels": {"owner": "somebody"}, "annotations": {"note": "keep this"}}
SECONDS = Times(duration=4, deadline=2.5, retry=1.0)  # no renewal in the same second as the one before
CASES = [pytest.param(QUICK, 60 if SOAK else 3, {CLIENT_GO: timedelta(seconds=1)}, id="quick")]
if SOAK:
    CASES.append(pytest.param(SECONDS, 300, {}, id="seconds"))


class Arena:
    """One rival of each kind at most, and all there ever were."""

    def __init__(self, contend, cluster, lease, times):
        self.contend = contend
        self.cluster = cluster
        self.lease = lease
        self.times = times
        self.now = {}
        self.ever = []

    def enter(self, kind):
        """Start one of this kind, unless one is there; one that ended by itself, as a deposed leader does, is not."""
        if kind not in self.now or not self.now[kind].alive:
            self.now[kind] = self.contend(kind, times=self.times)
            self.ever.append(self.now[kind])
        return self.now[kind]

    def end(self, kind, number):
        """End one, and return when it has."""
        rival = self.now.pop(kind)
        if number == signal.SIGTERM and rival.alive:
            rival.signal(number)
            rival.wait(20)
        rival.kill()

    def hand_over(self, leader, successor, number):
        """End the leader, while of the others only `successor` can act."""
        for kind in KINDS:
            self.enter(kind).until_campaigns()
        (third,) = set(KINDS) - {leader, successor}
        self.now[third].signal(signal.SIGSTOP)
        self.end(leader, number)
        self.now[successor].until_started()
        self.now[third].signal(signal.SIGCONT)

    def leaders(self):
        """Who says that it leads; nobody, while a Lease runs out."""
        return [kind for kind, rival in self.now.items() if rival.leading]

    def touch(self, moments):
        """Change the Lease's metadata, as `kubectl annotate` does: whoever writes next has to read again."""
        change = {"metadata": {"annotations": {"touched": str(moments.random())}}}
        self.cluster.call("PATCH", f"{LEASES}/{self.lease}", change, content_type=MERGE)


@pytest.mark.parametrize(("times", "seconds", "early"), CASES)
def test_of_three_kinds_of_electors_none_takes_a_lease_that_another_holds(
    contend, cluster, lease, times, seconds, early
):
    print(f"seed {SEED}; set ASYNCCTL_TEST_SEED to repeat it")
    moments = random.Random(SEED)
    arena = Arena(contend, cluster, lease, times)
    cluster.call("POST", LEASES, {"metadata": {"name": lease} | MARKS, "spec": {"holderIdentity": ""}})

    arena.enter(ROUND[0]).until_started()
    for leader, successor in pairwise(ROUND):
        arena.hand_over(leader, successor, moments.choice(ENDS))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for kind in KINDS:
            arena.enter(kind).until_campaigns()
        pause(moments.uniform(0, 2.0))
        if moments.random() < 0.3:
            arena.touch(moments)
        arena.end(moments.choice(arena.leaders() or list(arena.now)), moments.choice(ENDS))
        if moments.random() < 0.5:
            pause(moments.uniform(0, 1.0))
    until(arena.leaders, deadline=20)
    for kind in list(arena.now):
        arena.end(kind, signal.SIGTERM)

    found = stored(cluster, lease)
    held = terms(found)
    pairs = Counter((one.kind, other.kind) for one, other in pairwise(held))
    print(
        f"figure: {len(arena.ever)} processes, {len(found)} writes of the Lease, {len(held)} terms, "
        f"{sum(term.released for term in held)} given back; "
        + ", ".join(f"{one} then {other}: {count}" for (one, other), count in sorted(pairs.items()))
    )
    wrong = breaches(found, uncounted=frozenset({KUBERNETES_ASYNCIO}), trusted="admin", early=early)
    assert not wrong, "\n".join(wrong)
    assert set(permutations(KINDS, 2)) <= set(pairs)
    # What they say of themselves agrees: no two lead at a time.
    led = sorted((*rival.led, rival.log.name) for rival in arena.ever if rival.led)
    overlaps = [(one, other) for one, other in pairwise(led) if other[0] < one[1]]
    assert not overlaps
    # Each understands what the others write.
    assert not [each for rival in arena.ever for each in COMPLAINTS if each in rival.text]
    # What somebody else has written on the Lease is there still.
    metadata = found[-1].lease["metadata"]
    assert metadata["labels"] == MARKS["labels"]
    assert metadata["annotations"].items() >= MARKS["annotations"].items()


def stored(cluster, lease):
    """All writes of the Lease, once the audit log has the last."""
    last = int(cluster.call("GET", f"{LEASES}/{lease}")["metadata"]["resourceVersion"])
    return until(
        lambda: writes(audited(cluster.plane.audit_log), "controllers", lease),
        lambda found: found and found[-1].version >= last,
    )

"""The judge sees each thing that no elector may do, and nothing where there is nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.lease_timeline import breaches, terms, writes

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(version, second, holder, *, user="u", verb="update", code=200, labels=None, uri="/leases/l", **spec):
    """One line of an audit log."""
    moment = (BEGIN + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    kept = {"leaseDurationSeconds": 2, "leaseTransitions": 0, "renewTime": moment} | spec
    metadata = {"name": "l", "resourceVersion": str(version), "labels": labels or {}}
    return {
        "stage": "ResponseComplete", "verb": verb, "user": {"username": user}, "requestURI": uri,
        "objectRef": {"resource": "leases", "namespace": "n"}, "responseStatus": {"code": code},
        "requestReceivedTimestamp": moment, "stageTimestamp": moment,
        "responseObject": {"metadata": metadata, "spec": kept | {"holderIdentity": holder}},
    }  # fmt: skip


def judged(*events, **known):
    return breaches(writes(events, "n", "l"), **known)


FIRST = event(1, 0, "a_1", verb="create")


def test_a_takeover_of_what_has_run_out_or_was_given_back_is_right():
    assert not judged(
        FIRST, event(2, 1, "a_1"), event(3, 3.1, "b_1", leaseTransitions=1),
        event(4, 3.2, "", leaseTransitions=1, leaseDurationSeconds=1), event(5, 3.3, "a_2", leaseTransitions=2),
    )  # fmt: skip


@pytest.mark.parametrize(
    "last, told",
    [
        (event(3, 2.9, "b_1", leaseTransitions=1), "taken 0.100 s before"),
        (event(3, 3.1, "b_1"), "from 0 to 0"),
        (event(3, 3.1, "b_1", leaseTransitions=2), "from 0 to 2"),
        (event(3, 1.5, "a_1", leaseTransitions=1), "from 0 to 1"),
        (event(3, 1.5, "", user="v"), "released by another"),
        (event(3, 1.5, "a_1", labels={}), "label mine was lost"),
        (event(3, 1.5, "a_1", labels={"mine": "1"}), "spec.strategy was lost"),
    ],
)
def test_what_no_elector_may_do_is_seen(last, told):
    before = event(2, 1, "a_1", labels={"mine": "1"}, strategy="theirs")
    found = judged(FIRST, before, last)
    assert any(told in each for each in found), found


def test_a_renewal_of_the_record_counts_and_a_label_does_not():
    touched = event(2, 1.5, "a_1", verb="patch", user="admin", labels={"mine": "1"}, renewTime=BEGIN.isoformat())
    first = event(1, 0, "a_1", verb="create", renewTime=BEGIN.isoformat())
    taken = event(3, 2.1, "b_1", labels={"mine": "1"}, leaseTransitions=1)
    assert not judged(first, touched, taken, trusted="admin")
    assert judged(first, event(2, 1.5, "a_1"), event(3, 2.1, "b_1", leaseTransitions=1))


def test_who_gives_back_what_another_has_labelled_is_its_holder_still():
    first = event(1, 0, "a_1", verb="create", renewTime=BEGIN.isoformat())
    touched = event(2, 1.5, "a_1", verb="patch", user="admin", renewTime=BEGIN.isoformat())
    assert not judged(first, touched, event(3, 1.6, "", leaseDurationSeconds=1), trusted="admin")


def test_what_was_refused_or_only_tried_is_no_write():
    tried = event(3, 1.2, "b_1", uri="/leases/l?dryRun=All")
    assert [write.version for write in writes([FIRST, event(2, 1, "b_1", code=409), tried], "n", "l")] == [1]


def test_terms_follow_one_another_in_the_order_of_storing():
    events = [event(3, 3.2, "b_1"), FIRST, event(2, 1, "a_1"), event(4, 3.3, ""), event(5, 4, "a_2")]
    found = terms(writes(events, "n", "l"))
    assert [(term.kind, term.renewed.version, term.released) for term in found] == [
        ("a", 2, False), ("b", 3, True), ("a", 5, False),
    ]  # fmt: skip


def test_what_is_known_of_an_elector_is_not_held_against_it():
    early = event(2, 1.5, "b_1")
    known = {"early": {"b": timedelta(seconds=1)}, "uncounted": frozenset({"b"})}
    assert len(judged(FIRST, early)) == 2
    assert not judged(FIRST, early, **known)

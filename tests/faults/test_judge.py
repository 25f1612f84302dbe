"""The judge itself: what it finds in a log that was made up. That it finds it in a real one is in `test_stopped.py`."""

import itertools

import pytest

from tests.faults.judge import POD, Judge

CLOCK = "2026-01-01T00:00:{:02d}.000000Z"


class Forger:
    """Makes an audit log, line by line; each is a second, and a revision, later than the one before."""

    def __init__(self):
        self.entries = []
        self._count = itertools.count(1)

    def held(self, pod):
        spec = {"holderIdentity": f"{pod}_1-2-3" if pod else ""}
        self._add("admin", "update", "leases", {"metadata": {"name": "the-lease"}, "spec": spec})

    def wrote(self, pod, name="one", *, turn=1, **more):
        self._add(pod, "patch", "configmaps", {"metadata": {"name": name}, "data": {"turn": str(turn)}}, **more)

    def _add(self, pod, verb, resource, answer, *, code=200, revision=None, message="", uri=""):
        number = next(self._count)
        answer["metadata"]["resourceVersion"] = str(revision or number)
        self.entries.append({
            "stage": "ResponseComplete", "verb": verb, "requestURI": uri, "stageTimestamp": CLOCK.format(number),
            "user": {"username": "somebody", "extra": {POD: [pod]}},
            "objectRef": {"resource": resource, "namespace": "here"},
            "responseStatus": {"code": code, "message": message}, "responseObject": answer,
        })  # fmt: skip

    def judge(self, entries=None):
        return Judge(entries or self.entries, namespace="here", lease="the-lease")


@pytest.fixture
def log():
    """Old has held the Lease and written to one object; then New took it."""
    log = Forger()
    log.held("old")
    log.wrote("old")
    log.held("new")
    return log


def revisions(commits):
    return [commit.revision for commit in commits]


def test_a_takeover_as_it_should_be_is_no_fault(log):
    log.wrote("new", turn=2)
    judge = log.judge()
    assert judge.late == judge.after_the_next == judge.overwrites == judge.steps_back == []
    assert [tenure.who for tenure in judge.tenures] == ["old", "new"]
    assert judge.end_of("old").who == "new"
    assert judge.end_of("new") is None


def test_a_late_write_to_what_the_next_one_has_not_touched_overwrites_nothing(log):
    log.wrote("old", turn=2)
    log.wrote("new", "another")
    log.wrote("old", turn=3)
    judge = log.judge()
    assert revisions(judge.late) == [4, 6]
    assert revisions(judge.after_the_next) == [6]
    assert judge.overwrites == []


def test_a_late_write_to_what_the_next_one_has_touched_is_found(log):
    log.wrote("new")
    log.wrote("old")
    assert revisions(log.judge().overwrites) == [5]


def test_the_order_is_that_of_the_revisions_not_of_the_lines(log):
    log.wrote("new")
    log.wrote("old")
    assert revisions(log.judge(log.entries[::-1]).overwrites) == [5]


def test_a_write_that_was_refused_or_changed_nothing_or_was_only_tried_is_none(log):
    log.wrote("new")
    log.wrote("old", code=409)
    log.wrote("old", code=403, message="asyncctl-fenced: …")
    log.wrote("old", revision=4)
    log.wrote("old", uri="/api?dryRun=All")
    judge = log.judge()
    assert judge.late == []
    assert judge.refused == ["old"]


def test_a_write_after_the_lease_was_given_back_is_late():
    log = Forger()
    log.held("old")
    log.held("")
    log.wrote("old")
    assert revisions(log.judge().late) == [3]


def test_a_write_of_who_has_never_held_the_lease_is_late(log):
    log.wrote("new")
    log.wrote("stranger", "another")
    log.wrote("stranger")
    judge = log.judge()
    assert revisions(judge.late) == [5, 6]
    assert revisions(judge.overwrites) == [6]


def test_who_leads_again_is_not_late(log):
    log.held("old")
    log.wrote("old")
    assert log.judge().late == []


def test_an_older_turn_in_the_place_of_a_newer_one_is_found(log):
    log.wrote("new", turn=5)
    log.wrote("new", turn=4)
    assert revisions(log.judge().steps_back) == [5]


def test_a_log_without_answers_is_not_judged(log):
    del log.entries[1]["responseObject"]
    with pytest.raises(ValueError, match="RequestResponse"):
        log.judge()


def test_a_deletion_is_not_passed_over(log):
    log.wrote("new")
    log._add("old", "delete", "configmaps", {"metadata": {"name": "one"}})
    with pytest.raises(ValueError, match="has no place in the order"):
        log.judge()

"""The checks behind the probes, and the text they make."""

import pytest

from asyncctl.http import Probes


@pytest.fixture
def probes():
    return Probes()


def test_with_no_checks_added_both_pass(probes):
    assert probes.livez() == (True, "ok")
    assert probes.readyz() == (True, "ok")


def test_verbose_lists_every_check(probes):
    probes.live("loop", lambda: None)
    assert probes.livez(verbose=True).text == "[+]ping ok\n[+]loop ok\nlivez check passed\n"


def test_a_failure_lists_every_check_unasked(probes):
    probes.ready("credentials", lambda: None)
    probes.ready("informer-sync", lambda: "databases: 403 Forbidden")
    answer = probes.readyz()
    assert not answer.ok
    assert answer.text == (
        "[+]ping ok\n[+]credentials ok\n[-]informer-sync failed: databases: 403 Forbidden\nreadyz check failed\n"
    )


def test_an_excluded_check_is_not_asked(probes):
    probes.ready("informer-sync", lambda: pytest.fail("asked"))
    assert probes.readyz(exclude=["informer-sync"]).ok


def test_excluding_what_is_not_there_warns(probes):
    answer = probes.readyz(verbose=True, exclude=["b", "a"])
    assert answer.ok
    assert "warn: some checks can't be excluded: no matches for 'a', 'b'\n" in answer.text


def test_information_is_shown_when_verbose_and_never_fails(probes):
    probes.inform("api-server", lambda: "unreachable for 40s")
    assert probes.readyz() == (True, "ok")
    answer = probes.readyz(verbose=True)
    assert answer.ok
    assert answer.text == "[+]ping ok\n[ ]api-server: unreachable for 40s\nreadyz check passed\n"


def test_information_is_not_part_of_liveness(probes):
    probes.inform("api-server", lambda: "unreachable")
    assert "api-server" not in probes.livez(verbose=True).text


def test_a_check_that_raises_fails_and_says_so(probes):
    probes.ready("broken", lambda: 1 / 0)
    answer = probes.readyz()
    assert not answer.ok
    assert "[-]broken failed: the check itself failed: ZeroDivisionError: division by zero\n" in answer.text


def test_a_reason_of_many_lines_stays_one_line(probes):
    probes.ready("x", lambda: "first\nsecond\t third")
    assert "[-]x failed: first second third\n" in probes.readyz().text


def test_a_check_is_asked_each_time(probes):
    reasons = [None, "gone"]
    probes.ready("x", reasons.pop)
    assert not probes.readyz().ok
    assert probes.readyz().ok


def test_a_name_is_taken_once_per_list(probes):
    probes.ready("x", lambda: None)
    with pytest.raises(ValueError, match="'x'"):
        probes.ready("x", lambda: None)
    probes.live("x", lambda: None)


def test_a_removed_check_is_gone(probes):
    probes.ready("x", lambda: "no")
    probes.remove("x")
    assert probes.readyz().ok

"""The termination message: two lines of what the kubelet takes, in a file that was there."""

import os

import pytest

from asyncctl.operator.termination import LIMIT, Ending, leave_message
from tests.unit.support import Log


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "termination-log"
    path.write_text("of the one before, and longer than what comes")
    return path


def test_two_lines_say_what_has_happened_and_why(file):
    assert leave_message(file, 1, ["the Lease is lost", "the Lease\nwas deleted", "and more"]) is None
    assert file.read_text() == "exit code 1: the Lease is lost\nthe Lease was deleted; and more\n"


def test_what_says_itself_why_is_one_line(file):
    leave_message(file, 2, ["no cluster found"])
    assert file.read_text() == "exit code 2: no cluster found\n"


def test_what_the_kubelet_would_cut_off_is_cut_between_two_letters(file):
    leave_message(file, 1, ["x", "ü" * LIMIT])
    assert LIMIT - 2 <= file.stat().st_size <= LIMIT
    assert file.read_text().endswith("ü\n")


def test_nothing_is_made_where_there_is_no_file(tmp_path):
    assert leave_message(tmp_path / "none", 1, ["x"]) is None
    assert leave_message(tmp_path / "nowhere" / "none", 1, ["x"]) is None
    assert leave_message(None, 1, ["x"]) is None
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_written_is_told_and_waits_for_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert leave_message(tmp_path / "pipe", 1, ["x"]) == f"{tmp_path / 'pipe'}: No such device or address"
    assert leave_message(tmp_path, 1, ["x"]) == f"{tmp_path}: Is a directory"
    assert leave_message(os.devnull, 1, ["x"]) == f"{os.devnull}: it is no file"


def test_what_hangs_is_told_before_what_led_to_it(file):
    ending = Ending(Log().logger, file)
    ending.mendable(1, "ends, because the Lease is lost", [ValueError("it was deleted")])
    ending.never("something does not end", "pass of widgets over team/w")
    assert ending.code == 1
    assert file.read_text().splitlines() == [
        "exit code 1: something does not end; the process ends without it",
        "pass of widgets over team/w; ends, because the Lease is lost; it was deleted",
    ]

"""When a password changes, and whose turn it is: one case each; all of them mixed are in `test_rotation_model.py`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from asyncctl.database.accounts import Account
from asyncctl.database.credentials import values
from asyncctl.database.postgres.connection import Server
from asyncctl.database.provisioners.place import Place
from asyncctl.database.rotation import PREVIOUS, ROTATED_AT, TRIGGER, duration, is_record, plan, stamped
from asyncctl.database.types import Privileges, RotationSpec
from asyncctl.objects import Secret

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = Place(Server(name="main", host="pg", admin_user="admin", admin_password="x"), "pg", 5432)
ACCOUNT = Account(
    user="", privileges=Privileges.OWNER, connection_limit=-1, secret="s", logins=("d_a", "d_b"), main=True
)


class User:
    """One user over time: each `look` is a pass that does all that it says."""

    def __init__(self, account=ACCOUNT, **rotation):
        self.account = account
        self.rotation = RotationSpec(**rotation)
        self.now = NOW
        self.secret = None
        self.active = None
        self.numbers = count()

    def plan(self, **wanted):
        return plan(
            self.account, self.secret, active=self.active, now=self.now, make=lambda: f"{next(self.numbers):032}",
            **{"rotation": self.rotation} | wanted,
        )  # fmt: skip

    def look(self, after=timedelta(0), **wanted):
        self.now += after
        turn = self.plan(**wanted)
        self.keep(turn)
        return turn

    def keep(self, turn):
        data = values(PLACE, "d", turn.login, turn.password)
        self.secret = Secret(name="s", data=data, annotations=turn.annotations)
        self.active = turn.login


def test_the_first_password_is_new_and_stays():
    user = User()
    first = user.look()
    assert (first.login, first.new_password, first.rotated) == ("d_a", True, False)
    assert (first.kept, first.retired, first.next_rotation, first.next_step) == (None, None, None, None)
    later = user.look(1000 * DAY)
    assert (later.login, later.password, later.new_password) == ("d_a", first.password, False)
    assert later.rotated_at == NOW
    assert later.annotations == first.annotations
    assert user.look(rotation=None) == later


def test_a_trigger_rotates_once_and_the_login_before_has_its_grace_period():
    user = User()
    first = user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR, grace_period="30m")
    turn = user.look(HOUR)
    assert (turn.login, turn.new_password, turn.rotated, turn.kept, turn.retired) == ("d_b", True, True, "d_a", None)
    assert turn.password != first.password
    assert turn.next_step == NOW + 1.5 * HOUR
    assert turn.next_rotation is None
    within = user.look(HOUR / 2 - timedelta(microseconds=1))
    assert (within.rotated, within.kept, within.retired) == (False, "d_a", None)
    over = user.look(timedelta(microseconds=1))
    assert (over.rotated, over.kept, over.retired, over.password) == (False, None, "d_a", turn.password)
    after = user.look()
    assert (after.kept, after.retired, after.next_step) == (None, None, None)


def test_a_trigger_in_the_future_waits_for_its_time_also_from_the_first():
    user = User(trigger=NOW + HOUR)
    assert user.look().next_rotation == NOW + HOUR
    assert not user.look(HOUR / 2).rotated
    assert user.look(HOUR / 2).rotated
    assert user.look(2 * HOUR).next_rotation is None


def test_a_trigger_that_was_there_from_the_first_is_noted_and_rotates_nothing():
    user = User(trigger=NOW - HOUR)
    assert not user.look().rotated
    assert not user.look(DAY).rotated


def test_a_trigger_of_an_earlier_time_is_a_new_one_too():
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW - DAY)
    assert user.look().rotated
    assert user.look(2 * HOUR).retired == "d_a"
    assert not user.look().rotated


def test_a_trigger_that_was_removed_and_comes_back_is_the_same():
    user = User(trigger=NOW)
    user.look()
    for rotation in (RotationSpec(), None, RotationSpec(trigger=NOW.astimezone(), interval="9999h")):
        assert not user.look(HOUR, rotation=rotation).rotated


def test_an_interval_rotates_each_time_it_has_passed():
    user = User(interval="24h")
    user.look()
    logins = []
    for day in range(1, 6):
        assert user.look(DAY - HOUR).retired or day == 1
        assert user.look().next_rotation == NOW + day * DAY
        turn = user.look(HOUR)
        assert turn.rotated
        logins.append(turn.login)
    assert logins == ["d_b", "d_a", "d_b", "d_a", "d_b"]


def test_a_rotation_within_the_grace_period_of_the_one_before_waits_for_its_end():
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR, grace_period="2h")
    assert user.look(HOUR).login == "d_b"
    user.rotation = RotationSpec(trigger=NOW + 2 * HOUR, grace_period="2h")
    waiting = user.look(HOUR)
    assert (waiting.rotated, waiting.next_rotation, waiting.next_step) == (False, NOW + 3 * HOUR, NOW + 3 * HOUR)
    over = user.look(HOUR)
    assert (over.rotated, over.retired) == (False, "d_a")
    assert over.next_step <= user.now
    turn = user.look()
    assert (turn.rotated, turn.login, turn.kept) == (True, "d_a", "d_b")


def test_without_grace_the_login_before_goes_in_the_next_pass():
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR, grace_period="0s")
    turn = user.look(HOUR)
    assert (turn.kept, turn.retired, turn.next_step) == ("d_a", None, user.now)  # the Secret still names it
    assert user.look().retired == "d_a"
    assert user.look().retired is None


def test_a_grace_period_counts_from_when_the_secret_was_written():
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR)
    user.now += HOUR
    turn = stamped(user.plan(), user.rotation, user.now + timedelta(minutes=5))
    assert turn.rotated_at == user.now + timedelta(minutes=5)
    assert turn.next_step == turn.rotated_at + HOUR
    assert turn.annotations[ROTATED_AT] == "2026-01-01T01:05:00Z"
    user.keep(turn)
    known = user.plan()
    assert stamped(known, user.rotation, NOW + DAY) == known


def test_a_login_that_was_dropped_does_not_come_back_with_a_password_that_is_set_anew():
    """A DBA has changed the password of the login in use, in the pass that has dropped the one before."""
    user = User()
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR)
    user.look(HOUR)
    user.now += HOUR
    turn = user.plan()
    assert (turn.login, turn.retired) == ("d_b", "d_a")
    written = stamped(replace(turn, new_password=True), user.rotation, user.now)
    assert (written.kept, written.retired, written.annotations[PREVIOUS], written.next_step) == (
        None,
        None,
        "none",
        None,
    )


def test_a_secret_that_is_gone_gets_a_new_password_of_the_same_login_at_once():
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR)
    before = user.look(HOUR)
    user.secret = None
    found = user.look()
    assert (found.login, found.new_password, found.rotated) == ("d_b", True, False)
    assert found.password != before.password
    assert found.kept == "d_a"  # may be in its grace period: nobody knows
    assert user.look(HOUR).retired == "d_a"
    assert not user.look().rotated


def test_a_secret_that_holds_something_else_gets_a_new_password_of_the_login_in_use():
    user = User()
    user.look()
    user.secret.data = {"username": b"me", "password": b"mine"}
    found = user.look()
    assert (found.login, found.new_password, found.kept) == ("d_a", True, None)


@pytest.mark.parametrize("garbage", [None, "", "x", "0", "2026-01-01", "-", "d_b"])
def test_without_a_record_nobodys_access_ends_early(garbage):
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR)
    before = user.look(HOUR)
    user.now += 2 * HOUR
    for key in (ROTATED_AT, TRIGGER, PREVIOUS):
        user.secret.annotations[key] = garbage
    user.secret.annotations = {key: value for key, value in user.secret.annotations.items() if value is not None}
    found = user.plan(last=NOW + HOUR)
    assert (found.login, found.password, found.new_password) == ("d_b", before.password, False)
    assert (found.kept, found.retired, found.rotated_at) == ("d_a", None, user.now)
    assert found.next_step == user.now + HOUR
    user.keep(found)
    assert user.look(HOUR).retired == "d_a"
    assert not user.look().rotated


def test_a_trigger_that_came_while_the_record_was_lost_is_followed():
    user = User()
    user.look()
    user.secret.annotations = {}
    user.rotation = RotationSpec(trigger=NOW + HOUR)
    user.now += 2 * HOUR
    user.keep(user.plan(last=NOW))
    assert user.look(HOUR).retired == "d_b"
    assert user.look().rotated


def test_a_clock_that_goes_back_keeps_logins_longer_and_one_far_off_is_not_believed():
    user = User(trigger=NOW)
    user.look()
    user.rotation = RotationSpec(trigger=NOW + HOUR, interval="48h")
    turn = user.look(HOUR)
    back = user.look(-23 * HOUR)
    assert (back.kept, back.rotated_at) == ("d_a", turn.rotated_at)
    user.now = NOW - 10 * DAY
    far = user.look()
    assert (far.kept, far.rotated_at, far.rotated) == ("d_a", user.now, False)
    assert far.next_rotation == user.now + 2 * DAY


def test_the_first_listed_owner_takes_the_secret_over_and_the_login_before_has_its_grace_period():
    user = User()
    user.look()
    user.account = Account(
        user="app", privileges=Privileges.OWNER, connection_limit=-1, secret="s", logins=("d_app_a", "d_app_b"),
        main=True, former=("d_a", "d_b"),
    )  # fmt: skip
    turn = user.look()
    assert (turn.login, turn.rotated, turn.kept) == ("d_app_a", True, "d_a")
    assert user.look(HOUR / 2).kept == "d_a"
    assert user.look(HOUR).retired == "d_a"
    assert user.look().retired is None


def test_a_login_of_somebody_else_in_the_record_is_not_kept_and_not_dropped():
    user = User()
    user.look()
    user.secret.annotations[PREVIOUS] = "postgres"
    assert user.look().kept == "d_b"
    assert user.look(2 * HOUR).retired == "d_b"


def test_a_record_is_told_from_what_a_person_wrote():
    user = User(trigger=NOW)
    user.look()
    assert is_record(user.secret.annotations)
    user.rotation = RotationSpec(trigger=NOW + HOUR)
    user.look(HOUR)
    notes = user.secret.annotations
    assert is_record(notes)
    for key in (ROTATED_AT, TRIGGER, PREVIOUS):
        assert not is_record(notes | {key: "-"})
        assert not is_record({other: value for other, value in notes.items() if other != key})


def test_a_turn_shows_no_password():
    turn = User().look()
    assert turn.password not in repr(turn)


@pytest.mark.parametrize(
    "text, wanted",
    [("1h", HOUR), ("24h", DAY), ("1h30m", 1.5 * HOUR), ("90s", 0.025 * HOUR), ("1h1m1s", timedelta(seconds=3661)),
     ("0s", timedelta(0)), ("9" * 19 + "h", 36500 * DAY)],
)  # fmt: skip
def test_a_duration_is_read(text, wanted):
    assert duration(text) == wanted

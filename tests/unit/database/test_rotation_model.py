"""Any sequence of triggers, intervals, crashes and hands in the Secret, in virtual time, with a dict for PostgreSQL.

Whoever has read the Secret at any moment can log in for the grace period, whatever happens, unless a person destroyed
what he needs; no rotation is lost and none happens twice for one trigger; logins alternate; no password comes again;
nothing is left at the end. `ASYNCCTL_TEST_SOAK` makes it fifty times as many runs.
"""

import os
from datetime import UTC, datetime, timedelta

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncctl.database.accounts import Account
from asyncctl.database.credentials import known, new_password, values
from asyncctl.database.postgres.connection import Server
from asyncctl.database.provisioners.place import Place
from asyncctl.database.rotation import PREVIOUS, ROTATED_AT, TRIGGER, duration, plan, stamped
from asyncctl.database.types import Privileges, RotationSpec
from asyncctl.objects import Secret

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = Place(Server(name="main", host="pg", admin_user="admin", admin_password="x"), "pg", 5432)
ACCOUNT = Account(
    user="app", privileges=Privileges.OWNER, connection_limit=-1, secret="s", logins=("d_app_a", "d_app_b"), main=True
)
STEPS = ("logins set", "logins proven", "Secret written", "status written")
MOMENTS = len(STEPS) + 1  # before, between and after them
OURS = b"p" * 32
GRACES = [{"grace_period": length} for length in ("0s", "1m", "3h", "48h")]
MINUTES = st.sampled_from([1, 10, 59, 60, 24 * 60, 100 * 60])
KEYS = st.sampled_from(["username", "password", "uri", "pgpass", "host", "user"])
NOTES = st.sampled_from([ROTATED_AT, TRIGGER, PREVIOUS])
GARBAGE = st.sampled_from([None, "", "x", "2026-99-99", "9999-01-01T00:00:00Z", "postgres"])
CRASHES = st.sampled_from([*[MOMENTS] * MOMENTS, *range(MOMENTS)])  # every other pass does
GAPS = st.sampled_from([(0,) * MOMENTS, (0, 0, 7, 0, 0), (0, 0, 0, 1, 0), (90,) * MOMENTS, (0, 90, 0, 0, 90)])


class RotationMachine(RuleBasedStateMachine):
    """The world of one user."""

    def __init__(self):
        super().__init__()
        self.time, self.behind = timedelta(0), timedelta(0)  # real time, and how far the wall's clock is behind it
        self.wanted, self.rotation = True, RotationSpec()
        self.secret, self.active, self.last = None, None, None
        self.logins = {}  # PostgreSQL: login -> password, or None where it can't log in
        self.reads = {}  # (login, password) -> (when the Secret showed it last, the shortest grace period since)
        self.used = set()  # (login, password) that ever were
        self.followed, self.sure = None, True  # the last trigger that was followed, and whether anybody can know that
        self.rotations = 0
        self.written = ("", "")  # login and password, as they came into the Secret last
        self.made = None  # when, by the wall's clock; None: nobody can know
        self.touched = False  # the Secret, or the login in it, is not as we made it

    @property
    def wall(self):
        return START + self.time - self.behind

    @property
    def grace(self):
        return duration(self.rotation.grace_period)

    def read(self):
        """What any application may do at any moment."""
        if self.secret is not None and not self.touched:
            self.reads[self.written] = self.time, self.grace

    @invariant()
    def who_has_read_can_log_in(self):
        for (login, password), (when, grace) in self.reads.items():
            now = when == self.time and self.secret is not None and self.written == (login, password)
            if now or self.time < when + grace:
                assert self.logins.get(login) == password, f"{login} can't log in, read {self.time - when} ago"

    def passes_by(self, minutes):
        self.read()
        self.time += minutes * MINUTE
        self.read()
        self.who_has_read_can_log_in()

    # The controller

    def look(self, gaps=(0,) * MOMENTS, crash=MOMENTS, meanwhile=(MOMENTS, None)):
        """One pass; it ends at the moment `crash`, and something happens to the Secret at another."""
        for moment, step in enumerate(self.steps()):
            self.passes_by(gaps[moment])
            if meanwhile[0] == moment:
                meanwhile[1]()
            if crash == moment:
                return
            step()
            self.who_has_read_can_log_in()

    def steps(self):
        rotation, wanted = self.rotation, self.wanted
        if not wanted:
            self.reads.clear()  # a person has asked for the end of it
            self.touched = True  # nobody counts on what is left
            yield self.logins.clear
            yield self.somebody_deletes_the_secret
            yield lambda: self.note(None, None)
            return
        turn = plan(
            ACCOUNT, self.secret, rotation=rotation, active=self.active, now=self.wall, last=self.last,
            make=new_password,
        )  # fmt: skip
        planned, before, due = self.wall, self.written, self.is_due()

        def provision():
            keep = {login: self.logins.get(login) for login in (turn.login, turn.kept) if login}
            self.logins = keep
            if turn.new_password:
                self.set_password(turn.login, turn.password)

        def prove():
            if self.logins[turn.login] != turn.password:
                assert not turn.new_password
                self.logins[turn.login] = turn.password

        def write():
            nonlocal turn
            turn = stamped(turn, rotation, self.wall)
            data = values(PLACE, "d", turn.login, turn.password)
            self.secret = Secret(name="s", data=data, annotations=turn.annotations)
            self.written, self.touched = (turn.login, turn.password), False
            if turn.new_password:
                self.made = self.wall
            if turn.rotated:
                assert turn.login != before[0]
                assert due or not self.sure, "nothing was due"
                self.rotations += 1
            if turn.new_password and rotation.trigger is not None and rotation.trigger <= planned:
                self.followed, self.sure = rotation.trigger, True

        yield provision
        yield prove
        yield write
        yield lambda: self.note(turn.login, turn.rotated_at)

    def is_due(self):
        """Whether there is a reason to rotate."""
        trigger, interval = self.rotation.trigger, self.rotation.interval
        if self.made is not None and self.made - self.wall > timedelta(days=1):
            self.made = None
        old = self.made is None or (interval is not None and self.made + duration(interval) <= self.wall)
        return (interval is not None and old) or (trigger not in (None, self.followed) and trigger <= self.wall)

    def set_password(self, login, password):
        assert (login, password) not in self.used, "a password came again"
        self.used.add((login, password))
        self.logins[login] = password

    def note(self, active, last):
        self.active, self.last = active, last

    def settle(self):
        """Look again whenever there is something to do, for a long while."""
        for _ in range(6):
            self.look()
            self.passes_by(49 * 60)

    # What happens

    @rule(minutes=MINUTES)
    def time_goes_on(self, minutes):
        self.passes_by(minutes)

    @rule(gaps=GAPS, crash=CRASHES)
    def a_pass(self, gaps, crash):
        self.look(gaps, crash)

    @rule(minutes=st.sampled_from([-90, 0, 0, 0, 1, 30, 90]), gaps=GAPS, crash=CRASHES)
    def a_trigger(self, minutes, gaps, crash):
        self.respecify(trigger=self.wall + minutes * MINUTE)
        self.look(gaps, crash)

    @rule(
        change=st.sampled_from(
            [{"trigger": None}, {"interval": None}, {"interval": "24h"}, {"interval": "30h"}, *GRACES]
        ),
        gaps=GAPS,
    )
    def another_wish(self, change, gaps):
        self.respecify(**change)
        self.reads = {pair: (when, min(before, self.grace)) for pair, (when, before) in self.reads.items()}
        self.look(gaps)

    @rule(gaps=GAPS, crash=CRASHES)
    def the_user_goes_and_comes_again(self, gaps, crash):
        self.wanted = False
        self.look(gaps, crash)
        self.wanted = True

    @rule(gaps=GAPS, moment=st.integers(0, MOMENTS - 1), key=KEYS, value=st.sampled_from([None, b"", b"d_app_b", OURS]))
    def somebody_edits_the_secret(self, gaps, moment, key, value):
        def edit():
            if self.secret is None:
                return
            data = {**self.secret.data, key: value}
            self.secret.data = {key: value for key, value in data.items() if value is not None}
            self.touched = self.touched or key in ("username", "password")
            if known(self.secret) is None:
                self.destroyed()

        self.look(gaps, meanwhile=(moment, edit))

    @rule(gaps=GAPS, moment=st.integers(0, MOMENTS - 1), key=NOTES, value=GARBAGE)
    def somebody_edits_the_record(self, gaps, moment, key, value):
        def edit():
            if self.secret is None:
                return
            notes = {**self.secret.annotations, key: value}
            self.secret.annotations = {name: text for name, text in notes.items() if text is not None}
            self.sure = self.sure and key != TRIGGER
            self.made = None if key == ROTATED_AT else self.made

        self.look(gaps, meanwhile=(moment, edit))

    @rule(gaps=GAPS, moment=st.integers(0, MOMENTS - 1), lost=st.sampled_from(["Secret", "status", "both"]))
    def something_is_lost(self, gaps, moment, lost):
        def lose():
            if lost != "status":
                self.somebody_deletes_the_secret()
            if lost != "Secret":
                self.note(None, None)
                if self.secret is None or known(self.secret) is None:
                    self.reads.clear()

        self.look(gaps, meanwhile=(moment, lose))

    @precondition(lambda self: self.logins)
    @rule(which=st.booleans(), drop=st.booleans())
    def a_dba_changes_a_login(self, which, drop):
        login = sorted(self.logins)[-1 if which else 0]
        if drop:
            del self.logins[login]
        else:
            self.logins[login] = "of a DBA"
        self.reads = {pair: seen for pair, seen in self.reads.items() if pair[0] != login}
        self.touched = self.touched or self.written[0] == login

    @rule(minutes=st.sampled_from([1, 90, 20 * 60, 80 * 60]))
    def the_clock_goes_back(self, minutes):
        self.behind += minutes * MINUTE

    def respecify(self, **change):
        old = self.rotation
        named = {"trigger": old.trigger, "interval": old.interval, "grace_period": old.grace_period} | change
        self.rotation = RotationSpec(**named)

    def somebody_deletes_the_secret(self):
        if self.secret is not None:
            self.secret = None
            self.sure, self.made = False, None
            self.destroyed()

    def destroyed(self):
        """Who counts on the login in the Secret has lost; where the status does not know which it was, so have all."""
        kept = self.written[0] == self.active
        self.reads = {pair: seen for pair, seen in self.reads.items() if kept and pair[0] != self.active}

    def teardown(self):
        self.wanted = True
        rotations = self.rotations
        self.settle()
        assert self.rotations >= rotations + 2 or self.rotation.interval is None, "an interval was lost"
        self.respecify(interval=None)
        self.settle()
        trigger = self.rotation.trigger
        assert self.logins == dict([self.written]), "a login was left behind"
        assert (self.secret.data["username"].decode(), self.secret.data["password"].decode()) == self.written
        if self.sure and trigger is not None and trigger <= self.wall:
            assert self.followed == trigger, "a rotation was lost"
        rotations, made = self.rotations, self.written
        self.settle()
        assert (self.rotations, self.written) == (rotations, made) or trigger > self.wall - 300 * HOUR
        self.respecify(trigger=self.wall + timedelta(seconds=1))  # and after all that a trigger rotates once
        made = self.written
        rotations = self.rotations
        self.settle()
        assert self.rotations == rotations + 1
        assert self.written[0] != made[0]
        assert self.logins == dict([self.written])
        self.wanted = False
        self.look()
        assert (self.logins, self.secret) == ({}, None)


TestRotation = RotationMachine.TestCase
TestRotation.settings = settings(
    max_examples=2000 if os.environ.get("ASYNCCTL_TEST_SOAK") else 40, stateful_step_count=40
)

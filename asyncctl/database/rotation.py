"""When a user's password changes, and which of its two logins is whose turn. Pure: it looks at nothing but arguments.

The Secret is the record: it holds the login in use, and in annotations when its password was made, for which trigger,
and which login was in use before and may still be there. All of it is written at once, so that a crash at any point
repeats a step and skips none. Whoever has read the Secret can log in for a grace period from when it was written anew:
the login before is dropped no earlier, and no login gets a new password while it may be in use by anybody.

Annotations that a person has removed or made unreadable are taken to say what ends nobody's access: the other login
may be in use, since now. A Secret that is gone, or of which no login can be read, gets a new password at once, without
grace: nobody can wait for it, and to delete it is how to cut off a password that has leaked.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from asyncctl.database.accounts import Account
from asyncctl.database.credentials import known, new_password
from asyncctl.database.types import RotationSpec
from asyncctl.objects import Secret

ROTATED_AT = "apps.example.com/rotated-at"
"""Annotation of the Secret: when its password was made."""
TRIGGER = "apps.example.com/rotation-trigger"
"""Annotation of the Secret: the last `spec.credentials.rotation.trigger` that was followed."""
PREVIOUS = "apps.example.com/previous-login"
"""Annotation of the Secret: the login in use before, until it was dropped."""
_NONE = "none"
_AHEAD = timedelta(days=1)
"""A time of ours that lies further ahead was not written by a clock that was nearly right."""
_LONGEST = timedelta(days=36500)
_UNITS = {"h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is to be so for one user, from now until `next_step`.

    Attributes:
        login: Whose credentials are in the Secret, or come there.
        password: Its own.
        new_password: It was made just now: to be set before it is proven.
        rotated: The login has changed, in its time.
        kept: The login in use before, in its grace period, or until the Secret is written: it is not to be dropped.
        kept_until: When that period is over.
        retired: The login in use before, whose grace period is over: to be dropped before the Secret is written.
        rotated_at: When the password was made.
        trigger: The last trigger that was followed.
        next_rotation: When the password is to change next.
        next_step: When there is something to do; None where nothing comes by itself.
    """

    login: str
    password: str = field(repr=False)
    new_password: bool = False
    rotated: bool = False
    kept: str | None = None
    kept_until: datetime | None = None
    retired: str | None = None
    rotated_at: datetime
    trigger: datetime | None = None
    next_rotation: datetime | None = None
    next_step: datetime | None = None

    @property
    def annotations(self) -> dict[str, str]:
        """The record of it, for the Secret; to be written when what is retired was dropped."""
        return {
            ROTATED_AT: _text(self.rotated_at),
            TRIGGER: _text(self.trigger) if self.trigger else _NONE,
            PREVIOUS: self.kept or _NONE,
        }


def plan(
    account: Account,
    secret: Secret | None,
    *,
    rotation: RotationSpec | None,
    active: str | None,
    now: datetime,
    last: datetime | None = None,
    make: Callable[[], str] = new_password,
) -> Turn:
    """What is to be so for `account`.

    Args:
        account: Whose turn it is.
        secret: As it is; None where there is none.
        rotation: As the spec says it.
        active: The login in use, as the status knows it: what counts where the Secret says nothing.
        now: The wall's time.
        last: When a password last changed, as the status knows it; it tells a trigger that was followed from a new one
            where the Secret does not.
        make: Makes a password.
    """
    rules = rotation or RotationSpec()
    found = known(secret)
    annotations = secret.annotations if secret else {}
    rotated_at = _not_ahead(_time(annotations.get(ROTATED_AT)), now)
    followed = _followed(annotations, rules, rotated_at or last or now)
    if found is not None and found[0] in account.former:
        turn = Turn(
            login=account.logins[0], password=make(), new_password=True, rotated=True, kept=found[0], rotated_at=now,
            trigger=_reached(rules, now) or followed,
        )  # fmt: skip
    elif found is None or found[0] not in account.logins:
        login = active if active in account.logins else account.logins[0]
        kept = _previous(account, annotations, login) if secret or active else None
        turn = Turn(
            login=login, password=make(), new_password=True, kept=kept, rotated_at=now,
            trigger=_reached(rules, now) or followed,
        )  # fmt: skip
    else:
        login, password = found
        kept = _previous(account, annotations, login)
        turn = Turn(login=login, password=password, kept=kept, rotated_at=rotated_at or now, trigger=followed)
        due = _due(turn, rules)
        if kept is None and due is not None and due <= now:
            turn = Turn(
                login=_other(account, login), password=make(), new_password=True, rotated=True, kept=login,
                rotated_at=now, trigger=_reached(rules, now) or followed,
            )  # fmt: skip
    return _timed(turn, rules, now)


def stamped(turn: Turn, rotation: RotationSpec | None, now: datetime) -> Turn:
    """The same at the moment of writing a new password to the Secret: a grace period is counted from there.

    What is retired is gone by then, and has none.
    """
    if not turn.new_password:
        return turn
    return _timed(replace(turn, rotated_at=now, retired=None), rotation or RotationSpec(), now)


def is_record(annotations: Mapping[str, str]) -> bool:
    """Whether these of a Secret can be read; where they can't, a person has changed them."""
    trigger, previous = annotations.get(TRIGGER, ""), annotations.get(PREVIOUS, "")
    readable = _time(annotations.get(ROTATED_AT)) is not None and (trigger == _NONE or _time(trigger) is not None)
    return readable and (previous == _NONE or previous.endswith(("_a", "_b")))


def duration(text: str) -> timedelta:
    """The length of a `types.Duration`, such as `1h30m`; a hundred years at most."""
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([hms])", text))
    return timedelta(seconds=min(seconds, int(_LONGEST.total_seconds())))


def _timed(turn: Turn, rules: RotationSpec, now: datetime) -> Turn:
    """The same with what time makes of it."""
    previous = turn.kept or turn.retired
    free = turn.rotated_at + duration(rules.grace_period) if previous else None
    due = _due(turn, rules)
    if due is not None and free is not None:
        due = max(due, free)
    over = free is not None and free <= now and not turn.rotated  # the Secret still has that login's credentials
    return replace(
        turn,
        kept=None if over else previous,
        kept_until=None if over else free,
        retired=previous if over else None,
        next_rotation=due,
        next_step=min((time for time in (None if over else free, due) if time is not None), default=None),
    )


def _due(turn: Turn, rules: RotationSpec) -> datetime | None:
    """When the password is to change, were no login in its grace period."""
    times = []
    if rules.trigger is not None and rules.trigger != turn.trigger:
        times.append(rules.trigger)
    if rules.interval is not None:
        times.append(turn.rotated_at + duration(rules.interval))
    return min(times, default=None)


def _reached(rules: RotationSpec, now: datetime) -> datetime | None:
    """The trigger, if its time has come: what is made now follows it."""
    return rules.trigger if rules.trigger is not None and rules.trigger <= now else None


def _followed(annotations: dict[str, str], rules: RotationSpec, since: datetime) -> datetime | None:
    """The last trigger that was followed. Where that is not on record: one from before the password was made."""
    noted = annotations.get(TRIGGER)
    return None if noted == _NONE else _time(noted) or _reached(rules, since)


def _previous(account: Account, annotations: dict[str, str], login: str) -> str | None:
    """The login in use before, if it may still be there."""
    noted = annotations.get(PREVIOUS)
    if noted == _NONE:
        return None
    return noted if noted in (*account.logins, *account.former) and noted != login else _other(account, login)


def _other(account: Account, login: str) -> str:
    first, second = account.logins
    return second if login == first else first


def _not_ahead(time: datetime | None, now: datetime) -> datetime | None:
    return time if time is not None and time - now <= _AHEAD else None


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")

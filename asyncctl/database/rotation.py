"""Which of its two logins an account uses now, and whether its password is new. Pure: no clock, no server."""

from dataclasses import dataclass, field
from datetime import datetime

from asyncctl.database.accounts import Account
from asyncctl.database.credentials import known_password, new_password
from asyncctl.database.types import RotationSpec
from asyncctl.objects import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a pass does for one account.

    Attributes:
        login: The role whose credentials the Secret holds, now or after this pass.
        password: Of it.
        new_password: It was made just now, and has to be set.
        rotated: It is new since its time had come.
        kept: The login before it, in its grace period.
        retired: The login before it, whose grace period is over.
        rotated_at: When the password was made.
        next_rotation: When it changes next, where that is known.
        next_step: When there is something to do next.
    """

    login: str
    password: str = field(repr=False)
    new_password: bool = False
    rotated: bool = False
    kept: str | None = None
    retired: str | None = None
    rotated_at: datetime | None = None
    next_rotation: datetime | None = None
    next_step: datetime | None = None


def plan(
    account: Account, secret: Secret | None, *, rotation: RotationSpec | None, active: str | None, now: datetime
) -> Turn:
    """What is to be done for `account`, whose Secret is this."""
    del rotation, active, now
    login = account.logins[0]
    known = known_password(secret, login)
    return Turn(login=login, password=known or new_password(), new_password=known is None)

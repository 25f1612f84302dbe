"""The straight path as the controller goes it, for tests of what may happen on the way."""

import math
import time
from dataclasses import replace

from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import (
    close_to_public,
    drop,
    ensure_database,
    lock,
)
from asyncctl.database.postgres.logins import ensure_login
from asyncctl.database.postgres.ownership import claim_owner
from asyncctl.database.postgres.wanted import Login, Wanted
from asyncctl.database.types import Claim as Recorded

PASSWORD = "pa'ss\\word-ü"


def wish(database, claim, **values):
    """What the controller wants: a database with one Owner, `app`, whose login is `<database>_a`."""
    logins = (Login(name=f"{database}_a", user="app"),)
    return Wanted(**{"database": database, "claim": claim, "logins": logins} | values)


def with_passwords(wanted):
    """The same in the first pass, in which each login gets its password."""
    return replace(wanted, logins=tuple(replace(login, password=PASSWORD) for login in wanted.logins))


def recorded(known):
    """What the status holds of a database, after the pass."""
    return Recorded(
        system_identifier=known.facts.system_identifier,
        database_oid=known.facts.database_oid,
        adopted=known.adopted or None,
    )


class Effects:
    """A `check` that counts what was about to have an effect, and may crash before one of them, by its number."""

    def __init__(self, crash_at=None):
        self.count = 0
        self.crash_at = crash_at

    def __call__(self):
        if self.count == self.crash_at:
            raise Crash
        self.count += 1
        return math.inf


async def ensure(server, database, claim, *, limits, check=lambda: math.inf, made_before=False, **options):
    """Make database, owner and login `<database>_a`; return the statements that had an effect."""
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        await claim_owner(admin, database, claim)
        await ensure_database(admin, database, made_before=made_before, **options)
        await close_to_public(admin, database, claim)
        name = f"{database}_a"
        new = not await admin.read("SELECT FROM pg_roles WHERE rolname = %s", name)
        login = Login(name=name, user="app", password=PASSWORD if new else None)
        await ensure_login(admin, login, database=database, claim=claim)
        return admin.written


async def remove(server, database, claim, *, limits, check=lambda: math.inf):
    """Drop what is ours; return whether anything was, and the statements that had an effect."""
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        return await drop(admin, database, claim), admin.written


class Crash(BaseException):
    """No error that anyone would handle."""


def crash_at(step):
    """Return a `check` that raises at its call number `step` (from 0)."""
    calls = iter(range(1000))

    def check():
        if next(calls) == step:
            raise Crash
        return math.inf

    return check


def until(condition, seconds=15.0):
    """Wait, blocking, for something outside of this process."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.02)

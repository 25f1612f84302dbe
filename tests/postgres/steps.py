"""The straight path as the controller goes it, for tests of what may happen on the way."""

import math
import time

from asyncctl.database.postgres.connection import connect
from asyncctl.database.postgres.database import (
    close_to_public,
    drop,
    ensure_database,
    lock,
)
from asyncctl.database.postgres.roles import claim_owner, ensure_login

PASSWORD = "pa'ss\\word-ü"


async def ensure(server, database, claim, *, limits, check=lambda: math.inf, made_before=False, **options):
    """Make database, owner and login `<database>_a`; return the statements that had an effect."""
    async with connect(server, limits=limits, check=check) as admin:
        await lock(admin, database)
        await claim_owner(admin, database, claim)
        await ensure_database(admin, database, made_before=made_before, **options)
        await close_to_public(admin, database)
        await ensure_login(admin, f"{database}_a", database=database, claim=claim, password=PASSWORD)
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

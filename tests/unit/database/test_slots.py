"""Who gets a session next: decided without any session, in the order of events, with those who give up."""

import asyncio
from contextlib import suppress

import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given, settings, strategies as st

from asyncctl.database.postgres.slots import Slots, Use


class Server:
    """Slots, and what is kept; each in use is a task that ends when it is told to."""

    def __init__(self, total):
        self.idle = []
        self.slots = Slots(self.idle)
        self.slots.limit(total)
        self.opened = 0  # of the admin
        self.most = 0
        self.inside = []
        self.tasks = []

    async def use(self, use, name, *, fails=False):
        await self.slots.acquire(use)
        done = asyncio.Event()
        self.inside.append((name, done))
        try:
            if use is Use.ADMIN:
                self.opened += not self.idle
                self.idle[:] = self.idle[:-1]
            while self.idle and self.slots.in_use + len(self.idle) > self.slots.total:
                self.idle.pop()
            self.most = max(self.most, self.slots.in_use + len(self.idle))
            await done.wait()
            if use is Use.ADMIN and not fails and self.slots.in_use + len(self.idle) <= self.slots.total:
                self.idle.append(name)
        finally:
            self.inside.remove((name, done))
            self.slots.release(use)

    async def begin(self, *uses):
        """Have each begin after the other, by numbers from 0 on."""
        for use in uses:
            name = len(self.tasks)
            self.tasks.append(asyncio.create_task(self.use(use, name), name=f"use {name}"))
            await wait_all_tasks_blocked()

    async def end(self, *names):
        for name in names:
            dict(self.inside)[name].set()
            await wait_all_tasks_blocked()

    @property
    def who(self):
        return sorted(name for name, _ in self.inside)

    async def rest(self):
        """End all that is inside, until nobody is left."""
        while self.inside:
            await self.end(self.who[0])
        assert [task for task in self.tasks if not task.done()] == []
        assert self.slots.in_use == 0
        assert not self.slots.wanted


ADMIN, OTHER = Use.ADMIN, Use.OTHER


async def test_who_comes_first_is_served_first_where_all_want_the_same():
    server = Server(2)
    await server.begin(ADMIN, ADMIN, ADMIN, ADMIN)
    assert server.who == [0, 1]
    await server.end(0)
    assert server.who == [1, 2]
    await server.rest()


async def test_who_can_use_the_kept_one_goes_before_who_would_have_it_closed():
    server = Server(3)
    await server.begin(ADMIN, OTHER, OTHER, OTHER, ADMIN)
    assert server.who == [0, 1, 2]
    await server.end(0)
    assert server.who == [1, 2, 4]
    await server.end(4)
    assert server.who == [1, 2]
    assert len(server.idle) == 1
    await server.end(1)
    assert server.who == [2, 3]
    await server.rest()
    assert server.opened == 1


async def test_one_less_is_for_the_others():
    server = Server(3)
    await server.begin(OTHER, OTHER, OTHER, ADMIN)
    assert server.who == [0, 1, 3]
    await server.rest()


async def test_a_second_one_of_the_admin_is_opened_when_no_other_waits():
    server = Server(3)
    await server.begin(ADMIN, OTHER, ADMIN, OTHER, OTHER)
    assert server.who == [0, 1, 2]
    await server.end(2)
    assert server.who == [0, 1, 3]
    await server.begin(ADMIN)
    await server.end(1)
    assert server.who == [0, 3, 4]
    await server.rest()


async def test_of_several_kept_ones_all_but_one_go_for_the_others():
    server = Server(3)
    await server.begin(ADMIN, ADMIN, ADMIN)
    await server.end(0, 1, 2)
    await server.begin(OTHER, OTHER, OTHER)
    assert (server.who, len(server.idle)) == ([3, 4], 1)
    await server.rest()


async def test_the_only_session_is_for_everybody_in_turn():
    server = Server(1)
    await server.begin(ADMIN, OTHER, ADMIN)
    await server.end(0)
    assert server.who == [2]
    await server.end(2)
    assert server.who == [1]
    assert server.idle == []
    await server.rest()


async def test_who_gives_up_takes_nothing_and_stands_in_nobodys_way():
    server = Server(1)
    await server.begin(ADMIN, ADMIN, ADMIN)
    server.tasks[1].cancel()
    await server.end(0)
    assert server.who == [2]
    await server.end(2)
    with suppress(asyncio.CancelledError):
        await server.tasks[1]
    await server.rest()


async def test_who_is_let_in_and_cancelled_at_the_same_moment_takes_nothing():
    server = Server(1)
    await server.begin(ADMIN, ADMIN, ADMIN)
    dict(server.inside)[0].set()
    await server.tasks[0]  # which has let the next one in, who has not run since
    server.tasks[1].cancel()
    await wait_all_tasks_blocked()
    assert server.who == [2]
    await server.rest()


async def test_a_higher_limit_lets_in_at_once_and_a_lower_one_sends_nobody_away():
    server = Server(1)
    await server.begin(ADMIN, ADMIN, ADMIN, ADMIN)
    server.slots.limit(3)
    await wait_all_tasks_blocked()
    assert server.who == [0, 1, 2]
    server.slots.limit(1)
    await server.end(0, 1)
    assert server.who == [2]
    await server.rest()


async def test_a_session_that_is_closing_counts():
    server = Server(1)
    with server.slots.closing():
        await server.begin(ADMIN)
        assert server.who == []
    await wait_all_tasks_blocked()
    assert server.who == [0]
    await server.rest()


async def test_a_task_has_one_at_most():
    slots = Slots([])
    await slots.acquire(ADMIN)
    with pytest.raises(RuntimeError, match="already holding"):
        await slots.acquire(OTHER)
    slots.release(ADMIN)


@given(
    total=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from(["admin", "other", "end", "cancel", "failure", "forget"]), st.integers(0, 9)),
        max_size=40,
    ),
)
@settings(deadline=None)
async def test_whatever_happens_there_are_never_too_many_and_all_come_in(total, steps):
    server = Server(total)
    for what, number in steps:
        if what in {"admin", "other"}:
            await server.begin(ADMIN if what == "admin" else OTHER)
        elif what == "forget":
            server.idle[:] = server.idle[1:]
            server.slots.let_in()
        elif what == "cancel" and server.tasks:
            server.tasks[number % len(server.tasks)].cancel()
            await wait_all_tasks_blocked()
        elif server.who:
            name = server.who[number % len(server.who)]
            if what == "failure":
                server.tasks[name].cancel()
                await wait_all_tasks_blocked()
            else:
                await server.end(name)
        assert server.most <= total
        assert bool(server.who) == any(not task.done() for task in server.tasks)
    await server.rest()
    await asyncio.gather(*server.tasks, return_exceptions=True)

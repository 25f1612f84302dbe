"""Informers that are shared: started for the first user, gone without a trace after the last."""

import asyncio
import random as system_random
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from asyncctl.cache.informers import Informers
from asyncctl.observe.metrics import Metrics
from tests.unit.cache.cluster import KIND, Api, client_of, names, reflectors, shown
from tests.unit.support import ImpatientClock, http_server, until


@pytest.fixture
def api():
    made = Api()
    for namespace in ("a", "b"):
        made.put(namespace, "x", labels={"app": namespace})
    return made


@asynccontextmanager
async def sharing(api, **options):
    async with asyncio.timeout(60), http_server(api) as url, client_of(url) as (client, log):
        metrics = Metrics(process=False)
        informers = Informers(
            client, clock=ImpatientClock(), random=lambda: 0.5, logger=log.logger, metrics=metrics, **options
        )
        async with informers:
            informers.log, informers.metrics = log, metrics
            yield informers
        assert_nothing_left(informers)


def assert_nothing_left(informers):
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith(("reflector", "informer"))] == []
    assert [line for line in shown(informers.metrics) if "{" in line] == []
    assert list(informers) == []


async def test_who_asks_for_the_same_shares_it_and_the_last_one_to_leave_ends_it(api):
    async with sharing(api) as informers:
        async with informers.use(KIND) as first:
            async with informers.use(KIND, caller="another") as second:
                assert first is second
                await second.wait_synced()
            assert list(informers) == [first]
            assert names(first.entries()) == ["a/x", "b/x"]
            assert len(reflectors()) == 1
        assert_nothing_left(informers)
        await until(lambda: not api.watches[None])


async def test_what_differs_in_what_is_watched_is_not_shared(api):
    different = [
        {}, {"labels": "app=a"}, {"fields": "metadata.name=x"}, {"namespaces": ("a",)}, {"namespaces": ("b", "a")},
        {"labels": "app=a", "namespaces": ("a",)}, {"metadata_only": True},
    ]  # fmt: skip
    async with sharing(api) as informers, AsyncExitStack() as stack:
        made = [await stack.enter_async_context(informers.use(KIND, **each)) for each in different]
        assert len({id(each) for each in made}) == len(different)
        assert await stack.enter_async_context(informers.use(KIND, namespaces=["a", "b", "a"])) is made[4]


async def test_one_who_comes_while_the_last_one_leaves_gets_one_that_runs(api):
    async with sharing(api) as informers:
        got = []

        async def come():
            async with informers.use(KIND) as informer:
                got.append(informer)
                await informer.wait_synced()
                assert names(informer.entries()) == ["a/x", "b/x"]

        async with informers.use(KIND) as first:
            await first.wait_synced()
            coming = asyncio.create_task(come())  # has its turn while the last one waits for the end
        await coming
        assert got != [first]
        assert_nothing_left(informers)


async def test_a_user_that_is_cancelled_leaves_and_the_others_stay(api):
    async with sharing(api) as informers:

        async def use_for_ever():
            async with informers.use(KIND):
                await asyncio.sleep(3600)

        users = [asyncio.create_task(use_for_ever()) for _ in range(3)]
        await until(reflectors)
        for user in users[:2]:
            user.cancel()
        await asyncio.wait(users[:2])
        (informer,) = informers
        await informer.wait_synced()
        users[2].cancel()
        await asyncio.wait(users)
        assert_nothing_left(informers)


async def test_users_that_are_cancelled_at_any_moment_leave_nothing(api):
    draw = system_random.Random(7)
    kinds = [{}, {"labels": "app=a"}]
    async with sharing(api) as informers:

        async def use():
            async with informers.use(KIND, **draw.choice(kinds)) as informer:
                await informer.wait_synced()
                await asyncio.sleep(0)

        users = []
        for _ in range(150):
            users.append(asyncio.create_task(use()))
            for _ in range(draw.randrange(6)):
                await asyncio.sleep(0)
            draw.choice(users).cancel()
        await asyncio.wait(users)
        assert not [user for user in users if not user.cancelled() and user.exception()]
        assert_nothing_left(informers)


async def test_the_namespaces_of_the_process_are_those_of_who_did_not_say_others(api):
    async with sharing(api, namespaces=("a",)) as informers:
        async with informers.use(KIND) as follows, informers.use(KIND, namespaces=("b",)) as stays:
            await follows.wait_synced()
            informers.set_namespaces(("b",))
            assert (follows.namespaces, stays.namespaces) == (("b",), ("b",))
            await follows.wait_synced()
            assert names(follows.entries()) == ["b/x"]
            informers.set_namespaces(("a", "b"))
            assert (follows.namespaces, stays.namespaces) == (("b", "a"), ("b",))
            async with informers.use(KIND) as later:
                assert later is follows
        async with informers.use(KIND, labels="app=a") as new:
            assert new.namespaces == ("a", "b")


async def test_who_leaves_the_block_of_all_ends_all_also_with_users_inside(api):
    async with sharing(api) as informers:

        async def use_for_ever():
            async with informers.use(KIND) as informer:
                await informer.wait_synced()
                await asyncio.sleep(3600)

        user = asyncio.create_task(use_for_ever())
        await until(reflectors)
    user.cancel()
    await asyncio.wait([user])
    with pytest.raises(RuntimeError, match="outside of `async with informers`"):
        async with informers.use(KIND):
            pass


async def test_who_waits_for_a_first_list_hears_that_it_will_not_come_any_more(api):
    api.hold(None)
    waiting = None
    async with sharing(api) as informers:

        async def use():
            async with informers.use(KIND) as informer:
                await informer.wait_synced()

        waiting = asyncio.create_task(use())
        await until(reflectors)
    with pytest.raises(RuntimeError, match="configmaps has ended"):
        await asyncio.wait_for(waiting, 2)


async def test_a_cluster_is_asked_in_the_name_of_the_first_who_asks(api):
    async with sharing(api) as informers, informers.use(KIND, caller="first") as informer:
        assert informer._client._caller == "first"

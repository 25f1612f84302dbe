"""Two writers of one status, who know nothing of each other."""

import asyncio
import copy
from collections import Counter

import orjson
import pytest

from asyncctl.client.errors import Conflict
from asyncctl.controller.status import write_status
from tests.unit.harness import Widget
from tests.unit.support import connected

KIND = Widget.resource_type
ROUNDS = 1000  # of each


@pytest.fixture(scope="module")
def anyio_backend():
    """Not in debug mode, which takes a traceback of each step: three quarters of the time here."""
    return "asyncio", {"debug": False}


def condition(kind, message):
    return {
        "type": kind, "status": "True", "reason": "Said", "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def said(obj):
    """Which version an object is, and what its status has, by type of condition."""
    found = orjson.loads(obj)
    version = int(found["metadata"]["resourceVersion"])
    return version, {each["type"]: each["message"] for each in found["status"]["conditions"]}


def round_of(name, found):
    """How far that writer had come; its two conditions must be of one round: the second only of an odd one."""
    number = int(found[name])
    assert found.get(f"{name}Odd") == (str(number) if number % 2 else None), found
    return number


async def test_a_thousand_rounds_of_two_writers_lose_no_condition_and_bring_none_back(cluster):
    """Each changes one condition, and adds or removes another, from the object as its own last write was answered."""
    names, conflicts, history, together = ("A", "B"), Counter(), [], asyncio.Barrier(2)
    await cluster.create(Widget, "w")
    begun = {"status": {"conditions": [condition(name, "0") for name in names]}}
    await cluster.patch(Widget, "w", begun, subresource="status")

    async def write(client, name):
        patch = client.patch

        async def counting(*args, **kwargs):
            try:
                return await patch(*args, **kwargs)
            except Conflict:
                conflicts[name] += 1
                raise

        client.patch = counting
        live = await client.get(KIND, "w", namespace=cluster.namespace)
        for number in range(1, ROUNDS + 1):
            before = orjson.loads(live)["status"]
            after = copy.deepcopy(before)
            mine = [condition(name, str(number))] + [condition(f"{name}Odd", str(number))] * (number % 2)
            after["conditions"] = [each for each in after["conditions"] if not each["type"].startswith(name)] + mine
            await together.wait()  # so that both are of the same moment, and neither outruns the other
            live = await write_status(client, KIND, live, before, after)
            history.append(said(live))
            assert round_of(name, history[-1][1]) == number

    async with connected(cluster.config) as one, connected(cluster.config) as two, asyncio.TaskGroup() as writers:
        writers.create_task(write(one, "A"))
        writers.create_task(write(two, "B"))
    _, found = said(await cluster.client.get(KIND, "w", namespace=cluster.namespace))
    assert found == {"A": str(ROUNDS), "B": str(ROUNDS)}
    history.sort(key=lambda each: each[0])
    assert len(history) == 2 * ROUNDS
    for name in names:  # from one version to the next nobody is thrown back
        rounds = [round_of(name, found) for _, found in history]
        assert rounds == sorted(rounds)
    assert conflicts.total() >= ROUNDS

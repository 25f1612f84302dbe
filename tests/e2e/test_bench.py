"""The figures can be had: `python -m bench` runs to its end and says what it measured."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncctl import ClusterConfig
from asyncctl.apiserver import ApiServer
from asyncctl.client.errors import NotFound
from asyncctl.generate import crd
from asyncctl.objects import ConfigMap, Unstructured
from bench.op import Parent, WidgetSpec
from bench.probes import GOAL
from tests.unit.support import connected

ROOT = Path(__file__).parents[2]
CRD = Unstructured("apiextensions.k8s.io/v1", "CustomResourceDefinition", namespaced=False)
WIDGETS = crd(Parent)
SOAK = "ASYNCCTL_TEST_SOAK" in os.environ


def bench(*arguments):
    command = [sys.executable, "-m", "bench", *arguments, "--runs", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_figures_of_a_start_are_had_from_one_run(postgres):
    figures = bench("start")
    assert 0.1 < figures["start to Running, s"] < 60
    assert figures["idle daemon, MiB"] > figures["aiohttp imported, MiB"] > 1


def test_the_figures_of_requests_are_had_from_one_run():
    figures = bench("requests", "watches", "--count", "30", "--watches", "100")
    for request in ("GET over http", "PATCH over http", "GET over https", "PATCH over https"):
        for contestant in ("asyncctl", "asyncctl, bytes", "kubernetes-asyncio", "aiohttp alone, bytes"):
            assert 1 < figures[f"{request}, {contestant}, µs of CPU"] < 1e6
        ours = f"{request}, asyncctl, µs of CPU"
        assert figures[f"{ours} | times kubernetes-asyncio"] < 1
        assert figures[f"{request}, asyncctl, bytes, µs of CPU | times kubernetes-asyncio, bytes"] > 0
        assert figures[f"{ours} | wakes of other threads"] == 0  # no hop to a thread and back
        assert f"{request}, lightkube, µs of CPU" in figures  # None where `make bench` has not installed it
    assert 0 < figures["PATCH, no watch open, p50, ms"] <= figures["PATCH, no watch open, p99, ms"]
    assert 0 < figures["PATCH, 100 watches open, p50, ms"] <= figures["PATCH, 100 watches open, p99, ms"]
    assert figures["events beside each write"] > 0


def test_a_probe_of_a_busy_operator_takes_little_longer_than_the_barest_server_in_its_loop():
    keys, seconds = ("5000", "30") if SOAK else ("200", "4")
    figures = bench("probes", "--keys", keys, "--seconds", seconds)
    for quantile, room in (("p50", 10.0), ("p99", 50.0)):
        livez, bare = (
            figures[f"{what}, 10 busy workers, {keys} keys queued, {quantile}, ms"]
            for what in ("/livez", "bare server")
        )
        print(f"figure: {quantile} of a probe {livez:.1f} ms, of the barest server {bare:.1f} ms, {keys} keys")
        assert 0 < livez < 3 * bare + room
    if SOAK:
        assert livez < GOAL
    assert figures["passes a second meanwhile"] > 0


def test_the_figures_of_a_settled_pass_are_had_from_one_run(postgres):
    figures = bench("databases", "--databases", "2")
    ours, least = (f"settled pass, 2 databases, {name}, ms of CPU" for name in ("asyncctl", "psycopg alone"))
    assert 0 < figures[least] < 1000
    assert 0 < figures[ours] < 1000
    assert figures[f"{ours} | times psycopg alone"] == pytest.approx(figures[ours] / figures[least])
    assert figures[f"{ours} | requests to the API server"] == 0
    for name in (ours, least):
        assert figures[f"{name} | of PostgreSQL"] >= 0
        assert figures[f"{name} | writes"] == 0
    assert (figures[f"{least} | connections"], figures[f"{least} | statements"]) == (3, 7)
    assert 3 <= figures[f"{ours} | connections"] <= 4  # that of the maintenance database is kept, or has to go
    assert 5 <= figures[f"{ours} | statements"] <= 13


async def eventually(look):
    async with asyncio.timeout(60):
        while not await look():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ["noop", "child"])
async def test_the_contestant_does_its_work_and_says_how_much(mode):
    async with ApiServer() as server, connected(ClusterConfig(server=server.url)) as client:
        await client.create(WIDGETS, CRD)

        async def served():
            try:
                return await client.list(Parent).all() == []
            except NotFound:
                return False

        async def worked():
            widgets = await client.list(Parent).all()
            sizes = {each.name: each.data for each in await client.list(ConfigMap, namespace="default").all()}
            made = all(sizes.get(each.name) == {"size": str(each.spec.size)} for each in widgets)
            return made and all(each.status.observed_generation == 1 for each in widgets)

        await eventually(served)
        for size in (1, 2, 3):
            await client.create(Parent(name=f"w{size}", namespace="default", spec=WidgetSpec(size=size)))
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.op", "--server", server.url, cwd=ROOT, env=os.environ | {"MODE": mode},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                async for line in program.stdout:
                    name, passes, largest = line.split()
                    if int(passes) >= 3:
                        break
            assert (name, largest) == (b"C", b"3")
            if mode == "child":
                await eventually(worked)
        finally:
            program.terminate()
            _, log = await program.communicate()
        assert program.returncode == 0, log
        assert b'"msg":"stopped"' in log
        assert b"error" not in log

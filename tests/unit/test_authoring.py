"""What `docs/authoring.md` shows is true: each of its blocks is run, in order, against the embedded API server."""

import ast
import asyncio
import inspect
import re
import sys
import types
from pathlib import Path

import pytest

from asyncctl import Context, Operator, Settings
from asyncctl.controller import outcome
from asyncctl.generate.rbac import rules
from tests.unit.harness import Cluster
from tests.unit.support import until

PAGE = Path(__file__).parents[2] / "docs" / "authoring.md"
TEXT = PAGE.read_text()


def blocks():
    """The page's code, each block where it stands in the page, so that a traceback leads there."""
    for found in re.finditer(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        yield "\n" * TEXT.count("\n", 0, found.start(1)) + found[1]


async def run_page(module):
    for block in blocks():
        code = compile(block, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            async with asyncio.timeout(60):
                await eval(code, module.__dict__)
        else:  # as a module is imported: before there is a loop
            await asyncio.to_thread(eval, code, module.__dict__)


async def try_out(page):
    """What the page's own last block leaves out: each path through its functions is gone once."""
    async with page.ApiServer() as server:
        config = page.ClusterConfig(server=server.url)
        async with (
            page.operator.running(settings=page.settings, config=config) as running,
            page.fleets.running(settings=page.settings, config=config),
        ):
            await walk(page, Cluster(config, running.client, "team"), running.metrics.registry.get_sample_value)


async def walk(page, cluster, counted):
    widget, fleet = page.Widget, page.Fleet
    await cluster.create(page.ConfigMap, "g", labels={"gadget": "yes"}, data={"a": "1"})
    await until(lambda: page.database == {"g": 1})
    await cluster.create(widget, "w", spec=page.WidgetSpec(secret_name="s"))
    await cluster.until(widget, "w", lambda found: said(found, "Ready") == ("False", "NoSecret"))
    secret = await cluster.create(page.Secret, "s")
    await cluster.until(widget, "w", lambda found: said(found, "Ready") == ("True", "Made"))
    made = await cluster.get(page.ConfigMap, "w")
    assert made.data == {"size": "1", "namespaces": "1", "secret": secret.metadata.resource_version}
    await until(lambda: counted("widgets", {"size": "1"}) == 1)
    page.counted.made.shared("1").inc()
    page.counted.taken.shared().observe(0.2)
    assert (counted("widgets_made_total", {"size": "1"}), counted("widget_seconds_count")) == (1, 1)
    await cluster.delete(widget, "w")
    await cluster.until_gone(widget, "w")
    await until(lambda: counted("widgets", {"size": "1"}) is None)
    await cluster.create(fleet, "f", spec=page.WidgetSpec(size=2))
    await cluster.until(fleet, "f", lambda found: found.status.parts == 2)
    await cluster.patch(fleet, "f", {"spec": {"size": 1}})
    await cluster.until_gone(widget, "f-1")
    assert await cluster.until_said("f") == [("Shrunk", "1 widgets were deleted")]
    await cluster.patch(fleet, "f", {"spec": {"secretName": "none"}})
    await cluster.until(fleet, "f", lambda found: said(found, "Stalled") == ("True", "NoSuchSecret"))
    assert not await cluster.gone(widget, "f-0")


def said(found, kind):
    condition = found.status.conditions.get(kind)
    return condition and (condition.status, condition.reason)


@pytest.fixture
def page(monkeypatch):
    """A module for the page's names; its operators say nothing to the terminal."""
    module = types.ModuleType("authoring")
    monkeypatch.setitem(sys.modules, "authoring", module)  # where type hints are looked up
    return module


async def test_each_block_of_the_page_runs_in_order(page, backends, capsys):
    backends.have("embedded")
    await run_page(page)
    said = capsys.readouterr().err
    assert page.beats == [1]
    assert "looked at the fleet" in said
    assert page.pool == []  # it was open, and is closed
    await try_out(page)
    assert "the last part is gone" in capsys.readouterr().err
    declared = {each.name: each for each in page.operator.declarations}
    assert list(declared) == ["widgets", "gadgets"]
    assert list(declared["widgets"].finalizers) == ["example.com/widgets"]
    assert page.made.data == {"size": "1", "namespaces": "1"}
    needed = {str(rule) for rule in rules(page.operator, Settings(), lease_namespace="home")}
    assert {"widgets.example.com/status", "configmaps", "secrets", "namespaces"} <= needed


def test_the_page_names_what_there_is():
    for name in set(re.findall(r"`ctx\.(\w+)", TEXT)):
        assert name in {*dir(Context), *inspect.get_annotations(Context.__init__)}, name
    for variable in set(re.findall(r"ASYNCCTL_[A-Z_]*[A-Z]", TEXT)):
        assert variable in Settings.describe({}), variable
    options = inspect.signature(Operator.controller).parameters
    for option in re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE):
        assert option in options, option


def test_the_page_says_of_outcomes_what_the_contract_says():
    for name in ("Conflict", "TransientError", "TerminalError", "Requeue"):
        assert f"`{name}" in TEXT
        assert f"`{name}" in outcome.__doc__ or hasattr(outcome, name)

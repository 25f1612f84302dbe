"""What every test has: asyncio in debug mode, no task left behind, no blocking call of ours in the event loop.

And one line at the end of the run, which names the backends it had, and the test folders it skipped for want of one.
`make test` runs two processes beside each other, since many tests wait for others' processes most of their time.
"""

import asyncio
import inspect
import os
from collections import defaultdict
from pathlib import Path
from typing import NoReturn

import pytest
from blockbuster import BlockBuster
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = [
    f"tests.{folder}.plugin"
    for folder in ("controlplane", "postgres", "prometheus", "e2e")
    if (Path(__file__).parent / folder / "plugin.py").exists()
]


class Backends:
    """What the run had of each backend. The fixture that starts one tells it here."""

    def __init__(self) -> None:
        self.had: dict[str, str] = dict.fromkeys(("embedded", "kube", "postgres", "prometheus"), "not used")
        self.reasons: dict[str, str] = {}  # why a backend could not be had, as its skipped tests say it

    def have(self, name: str, version: str = "yes") -> None:
        """Note that the backend `name` runs, at `version`."""
        self.had[name] = version

    def lack(self, name: str, why: str) -> NoReturn:
        """Note that `name` can't be had, and skip the test that wants it."""
        self.had[name] = "no"
        self.reasons[name] = f"no {name}: {why}"
        pytest.skip(self.reasons[name])

    def add(self, other: "Backends") -> None:
        """Add what another process of the same run had."""
        for name, had in other.had.items():
            if had != "not used":
                self.had[name] = had
        self.reasons |= other.reasons

    def summary(self, skips: list[pytest.TestReport]) -> str:
        """Return the line for the end of the run, in which `skips` are all skipped tests."""
        had = ", ".join(f"{name} {version}" for name, version in self.had.items())
        folders: dict[str, set[str]] = defaultdict(set)  # by the reason they were skipped for
        for report in skips:
            if isinstance(report.longrepr, tuple):
                why = report.longrepr[2].removeprefix("Skipped: ")
                folders[why].add(Path(report.nodeid.partition("::")[0]).parent.name)
        wanting = {why: folders[why] for why in self.reasons.values() if why in folders}
        count = len(set().union(*wanting.values()))
        told = "; ".join(f"{', '.join(sorted(names))} ({why})" for why, names in wanting.items())
        return f"backends: {had}; {count} suite{'' if count == 1 else 's'} skipped{told and ': '}{told}"


BACKENDS = pytest.StashKey[Backends]()


class Scheduling(LoadScopeScheduling):
    """A folder stays in one process; so do daemons' tests, which share a log. Unit tests go by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = Path(file).parts[1]
        return {"unit": file, "typing": file, "e2e": "processes", "faults": "processes"}.get(folder, folder)


# A busy machine is not a defect. Examples are the same each time, so that what fails was changed; others when asked.
settings.register_profile("asyncctl", deadline=None, derandomize="ASYNCCTL_TEST_EXPLORE" not in os.environ)
settings.load_profile("asyncctl")


def pytest_configure(config):
    config.stash[BACKENDS] = Backends()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # by number of tests; as they are collected, the longest come first
    return Scheduling(config, log)


def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["backends"] = vars(session.config.stash[BACKENDS])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    had = Backends()
    vars(had).update(getattr(node, "workeroutput", {}).get("backends", {}))
    node.config.stash[BACKENDS].add(had)


@pytest.fixture(scope="session")
def backends(pytestconfig):
    return pytestconfig.stash[BACKENDS]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost, and so last: pytest's own line alone comes after ours
def pytest_terminal_summary(terminalreporter, config):
    yield
    terminalreporter.write_line(config.stash[BACKENDS].summary(terminalreporter.stats.get("skipped", [])))


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {"debug": True}


@pytest.fixture(scope="session", autouse=True)
def no_blocking_call():
    """A call that blocks, made in an event loop by code of asyncctl or on its behalf, raises `BlockingError`."""
    watch = BlockBuster(scanned_modules=["asyncctl"])
    watch.activate()
    yield
    watch.deactivate()


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector, name, obj):
    if collector.istestfunction(obj, name) and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("no_task_left")(obj)


@pytest.fixture
async def no_task_left(anyio_backend):
    """Fail an async test of whose tasks one is still pending five seconds after its end and that of its fixtures.

    Or one that does not run on the loop it asks for, as happens while an async fixture of a wider scope is alive.
    """
    wants_uvloop = isinstance(anyio_backend, tuple) and anyio_backend[1].get("use_uvloop", False)
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop") == wants_uvloop
    before = asyncio.all_tasks()
    yield
    # One task is neither the test's nor ours: anyio's, which waits for this very line.
    begun = {task for task in asyncio.all_tasks() - before if "_call_in_runner_task" not in repr(task.get_coro())}
    left = (await asyncio.wait(begun, timeout=5))[1] if begun else set()
    for task in left:
        task.cancel("its test has ended")
    assert not left, f"the test left {len(left)} pending: {', '.join(map(repr, left))}"

"""`asyncctl check`: loads an operator, has it checked, prints what was found."""

import asyncio
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Coroutine, Mapping

from asyncctl.check import check_operator
from asyncctl.cli.stdout import write
from asyncctl.cli.table import as_json, as_lines, as_table
from asyncctl.clock import SystemClock
from asyncctl.objects.json import JsonObject
from asyncctl.observe.logs import make_logger
from asyncctl.operator import Operator
from asyncctl.operator.checking import Row, State
from asyncctl.operator.process import loop_factory
from asyncctl.settings import SettingsError

_GIVE_UP = 0.5  # seconds for what is cancelled to end


class NoOperator(Exception):
    """What was named is no operator; the text says what it is."""


def main(operator: Operator, environ: Mapping[str, str], *, output: str) -> int:
    """Check `operator` as `environ` says, and print it as `text` or `json`; returns the exit code."""
    try:
        settings = operator.settings.from_environment(environ)
    except SettingsError as error:
        unknown = operator.settings.unknown(environ)
        print(error, *unknown, sep="\n", file=sys.stderr)
        if output == "json":
            write(f"{as_json([_unusable(error, unknown)])}\n", "asyncctl check")
        return 2
    clock = SystemClock()
    logger = make_logger("error", settings.log_format, sys.stderr, clock)
    check = check_operator(operator, settings, environ, clock=clock, logger=logger, tell=_tell)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows = runner.run(_until_told(check))
        # before the loop is closed, which may wait for a thread that looks up a name
        written = write(f"{_shown(rows, output, environ)}\n", "asyncctl check")
    return int(not written or any(row.state is State.FAILED for row in rows))


def _tell(line: str) -> None:
    """For whoever sits before a terminal; a log has no use for it."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def _unusable(error: SettingsError, unknown: list[str]) -> Row:
    details: JsonObject = {"problems": [problem.text for problem in error.problems], "unknown": unknown}
    return Row("settings", State.FAILED, "\n".join([str(error), *unknown]), details)


async def _until_told(check: Coroutine[None, None, list[Row]]) -> list[Row]:
    """Await `check`; on a signal cancel it, so that a plugin it runs is ended, and exit without waiting for threads."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told: list[int] = []

    def on_signal(number: int) -> None:
        if told:
            os._exit(128 + number)
        told.append(number)
        task.cancel()
        loop.call_later(_GIVE_UP, os._exit, 128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, on_signal, int(each))
    try:
        return await check
    except asyncio.CancelledError:
        if told:
            os._exit(128 + told[0])  # a thread that looks up a name would be waited for
        raise


def load(name: str) -> Operator:
    """Import the operator `MODULE:NAME`; a function of that name is called, without arguments.

    Raises:
        NoOperator: There is none, or it can't be imported.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise NoOperator(f"{name!r} does not name an operator; write MODULE:NAME, such as widgets:operator")
    sys.path.insert(0, "")  # as `python -m` does
    try:
        found: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        if not isinstance(found, Operator) and callable(found):
            found = found()
    except Exception as error:
        raise NoOperator(f"{name} can't be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
    if not isinstance(found, Operator):
        raise NoOperator(f"{name} is a {type(found).__name__}, and no Operator, nor a function that returns one")
    return found


def _shown(rows: list[Row], output: str, environ: Mapping[str, str]) -> str:
    if output == "json":
        return as_json(rows)
    if not sys.stdout.isatty():
        return as_lines(rows)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    width = shutil.get_terminal_size().columns  # COLUMNS, if that is set
    colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return as_table(rows, width=width, colour=colour, unicode=encoding == "utf8")

"""An operator as a program: the environment, signals and exit codes, in one place.

Exit codes: 0 after SIGTERM or SIGINT and a full drain; 1 when the Lease is lost, a startup hook writes or gets no
answer from the API server, or something unforeseen happens; 2 when the settings are wrong, there is no cluster or no
exec plugin of that name, the CA or our certificate or key can't be used, or a startup hook needs a credential and there
is none; 128 + the signal's number on a second signal, at once. Only its hooks wait for an answer at the start: else a
server that can't be reached, or a plugin that fails, is tried again and is no exit. An exit that is not 0 leaves its
reason for `kubectl describe pod` (`termination`), and a stop that hangs is left after `Running.longest_stop` seconds.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import anyio
import anyio.to_thread

from asyncctl.client.errors import BadCertificateFile, ConfigError, CredentialsError, Fenced, TransportError
from asyncctl.clock import SystemClock
from asyncctl.http import ListenError
from asyncctl.observe.logs import Logger, make_logger, route_stdlib
from asyncctl.operator.running import LeaseLost, Running
from asyncctl.operator.termination import Ending, leave_message
from asyncctl.operator.usage import asks_for_help, program_help
from asyncctl.settings import Settings, SettingsError
from asyncctl.version import __version__

if TYPE_CHECKING:
    from asyncctl.operator.operator import Operator

TOGETHER = 0.2  # seconds in which two signals are one
SHOWN = 10  # passes that are named at the end
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(operator: "Operator") -> None:
    """Run `operator` with the process's environment until it is told to stop, and exit; or print `--help`."""
    if asks_for_help(sys.argv[1:]):
        print(program_help(operator.name, operator.settings))  # noqa: T201 - it was asked for
        sys.exit(0)
    sys.exit(main(operator, os.environ))


def main(operator: "Operator", environ: Mapping[str, str]) -> int:
    """Run `operator` as `environ` says; returns the exit code."""
    try:
        settings = operator.settings.from_environment(environ)
    except SettingsError as error:
        warnings = operator.settings.unknown(environ)  # a misspelt name may be why something is missing
        print(error, *warnings, sep="\n", file=sys.stderr)  # noqa: T201 - there is no log yet
        leave_message(_termination_log(operator, environ), 2, [*str(error).splitlines(), *warnings])
        return 2
    clock = SystemClock()
    logger = make_logger(settings.log_level, settings.log_format, sys.stderr, clock)
    for warning in operator.settings.unknown(environ):
        logger.warning(warning)
    with route_stdlib(logger), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve(operator, settings, logger))


async def serve(operator: "Operator", settings: Settings, logger: Logger) -> int:
    """Run until a signal comes; returns the exit code. Errors that a person can mend are told in one line."""
    stop, ending = asyncio.Event(), Ending(logger, settings.termination_log)
    handle_signals(stop)
    logger.info("starting", program=operator.name, version=__version__, pid=os.getpid())
    running: Running | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_heed, stop, tasks.cancel_scope, lambda: running, name="stop while starting")
            async with operator.running(settings=settings, logger=logger) as running:
                tasks.start_soon(_last_resort, running, ending, name="last resort")
                await stop.wait()
                logger.info("stopping")
            tasks.cancel_scope.cancel()
    except* (ConfigError, CredentialsError, BadCertificateFile, SettingsError, ListenError) as group:
        ending.mendable(2, "", _leaves(group))
    except* TransportError as group:
        ending.mendable(1, "ends, because a startup hook got no answer", _leaves(group))
    except* Fenced as group:
        ending.mendable(1, "ends, because a startup hook may not write", _leaves(group))
    except* LeaseLost as group:
        ending.mendable(1, "ends, because the Lease is lost", _leaves(group))
    except* Exception as group:  # noqa: BLE001 - told, and the exit code
        ending.unforeseen(_leaves(group))
    if running is not None and (left := running.left):
        _leave(ending, "something was cancelled and does not end", ", ".join(left[:SHOWN]))
    if ending.code:
        await anyio.to_thread.run_sync(ending.leave_message)
    return ending.code


async def _last_resort(running: Running, ending: Ending) -> None:
    """A stop has its time, each step of it and all of it: what hangs keeps neither the pod nor the next leader."""
    await running.stopping.wait()
    seconds = running.longest_stop
    await asyncio.sleep(seconds)
    _leave(ending, f"the stop takes longer than {seconds:g} s")


def _leave(ending: Ending, what: str, which: str = "") -> NoReturn:
    ending.never(what, which)
    os._exit(ending.code)


async def _heed(stop: asyncio.Event, scope: anyio.CancelScope, running: Callable[[], Running | None]) -> None:
    """A signal during the start, a startup hook say, ends the start."""
    await stop.wait()
    if running() is None:
        scope.cancel()


def _termination_log(operator: "Operator", environ: Mapping[str, str]) -> Path | None:
    """Where it would be, had the settings been right."""
    given = environ.get("ASYNCCTL_TERMINATION_LOG", "").strip()
    return Path(given) if given else operator.settings.termination_log


def handle_signals(stop: asyncio.Event) -> None:
    """Set `stop` on the first SIGTERM, SIGINT or SIGHUP (the terminal has gone); a second ends the process at once.

    One that comes together with the first is the same one: `timeout` of coreutils, and who signals a process and then
    its group, send each twice, and the Lease would not be given back.
    """
    loop, heeded_from = asyncio.get_running_loop(), 0.0

    def on_signal(number: int) -> None:
        nonlocal heeded_from
        if not stop.is_set():
            stop.set()
            heeded_from = loop.time() + TOGETHER
        elif loop.time() >= heeded_from:
            os._exit(128 + number)

    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(each, on_signal, int(each))


def loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    """Uvloop's loop where it is installed (extra `fast`), else asyncio's own.

    One before 0.23 sends later than it is told to, so that a write could leave after the Lease has ended: not that one.
    """
    try:
        import uvloop
    except ImportError:
        return None
    major, minor = (int(part) for part in version("uvloop").split(".")[:2])
    return uvloop.Loop if (major, minor) >= (0, 23) else None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found

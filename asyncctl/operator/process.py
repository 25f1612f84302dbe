"""An operator as a program: the environment, signals and exit codes, in one place.

Exit codes: 0 after SIGTERM or SIGINT and a full drain; 1 when the Lease is lost, a startup hook writes or gets no
answer from the API server, or something unforeseen happens; 2 when the settings are wrong, there is no cluster or no
exec plugin of that name, the CA or our certificate or key can't be used, or a startup hook needs a credential and there
is none; 128 + the signal's number on a second signal, at once. Only its hooks wait for an answer at the start: else a
server that can't be reached, or a plugin that fails, is tried again and is no exit.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio

from asyncctl.client.errors import BadCertificateFile, ConfigError, CredentialsError, Fenced, TransportError
from asyncctl.clock import SystemClock
from asyncctl.http import ListenError
from asyncctl.observe.logs import Logger, make_logger, route_stdlib
from asyncctl.operator.running import LeaseLost, Running
from asyncctl.settings import Settings, SettingsError
from asyncctl.version import __version__

if TYPE_CHECKING:
    from asyncctl.operator.operator import Operator

TOGETHER = 0.2  # seconds in which two signals are one
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(operator: "Operator") -> None:
    """Run `operator` with the process's environment until it is told to stop, and exit."""
    sys.exit(main(operator, os.environ))


def main(operator: "Operator", environ: Mapping[str, str]) -> int:
    """Run `operator` as `environ` says; returns the exit code."""
    try:
        settings = operator.settings.from_environment(environ)
    except SettingsError as error:
        warnings = operator.settings.unknown(environ)  # a misspelt name may be why something is missing
        print(error, *warnings, sep="\n", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    clock = SystemClock()
    logger = make_logger(settings.log_level, settings.log_format, sys.stderr, clock)
    for warning in operator.settings.unknown(environ):
        logger.warning(warning)
    with route_stdlib(logger), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve(operator, settings, logger))


async def serve(operator: "Operator", settings: Settings, logger: Logger) -> int:
    """Run until a signal comes; returns the exit code. Errors that a person can mend are told in one line."""
    stop = asyncio.Event()
    handle_signals(stop)
    logger.info("starting", program=operator.name, version=__version__, pid=os.getpid())
    running: Running | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_heed, stop, tasks.cancel_scope, lambda: running, name="stop while starting")
            async with operator.running(settings=settings, logger=logger) as running:
                await stop.wait()
                logger.info("stopping")
    except* (ConfigError, CredentialsError, BadCertificateFile, SettingsError, ListenError) as group:
        for error in _leaves(group):
            logger.error(str(error))  # noqa: TRY400 - a person can mend it; a traceback would hide how
        return_code = 2
    except* TransportError as group:
        for error in _leaves(group):
            logger.error("ends, because a startup hook got no answer", cause=str(error))  # noqa: TRY400 - as above
        return_code = 1
    except* Fenced as group:
        for error in _leaves(group):
            logger.error("ends, because a startup hook may not write", cause=str(error))  # noqa: TRY400 - as above
        return_code = 1
    except* LeaseLost as group:
        for error in _leaves(group):
            logger.error("ends, because the Lease is lost", cause=str(error))  # noqa: TRY400 - as above
        return_code = 1
    except* Exception as group:
        for error in _leaves(group):
            logger.critical("ends, because of an error that nobody foresaw", exc_info=error)
        return_code = 1
    else:
        return_code = 0
    if running is not None and not running.ended:
        logger.critical("a pass does not end; the process ends without it")
        os._exit(return_code or 1)
    return return_code


async def _heed(stop: asyncio.Event, scope: anyio.CancelScope, running: Callable[[], Running | None]) -> None:
    """A signal during the start, a startup hook say, ends the start."""
    await stop.wait()
    if running() is None:
        scope.cancel()


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

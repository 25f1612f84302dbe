"""The log: one line per record, JSON for machines or a console form for people.

A logger is made, bound and passed on; nothing is configured globally. Each line begins with the same keys in the same
order. What looks like a credential, by its key or by its form, is replaced before it is written, and a record that
can't be rendered is written in a poorer form rather than raising into the code that logged it.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from asyncctl.clock import Clock, SystemClock

__all__ = ["Logger", "make_logger", "route_stdlib", "without_secrets"]

Logger = FilteringBoundLogger
"""A bound logger: `log.info("message", key=value)`, `log.bind(key=value)`."""

FIRST = (
    "ts",
    "level",
    "msg",
    "logger",
    "controller",
    "controllerGroup",
    "controllerKind",
    "namespace",
    "name",
    "reconcileID",
    "attempt",
    "operation",
)
HIDDEN = "***"

# A key that holds such a word hides its value, unless its ending says that it only points to the thing.
_SECRET_KEY = re.compile(
    r"passw|passphrase|pgpass|token|secret|verifier|authorization|credential|cookie|private_?key|api_?key|scram|dsn$",
    re.IGNORECASE,
)
_HARMLESS_ENDING = re.compile(
    r"(name|namespace|path|file|folder|ref|kind|type|reason|count|seconds|version)s?$", re.IGNORECASE
)
# Values that give themselves away, wherever they stand: a SCRAM verifier, a JSON Web Token, an Authorization header, a
# password in a URI or in SQL. Each alternative begins with fixed text and does not run over its own next beginning, so
# that a long line costs no more than its length.
_SECRET_VALUE = re.compile(
    r"(?P<scram>SCRAM-SHA-256\$)[^\s\"'\\,]+"
    r"|(?P<jwt>(?<![\w-])eyJ)[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|(?P<header>\b(?:[Bb]earer|[Bb]asic) +)[\w.~+/=-]{8,}"
    r"|(?P<uri>://[^\s:/@\"'\\]{0,255}:)[^\s/@\"'\\]+(?=@)"
    r"|(?P<sql>\b(?:PASSWORD|password) +[Ee]?\\?')[^'\\]+"
)


def make_logger(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["auto", "json", "console"],
    stream: TextIO,
    clock: Clock | None = None,
) -> Logger:
    """Return a logger that writes to `stream`, a line and a flush per record.

    Args:
        level: the least level that is written; a call below it costs a method call that does nothing.
        form: `auto` is the console form where `stream` is a terminal, JSON elsewhere.
        stream: where to; it stays the caller's to close.
        clock: where `ts` comes from.
    """
    terminal = stream.isatty()
    console = form == "console" or (form == "auto" and terminal)
    rendering: list[Processor]
    if console:
        plain = structlog.dev.plain_traceback  # the rich one prints local variables, and so whatever secrets they hold
        rendering = [
            structlog.dev.ConsoleRenderer(
                colors=terminal, exception_formatter=plain, timestamp_key="ts", event_key="msg", sort_keys=False
            )
        ]
    else:
        rendering = [_exception_as_text, _render_json]
    # The lazy proxy binds to what is given here and asks structlog's global configuration for nothing.
    logger: Logger = structlog.wrap_logger(
        _Lines(stream),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _Stamp(clock or SystemClock()),
            _hide_by_key,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=False,
    ).bind()
    return logger


@contextmanager
def route_stdlib(logger: Logger, level: int = logging.WARNING) -> Iterator[None]:
    """While inside, what libraries say through `logging` (asyncio, aiohttp, psycopg) goes to `logger` too.

    It is for a program that owns its process: it adds a handler to the root logger, and takes it away again at the end.

    Args:
        logger: where to.
        level: of `logging`, the least that is taken over.
    """
    handler = _ToLogger(logger, level)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _ToLogger(logging.Handler):
    def __init__(self, logger: Logger, level: int) -> None:
        super().__init__(level)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # the library's mistake; what it meant to say is told all the same
            message = f"{record.msg} (with arguments that do not fit)"
        try:
            levelno = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
            extra = {"exc_info": record.exc_info} if record.exc_info else {}
            self._logger.log(levelno, message, logger=record.name, **extra)
        except Exception:  # noqa: BLE001  # a handler's rule: never raise into a library
            self.handleError(record)


class _Stamp:
    """Adds the time and puts the keys in their order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["msg"] = event.pop("event", "")
        event["ts"] = self._clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        ordered = {key: event[key] for key in FIRST if key in event}
        ordered.update(event)
        return ordered


def _hide_by_key(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _hidden(key, value) for key, value in event.items()}


def _hidden(key: object, value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(key, str) and _SECRET_KEY.search(key) and not _HARMLESS_ENDING.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {name: _hidden(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(None, item) for item in value]
    return value


def _exception_as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        error: BaseException | None = info
    else:
        error = (info if isinstance(info, tuple) else sys.exc_info())[1] if info else None
    if error is not None:
        event["exception"] = "".join(traceback.format_exception(error)).rstrip()
    return event


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=_as_text, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # integers past 64 bits, lone surrogates, keys of odd types
        return json.dumps({str(key): _as_text(value) for key, value in event.items()})


def _as_text(value: object) -> str:
    try:
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {value}"
        return value if isinstance(value, str) else repr(value)
    except Exception as error:  # noqa: BLE001  # a broken __repr__ must not take the record with it
        return f"<{type(value).__name__} that can't be shown: {type(error).__name__}>"


class _Lines:
    """What structlog hands rendered lines to: the last look for secrets, and one write each."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()  # the Lease is renewed by a thread of its own, which logs too

    def msg(self, line: str) -> None:
        line = without_secrets(line) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()

    debug = info = warning = error = critical = msg


def without_secrets(text: str) -> str:
    """`text`, in which what gives itself away as a credential is replaced."""
    return _SECRET_VALUE.sub(_keep_beginning, text)


def _keep_beginning(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup or 0]}{HIDDEN}"

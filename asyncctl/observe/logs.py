"""The log: one line per record, JSON for machines or a console form for people.

A logger is made, bound and passed on; nothing is configured globally. Each line begins with the same keys in the same
order. What looks like a credential, by its key or by its form, is replaced before it is written; what somebody else
wrote neither ends a line nor moves a terminal's cursor, and is cut where it is long. A record that can't be rendered is
written in a poorer form rather than raising into the code that logged it.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
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
TEXT = 8192  # characters of a text, and of an exception's beginning and of its end: a collector takes lines of 64 KiB
ITEMS = 100  # of a list or a map
_WHOLE = 4096  # characters beyond a cut: what looks like a secret is looked for in these too

# A key that holds such a word hides its value, unless its ending says that it only points to the thing.
_SECRET_KEY = re.compile(
    r"passw|passphrase|pgpass|token|secret|verifier|authorization|credential|cookie|private_?key|api_?key|scram|dsn$",
    re.IGNORECASE,
)
_HARMLESS_ENDING = re.compile(
    r"(name|namespace|path|file|folder|ref|kind|type|reason|count|seconds|version)s?$", re.IGNORECASE
)
# Values that give themselves away, wherever they stand: a SCRAM verifier, a JSON Web Token, an Authorization header, a
# password in a URI or in SQL, a private key, a value that is called a password. Each alternative begins with fixed text
# and does not run over its own next beginning, so that a long line costs no more than its length.
_SECRET_VALUE = re.compile(
    r"(?P<scram>SCRAM-SHA-256\$)[^\s\"'\\,]+"
    r"|(?P<jwt>(?<![\w-])eyJ)[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|(?P<header>\b(?:[Bb]earer|[Bb]asic) +)[\w.~+/=-]{8,}"
    r"|(?P<uri>://[^\s:/@\"'\\]{0,255}:)[^\s/@\"'\\]+(?=@)"
    r"|(?P<sql>\b(?:PASSWORD|password) +[Ee]?\\?')[^'\\]+"
    r"|(?P<pem>-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[^-]+"
    r"|(?P<named>\b(?:[Pp]ass(?:word|wd)|PGPASSWORD|[Tt]oken|client_secret)(?:=\\{0,3}[\"']?|\\{0,3}\" ?: ?\\{0,3}\"))"
    r"[^\s\"'\\&,;)]+"
)


# What JSON allows in a text and a reader may take for the end of a line, or a terminal for a command to itself: C1
# controls, line separators, marks that turn the direction.
_UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


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
        rendering = [
            _for_people,
            structlog.dev.ConsoleRenderer(colors=terminal, timestamp_key="ts", event_key="msg", sort_keys=False),
        ]
    else:
        rendering = [_render_json]
    # The lazy proxy binds to what is given here and asks structlog's global configuration for nothing.
    logger: Logger = structlog.wrap_logger(
        _Lines(stream),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _Stamp(clock or SystemClock()),
            _exception_as_text,  # plain: the rich form has local variables, and so whatever secrets they hold
            _hide_and_cut,
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


def _hide_and_cut(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: value if key == "exception" else _allowed(key, value) for key, value in event.items()}


def _allowed(key: object, value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(key, str) and _SECRET_KEY.search(key) and not _HARMLESS_ENDING.search(key):
        return HIDDEN
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, Mapping):
        kept = {name: _allowed(name, item) for name, item in islice(value.items(), ITEMS)}
        return kept if len(value) <= ITEMS else kept | {"…": f"{len(value) - ITEMS} more"}
    if isinstance(value, list | tuple):
        kept_items = [_allowed(None, item) for item in value[:ITEMS]]
        return kept_items if len(value) <= ITEMS else [*kept_items, f"… {len(value) - ITEMS} more"]
    return value


def _cut(text: str, end: int = 0) -> str:
    """Return `text`, or its beginning and the last `end` characters of it; half a secret is no longer known as one."""
    if len(text) <= TEXT + end:
        return text
    first = without_secrets(text[: TEXT + _WHOLE])[:TEXT]
    last = without_secrets(text[-end - _WHOLE :])[-end:] if end else ""
    return f"{first}… ({len(text) - TEXT - end} characters more){last}"


def _exception_as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        error: BaseException | None = info
    else:
        error = (info if isinstance(info, tuple) else sys.exc_info())[1] if info else None
    if error is not None:
        event["exception"] = _cut("".join(traceback.format_exception(error)).rstrip(), end=TEXT)
    return event


def _for_people(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make of all values what can be shown on a terminal, whatever is in them."""
    made: EventDict = {}
    for key, value in event.items():
        if value is None or isinstance(value, bool | int | float):
            made[key] = value
            continue
        text = value if isinstance(value, str) else _as_text(value)
        # a value with one of these is quoted by the renderer, which makes all of it visible
        quoted = key not in {"msg", "exception"} and set(text) & set(" \t=\r\n\"'")
        made[key] = text if quoted else _visible(text, keep="\n\t" if key == "exception" else "")
    return made


def _visible(text: str, keep: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=_as_text, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # integers past 64 bits, lone surrogates, keys of odd types
        return json.dumps({str(key): _as_text(value) for key, value in event.items()})
    return line if line.isprintable() else _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _as_text(value: object) -> str:
    try:
        if isinstance(value, BaseException):
            return _cut(f"{type(value).__name__}: {value}")
        return value if isinstance(value, str) else _cut(repr(value))
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

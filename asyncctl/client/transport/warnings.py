"""`Warning` headers of the API server: each text is logged once, with who called; each warning is counted.

A server warns of deprecated API versions, unknown fields, Pods that a policy would refuse. A header may hold several
warnings, quoted, with commas in the quotes. One that can't be read is logged as it is, not dropped.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from asyncctl.client.errors import Target
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import RequestMetrics

KNOWN = 1000  # texts that are remembered; the one that was longest unheard is forgotten first
LONGEST = 1000  # characters of a text that are kept: it is the server's, or of whoever wrote the webhook
_EXPECTED = ("prefer a domain-qualified finalizer name",)
_WARNING = re.compile(r'\s*(\d{3}) (\S+) +"((?:[^"\\]|\\.)*)"(?:\s*"[^"]*")?\s*(?:,\s*|$)', re.ASCII | re.DOTALL)
_DEPRECATED = re.compile(
    r"(?P<api_version>(?:[a-z0-9][a-z0-9.-]*/)?v\d+(?:(?:alpha|beta)\d+)?) (?P<kind>\w+) is deprecated\b"
)


class Warned(NamedTuple):
    """One warning. `code` is 299 for whatever the API server says; 0 where the header could not be read."""

    code: int
    agent: str
    text: str


def parse_warnings(values: Sequence[str]) -> Iterator[Warned]:
    """Read the values of all `Warning` headers of an answer; what can't be read comes as it is, with code 0.

    Source: RFC 7234, section 5.5, and ParseWarningHeaders of k8s.io/apimachinery/pkg/util/net/http.go; which drops what
    it can't read.
    """
    for value in values:
        rest = _unicode(value).strip()
        while rest:
            found = _WARNING.match(rest)
            if found is None:
                yield Warned(0, "", _clean(rest))
                break
            yield Warned(int(found[1]), found[2], _clean(re.sub(r"\\(.)", r"\1", found[3], flags=re.DOTALL)))
            rest = rest[found.end() :]


class Warnings:
    """Tells of warnings: for one transport, and so for one thread."""

    def __init__(self, logger: Logger, metrics: RequestMetrics) -> None:
        self._logger = logger
        self._metrics = metrics
        self._told: OrderedDict[str, None] = OrderedDict()

    def note(self, values: Sequence[str], target: Target, caller: str = "") -> None:
        """Count each warning in `values`, the `Warning` headers of one answer, and log what was not logged yet.

        Args:
            values: One for each header.
            target: What was asked.
            caller: The controller that asked; empty where it was none.
        """
        for warned in parse_warnings(values):
            self._metrics.warnings.inc()
            if warned.text and warned.code in {0, 299} and not any(known in warned.text for known in _EXPECTED):
                self._tell(warned.text, target, caller)

    def _tell(self, text: str, target: Target, caller: str) -> None:
        if text in self._told:
            self._told.move_to_end(text)
            return
        self._told[text] = None
        if len(self._told) > KNOWN:
            self._told.popitem(last=False)
        about = {"warning": text, "request": str(target)} | ({"controller": caller} if caller else {})
        deprecated = _DEPRECATED.match(text)
        if deprecated is None:
            self._logger.warning("the API server warns", **about)
        else:
            self._logger.warning("a deprecated API version is used", **deprecated.groupdict(), **about)


def _unicode(value: str) -> str:
    """A header is bytes, read as Latin-1 where nobody knows better; the API server writes UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _clean(text: str) -> str:
    """Return `text` so that it can stand in a log: short, one line, and valid Unicode."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return "".join(sign if sign.isprintable() else "�" for sign in short)

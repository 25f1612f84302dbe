"""What can be told of a reply before anybody knows what it is: its Status, when to ask again, how it begins.

A reply may be anything: a proxy's page, half of something, what somebody hostile sent. Nothing here raises.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import orjson

from asyncctl.objects.json import JsonObject

START = 200  # characters of a reply that is no Status, or of a reason, that are shown
TEXT = 4096  # characters of a message that are shown; `server_message` has it whole
_VALUE = re.compile(
    r"""(\b(?:Invalid|Unsupported|Duplicate)\ value:\ )(?:"(?:[^"\\]|\\.)*"|[^":]+(?=:))
    |(\bgot\ ).*""",
    re.DOTALL | re.VERBOSE,
)


def visible(text: str, limit: int, *, keep: str = "") -> str:
    """`text`, no longer than `limit`, in which no character moves a terminal's cursor or hides others."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in cut
    )


def without_values(message: str) -> str:
    """A message about a Secret without the values that the API server quotes: a refused patch shows all of the object.

    Source: field.Error of k8s.io/apimachinery/pkg/util/validation/field/errors.go; structured-merge-diff's errors.
    """
    return _VALUE.sub(lambda found: f"{found[1] or found[2]}***", message)


def start_of(body: bytes) -> str:
    """The start of a reply that is not what was wanted, as text."""
    return visible(body[: 4 * START].decode(errors="replace").strip(), START) or "(empty body)"


def status_of(body: bytes) -> JsonObject | None:
    """The `Status` that a reply is; None when it is none."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else None


def retry_after(status: JsonObject, headers: Mapping[str, str]) -> float | None:
    """Seconds, from the header or the details. A date (RFC 9110) is held against the answer's own, not our clock."""
    details = status.get("details")
    wanted = headers.get("Retry-After") or (details.get("retryAfterSeconds") if isinstance(details, dict) else None)
    try:
        seconds = _until(wanted, headers) if isinstance(wanted, str) and "," in wanted else float(wanted or "nan")
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _until(date: str, headers: Mapping[str, str]) -> float:
    return (parsedate_to_datetime(date) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()

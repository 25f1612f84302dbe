"""A line of a watch, read as far as it has to be: what kind of event it is, and where its object is.

The objects of ordinary events are cut out by what the API server writes around them, and not parsed twice; whatever is
written in another way, and is JSON, is read all the same. What is no event at all is an error of the stream.
"""

import msgspec

from asyncctl.cache.unread import split_event
from asyncctl.client.errors import StreamError

ENDS = "k8s.io/initial-events-end"
"""The annotation of the bookmark after which a stream has told all there was (KEP-3157)."""

_ADDED, _MODIFIED, _DELETED = (f'{{"type":"{kind}","object":{{'.encode() for kind in ("ADDED", "MODIFIED", "DELETED"))


class NoEvent(StreamError):
    """A line that says nothing: garbage, which would come again if the watch went on from before it."""


class Bookmark(msgspec.Struct, frozen=True, gc=False):
    """How far the watch has come; `ends`: that was all there is, changes follow."""

    version: int
    ends: bool


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str
    annotations: dict[str, str] | None = None


class _Versioned(msgspec.Struct):
    metadata: _Metadata


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_versioned = msgspec.json.Decoder(_Versioned).decode


def read_event(line: bytes) -> tuple[str, bytes | msgspec.Raw]:
    """Return the type of an event and its object, which has yet to prove that it is one.

    Raises:
        NoEvent: It is no event.
    """
    if line.endswith(b"}}"):
        if line.startswith(_MODIFIED):
            return "MODIFIED", line[28:-1]
        if line.startswith(_ADDED):
            return "ADDED", line[25:-1]
        if line.startswith(_DELETED):
            return "DELETED", line[27:-1]
    return read_any_event(line)


def read_any_event(line: bytes) -> tuple[str, bytes | msgspec.Raw]:
    """As `read_event`, of a line that is checked as a whole."""
    try:
        event = _decode_event(line)
    except RecursionError:  # it may still be told whose it is
        kind, raw = split_event(line)
        if kind and raw:
            return kind, raw
        raise NoEvent("a line of the watch is no event: it is nested too deeply") from None
    except ValueError as error:
        raise NoEvent(f"a line of the watch is no event: {error}") from error
    return event.type, event.object


def read_bookmark(raw: bytes | msgspec.Raw) -> Bookmark:
    """Read the object of a bookmark.

    Raises:
        NoEvent: It says no resourceVersion that is a number.
    """
    try:
        metadata = _decode_versioned(raw).metadata
        return Bookmark(int(metadata.resource_version), (metadata.annotations or {}).get(ENDS) == "true")
    except (ValueError, RecursionError) as error:
        raise NoEvent(f"a bookmark of the watch can't be read: {error}") from error

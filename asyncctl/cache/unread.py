"""What can be made out of JSON that a decoder does not take: which object it is, and which others stand beside it.

An object may be nested too deeply for a decoder, or have metadata that is not what the API promises. It is then taken
apart by its brackets alone: slowly, and only where decoding has failed, so that one such object hides no other.
"""

import re
from contextlib import suppress
from typing import NamedTuple

import msgspec

from asyncctl.cache.header import Key
from asyncctl.client.listing import Page

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_MEMBER = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*(.*)', re.DOTALL)


class Identity(NamedTuple):
    """Whose state it is, as far as it can be told: empty, 0 and None for what can't."""

    key: Key | None
    uid: str
    version: int

    def __str__(self) -> str:
        return "/".join(filter(None, self.key)) if self.key is not None else "one whose name can't be made out"


def identify(raw: bytes) -> Identity:
    """Tell which object `raw` is."""
    metadata = _members(_members(raw).get("metadata", b""))
    name, namespace, uid, version = (
        _text(metadata.get(key, b"")) for key in ("name", "namespace", "uid", "resourceVersion")
    )
    return Identity((namespace, name) if name else None, uid, int(version) if version.isdecimal() else 0)


def split_event(line: bytes) -> tuple[str, bytes]:
    """The type and the object of an event of a watch; both empty when it is none."""
    members = _members(line)
    return _text(members.get("type", b"")), members.get("object", b"")


def split_page(body: bytes) -> Page:
    """A page of a list, whose objects are not looked at."""
    members = _members(body)
    metadata = _members(members.get("metadata", b""))
    version, token = (_text(metadata.get(key, b"")) for key in ("resourceVersion", "continue"))
    return Page([msgspec.Raw(item) for item in _parts(members.get("items", b""))], version, token)


def _members(text: bytes) -> dict[str, bytes]:
    found = (_MEMBER.fullmatch(part) for part in _parts(text))
    return {_text(member[1]): member[2].rstrip() for member in found if member is not None}


def _parts(text: bytes) -> list[bytes]:
    """What stands between the commas of the outermost object or array."""
    depth = start = 0
    parts: list[bytes] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in {b"{", b"["}:
            depth += 1
            if depth == 1:
                start = match.end()
        elif token in {b"}", b"]"}:
            depth -= 1
            if depth == 0:
                return [*parts, text[start : match.start()]] if text[start : match.start()].strip() else parts
        elif token == b"," and depth == 1:
            parts.append(text[start : match.start()])
            start = match.end()
    return []


def _text(raw: bytes) -> str:
    with suppress(*UNREADABLE):
        return msgspec.json.decode(raw, type=str)
    return ""

"""Would a server-side apply change anything? Told from the cache alone, so that the steady state costs no request.

Comparing what is wanted with what is cached is not enough: the server normalises quantities and fills in defaults,
and another manager may have taken a field over and put its value back. So an apply is skipped in three cases only:
the object is at the very version that our last apply of the same was answered with; or the server's own record of what
we apply (our `fieldsV1`), and the object seen through it, are as that answer had them; or, when there was no answer
yet in this process, that record covers all that is wanted and the object has it word for word. Where a server tells
no such record (an aggregated one need not), only the first holds.
"""

import hashlib
from typing import NamedTuple

import orjson

from asyncctl.cache.header import Entry, Header, Key, annotations_of
from asyncctl.objects.builtin import Secret
from asyncctl.objects.json import Json, JsonObject
from asyncctl.objects.resource import ResourceType

ANNOTATION = "asyncctl/applied"
_NO_FIELDS = frozenset({"apiVersion", "kind"})  # members of an object that say what it is, and that no manager owns
_NO_METADATA = frozenset({"name", "namespace"})


class _Answer(NamedTuple):
    """How our last apply was answered. Hashes, because there is one for each object that is applied."""

    wish: int
    """Of what was applied, and to which uid."""
    version: int
    """The resourceVersion of the answer, or of what was found to be the same since."""
    mark: int | None
    """Its `fingerprint`."""
    look: int
    """Of the author's object as it came, and of the uid: what looks the same is the same wish, not the other way."""


class Applied:
    """The answers to the applies of one controller, by object."""

    def __init__(self) -> None:
        self._answers: dict[tuple[ResourceType, Key], _Answer] = {}

    def answered(self, kind: ResourceType, entry: Entry, told: str, look: int) -> None:
        """An apply of what has the digest `told`, and looked like that, was answered with `entry`."""
        self._keep(kind, entry.header, told, fingerprint(entry), look)

    def _keep(self, kind: ResourceType, header: Header, told: str, mark: int | None, look: int) -> None:
        uid = header.uid
        self._answers[kind, header.key] = _Answer(hash((uid, told)), header.version, mark, hash((uid, look)))

    def forget(self, kind: ResourceType, key: Key) -> None:
        """The object is gone."""
        self._answers.pop((kind, key), None)

    def looks_current(self, kind: ResourceType, entry: Entry, look: int) -> bool:
        """Whether what looks like that was the last wish, and `entry` is at the very version of its answer."""
        header = entry.header
        known = self._answers.get((kind, header.key))
        if known is None or not look:
            return False
        return known.version == header.version > 0 and known.look == hash((header.uid, look))

    def is_current(
        self, kind: ResourceType, entry: Entry, wanted: JsonObject, told: str, look: int, *, shown: str | None = None
    ) -> bool:
        """Whether an apply of `wanted`, whose digest is `told`, would change nothing of `entry`.

        `shown` is what the object's annotation says of it, where that is not `told`.
        """
        header = entry.header
        known = self._answers.get((kind, header.key))
        if known is not None and known.wish != hash((header.uid, told)):
            known = None
        if known is not None and known.version == header.version > 0:
            self._keep(kind, header, told, known.mark, look)
            return True
        if annotations_of(entry).get(ANNOTATION) != (shown or told):
            return False
        mark = fingerprint(entry)
        if mark is None:
            return False
        if known is None:
            if not _is_all_ours(entry, wanted):
                return False
        elif known.mark != mark:
            return False
        self._keep(kind, header, told, mark, look)
        return True


def digest(wanted: JsonObject) -> str:
    """What is wanted, in 32 hex digits; the same for the same wish, whatever its key order."""
    return hashlib.sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def shown_digest(wanted: JsonObject, kind: ResourceType) -> str:
    """The digest that is kept on the object, for all who may read its metadata: of a Secret's keys, not its values."""
    if kind == Secret.resource_type and wanted.get("data"):
        wanted = wanted | {"data": sorted(wanted["data"])}
    return digest(wanted)


def fingerprint(entry: Entry) -> int | None:
    """What we own of `entry` and the values it has; None when the server has no record of an apply of ours."""
    if entry.applied is None or entry.applied == b"{}":  # what we apply has our annotation at the least
        return None
    seen = _project(orjson.loads(entry.applied), orjson.loads(entry.data))
    return hash((entry.applied, orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)))


def contains(have: Json, wanted: Json) -> bool:
    """Whether each leaf of `wanted` is in `have`; lists count as leaves."""
    if isinstance(wanted, dict) and isinstance(have, dict):
        return all(key in have and contains(have[key], value) for key, value in wanted.items())
    return have == wanted


def covers(fields: JsonObject, wanted: Json) -> bool:
    """Whether `fieldsV1` has each leaf of `wanted`, so that its manager owns it. Where that can't be told: no."""
    if not fields:  # owned as a whole
        return True
    if isinstance(wanted, dict):
        return all(f"f:{name}" in fields and covers(fields[f"f:{name}"], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return all(_covers_item(fields, item) for item in wanted)
    return False


def _covers_item(fields: JsonObject, item: Json) -> bool:
    for field, below in fields.items():
        mark, _, name = field.partition(":")
        if mark == "v" and orjson.loads(name) == item:
            return True
        if mark == "k" and isinstance(item, dict) and orjson.loads(name).items() <= item.items():
            return covers(below, item)
    return False


def _is_all_ours(entry: Entry, wanted: JsonObject) -> bool:
    assert entry.applied is not None
    said = {key: value for key, value in wanted.items() if key not in _NO_FIELDS}  # the items of a list lack these too
    if not contains(orjson.loads(entry.data), said):
        return False
    said["metadata"] = {key: value for key, value in said["metadata"].items() if key not in _NO_METADATA}
    return covers(orjson.loads(entry.applied), said)


def _project(fields: JsonObject, value: Json) -> list[Json]:
    """`value` seen through structured-merge-diff's `fieldsV1`: f: a member, k: a list item by key, v: one by value."""
    seen: list[Json] = []
    for field, below in fields.items():
        mark, _, name = field.partition(":")
        found: Json = None
        if mark == "f":
            found = value.get(name) if isinstance(value, dict) else None
        elif mark == "k":
            found = _item(value, orjson.loads(name))
        elif mark == "v":
            found = isinstance(value, list) and orjson.loads(name) in value
        elif mark == ".":
            found = value is not None
        seen.append([field, _project(below, found) if below else found])
    return seen


def _item(items: Json, keys: JsonObject) -> Json:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and all(item.get(key) == value for key, value in keys.items()):
            return item
    return None

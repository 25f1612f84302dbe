"""Would a server-side apply change anything? Told from the cache alone, so that the steady state costs no request.

Comparing what is wanted with what is cached is not enough: the server normalises quantities and fills in defaults,
and another manager may have taken a field over and put its value back. So the comparison is between the server's own
record of what we apply (our `fieldsV1`), with the object seen through it, now and as our last apply was answered.
"""

import hashlib

import orjson

from asyncctl.cache.header import Entry
from asyncctl.objects.json import Json, JsonObject

ANNOTATION = "asyncctl/applied"


def digest(wanted: JsonObject) -> str:
    """What is wanted, in 32 hex digits; the same for the same wish, whatever its key order. Kept on the object."""
    return hashlib.sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def fingerprint(entry: Entry) -> int | None:
    """What we own of `entry` and the values it has; None when the server has no record of an apply of ours."""
    if entry.applied is None:
        return None
    seen = _project(orjson.loads(entry.applied), orjson.loads(entry.data))
    return hash((entry.applied, orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)))


def contains(have: object, wanted: object) -> bool:
    """Whether each leaf of `wanted` is in `have`; lists count as leaves."""
    if isinstance(wanted, dict) and isinstance(have, dict):
        return all(key in have and contains(have[key], value) for key, value in wanted.items())
    return have == wanted


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

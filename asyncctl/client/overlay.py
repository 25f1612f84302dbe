"""What a class changed, laid over what the server has: fields that the class does not know stay.

A class may know a part of its kind only, so what it encodes is never the whole object. Where it can't be told which
item of a list is which, and something would be lost, nothing is guessed.
"""

from collections.abc import Iterator

import orjson

from asyncctl.objects.json import Json, JsonObject

_KEYS = ("name", "type", "key", "uid", "id", "ip", "containerPort", "port")
"""By which Kubernetes tells the items of a list apart, the most telling first."""


def overlay(live: Json, before: Json, after: Json, path: str = "") -> Json:
    """Return `live` with the changes from `before` to `after`.

    Args:
        live: What the server has.
        before: What the class made of `live`, encoded again.
        after: The same after it was changed.
        path: Where in the object this is.

    Raises:
        ValueError: Items of a list have changed so that none can be matched with what it was, and they have fields that
            the class does not know.
    """
    if same(before, after):
        return live
    if isinstance(live, dict) and isinstance(before, dict) and isinstance(after, dict):
        kept = {key: value for key, value in live.items() if key in after or key not in before}
        changed = {
            key: overlay(live.get(key), before.get(key), value, f"{path}.{key}" if path else key)
            for key, value in after.items()
            if key not in before or not same(before[key], value)
        }
        return kept | changed
    if isinstance(live, list) and isinstance(before, list) and isinstance(after, list) and len(live) == len(before):
        # of plain values nothing is unknown, and a set's are in another order
        return _items(live, before, after, path) if any(isinstance(item, dict | list) for item in live) else after
    return after


def same(one: Json, other: Json) -> bool:
    """Whether two values are one on the wire; Python takes 1 and True for equal."""
    return one == other and orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        other, option=orjson.OPT_SORT_KEYS
    )


def _items(live: list[Json], before: list[Json], after: list[Json], path: str) -> list[Json]:
    was = _by_key(before, after)  # the place in `after` -> its place in `before`
    if was is None:
        was = dict(_unchanged(before, after))
        if len(before) == len(after) == len(was) + 1:  # one has changed
            (new,), (old,) = (set(range(len(after))) - set(places) for places in (was, was.values()))
            was[new] = old
    gone = set(range(len(before))) - set(was.values())
    if len(was) < len(after) and any(_unknown(live[old], before[old]) for old in gone):
        raise ValueError(
            f"{path}: it can't be told which item of the list is which after this change, and fields of them that the "
            "class does not know would be lost; change it by patch, or with an Unstructured kind"
        )
    return [
        overlay(live[was[new]], before[was[new]], item, f"{path}[{new}]") if new in was else item
        for new, item in enumerate(after)
    ]


def _unknown(live: Json, before: Json) -> bool:
    """Whether something is in `live` that the class has not read."""
    if isinstance(live, dict):
        known = before if isinstance(before, dict) else {}
        return any(value and _unknown(value, known.get(key)) for key, value in live.items())
    if isinstance(live, list):
        if not isinstance(before, list) or len(live) != len(before):
            return True
        return any(map(_unknown, live, before))
    return live is not None and before is None


def _unchanged(before: list[Json], after: list[Json]) -> Iterator[tuple[int, int]]:
    free: dict[bytes, list[int]] = {}
    for old, item in enumerate(before):
        free.setdefault(orjson.dumps(item, option=orjson.OPT_SORT_KEYS), []).append(old)
    for new, item in enumerate(after):
        if places := free.get(orjson.dumps(item, option=orjson.OPT_SORT_KEYS)):
            yield new, places.pop(0)


def _by_key(before: list[Json], after: list[Json]) -> dict[int, int] | None:
    for key in _KEYS:
        old, new = _named(before, key), _named(after, key)
        if old is not None and new is not None:
            return {place: old[name] for name, place in new.items() if name in old}
    return None


def _named(items: list[Json], key: str) -> dict[Json, int] | None:
    """The items' places by that key; None unless each has it, and each another."""
    found: dict[Json, int] = {}
    for place, item in enumerate(items):
        name = item.get(key) if isinstance(item, dict) else None
        if not isinstance(name, str | int) or name in found:
            return None
        found[name] = place
    return found


def object_overlay(live: JsonObject, before: JsonObject, after: JsonObject) -> JsonObject:
    """`overlay` of whole objects."""
    merged = overlay(live, before, after)
    assert isinstance(merged, dict)
    return merged

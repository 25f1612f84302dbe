"""Sets of field paths, and the walks over values that produce and use them: what server-side apply counts with.

A path is a tuple of elements as they stand in `fieldsV1`: `f:name`, `k:{"key":"value"}`, `v:"value"`. How lists and
maps are keyed comes from the kind's schema; where that is silent, maps are granular and lists atomic. The rules are
those of `structured-merge-diff` (`typed/compare.go`, `typed/tofieldset.go`, `typed/merge.go`, `typed/remove.go`).
"""

from collections.abc import Iterable

import orjson

from asyncctl.apiserver.schema import OPEN, Node
from asyncctl.apiserver.wire import Json, JsonObject

Path = tuple[str, ...]
FieldSet = frozenset[Path]

MISSING: Json = object()
"""Stands for a value that is not there, since null is a value."""


def encode(paths: Iterable[Path]) -> JsonObject:
    """Write a set of paths as `fieldsV1`."""
    root: JsonObject = {}
    leaves: list[JsonObject] = []
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        leaves.append(node)
    for node in leaves:
        if node:
            node["."] = {}
    return root


def decode(fields: JsonObject, prefix: Path = ()) -> FieldSet:
    """Read `fieldsV1`."""
    found: set[Path] = set()
    for element, below in fields.items():
        if element == ".":
            found.add(prefix)
            continue
        path = (*prefix, element)
        if below:
            found |= decode(below, path)
        else:
            found.add(path)
    return frozenset(found)


def order(path: Path) -> list[tuple[bool, str]]:
    """Return what paths are sorted by: of two in one place, the one that ends there comes first."""
    return [(depth < len(path), element) for depth, element in enumerate(path, 1)]


def shown(path: Path) -> str:
    """Write a path as conflicts show it: `.spec.items[name="x"].v`."""
    text = ""
    for element in path:
        sort, _, rest = element.partition(":")
        if sort == "f":
            text += f".{rest}"
        elif sort == "k":
            keys = orjson.loads(rest)
            text += "[" + ",".join(f"{name}={orjson.dumps(keys[name]).decode()}" for name in sorted(keys)) + "]"
        else:
            text += f"[={rest}]" if sort == "v" else f"[{rest}]"
    return text


def child(node: Node | None, name: str) -> Node:
    """Return the schema of a field; one that is not declared is open."""
    return (node.child(name) if node else None) or OPEN


def _item(node: Node) -> Node:
    return node.item() or OPEN


def _is_leaf(value: Json, node: Node) -> bool:
    """Tell whether a value is owned as a whole."""
    if isinstance(value, dict):
        return node.map_type == "atomic"
    return not isinstance(value, list) or node.list_type == "atomic"


def element_of(entry: Json, node: Node) -> str:
    """Return the path element of a list's entry; `node` is the list's schema. Raise ValueError when it has no key."""
    if node.list_type == "set":
        return "v:" + orjson.dumps(entry, option=orjson.OPT_SORT_KEYS).decode()
    keys: JsonObject = {}
    for name in node.map_keys:
        value = entry.get(name, MISSING) if isinstance(entry, dict) else MISSING
        if value is MISSING:
            value = child(_item(node), name).default
        if value is not None:
            keys[name] = value
    if not keys:
        names = " ".join(orjson.dumps(name).decode() for name in node.map_keys)
        raise ValueError(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def _index(entries: list[Json], node: Node) -> dict[str, Json]:
    return {element_of(entry, node): entry for entry in entries}


def paths_of(value: Json, node: Node, path: Path = ()) -> set[Path]:
    """Return the fields a value has, as an apply of that value owns them."""
    found: set[Path] = set()
    if _is_leaf(value, node):
        found.add(path)
    elif isinstance(value, dict):
        for name, each in value.items():
            below = (*path, f"f:{name}")
            found |= paths_of(each, child(node, name), below)
            if each is None or each == {} or name not in node.properties:
                found.add(below)
    else:
        for entry in value:
            below = (*path, element_of(entry, node))
            found |= paths_of(entry, _item(node), below)
            found.add(below)
    return found


def check(value: Json, node: Node, path: Path = ()) -> None:
    """Hold an applied value against its schema. Raise ValueError, with the path, for what does not fit."""
    if value is None:
        return
    if isinstance(value, dict):
        if node.type not in {"object", ""}:
            raise _unfit(path, node, value)
        for name, each in value.items():
            check(each, child(node, name), (*path, f"f:{name}"))
    elif isinstance(value, list):
        if node.type not in {"array", ""}:
            raise _unfit(path, node, value)
        seen: set[str] = set()
        for index, entry in enumerate(value):
            below = (*path, f"i:{index}")
            if node.list_type != "atomic":
                try:
                    element = element_of(entry, node)
                except ValueError as error:
                    raise ValueError(f"{shown(path)}: element {index}: {error}") from None
                below = (*path, element)
                if element in seen:
                    raise ValueError(f"{shown(path)}: duplicate entries for key {shown((element,))}")
                seen.add(element)
            check(entry, _item(node), below)
    elif not _scalar_fits(value, node):
        raise _unfit(path, node, value)


def _scalar_fits(value: Json, node: Node) -> bool:
    if node.int_or_string or not node.type:
        return True
    if node.type in {"integer", "number"}:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool}.get(node.type, ()))


def _unfit(path: Path, node: Node, value: Json) -> ValueError:
    wanted = {"integer": "numeric (int or float)", "number": "numeric (int or float)", "object": "map", "array": "list"}
    got = "string" if isinstance(value, str) else f"&value.valueUnstructured{{Value:{orjson.dumps(value).decode()}}}"
    return ValueError(f"{shown(path)}: expected {wanted.get(node.type, node.type)}, got {got}")


class Comparison:
    """What differs between two values: the paths added, modified and removed."""

    def __init__(self, old: Json, new: Json, node: Node) -> None:
        self.added: set[Path] = set()
        self.modified: set[Path] = set()
        self.removed: set[Path] = set()
        self._compare(old, new, node, ())

    @property
    def changed(self) -> set[Path]:
        """The paths that have a new value."""
        return self.added | self.modified

    def _compare(self, old: Json, new: Json, node: Node, path: Path) -> None:
        if old is not MISSING and new is not MISSING and old == new and type(old) is type(new):
            return
        # A null stands for an empty list or map where the other value is one.
        if new is None and isinstance(old, dict | list):
            new = type(old)()
        sample = old if new is MISSING else new
        other = old if old is not MISSING and old is not None else sample
        if type(other) is not type(sample) or _is_leaf(sample, node) or (not sample and (old is MISSING or not old)):
            self._leaf(old, new, path)
            return
        if isinstance(sample, dict):
            before = old if isinstance(old, dict) else {}
            after = new if isinstance(new, dict) else {}
            for name in before.keys() | after.keys():
                below = (*path, f"f:{name}")
                self._compare(before.get(name, MISSING), after.get(name, MISSING), child(node, name), below)
        else:
            before = _index(old if isinstance(old, list) else [], node)
            after = _index(new if isinstance(new, list) else [], node)
            for element in before.keys() | after.keys():
                below = (*path, element)
                self._compare(before.get(element, MISSING), after.get(element, MISSING), _item(node), below)
        if old is MISSING:
            self.added.add(path)
        elif new is MISSING:
            self.removed.add(path)

    def _leaf(self, old: Json, new: Json, path: Path) -> None:
        if old is MISSING:
            self.added.add(path)
        elif new is MISSING:
            self.removed.add(path)
        elif old != new:
            self.modified.add(path)


def merge(old: Json, new: Json, node: Node) -> Json:
    """Lay an applied value over the live one."""
    if type(old) is not type(new) or _is_leaf(new, node):
        return new
    if not new:
        return old
    if isinstance(new, dict):
        merged = dict(old)
        for name, value in new.items():
            merged[name] = merge(old[name], value, child(node, name)) if name in old else value
        return merged
    return _merge_lists(old, new, node)


def _merge_lists(old: list[Json], new: list[Json], node: Node) -> list[Json]:
    """Merge keyed lists: entries of both stand in the new order, an entry only the old one has keeps its neighbour."""
    before, after = _index(old, node), _index(new, node)
    merged: list[Json] = []
    placed: set[str] = set()

    def place(element: str) -> None:
        if element not in placed:
            placed.add(element)
            have = before.get(element, MISSING)
            merged.append(after[element] if have is MISSING else merge(have, after[element], _item(node)))

    shared = [element for element in after if element in before]
    pending = iter(after)
    for element, entry in before.items():
        if element not in after:
            merged.append(entry)
            continue
        if element != next((each for each in shared if each not in placed), element):
            continue
        for wanted in pending:
            place(wanted)
            if wanted == element:
                break
    for wanted in pending:
        place(wanted)
    return merged


def remove(value: Json, gone: set[Path], node: Node) -> Json:
    """Return `value` without the fields in `gone`; MISSING when nothing is left of it."""
    if not gone or not isinstance(value, dict | list) or not value:
        return value
    if _is_leaf(value, node):
        return MISSING
    below: dict[str, set[Path]] = {}
    for path in gone:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, dict):
        kept: JsonObject = {}
        for name, each in value.items():
            lost = below.get(f"f:{name}")
            left = each if lost is None else MISSING if () in lost else remove(each, lost, child(node, name))
            if left is not MISSING:
                kept[name] = left
            elif lost is not None and () not in lost:
                kept[name] = None
        return kept or MISSING
    entries: list[Json] = []
    for entry in value:
        lost = below.get(element_of(entry, node))
        left = entry if lost is None else MISSING if () in lost else remove(entry, lost, _item(node))
        if left is not MISSING:
            entries.append(left)
    return entries or MISSING


def with_parents(paths: Iterable[Path], node: Node) -> set[Path]:
    """Add the declared fields above each path: a struct counts as owned by who owns a part of it."""
    found = set(paths)
    for path in paths:
        here: Node = node
        for depth, element in enumerate(path[:-1], 1):
            sort, _, name = element.partition(":")
            if sort == "f":
                if name in here.properties:
                    found.add(path[:depth])
                here = child(here, name)
            else:
                here = _item(here)
    return found


def copy(value: Json) -> Json:
    """Return a JSON value as one of the caller's own."""
    return orjson.loads(orjson.dumps(value))

"""Rules on an object's shape that walk the nodes of its schema: lists that are sets or maps, objects inside objects.

Source: `listtype/validation.go` and `objectmeta/validation.go` of `k8s.io/apiextensions-apiserver/pkg/apiserver/schema`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyncctl.apiserver import causes
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.wire import Json

if TYPE_CHECKING:
    from asyncctl.apiserver.schema import Node


def duplicate_entries(node: "Node | None", value: Json, path: str = "") -> list[Cause]:
    """Return a cause for each repeated entry of the lists below that are sets or maps."""
    found: list[Cause] = []
    if node is None:
        return found
    if isinstance(value, dict):
        for key, each in value.items():
            if (known := node.properties.get(key)) is not None:
                if key != "metadata" or path:
                    found += duplicate_entries(known, each, causes.child(path, key))
            elif node.additional is not None:
                found += duplicate_entries(node.additional, each, f"{path}[{key}]")
    elif isinstance(value, list):
        if node.list_type == "set":
            found += _repeated(value, value, path)
        elif node.list_type == "map":
            for index, each in enumerate(value):
                if each is not None and not isinstance(each, dict):
                    text = "must be an object for an array of list-type map"
                    return [causes.invalid(f"{path}[{index}]", each, text)]
            keys = [{key: each[key] for key in node.map_keys if key in each} if each else {} for each in value]
            found += _repeated(keys, keys, path)
        for index, each in enumerate(value):
            found += duplicate_entries(node.items, each, f"{path}[{index}]")
    return found


def _repeated(identities: Sequence[Json], shown: Sequence[Json], path: str) -> list[Cause]:
    seen: dict[str, int] = {}
    found = []
    for index, identity in enumerate(identities):
        text = causes.go_json(identity)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:
            found.append(causes.duplicate(f"{path}[{index}]", shown[index]))
    return found


def embedded_resources(node: "Node | None", value: Json, path: str = "") -> list[Cause]:
    """Return a cause for each object inside the object that does not say what it is. Its metadata is not judged."""
    found: list[Cause] = []
    if node is None or not isinstance(value, dict | list):
        return found
    if isinstance(value, list):
        for index, each in enumerate(value):
            found += embedded_resources(node.items, each, f"{path}[{index}]")
        return found
    if node.embedded and path:
        found += [causes.required(f"{path}.{key}") for key in ("apiVersion", "kind") if key not in value]
    for key, each in value.items():
        if (known := node.properties.get(key)) is not None:
            found += embedded_resources(known, each, causes.child(path, key))
        elif node.additional is not None:
            found += embedded_resources(node.additional, each, f"{path}[{key}]")
    return found

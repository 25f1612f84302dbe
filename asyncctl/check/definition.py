"""Where a CustomResourceDefinition of a cluster differs from what the code generates, by path.

What the server fills in by itself is no difference, nor is another version beside ours. `grave` is what the program
can't do its work with: a field that the server would drop, a value that it would refuse, another type.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from asyncctl.objects.json import Json, JsonObject

_ROOT = frozenset({"apiVersion", "kind", "metadata"})  # every object has them
_SETS = frozenset({"enum", "required", "x-kubernetes-list-map-keys"})
_WORDS = frozenset({"description", "example", "externalDocs", "title"})
_IN_OPENAPI = "x-kubernetes-group-version-kind"
_GRAVE = frozenset({"type", "format", "x-kubernetes-list-map-keys"})


class Difference(NamedTuple):
    """One difference. `newer`: it is there, and the code does not know it; `older`: it is not there."""

    path: str
    text: str
    grave: bool = False
    older: bool = False
    newer: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def differences(wanted: JsonObject, found: JsonObject) -> list[Difference]:
    """Compare two CustomResourceDefinitions: `wanted` as the code makes it, `found` as the cluster has it."""
    return list(_definition(wanted["spec"], found.get("spec") or {}))


def schema_differences(wanted: JsonObject, found: JsonObject) -> list[Difference]:
    """Compare the schemas of two objects, but for what every object has."""
    return list(_schema(wanted, found, ""))


def schema_of(definition: JsonObject) -> JsonObject:
    """The schema of the only version that the code generates."""
    found: JsonObject = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _definition(wanted: JsonObject, found: JsonObject) -> Iterator[Difference]:
    if wanted["scope"] != found.get("scope"):
        yield Difference("scope", f"{found.get('scope')}, should be {wanted['scope']}", grave=True)
    names, theirs = wanted["names"], found.get("names") or {}
    for key in ("kind", "plural", "listKind", "singular", "shortNames", "categories"):
        if key in names and names[key] != theirs.get(key):
            yield Difference(f"names.{key}", f"{theirs.get(key)}, should be {names[key]}", grave=key == "kind")
    version = wanted["versions"][0]
    name = version["name"]
    other = next((each for each in found.get("versions") or () if each.get("name") == name), None)
    if other is None:
        yield Difference(name, "the version is not there", grave=True, older=True)
        return
    if not other.get("served"):
        yield Difference(name, "the version is not served", grave=True)
    if "subresources" in version and "status" not in (other.get("subresources") or {}):
        yield Difference(f"{name}.subresources.status", "is not there", grave=True, older=True)
    if version.get("additionalPrinterColumns", []) != other.get("additionalPrinterColumns", []):
        yield Difference(f"{name}.additionalPrinterColumns", "differ")
    yield from _schema(schema_of({"spec": wanted}), (other.get("schema") or {}).get("openAPIV3Schema") or {}, "")


def _schema(wanted: JsonObject, found: JsonObject, path: str) -> Iterator[Difference]:
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        if key == _IN_OPENAPI:
            continue
        here, there = wanted.get(key), found.get(key)
        if key == "properties":
            yield from _properties(here or {}, there or {}, path)
        elif key in {"items", "additionalProperties"} and isinstance(here, dict) and isinstance(there, dict):
            yield from _schema(here, there, f"{path}[]")
        elif key == "x-kubernetes-validations":
            yield from _rules(_list(here), _list(there), path)
        elif key in _SETS:
            yield from _values(key, _list(here), _list(there), path)
        elif here != there:
            yield _keyword(key, here, there, path)


def _properties(wanted: JsonObject, found: JsonObject, path: str) -> Iterator[Difference]:
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        if not path and name in _ROOT:
            continue
        below = f"{path}.{name}" if path else name
        if name not in found:
            yield Difference(below, "the cluster does not know this field, and would drop it", grave=True, older=True)
        elif name not in wanted:
            yield Difference(below, "a field that this program does not know", newer=True)
        else:
            yield from _schema(wanted[name], found[name], below)


def _rules(wanted: list[JsonObject], found: list[JsonObject], path: str) -> Iterator[Difference]:
    ours, theirs = ({rule.get("rule") for rule in rules} for rules in (wanted, found))
    for rule in wanted:
        if rule["rule"] not in theirs:
            yield Difference(path or "the object", f"the rule {rule['rule']!r} is not there", older=True)
    for rule in found:
        if rule.get("rule") not in ours:
            yield Difference(path or "the object", f"a rule that this program does not know: {rule.get('rule')!r}",
                             newer=True)  # fmt: skip


def _values(key: str, wanted: list[Json], found: list[Json], path: str) -> Iterator[Difference]:
    missing = [value for value in wanted if value not in found]
    further = [value for value in found if value not in wanted]
    if missing:
        text = f"{key} lacks {', '.join(map(str, missing))}"
        yield Difference(path, text, grave=key in _GRAVE or (key == "enum" and bool(found)), older=True)
    if further:
        yield Difference(path, f"{key} has {', '.join(map(str, further))} too", grave=key in _GRAVE, newer=True)


def _list(value: Json) -> list[Any]:
    return value if isinstance(value, list) else []


def _keyword(key: str, here: Json, there: Json, path: str) -> Difference:
    if key in _WORDS:
        return Difference(path or "the object", f"{key} differs")
    grave = key in _GRAVE or key.startswith("x-kubernetes-")
    shown = "none" if there is None else there
    return Difference(path or "the object", f"{key} is {shown}, should be {'none' if here is None else here}", grave)

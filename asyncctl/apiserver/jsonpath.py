r"""JSONPath as kubectl and CustomResourceDefinitions use it: fields, indexes, slices, wildcards, filters by comparison.

`.spec.x`, `.a['b.c']`, `.a.b\.c`, `.items[0]`, `.items[-1]`, `.items[*].name`,
`.status.conditions[?(@.type=="Ready")].status`. Missing fields give no result. Recursive descent (`..`), unions and
`range` are not known. Source of the rules: `k8s.io/client-go/util/jsonpath`.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeAlias

from asyncctl.apiserver.wire import Json

Step: TypeAlias = Callable[[Json], Iterator[Json]]

_TOKEN = re.compile(
    r"""\.(?P<star>\*)|\.(?P<field>(?:\\.|[^.\[\]\\])+)|\[\s*(?:
        (?P<index>-?\d+)|(?P<every>\*)|(?P<slice>-?\d*:-?\d*)|'(?P<single>(?:\\.|[^'])*)'|"(?P<double>(?:\\.|[^"])*)"
        |\?\(\s*(?P<filter>.*?)\s*\)
    )\s*\]""",
    re.VERBOSE,
)
_COMPARISON = re.compile(r"@(?P<path>[^=!<>\s]*)(?:\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<literal>.+))?")
_OPERATORS: dict[str, Callable[[Json, Json], bool]] = {
    "==": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    "<": lambda one, other: bool(one < other),
    "<=": lambda one, other: bool(one <= other),
    ">": lambda one, other: bool(one > other),
    ">=": lambda one, other: bool(one >= other),
}


class JsonPathError(ValueError):
    """The text is no JSONPath, or one that is not known here."""


def find(path: str, value: Json) -> list[Json]:
    """Return what `path` leads to in `value`, in order.

    Raises:
        JsonPathError: the path cannot be read.
    """
    found = [value]
    for step in steps(path):
        found = [result for each in found for result in step(each)]
    return found


@lru_cache(maxsize=1024)
def steps(path: str) -> tuple[Step, ...]:
    """Read a path, which begins with a dot or is empty."""
    made: list[Step] = []
    position = 0
    while position < len(path) and path != ".":
        token = _TOKEN.match(path, position)
        if token is None:
            raise JsonPathError(f"{path!r} is no JSONPath that is known here, from character {position} on")
        position = token.end()
        kind, text = token.lastgroup, token[token.lastgroup or 0]
        match kind:
            case "field" | "single" | "double":
                made.append(_field(re.sub(r"\\(.)", r"\1", text)))
            case "index":
                made.append(_index(int(text)))
            case "slice":
                begin, _, end = text.partition(":")
                made.append(_slice(slice(int(begin) if begin else None, int(end) if end else None)))
            case "filter":
                made.append(_filter(text))
            case _:
                made.append(_every)
    return tuple(made)


def _field(name: str) -> Step:
    def step(value: Json) -> Iterator[Json]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(position: int) -> Step:
    def step(value: Json) -> Iterator[Json]:
        if isinstance(value, list) and -len(value) <= position < len(value):
            yield value[position]

    return step


def _slice(part: slice) -> Step:
    return lambda value: iter(value[part] if isinstance(value, list) else ())


def _every(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _filter(text: str) -> Step:
    comparison = _COMPARISON.fullmatch(text)
    if comparison is None:
        raise JsonPathError(f"the filter {text!r} is none that is known here")
    path = steps(comparison["path"])
    operator = comparison["operator"]
    wanted = _literal(comparison["literal"]) if operator else None

    def holds(entry: Json) -> bool:
        found = [entry]
        for step in path:
            found = [result for each in found for result in step(each)]
        if not operator or not found:
            return bool(found)
        try:
            return _OPERATORS[operator](found[0], wanted)
        except TypeError:
            return False

    return lambda value: (entry for entry in (value if isinstance(value, list) else ()) if holds(entry))


def _literal(text: str) -> Json:
    if text[0] in "'\"" and text[-1] == text[0] and len(text) > 1:
        return text[1:-1]
    if text in {"true", "false"}:
        return text == "true"
    try:
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    except ValueError:
        raise JsonPathError(f"{text!r} in a filter is neither a string, a number nor a boolean") from None

"""Label and field selectors: their text parsed once into a predicate over an object.

The grammar is that of apimachinery's `labels` and `fields` packages, and so are the messages for what cannot be parsed.
"""

import re
from collections.abc import Callable, Collection, Mapping

from asyncctl.apiserver import errors
from asyncctl.apiserver.wire import Json, JsonObject

Predicate = Callable[[JsonObject], bool]

_WORD = re.compile(r"\s*(==|!=|=|,|\(|\)|!|>|<|[^\s=!,()<>]+)")


def labels(text: str) -> Predicate | None:
    """Parse a label selector; None when it selects everything. Raise 400 when it cannot be parsed."""
    requirements = _requirements(text)
    if not requirements:
        return None

    def matches(obj: JsonObject) -> bool:
        found: dict[str, str] = obj["metadata"].get("labels") or {}
        return all(requirement(found) for requirement in requirements)

    return matches


def _requirements(text: str) -> list[Callable[[dict[str, str]], bool]]:
    words = _WORD.findall(text)
    words.reverse()
    requirements: list[Callable[[dict[str, str]], bool]] = []
    while words:
        requirements.append(_requirement(words))
        if not words:
            break
        word = words.pop()
        if word != ",":
            raise errors.bad_request(f"found '{word}', expected: ',' or 'end of string'")
        if not words:
            raise _unexpected("", "identifier after ','")
    return requirements


def _unexpected(word: str, expected: str) -> errors.ApiError:
    return errors.bad_request(f"unable to parse requirement: found '{word}', expected: {expected}")


def _identifier(words: list[str], expected: str = "identifier") -> str:
    word = words.pop() if words else ""
    if not word or word in {"=", "==", "!=", ",", "(", ")", "!", ">", "<"}:
        raise _unexpected(word, expected)
    return word


def _requirement(words: list[str]) -> Callable[[dict[str, str]], bool]:
    if words[-1] in {"=", "==", "!=", "(", ")", ">", "<"}:
        raise errors.bad_request(f"found '{words[-1]}', expected: !, identifier, or 'end of string'")
    if words[-1] == "!":
        words.pop()
        absent = _identifier(words)
        return lambda found: absent not in found
    key = _identifier(words, "!, identifier, or ',' or 'end of string'" if words[-1] == "," else "identifier")
    if not words or words[-1] == ",":
        return lambda found: key in found
    operator = words.pop()
    if operator in {"=", "=="}:
        value = _value(words)
        return lambda found: found.get(key) == value
    if operator == "!=":
        value = _value(words)
        return lambda found: found.get(key) != value
    if operator in {"in", "notin"}:
        values = _values(words)
        if operator == "in":
            return lambda found: found.get(key) in values
        return lambda found: found.get(key) not in values
    if operator in {">", "<"}:
        value = _value(words)
        if (bound := _integer(value)) is None:
            raise errors.bad_request(
                f"unable to parse requirement: values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, "
                "the value must be an integer"
            )
        sign = 1 if operator == ">" else -1
        return lambda found: _integer(found.get(key)) is not None and (sign * int(found[key]) > sign * bound)
    raise _unexpected(operator, "in, notin, =, ==, !=, gt, lt")


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[-+]?\d+", text) else None


def _value(words: list[str]) -> str:
    return "" if not words or words[-1] == "," else _identifier(words)


def _values(words: list[str]) -> Collection[str]:
    word = words.pop() if words else ""
    if word != "(":
        raise errors.bad_request(f"unable to parse requirement: found '{word}' expected: '('")
    values: set[str] = set()
    while True:
        word = words.pop() if words else ""
        if word == ")":
            return values or {""}
        if word == ",":
            continue
        if not word:
            raise _unexpected("", "',', ')' or identifier")
        values.add(word)


def fields(
    text: str, supported: Collection[str], *, custom: bool = False, stored: Mapping[str, str] | None = None
) -> Predicate | None:
    """Parse a field selector; None when it selects everything.

    Args:
        text: the selector.
        supported: the dotted paths the kind offers, beside name and namespace.
        custom: whether it is a custom kind, which has other words for a field it does not offer.
        stored: what fields are called in stored objects, where that is something else.

    Raises:
        ApiError: 400 when it cannot be parsed or names another field.
    """
    tests: list[tuple[tuple[str, ...], bool, str]] = []
    for term in filter(None, re.split(r"(?<!\\),", text)):
        found = re.match(r"((?:[^=!\\]|\\.)*)(!=|==|=)(.*)", term, re.DOTALL)
        if found is None:
            raise errors.bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = found.groups()
        if path not in supported and path not in {"metadata.name", "metadata.namespace"}:
            if supported or custom:
                raise errors.bad_request(f"field label not supported: {path}")
            raise errors.bad_request(
                f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'
            )
        path = (stored or {}).get(path, path)
        tests.append((tuple(path.split(".")), operator != "!=", re.sub(r"\\(.)", r"\1", value)))
    if not tests:
        return None
    return lambda obj: all((_at(obj, path) == value) is wanted for path, wanted, value in tests)


def _at(obj: Json, path: tuple[str, ...]) -> str:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    if obj is None:
        return ""
    return str(obj).lower() if isinstance(obj, bool) else str(obj)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    """Return the predicate that holds when both do; None stands for one that always does."""
    if first is None or second is None:
        return first or second
    return lambda obj: first(obj) and second(obj)

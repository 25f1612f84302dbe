"""The words in which the API server says what is wrong with a field, as `Cause`s.

A value is rendered the way Go renders it (quoted strings, sorted JSON, floats without a trailing `.0`), since clients
and people compare these messages. Source of the rules: `k8s.io/apimachinery/pkg/util/validation/field/errors.go`.
A path is a string such as `spec.items[0].name`; the empty path is the object itself and reads `<nil>`.
"""

from collections.abc import Iterable
from decimal import Decimal
from math import copysign

from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.wire import Json

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_JSON_ESCAPES = {
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\\": "\\\\",
    '"': '\\"',
}
_JSON_UNSAFE = "<>&\u2028\u2029"


def go_quote(text: str) -> str:
    """Quote `text` as Go's `strconv.Quote` does."""

    def one(char: str) -> str:
        if escaped := _ESCAPES.get(char):
            return escaped
        code = ord(char)
        if char.isprintable():
            return char
        if code < 0x80:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return f'"{"".join(map(one, text))}"'


def go_float(number: float, smallest_exponent: int = -4) -> str:
    """Write a float as Go's `%v` does: the shortest digits, an exponent only when very small or very large."""
    if number == 0:
        return "-0" if copysign(1, number) < 0 else "0"
    digits = Decimal(repr(number))
    exponent = digits.adjusted()
    if smallest_exponent <= exponent < 21:
        text = format(digits, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa = format(digits.scaleb(-exponent), "f")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{exponent:+03d}"


def go_json(value: Json) -> str:
    """Write JSON as Go's `json.Marshal` does: keys sorted, no blanks, `<`, `>` and `&` escaped."""

    def text(string: str) -> str:
        def one(char: str) -> str:
            if escaped := _JSON_ESCAPES.get(char):
                return escaped
            return f"\\u{ord(char):04x}" if ord(char) < 0x20 or char in _JSON_UNSAFE else char

        return f'"{"".join(map(one, string))}"'

    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return text(value)
        case float():
            return go_float(value, -6).replace("e-0", "e-")
        case dict():
            return "{" + ",".join(f"{text(key)}:{go_json(value[key])}" for key in sorted(value)) + "}"
        case list() | tuple():
            return "[" + ",".join(map(go_json, value)) + "]"
        case _:
            return str(value)


def go_value(value: Json) -> str:
    """Render the bad value of a cause."""
    if isinstance(value, str):
        return go_quote(value)
    return go_float(value) if isinstance(value, float) else go_json(value)


def child(path: str, name: str) -> str:
    """Return the path of field `name` below `path`."""
    return f"{path}.{name}" if path else name


def _cause(reason: str, path: str, text: str, detail: str) -> Cause:
    return Cause(reason, f"{text}: {detail}" if detail else text, path or "<nil>")


def invalid(path: str, value: Json, detail: str) -> Cause:
    """The value is malformed."""
    return _cause("FieldValueInvalid", path, f"Invalid value: {go_value(value)}", detail)


def type_invalid(path: str, value: Json, detail: str) -> Cause:
    """The value has the wrong type."""
    return _cause("FieldValueTypeInvalid", path, f"Invalid value: {go_value(value)}", detail)


def required(path: str, detail: str = "") -> Cause:
    """The value is missing."""
    return _cause("FieldValueRequired", path, "Required value", detail)


def forbidden(path: str, detail: str) -> Cause:
    """The value may not stand here."""
    return _cause("FieldValueForbidden", path, "Forbidden", detail)


def duplicate(path: str, value: Json) -> Cause:
    """The value must be unique and is not."""
    return _cause("FieldValueDuplicate", path, f"Duplicate value: {go_value(value)}", "")


def not_supported(path: str, value: Json, supported: Iterable[Json]) -> Cause:
    """The value is none of those allowed."""
    names = ", ".join(go_quote(one if isinstance(one, str) else go_json(one)) for one in supported)
    text = f"Unsupported value: {go_value(value)}"
    return _cause("FieldValueNotSupported", path, text, f"supported values: {names}" if names else "")


def too_long(path: str, limit: int) -> Cause:
    """The text has more than `limit` bytes (of a schema's `maxLength`: characters, though the message says bytes)."""
    return _cause(
        "FieldValueTooLong", path, "Too long", f"may not be more than {limit} byte{'' if limit == 1 else 's'}"
    )


def too_many(path: str, count: int, limit: int) -> Cause:
    """A list or map has more than `limit` entries."""
    detail = f"must have at most {limit} item{'' if limit == 1 else 's'}"
    return _cause("FieldValueTooMany", path, f"Too many: {count}", detail)


def unchecked_rules() -> Cause:
    """Rules between fields were skipped, since the fields themselves are wrong."""
    return invalid(
        "",
        None,
        "some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation",
    )


BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
"""Reasons that make the server skip `x-kubernetes-validations` (`hasBlockingErr` of customresource/strategy.go)."""

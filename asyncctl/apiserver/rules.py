"""What a schema says of values: types, bounds, patterns, formats, and the combinations of schemas.

`Rules` is compiled once and judges a value in the API server's words and order. Source of the algorithm, its quirks
included: `k8s.io/kube-openapi/pkg/validation/validate`, with ratcheting (KEP-4008) from apiextensions-apiserver.
Unknown fields are not its business (`schema.prune`), nor are CEL rules, which are not evaluated.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from asyncctl.apiserver import causes
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.formats import FORMATS, normal
from asyncctl.apiserver.patterns import UnsupportedPatternError, compile_pattern
from asyncctl.apiserver.wire import Json, JsonObject

_ABSENT: Json = object()
_INT64 = range(-(2**63), 2**63)
_INT32 = range(-(2**31), 2**31)
_LARGEST_FLOAT32 = 3.4028234663852886e38


class _Error(NamedTuple):
    """One failure, still without the prefix of its path. `path` is None where the server names no field."""

    build: Callable[[str], Cause]
    path: str | None
    message: str


def deep_equal(one: Json, other: Json) -> bool:
    """Compare JSON values with their types: 1, 1.0 and true all differ, as in Go's `reflect.DeepEqual`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(deep_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(deep_equal, one, other))
    return bool(one == other)


def _kind(value: Json) -> tuple[str, str]:
    """Return the JSON type of a value and the format that goes with it."""
    match value:
        case bool():
            return "boolean", ""
        case str():
            return "string", ""
        case int():
            return ("integer", "int64") if value in _INT64 else ("number", "float64")
        case float():
            return "number", "float64"
        case list():
            return "array", ""
        case _:
            return "object", ""


class Rules:
    """The value rules of one place in a schema, and of the places below it."""

    def __init__(self, schema: JsonObject) -> None:
        self.types: tuple[str, ...] = (schema["type"],) if schema.get("type") else ()
        if schema.get("x-kubernetes-int-or-string"):
            self.types = ("integer", "string")
        self._nullable = bool(schema.get("nullable"))
        self._format = _supported_format(self.types, schema.get("format", ""))
        self._has_format = FORMATS.get(normal(self._format)) if self._format else None
        self._enum: list[Json] = schema.get("enum") or []
        self._any_of = [Rules(each) for each in schema.get("anyOf") or ()]
        self._one_of = [Rules(each) for each in schema.get("oneOf") or ()]
        self._all_of = [Rules(each) for each in schema.get("allOf") or ()]
        self._not = Rules(schema["not"]) if isinstance(schema.get("not"), dict) else None
        self._combined = bool(self._any_of or self._one_of or self._all_of or self._not)
        self._max_length: int | None = schema.get("maxLength")
        self._min_length: int | None = schema.get("minLength")
        self._pattern: str = schema.get("pattern", "")
        self._matches = _matcher(self._pattern)
        self._maximum: float | None = schema.get("maximum")
        self._minimum: float | None = schema.get("minimum")
        self._above: bool = schema.get("exclusiveMinimum", False)
        self._below: bool = schema.get("exclusiveMaximum", False)
        self._multiple_of: float | None = schema.get("multipleOf")
        self._max_items: int | None = schema.get("maxItems")
        self._min_items: int | None = schema.get("minItems")
        self._unique: bool = schema.get("uniqueItems", False)
        self._max_properties: int | None = schema.get("maxProperties")
        self._min_properties: int | None = schema.get("minProperties")
        self._required: Sequence[str] = schema.get("required") or ()
        self.properties = {name: Rules(each) for name, each in (schema.get("properties") or {}).items()}
        additional = schema.get("additionalProperties")
        self._additional = Rules(additional) if isinstance(additional, dict) else None
        self._closed = additional is False
        items = schema.get("items")
        self._items = Rules(items) if isinstance(items, dict) else None
        self._list_type: str = schema.get("x-kubernetes-list-type") or ""
        self._map_keys: Sequence[str] = schema.get("x-kubernetes-list-map-keys") or ()

    def validate(self, value: Json, old: Json = None, prefix: str = "") -> list[Cause]:
        """Return what is wrong with `value`. Messages name fields from `value` on, causes from `prefix` on."""
        found, _ = self.check(value, "", _ABSENT if old is None else old)
        # The same failure found twice (by two alternatives, say) is told once.
        unique = {error.message: error for error in found}
        return [
            error.build(
                prefix
                if error.path is None or not error.path.strip(".")
                else causes.child(prefix, error.path.lstrip("."))
            )
            for error in unique.values()
        ]

    def check(self, value: Json, path: str, old: Json) -> tuple[list[_Error], int]:
        """Return the failures, and how many checks were made: alternatives are compared by that number."""
        errors: list[_Error] = []
        count = 1
        count += self._check_type(value, path, errors)
        if value is None:
            self._check_enum(value, path, errors)
            return self._ratchet(errors, value, old), count - 1
        kind, number_format = _kind(value)
        if self.types or self._format:
            count += 1
        count += 2  # the combination of schemas always counts, and so does passing through it
        if self._combined:
            count += self._check_combined(value, path, old, errors)
        if kind == "string":
            self._check_string(value, path, errors)
            count += 1 + (self._has_format is not None)
            if self._has_format is not None and not self._has_format(value):
                errors.append(_type_error(path, self._format, value))
        elif kind in {"integer", "number"}:
            self._check_number(float(value) if number_format == "float64" else value, path, errors)
            count += 2
        elif kind == "array":
            count += 2 + self._check_list(value, path, old, errors)
        self._check_enum(value, path, errors)
        count += 1
        if kind == "object":
            count += 1 + self._check_object(value, path, old, errors)
        return self._ratchet(errors, value, old), count

    def _ratchet(self, errors: list[_Error], value: Json, old: Json) -> list[_Error]:
        return [] if errors and old is not _ABSENT and deep_equal(value, old) else errors

    def _check_type(self, value: Json, path: str, errors: list[_Error]) -> int:
        types, wanted = self.types, self._format
        if value is None:
            if types and not self._nullable:
                errors.append(_type_error(path, ",".join(types), "null"))
                return 0
            return 1
        if not types and not wanted:
            return 0
        kind, number_format = _kind(value)
        whole = kind == "number" and "integer" in types and _is_whole(float(value))
        fits = kind in types or whole or (kind == "integer" and "number" in types)
        if kind not in {"string", "array"} and wanted and not fits and number_format != wanted:
            errors.append(_type_error(path, wanted, number_format))
            return 0
        if wanted and kind in {"string", "array"} and "integer" not in types and "number" not in types:
            return 1
        if not fits:
            errors.append(_type_error(path, ",".join(types), kind))
            return 0
        return 1

    def _check_enum(self, value: Json, path: str, errors: list[_Error]) -> None:
        if self._enum and not any(_same(value, each) for each in self._enum):
            message = f"{path} in body should be one of {self._enum}"
            errors.append(_Error(lambda field: causes.not_supported(field, value, self._enum), path, message))

    def _check_string(self, value: str, path: str, errors: list[_Error]) -> None:
        if (limit := self._max_length) is not None and len(value) > limit:
            message = f"{path} in body should be at most {limit} chars long"
            errors.append(_Error(lambda field: causes.too_long(field, limit), path, message))
        elif self._min_length is not None and len(value) < self._min_length:
            errors.append(_value_error(path, value, f"should be at least {self._min_length} chars long"))
        elif not self._matches(value):
            errors.append(_value_error(path, value, f"should match '{self._pattern}'"))

    def _check_number(self, value: float, path: str, errors: list[_Error]) -> None:
        self._check_range(value, "Checked", path, errors)
        if self._multiple_of is not None:
            factor = self._bound(self._multiple_of, value, "MultipleOf", path, errors)
            if factor <= 0:
                message = f"factor MultipleOf declared for {path} must be positive: {causes.go_value(factor)}"
                errors.append(_Error(_building(causes.invalid, factor, message), path, message))
            elif not (value % factor == 0 if isinstance(factor, int) else _is_whole(value / factor)):
                errors.append(_value_error(path, value, f"should be a multiple of {causes.go_value(factor)}"))
        if self._minimum is not None:
            least = self._bound(self._minimum, value, "Minimum boundary", path, errors)
            if value <= least if self._above else value < least:
                words = "greater than" if self._above else "greater than or equal to"
                errors.append(_value_error(path, value, f"should be {words} {causes.go_value(least)}"))
        if self._maximum is not None:
            most = self._bound(self._maximum, value, "Maximum boundary", path, errors)
            if value >= most if self._below else value > most:
                words = "less than" if self._below else "less than or equal to"
                errors.append(_value_error(path, value, f"should be {words} {causes.go_value(most)}"))

    def _bound(self, bound: float, value: float, what: str, path: str, errors: list[_Error]) -> float:
        """Return a bound as the number it is compared as: an integer is compared to the bound without its fraction."""
        fits = self._check_range(bound, what, path, errors)
        return int(bound) if fits and isinstance(value, int) else float(bound)

    def _check_range(self, value: float, what: str, path: str, errors: list[_Error]) -> bool:
        if self.types == ("integer",):
            limits = _INT32 if self._format == "int32" else _INT64
            fits = float(value).is_integer() and int(value) in limits
        else:
            fits = self._format != "float" or abs(value) <= _LARGEST_FLOAT32
        if not fits:
            kind = f"{self.types[0]} with format {self._format}" if self._format else "integer (default format)"
            errors.append(_general_error(f"{what} value must be of type {kind} in {path}"))
        return fits

    def _check_list(self, value: list[Json], path: str, old: Json, errors: list[_Error]) -> int:
        count = 0
        if self._items is not None:
            for index, each in enumerate(value):
                found, checks = self._items.check(each, f"{path}[{index}]", self._old_entry(each, old))
                errors += found
                count += checks
        if self._min_items is not None and len(value) < self._min_items:
            errors.append(_value_error(path, len(value), f"should have at least {self._min_items} items"))
        if (limit := self._max_items) is not None and len(value) > limit:
            message = f"{path} in body should have at most {limit} items"
            errors.append(_Error(lambda field: causes.too_many(field, len(value), limit), path, message))
        if self._unique and any(deep_equal(one, other) for i, one in enumerate(value) for other in value[:i]):
            errors.append(_value_error(path, "", "shouldn't contain duplicates"))
        return count

    def _old_entry(self, entry: Json, old: Json) -> Json:
        if self._list_type == "map" and isinstance(old, list) and isinstance(entry, dict):
            keys = [entry.get(key) for key in self._map_keys]
            for each in old:
                if isinstance(each, dict) and [each.get(key) for key in self._map_keys] == keys:
                    return each
        return _ABSENT

    def _check_object(self, value: JsonObject, path: str, old: Json, errors: list[_Error]) -> int:
        count = 0
        if self._min_properties is not None and len(value) < self._min_properties:
            errors.append(_value_error(path, len(value), f"should have at least {self._min_properties} properties"))
        if (limit := self._max_properties) is not None and len(value) > limit:
            message = f"{path} in body should have at most {limit} properties"
            errors.append(_Error(lambda field: causes.too_many(field, len(value), limit), path, message))
        was = old if isinstance(old, dict) else {}
        if self._closed or self._additional is not None:
            for key, each in value.items():
                if key in self.properties:
                    continue
                if self._additional is None:
                    message = f"{path}.{key} in body is a forbidden property"
                    errors.append(_Error(_building(causes.invalid, key, message), path, message))
                else:
                    found, checks = self._additional.check(each, f"{path}.{key}", was.get(key, _ABSENT))
                    errors += found
                    count += checks
        for name, rules in self.properties.items():
            if name in value:
                below = f"{path}.{name}" if path else name
                found, checks = rules.check(value[name], below, was.get(name, _ABSENT))
                errors += found
                count += checks
        for name in self._required:
            if name not in value:
                below = f"{path}.{name}"
                errors.append(_Error(causes.required, below, f"{below} in body is required"))
        return count

    def _check_combined(self, value: Json, path: str, old: Json, errors: list[_Error]) -> int:
        count = 0
        quoted = causes.go_quote(path)
        if self._any_of:
            best: tuple[list[_Error], int] | None = None
            for rules in self._any_of:
                result = rules.check(value, path, old)
                if not result[0]:
                    best = result
                    break
                if best is None or result[1] > best[1]:
                    best = result
            assert best is not None
            if best[0]:
                errors.append(_general_error(f"{quoted} must validate at least one schema (anyOf)"))
            errors += best[0]
            count += best[1]
        if self._one_of:
            results = [rules.check(value, path, old) for rules in self._one_of]
            valid = [result for result in results if not result[0]]
            if len(valid) == 1:
                count += valid[0][1]
            else:
                why = f"Found {len(valid)} valid alternatives" if valid else "Found none valid"
                errors.append(_general_error(f"{quoted} must validate one and only one schema (oneOf). {why}"))
                if not valid:
                    nearest = max(results, key=lambda result: result[1])
                    errors += nearest[0]
                    count += nearest[1]
        if self._all_of:
            results = [rules.check(value, path, old) for rules in self._all_of]
            for found, checks in results:
                errors += found
                count += checks
            if failed := sum(1 for found, _ in results if found):
                none = ". None validated" if failed == len(results) else ""
                errors.append(_general_error(f"{quoted} must validate all the schemas (allOf){none}"))
        if self._not is not None and not self._not.check(value, path, old)[0]:
            errors.append(_general_error(f"{quoted} must not validate the schema (not)"))
        return count


def _supported_format(types: tuple[str, ...], name: str) -> str:
    """Return the format if the server checks it for that type, else nothing."""
    match types:
        case () | ("string",):
            return name if normal(name) in FORMATS else ""
        case ("integer",):
            return name if name in {"int32", "int64"} else ""
        case ("number",):
            return name if name in {"float", "double"} else ""
        case _:
            return ""


def _matcher(pattern: str) -> Callable[[str], object]:
    if not pattern:
        return lambda _value: True
    try:
        return compile_pattern(pattern).search
    except UnsupportedPatternError:
        return lambda _value: True


def _is_whole(number: float) -> bool:
    """Tell whether a float stands for an integer in JSON: within 53 bits, give or take a rounding error."""
    return abs(number) < 2**53 and abs(number - round(number)) <= 1e-9 * abs(number)


def _same(value: Json, allowed: Json) -> bool:
    if value is None:
        return False
    if isinstance(value, int | float) and isinstance(allowed, int | float):
        return isinstance(value, bool) == isinstance(allowed, bool) and type(allowed)(value) == allowed
    return deep_equal(value, allowed)


def _building(constructor: Callable[[str, Json, str], Cause], value: Json, message: str) -> Callable[[str], Cause]:
    return lambda field: constructor(field, value, message)


def _value_error(path: str, value: Json, text: str) -> _Error:
    message = f"{path} in body {text}"
    return _Error(_building(causes.invalid, value, message), path, message)


def _type_error(path: str, wanted: str, got: str) -> _Error:
    message = f"{path} in body must be of type {wanted}: {causes.go_quote(got)}"
    return _Error(_building(causes.type_invalid, got, message), path, message)


def _general_error(message: str) -> _Error:
    return _Error(_building(causes.invalid, "", message), None, message)

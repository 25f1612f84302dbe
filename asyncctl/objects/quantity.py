"""`Quantity`, a number with a Kubernetes suffix, and `IntOrString`.

A quantity keeps the text it was given and compares by value: `Quantity("1Gi") == Quantity("1024Mi")`. It does no
arithmetic: `value` is a plain number. Source of the format: k8s.io/apimachinery/pkg/api/resource/quantity.go.
"""

import re
from decimal import ROUND_UP, Decimal
from functools import total_ordering
from typing import TypeAlias

IntOrString: TypeAlias = int | str
"""A port, or a number or percentage: as it is on the wire."""

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

PATTERN = r"^([+-]?([0-9]+\.?[0-9]*|\.[0-9]+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$"
"""What a quantity looks like, for a schema."""


@total_ordering
class Quantity:
    """An amount such as `10Gi`, `500m` or `2`. Immutable."""

    __slots__ = ("_text", "_value")

    def __init__(self, text: str | float | Decimal) -> None:
        """Parse an amount.

        Raises:
            ValueError: it is not one; the text says what one looks like.
        """
        self._text = str(text)
        found = re.fullmatch(PATTERN, self._text)
        if found is None:
            raise ValueError(f"{self._text!r} is not a quantity such as 10Gi, 500m or 2")
        number, suffix = Decimal(found[1]), found[3] or ""
        self._value: Decimal
        if suffix in _BINARY:
            self._value = number * 1024 ** _BINARY[suffix]
        elif suffix in _DECIMAL:
            self._value = number.scaleb(_DECIMAL[suffix])
        else:
            self._value = number.scaleb(int(suffix[1:]))

    @property
    def value(self) -> Decimal:
        """The amount as a plain number."""
        return self._value

    def canonical(self) -> str:
        """Return the form in which the API server writes it: the shortest of the same sort, and nothing below 1n."""
        whole = int(self._value)
        if self._text.endswith("i") and self._value == whole:
            for suffix, power in reversed(_BINARY.items()):
                if whole and whole % 1024**power == 0:
                    return f"{whole // 1024**power}{suffix}"
            return str(whole)
        exponential = re.search(r"[eE][+-]?[0-9]", self._text) is not None
        for suffix, exponent in reversed(_DECIMAL.items()):
            scaled = self._value.scaleb(-exponent)
            if scaled and scaled == int(scaled):
                return f"{int(scaled)}" + (f"e{exponent}" if exponential and exponent else suffix)
        nanos = self._value.scaleb(9).to_integral_value(ROUND_UP)
        return f"{nanos}n" if nanos else "0"

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Quantity({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: "Quantity") -> bool:
        return self._value < other._value

    def __hash__(self) -> int:
        return hash(self._value)

"""Label and field selectors, as text or as a map of what has to be equal.

Nothing in a map's values can widen what is selected: what would not be taken literally is refused or escaped.
"""

import re
from collections.abc import Mapping
from typing import TypeAlias

Selector: TypeAlias = str | Mapping[str, str]
"""`"app=web,tier in (a, b)"`, or `{"app": "web"}`."""

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"[-A-Za-z0-9_./]+")
_SPECIAL, _ESCAPED = re.compile(r"([\\,=])"), r"\\\1"


def labels(selector: Selector | None) -> str | None:
    """The text of a label selector.

    Raises:
        ValueError: A key or value of the map can't be one.
        TypeError: It is neither text nor a map.
    """
    if selector is None or isinstance(selector, str):
        return selector
    _check_map(selector)
    for key, value in selector.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{key}={value!r} is no label: give a map of labels, or the selector as text")
    return ",".join(f"{key}={value}" for key, value in selector.items())


def fields(selector: Selector | None) -> str | None:
    """The text of a field selector, its values escaped as apimachinery's `fields.EscapeValue` does it."""
    if selector is None or isinstance(selector, str):
        return selector
    _check_map(selector)
    return ",".join(f"{path}={_SPECIAL.sub(_ESCAPED, value)}" for path, value in selector.items())


def _check_map(selector: object) -> None:
    if not isinstance(selector, Mapping):
        raise TypeError(f"{selector!r} is no selector: give a map of what has to be equal, or the selector as text")


def narrow(text: str | None) -> str | None:
    """`text`, which has to select something less than everything.

    Raises:
        ValueError: It is there, and empty.
    """
    if text is not None and not text.strip():
        raise ValueError("an empty selector selects everything: leave it out if that is meant")
    return text

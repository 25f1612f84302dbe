"""One setting: what is known of it, and what is wrong with a value of it."""

import math
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar, Unpack, overload

from asyncctl.settings.values import KINDS

__all__ = ["Extra", "Problem", "SettingsError", "Spec", "setting"]

T = TypeVar("T")
_LONGEST = 500  # characters of what somebody wrote that are shown


class Problem(NamedTuple):
    """One thing that is wrong, and the fields that it is about."""

    fields: tuple[str, ...]
    text: str


class SettingsError(ValueError):
    """Settings that can't be used. Its text lists every problem, one on a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(["the settings are not usable:", *(f"  {problem.text}" for problem in self.problems)])
        )


class Extra(TypedDict, total=False):
    """What may be said of a setting beside its type and default; see `setting`."""

    meaning: str
    variable: str
    shown: str
    at_least: float
    matches: str
    allowed: str
    secret: bool
    not_yet: bool


@overload
def setting(*, default: T, **extra: Unpack[Extra]) -> T: ...
@overload
def setting(*, default_factory: Callable[[], T], **extra: Unpack[Extra]) -> T: ...
@overload
def setting(**extra: Unpack[Extra]) -> Any: ...  # as dataclasses.field: nothing else fits a field of every type
def setting(*, default: Any = MISSING, default_factory: Any = MISSING, **extra: Unpack[Extra]) -> Any:
    """Declare a field of a settings class; a plain `name: type = default` serves where nothing more is to be said.

    Args:
        default: the value when the variable is absent or empty. Without one the variable is required.
        default_factory: makes the default.
        **extra: `meaning`, a line for the table; `variable`, where it is not the class's prefix and the field's name in
            capitals; `shown`, the default in words; `at_least`, for a number or duration; `matches`, a regular
            expression for the whole text or each item of a list; `allowed`, that in words; `secret`, when the value is
            never to be shown; `not_yet`, when it is read and refused.
    """
    shown = not extra.get("secret", False)
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata={"asyncctl": extra}, repr=shown)
    return field(default=default, metadata={"asyncctl": extra}, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """All that is known of one setting."""

    name: str
    variable: str
    kind: Any
    optional: bool
    required: bool
    default: Any
    extra: Extra

    @property
    def items(self) -> bool:
        """Whether it is a list of texts."""
        return typing.get_origin(self.kind) is tuple

    @property
    def off_when_empty(self) -> bool:
        """Whether an empty variable says something else than an absent one: that there is none."""
        return self.optional and self.default is not None

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if typing.get_origin(self.kind) is Literal:
            return "one of " + ", ".join(typing.get_args(self.kind))
        words = self.extra.get("allowed") or ("texts separated by commas" if self.items else KINDS[self.kind].allowed)
        if (least := self.extra.get("at_least")) is not None:
            words += f", at least {self._show_one(least)}"
        return words

    @property
    def default_shown(self) -> str:
        """The default as the table tells it."""
        if self.required:
            return "(required)"
        return self.extra.get("shown") or self.show(self.default) or "-"

    def read_or_none(self, text: str) -> Any:
        """Return the value that `text` stands for, None when it stands for none."""
        if self.items:
            return tuple(filter(None, map(str.strip, text.split(","))))
        if typing.get_origin(self.kind) is Literal:
            return text.lower()
        try:
            return KINDS[self.kind].read(text)
        except ValueError:
            return None

    def show(self, value: Any) -> str:
        """Return a value as it would be written in the environment; "" for None."""
        if value is None or value == ():
            return ""
        if self.extra.get("secret"):
            return "***"
        return ",".join(value) if self.items else self._show_one(value)

    def shown(self, text: str) -> str:
        """Return a text as it was written, on one line and not too long."""
        if self.extra.get("secret"):
            return "***"
        cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
        return cut if cut.isprintable() else cut.encode("unicode_escape").decode()

    def wrong(self, text: str, value: Any, *, given: bool) -> Problem | None:
        """Return what is wrong with `value`, which was written as `text`, by somebody (`given`) or by us."""
        said = f"{self.variable}={self.shown(text)}"
        if self.extra.get("not_yet") and given:
            return Problem((self.name,), f"{said}: not yet: this version has nothing that acts on it; leave it out")
        if value is None:
            right = self.optional and not text
        elif typing.get_origin(self.kind) is Literal:
            right = value in typing.get_args(self.kind)
        else:
            least, matches = self.extra.get("at_least"), self.extra.get("matches")
            right = (least is None or (value >= least and math.isfinite(value))) and (
                matches is None or all(re.fullmatch(matches, item) for item in (value if self.items else [value]))
            )
        return None if right else Problem((self.name,), f"{said}: must be {self.allowed}")

    def _show_one(self, value: Any) -> str:
        return KINDS[self.kind].show(value) if self.kind in KINDS else str(value)

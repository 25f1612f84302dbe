"""Settings in general: a class whose fields are settings, made from an environment once, and told to people."""

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Self, dataclass_transform

from asyncctl.settings.setting import Extra, Problem, SettingsError, Spec, setting
from asyncctl.settings.table import Row, as_text
from asyncctl.settings.values import KINDS

__all__ = ["Declared"]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
class Declared:
    """Makes each subclass a frozen dataclass, and remembers its prefix."""

    _prefix: typing.ClassVar[str] = ""

    def __init_subclass__(cls, *, prefix: str | None = None) -> None:
        if prefix is not None:
            cls._prefix = prefix
        dataclass(frozen=True, kw_only=True)(cls)
        names = list(_variables(cls).values())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TypeError(
                f"{cls.__qualname__}: two settings would be read from {', '.join(twice)}; give one another variable"
            )

    def __post_init__(self) -> None:
        """Refuse values that can't be used, whichever way they came."""
        values = ((spec, getattr(self, spec.name)) for spec in _specs(type(self)))
        wrong = (spec.wrong(spec.show(value), value, given=value != spec.default) for spec, value in values)
        problems = [problem for problem in wrong if problem is not None]
        bad = {name for problem in problems for name in problem.fields}
        problems += [problem for problem in self.check() if bad.isdisjoint(problem.fields)]
        if problems:
            raise SettingsError(problems)

    def check(self) -> Iterator[Problem]:
        """Yield what is wrong between fields; a subclass yields its own after `yield from super().check()`."""
        yield from ()

    def problem(self, *names: str, must: str) -> Problem:
        """Say that the first of the fields `names` must do something; `{1}` in it stands for the second one."""
        specs = {spec.name: spec for spec in _specs(type(self))}
        said = [f"{specs[name].variable}={specs[name].show(getattr(self, name))}" for name in names]
        return Problem(names, f"{said[0]}: must {must.format(*said)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read all settings; a variable that is absent or empty leaves the default.

        One that is empty stands for none where there is none (`| None`), but not by default.

        Raises:
            SettingsError: its text lists every variable that is wrong, its value and what is allowed; what is wrong
                between variables is listed too, unless a required one is missing.
        """
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        specs = _specs(cls)
        for spec in specs:
            text = environ.get(spec.variable, "").strip()
            if not text:
                if spec.required:
                    problems.append(Problem((spec.name,), f"{spec.variable} is not set: must be {spec.allowed}"))
                elif spec.off_when_empty and spec.variable in environ:
                    values[spec.name] = None
                continue
            value = spec.read_or_none(text)
            problem = spec.wrong(text, value, given=True)
            if problem is None:
                values[spec.name] = value
            else:
                problems.append(problem)
        wrong = {name for problem in problems for name in problem.fields}
        if any(spec.required and spec.name in wrong for spec in specs):  # there is nothing to compare the others with
            raise SettingsError(problems)
        try:
            made = cls(**values)
        except SettingsError as error:
            problems += [problem for problem in error.problems if wrong.isdisjoint(problem.fields)]
            raise SettingsError(problems) from None
        if problems:
            raise SettingsError(problems)
        return made

    @classmethod
    def unknown(cls, environ: Mapping[str, str]) -> list[str]:
        """Return a warning for each variable that looks like a setting and is none, with the nearest that is one."""
        known = {spec.variable for spec in _specs(cls)}
        prefixes = tuple({base.__dict__["_prefix"] for base in cls.__mro__ if base.__dict__.get("_prefix")})
        warnings = []
        for name in sorted(environ):
            if not name.startswith(prefixes) or name in known or _NO_SETTING.search(name):
                continue
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            warnings.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
        return warnings

    @classmethod
    def rows(cls, environ: Mapping[str, str]) -> list[Row]:
        """Return every setting with its default and what `environ` makes of it, for a table."""
        rows = []
        for spec in _specs(cls):
            text = environ.get(spec.variable, "").strip()
            in_force = spec.default_shown
            if text:
                value = spec.read_or_none(text)
                if spec.wrong(text, value, given=True) is None:
                    in_force = spec.show(value)
                else:
                    in_force = f"{spec.shown(text)} (not usable)"
            elif spec.off_when_empty and spec.variable in environ:
                in_force = "-"
            meaning = (
                f"{spec.extra.get('meaning', '')} (not yet)"
                if spec.extra.get("not_yet")
                else spec.extra.get("meaning", "")
            )
            rows.append(Row(spec.variable, spec.default_shown, in_force, meaning))
        return rows

    def in_force(self) -> dict[str, str]:
        """Return every variable and its value as it would be written; a secret is not shown."""
        return {spec.variable: spec.show(getattr(self, spec.name)) for spec in _specs(type(self))}

    @classmethod
    def describe(cls, environ: Mapping[str, str], width: int | None = None) -> str:
        """Return the table as text for a terminal of `width` columns; None: one line for each setting."""
        return as_text(cls.rows(environ), width)


def _variables(cls: type[Declared]) -> dict[str, str]:
    """Return the variable of each field: that of the class that declared it first."""
    variables: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own = base.__dict__.get("__dataclass_fields__", {})
        for name in inspect.get_annotations(base):
            if name in own and name not in variables:
                extra = own[name].metadata.get("asyncctl", Extra())
                variables[name] = extra.get("variable") or f"{getattr(base, '_prefix', '')}{name.upper()}"
    return variables


def _specs(cls: type[Declared]) -> list[Spec]:
    hints = typing.get_type_hints(cls, include_extras=True)
    variables = _variables(cls)
    specs = []
    for declared in fields(typing.cast("Any", cls)):
        kind, optional = hints[declared.name], False
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            inner = [arg for arg in typing.get_args(kind) if arg is not types.NoneType]
            optional, kind = len(inner) < len(typing.get_args(kind)), inner[0] if len(inner) == 1 else kind
        if kind not in KINDS and typing.get_origin(kind) is not Literal and kind != tuple[str, ...]:
            raise TypeError(f"{cls.__qualname__}.{declared.name}: a setting can't be of type {kind}")
        made = declared.default_factory
        specs.append(
            Spec(
                name=declared.name,
                variable=variables[declared.name],
                kind=kind,
                optional=optional,
                required=declared.default is MISSING and made is MISSING,
                default=made() if made is not MISSING else None if declared.default is MISSING else declared.default,
                extra=declared.metadata.get("asyncctl", Extra()),
            )
        )
    return specs


# In a pod, a Service called `asyncctl` (or after a program's prefix) puts such variables into the environment; and
# `ASYNCCTL_TEST_*` is what its tests are told.
_NO_SETTING = re.compile(
    r"^ASYNCCTL_TEST_|_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)

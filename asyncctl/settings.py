"""What a process is told by its environment, in one frozen object.

Each setting is a field of a class: its type says how the variable is read, its default stands in the code, its meaning
in the table that `--help` prints. A program adds its own by a subclass. `from_environment` reads a mapping once and
either returns settings that are right, each and together, or raises one error that lists everything wrong. Nothing is
read at import, nothing is read twice, and no file is opened here.
"""

import difflib
import inspect
import math
import re
import socket
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypedDict, TypeVar, Unpack, dataclass_transform, overload

__all__ = ["Address", "Duration", "Problem", "Row", "Settings", "SettingsError", "format_duration", "setting"]

T = TypeVar("T")

Duration = Annotated[float, "duration"]
"""Seconds; written `30s`, `5m`, `1h30m`, `500ms` or `30`."""


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written: `host:port`, a bare IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Problem(NamedTuple):
    """One thing that is wrong, and the fields that it is about."""

    fields: tuple[str, ...]
    text: str


class Row(NamedTuple):
    """One line of the table that `--help` prints."""

    variable: str
    default: str
    in_force: str
    meaning: str


class SettingsError(ValueError):
    """Settings that can't be used. Its text lists every problem, one on a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(["the settings are not usable:", *(f"  {problem.text}" for problem in self.problems)])
        )


class _Extra(TypedDict, total=False):
    meaning: str
    variable: str
    shown: str
    at_least: float
    matches: str
    allowed: str
    secret: bool
    not_yet: bool


@overload
def setting(*, default: T, **extra: Unpack[_Extra]) -> T: ...
@overload
def setting(*, default_factory: Callable[[], T], **extra: Unpack[_Extra]) -> T: ...
@overload
def setting(**extra: Unpack[_Extra]) -> Any: ...  # as dataclasses.field: nothing else fits a field of every type
def setting(*, default: Any = MISSING, default_factory: Any = MISSING, **extra: Unpack[_Extra]) -> Any:
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


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
class _Declared:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    """All that is known of one setting."""

    name: str
    variable: str
    kind: Any
    optional: bool
    required: bool
    default: Any
    extra: _Extra

    @property
    def items(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    @property
    def allowed(self) -> str:
        if typing.get_origin(self.kind) is Literal:
            return "one of " + ", ".join(typing.get_args(self.kind))
        words = self.extra.get("allowed") or ("texts separated by commas" if self.items else _KINDS[self.kind].allowed)
        if (least := self.extra.get("at_least")) is not None:
            words += f", at least {self._show_one(least)}"
        return words

    @property
    def default_shown(self) -> str:
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
            return _KINDS[self.kind].read(text)
        except ValueError:
            return None

    def show(self, value: Any) -> str:
        """Return a value as it would be written in the environment; "" for None."""
        if value is None or value == ():
            return ""
        if self.extra.get("secret"):
            return "***"
        return ",".join(value) if self.items else self._show_one(value)

    def wrong(self, text: str, value: Any, *, given: bool) -> Problem | None:
        """Return what is wrong with `value`, which was written as `text`, by somebody (`given`) or by us."""
        said = f"{self.variable}={'***' if self.extra.get('secret') else text}"
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
        return _KINDS[self.kind].show(value) if self.kind in _KINDS else str(value)


def _variables(cls: type[_Declared]) -> dict[str, str]:
    """Return the variable of each field: that of the class that declared it first."""
    variables: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own = base.__dict__.get("__dataclass_fields__", {})
        for name in inspect.get_annotations(base):
            if name in own and name not in variables:
                extra = own[name].metadata.get("asyncctl", _Extra())
                variables[name] = extra.get("variable") or f"{getattr(base, '_prefix', '')}{name.upper()}"
    return variables


def _specs(cls: type[_Declared]) -> list[_Spec]:
    hints = typing.get_type_hints(cls, include_extras=True)
    variables = _variables(cls)
    specs = []
    for declared in fields(typing.cast("Any", cls)):
        kind, optional = hints[declared.name], False
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            inner = [arg for arg in typing.get_args(kind) if arg is not types.NoneType]
            optional, kind = len(inner) < len(typing.get_args(kind)), inner[0] if len(inner) == 1 else kind
        if kind not in _KINDS and typing.get_origin(kind) is not Literal and kind != tuple[str, ...]:
            raise TypeError(f"{cls.__qualname__}.{declared.name}: a setting can't be of type {kind}")
        made = declared.default_factory
        specs.append(
            _Spec(
                name=declared.name,
                variable=variables[declared.name],
                kind=kind,
                optional=optional,
                required=declared.default is MISSING and made is MISSING,
                default=made() if made is not MISSING else None if declared.default is MISSING else declared.default,
                extra=declared.metadata.get("asyncctl", _Extra()),
            )
        )
    return specs


_NAMESPACE = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class Settings(_Declared, prefix="ASYNCCTL_"):
    """What every asyncctl program can be told. Times are in seconds.

    A subclass adds its own::

        class WidgetSettings(Settings, prefix="WIDGETS_"):
            size: int = setting(default=3, at_least=1, meaning="parts of a new widget")

    Its field is read from `WIDGETS_SIZE`. A field that is declared again keeps its variable, and changes its default.
    Understood types: str, int, float, bool, Path, Duration, Address, Literal of strings, tuple[str, ...], and each of
    them `| None`.
    """

    namespaces: tuple[str, ...] = setting(
        default=(),
        shown="all",
        meaning="the only namespaces this process may touch, separated by commas",
        matches=_NAMESPACE,
        allowed="names of namespaces, separated by commas",
    )
    kubeconfig: str | None = setting(default=None, meaning="kubeconfig files, instead of those that are looked for")
    context: str | None = setting(default=None, meaning="context of the kubeconfig, instead of its current one")
    qps: float = setting(default=50.0, at_least=0, meaning="requests a second, per lane; 0 = no limit")
    burst: int = setting(default=100, at_least=0, meaning="requests at once, per lane")
    request_timeout: Duration = setting(default=30.0, at_least=0.001, meaning="one request, its retries not counted")
    workers: int = setting(default=10, at_least=1, meaning="reconciles at once, per controller")
    reconcile_timeout: Duration = setting(default=300.0, at_least=0.001, meaning="one reconcile")
    resync: Duration = setting(default=36000.0, at_least=1, meaning="each object is reconciled at least this often")
    retry_base: Duration = setting(default=5.0, at_least=0.001, meaning="wait before the first retry")
    retry_max: Duration = setting(default=60.0, at_least=0.001, meaning="longest wait before a retry")
    retry_limit: int = setting(default=10, at_least=1, meaning="counted failures until an object is parked")
    leader_election: bool = setting(default=True, meaning="wait for the Lease before working")
    lease_name: str | None = setting(
        default=None,
        shown="<program>-leader",
        meaning="name of the Lease",
        matches=r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
        allowed="the name of an object",
    )
    lease_namespace: str | None = setting(
        default=None,
        shown="the pod's own, else controllers",
        meaning="namespace of the Lease",
        matches=_NAMESPACE,
        allowed="the name of a namespace",
    )
    lease_duration: Duration = setting(default=15.0, at_least=1, meaning="a Lease not renewed for so long is free")
    renew_deadline: Duration = setting(
        default=10.0, at_least=0.001, meaning="a leader that can't renew for so long stops"
    )
    retry_period: Duration = setting(default=2.0, at_least=0.001, meaning="between two tries to get or renew the Lease")
    http_address: Address = setting(
        default=Address("0.0.0.0", 8080),  # noqa: S104  # the kubelet comes from outside
        meaning="listener for /livez /readyz /healthz /metrics",
    )
    metrics_address: Address | None = setting(default=None, meaning="a listener of its own for /metrics", not_yet=True)
    metrics_tls: bool = setting(default=True, meaning="TLS on that listener", not_yet=True)
    metrics_auth: Literal["token", "none"] = setting(default="token", meaning="who may read there", not_yet=True)
    metrics_cert: Path | None = setting(default=None, meaning="its certificate", not_yet=True)
    metrics_key: Path | None = setting(default=None, meaning="its key", not_yet=True)
    debug_address: Address | None = setting(default=None, meaning="listener for /debug", not_yet=True)
    pod_name: str = setting(
        default_factory=socket.gethostname, shown="host name", meaning="name of this pod; part of the Lease identity"
    )
    cluster_id: str | None = setting(
        default=None,
        shown="uid of namespace kube-system",
        meaning="names this cluster in claims on outside systems",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(default="info", meaning="what is logged")
    log_format: Literal["auto", "json", "console"] = setting(
        default="auto", meaning="auto = console on a terminal, else json"
    )
    drain_timeout: Duration = setting(
        default=25.0, at_least=0, meaning="how long workers may go on after SIGTERM; less than the pod's grace period"
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
        if self.qps > 0 and self.burst < 1:
            yield self.problem("burst", "qps", must="be at least 1 while {1} is more than 0")
        if self.lease_duration != int(self.lease_duration):
            yield self.problem("lease_duration", must="be whole seconds: the Lease's record knows no others")
        if self.lease_duration <= self.renew_deadline:
            yield self.problem("lease_duration", "renew_deadline", must="be longer than {1}")
        if self.renew_deadline <= 1.2 * self.retry_period:
            yield self.problem("renew_deadline", "retry_period", must="be longer than 1.2 times {1}")
        if self.retry_max < self.retry_base:
            yield self.problem("retry_max", "retry_base", must="not be less than {1}")

    def problem(self, *names: str, must: str) -> Problem:
        """Say that the first of the fields `names` must do something; `{1}` in it stands for the second one."""
        specs = {spec.name: spec for spec in _specs(type(self))}
        said = [f"{specs[name].variable}={specs[name].show(getattr(self, name))}" for name in names]
        return Problem(names, f"{said[0]}: must {must.format(*said)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read all settings; a variable that is absent or empty leaves the default.

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
                    in_force = f"{'***' if spec.extra.get('secret') else text} (not usable)"
            meaning = (
                f"{spec.extra.get('meaning', '')} (not yet)"
                if spec.extra.get("not_yet")
                else spec.extra.get("meaning", "")
            )
            rows.append(Row(spec.variable, spec.default_shown, in_force, meaning))
        return rows

    @classmethod
    def describe(cls, environ: Mapping[str, str]) -> str:
        """Return the table as text, as `--help` prints it."""
        rows = [Row("VARIABLE", "DEFAULT", "IN FORCE", "MEANING"), *cls.rows(environ)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row.meaning]).rstrip()
            for row in rows
        )


# In a pod, a Service called `asyncctl` (or after a program's prefix) puts such variables into the environment; and
# `ASYNCCTL_TEST_*` is what its tests are told.
_NO_SETTING = re.compile(
    r"^ASYNCCTL_TEST_|_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)


def format_duration(seconds: float) -> str:
    """Return a duration as a setting writes it: `1h30m`, `5s`, `0.25s`."""
    if seconds < 60 or seconds != int(seconds):
        return f"{seconds:g}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{amount}{unit}" for amount, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if amount)


def _read_duration(text: str) -> float:
    number = r"(\d+(?:\.\d+)?)"
    if re.fullmatch(number, text, re.ASCII):
        return float(text)
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?(?:{number}ms)?", text, re.ASCII)
    if match is None or not text:
        raise ValueError(text)
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1, 0.001), strict=True))


def _read_int(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _read_float(text: str) -> float:
    if not re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII):
        raise ValueError(text)
    return float(text)


def _read_bool(text: str) -> bool:
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise ValueError(text)


def _read_address(text: str) -> Address:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:\s/]*):(\d{1,5})", text, re.ASCII)
    if match is None or int(match[2]) > 65535:
        raise ValueError(text)
    return Address(match[1].strip("[]") or "0.0.0.0", int(match[2]))  # noqa: S104  # `:8080` means all, as in Go


class _Kind(NamedTuple):
    read: Callable[[str], Any]
    show: Callable[[Any], str]
    allowed: str


_KINDS: dict[Any, _Kind] = {
    str: _Kind(str, str, "a text"),
    int: _Kind(_read_int, str, "a whole number"),
    float: _Kind(_read_float, "{:g}".format, "a number"),
    bool: _Kind(_read_bool, lambda value: str(value).lower(), "true or false"),
    Path: _Kind(Path, str, "a path"),
    Address: _Kind(_read_address, str, "an address such as 0.0.0.0:8080 or [::]:8080"),
    Duration: _Kind(_read_duration, format_duration, "a duration such as 30s, 5m, 1h30m, or seconds"),
}

"""The values that a setting can have: how each is read, how it is written, and in what words it is asked for."""

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, NamedTuple

__all__ = ["KINDS", "Address", "Duration", "Kind", "format_duration", "is_loopback"]

Duration = Annotated[float, "duration"]
"""Seconds; written `30s`, `5m`, `1h30m`, `500ms` or `30`."""


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written: `host:port`, a bare IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, or pod, itself; no name but `localhost` is looked at."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


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


class Kind(NamedTuple):
    """How a type is read (ValueError: it can't be), shown, and what is allowed, in words."""

    read: Callable[[str], Any]
    show: Callable[[Any], str]
    allowed: str


KINDS: dict[Any, Kind] = {
    str: Kind(str, str, "a text"),
    int: Kind(_read_int, str, "a whole number"),
    float: Kind(_read_float, "{:g}".format, "a number"),
    bool: Kind(_read_bool, lambda value: str(value).lower(), "true or false"),
    Path: Kind(Path, str, "a path"),
    Address: Kind(_read_address, str, "an address such as 0.0.0.0:8080 or [::]:8080"),
    Duration: Kind(_read_duration, format_duration, "a duration such as 30s, 5m, 1h30m, or seconds"),
}

"""The string formats that the API server checks in a custom resource's schema; every other format is ignored there.

Names are compared without dashes (`date-time` is `datetime`). Source: `k8s.io/kube-openapi/pkg/validation/strfmt` and
apiextensions-apiserver's `validation/formats.go`. Known difference: `email`, `uri` and `hostname` accept what a strict
reading of their RFCs accepts, where Go's parsers know a few odd forms more or less.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from email.utils import parseaddr
from ipaddress import AddressValueError, IPv6Address
from types import MappingProxyType

_UUID = r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_CARD = (
    r"4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11}"
)
_BYTE = r"0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5]"
_HOST_LABEL = re.compile(r"[^\W_]([^\W_]|-)*")
_GO_DURATION = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_LONG_DURATION = re.compile(r"(\d+)\s*([A-Za-zµ]+)", re.ASCII)
_UNITS = (
    ("ns", "nano"),
    ("us", "µs", "micro"),
    ("ms", "milli"),
    ("s", "sec"),
    ("m", "min"),
    ("h", "hr", "hour"),
    ("d", "day"),
    ("w", "wk", "week"),
)
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))")


def normal(name: str) -> str:
    """Return the name under which a format is looked up."""
    return name.replace("-", "")


def _matching(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _parses(parser: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parser(text)
        except (ValueError, AddressValueError):
            return False
        return True

    return check


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return text.startswith("0000-")
    return True


def _is_date_time(text: str) -> bool:
    day, _, clock = text.lower().partition("t")
    clock, _, _ = clock.partition("t")
    match = _CLOCK.fullmatch(clock)
    return match is not None and _is_date(day) and match[1] <= "23" and match[2] <= "59" and match[3] <= "59"


def _is_duration(text: str) -> bool:
    if _GO_DURATION.fullmatch(text):
        return True
    for _, word in _LONG_DURATION.findall(text):
        unit = word.lower()
        if any(unit.startswith(names[-1]) or unit in names for names in _UNITS):
            return True
    return False


def _is_ipv4(text: str) -> bool:
    # Leading zeros are let pass, as Go's sloppy parser does.
    parts = text.split(".")
    if ":" in text:
        return "." in text and _parses(IPv6Address)(text)
    return len(parts) == 4 and all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts)


def _is_ipv6(text: str) -> bool:
    return ":" in text and "%" not in text and _parses(IPv6Address)(text)


def _is_cidr(text: str) -> bool:
    address, slash, bits = text.partition("/")
    if not slash or not (bits.isascii() and bits.isdigit()):
        return False
    return (_is_ipv6(address) and int(bits) <= 128) or (":" not in address and _is_ipv4(address) and int(bits) <= 32)


def _is_hostname(text: str) -> bool:
    labels = text.split(".")
    return (
        len(text.encode()) <= 255
        and all(_HOST_LABEL.fullmatch(each) and not each.endswith("-") and len(each.encode()) <= 63 for each in labels)
        and (len(labels) == 1 or re.fullmatch(r"[^\W\d_]{2,63}", labels[-1]) is not None)
    )


def _is_uri(text: str) -> bool:
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in text):
        return False
    return text.startswith("/") or text == "*" or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:.", text) is not None


def _is_email(text: str) -> bool:
    local, at, domain = parseaddr(text)[1].rpartition("@")
    return bool(at and local and domain) and " " not in domain


def _is_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]", "", text)
    if not re.fullmatch(_CARD, digits, re.ASCII):
        return False
    doubled = (int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits)))
    return sum(each // 10 + each % 10 for each in doubled) % 10 == 0


def _is_isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        return False
    return sum((index + 1) * (10 if digit == "X" else int(digit)) for index, digit in enumerate(digits)) % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"[0-9]{13}", digits):
        return False
    return sum(int(digit) * (1 + 2 * (index % 2)) for index, digit in enumerate(digits)) % 10 == 0


FORMATS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "bsonobjectid": _matching(r"(?i)[0-9a-f]{24}"),
        "uri": _is_uri,
        "email": _is_email,
        "hostname": _is_hostname,
        "ipv4": _is_ipv4,
        "ipv6": _is_ipv6,
        "cidr": _is_cidr,
        "mac": _matching(r"(?i)[0-9a-f]{2}((:[0-9a-f]{2}){5}|(-[0-9a-f]{2}){5})|[0-9a-f]{4}(\.[0-9a-f]{4}){2}"),
        "uuid": _matching(_UUID % ("[0-9a-f]", "[0-9a-f]")),
        "uuid3": _matching(_UUID % ("3", "[0-9a-f]")),
        "uuid4": _matching(_UUID % ("4", "[89ab]")),
        "uuid5": _matching(_UUID % ("5", "[89ab]")),
        "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
        "isbn10": _is_isbn10,
        "isbn13": _is_isbn13,
        "creditcard": _is_card,
        "ssn": _matching(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
        "hexcolor": _matching(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
        "rgbcolor": _matching(rf"rgb\(\s*({_BYTE})\s*,\s*({_BYTE})\s*,\s*({_BYTE})\s*\)"),
        "byte": _matching(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"),
        "password": lambda _text: True,
        "date": _is_date,
        "duration": _is_duration,
        "datetime": _is_date_time,
        "k8sshortname": lambda text: len(text) <= 63 and re.fullmatch(_LABEL, text) is not None,
        "k8slongname": lambda text: len(text) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", text) is not None,
    }
)

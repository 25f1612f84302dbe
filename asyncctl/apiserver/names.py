"""What names, labels and keys may look like: each function returns what is wrong, in the API server's words.

Sources: `k8s.io/apimachinery/pkg/api/validate/content` and `pkg/util/validation`, of which the newer says bytes and the
older characters; both count bytes.
"""

import re
from collections.abc import Callable, Sequence

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_KEY_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_DATA_KEY = "[-._a-zA-Z0-9]+"
_KUBE_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")


def _mismatch(words: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def _too_long(text: str, limit: int, unit: str) -> list[str]:
    return [f"must be no more than {limit} {unit}"] if len(text.encode()) > limit else []


def dns_label(name: str) -> list[str]:
    """RFC 1123 label: namespaces, stateful sets."""
    found = _too_long(name, 63, "characters")
    if not re.fullmatch(_LABEL, name):
        if re.fullmatch(_SUBDOMAIN, name):
            found.append("must not contain dots")
        else:
            words = (
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
                "and must start and end with an alphanumeric character"
            )
            found.append(_mismatch(words, _LABEL, "my-name", "123-abc"))
    return found


def dns_subdomain(name: str, unit: str = "characters") -> list[str]:
    """RFC 1123 subdomain: most names. `unit` is what its length is said in."""
    found = _too_long(name, 253, unit)
    if not re.fullmatch(_SUBDOMAIN, name):
        words = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        found.append(_mismatch(words, _SUBDOMAIN, "example.com"))
    return found


def dns_1035_label(name: str) -> list[str]:
    """RFC 1035 label: the names and versions of custom resources."""
    found = _too_long(name, 63, "characters")
    if not re.fullmatch(_DNS_1035, name):
        words = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character"
        )
        found.append(_mismatch(words, _DNS_1035, "my-name", "abc-123"))
    return found


def path_segment(name: str) -> list[str]:
    """What can stand in a URL's path: the least that any name must be."""
    if name in {".", ".."}:
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


def prefix_of(check: Callable[[str], Sequence[str]]) -> Callable[[str], Sequence[str]]:
    """Turn a check of names into one of `generateName`, which may end in a dash."""

    def checked(name: str) -> Sequence[str]:
        # The real server drops two characters for the dash and puts one there; the length is one less.
        return check(f"{name[:-2]}a" if len(name) > 1 and name.endswith("-") else name)

    return checked


def label_key(key: str) -> list[str]:
    """A label's or annotation's key, a finalizer: an optional DNS prefix, a slash and a name."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        text = _mismatch(_KEY_WORDS, _KEY, "MyName", "my.name", "123-abc")
        return [f"a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    found = []
    if slash:
        found += [
            f"prefix part {text}" for text in (dns_subdomain(prefix, "bytes") if prefix else ["must be non-empty"])
        ]
    if not name:
        found.append("name part must be non-empty")
    else:
        found += [f"name part {text}" for text in _too_long(name, 63, "bytes")]
    if not re.fullmatch(_KEY, name):
        found.append(f"name part {_mismatch(_KEY_WORDS, _KEY, 'MyName', 'my.name', '123-abc')}")
    return found


def label_value(value: str) -> list[str]:
    """A label's value: empty, or a name of up to 63 bytes."""
    found = _too_long(value, 63, "bytes")
    if not re.fullmatch(f"({_KEY})?", value):
        words = f"a valid label must be an empty string or {_KEY_WORDS.removeprefix('must ')}"
        found.append(_mismatch(words, f"({_KEY})?", "MyValue", "my_value", "12345"))
    return found


def data_key(key: str) -> list[str]:
    """A key of a ConfigMap's or Secret's data."""
    found = _too_long(key, 253, "characters")
    if not re.fullmatch(_DATA_KEY, key):
        words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        found.append(_mismatch(words, _DATA_KEY, "key.name", "KEY_NAME", "key-name"))
    if key in {".", ".."}:
        found.append(f"must not be '{key}'")
    elif key.startswith(".."):
        found.append("must not start with '..'")
    return found


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Return a key that sorts versions best first: v2, v1, v1beta2, v1alpha1, then others by name.

    Source: `k8s.io/apimachinery/pkg/version/helpers.go`.
    """
    match = _KUBE_VERSION.fullmatch(version)
    if match is None:
        return 3, 0, 0, version
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return stage, -int(match[1]), -int(match[3] or 0), version

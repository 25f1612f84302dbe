"""What gives away a cluster, found in a text: kubeconfigs, private keys, bearer tokens; also inside of base64.

These are the rules that detect-secrets lacks, or has for one line only. A file that is a kubeconfig may hold no
credential at all. In any other text (a program, a page, a manifest) a value counts when it looks random, so that a
test may say `token: made-up`. A value is looked at here and never handed out: what is found is a line and a kind.
"""

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import yaml

KEYS = ("client-key-data", "token", "password", "id-token", "refresh-token", "access-token", "client-secret")
"""Where a kubeconfig's user has something to keep secret (client-go's `clientcmd/api/v1/types.go`)."""

_DEPTH = 3  # a kubeconfig in a Secret is base64; its key is base64 in that; the rest is PEM
_KEY = "|".join(KEYS)
_KEYED = re.compile(
    rf"(?:(?<![a-zA-Z0-9-])(?:{_KEY})[\"']?\s*[:=]\s*|--(?:{_KEY})(?:=|\s+))"
    r"(?:([\"'])(?P<quoted>[^\s\"']+)\1|(?P<bare>[\w.~+/=!@#%^&*-]+)(?=[\s,}\\]|$))",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\bbearer\s+(?P<token>[\w.~+/-]+=*)", re.IGNORECASE)
_BASIC = re.compile(r"\bauthorization[\"']?\s*[:=,]\s*[\"']?basic\s+(?P<pair>[A-Za-z0-9+/]{8,}=*)", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----")
_PUTTY = re.compile(r"PuTTY-User-Key-File-\d:.*?Private-Lines:", re.DOTALL)
_KEY_MATERIAL = re.compile(r"[A-Za-z0-9+/]{32}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{60,}(?:\s+[A-Za-z0-9+/]{20,})*={0,2}")
_PLACEHOLDER = re.compile(r"\s*|[$<{].*|[*.x]+|REDACTED|DATA\+OMITTED")


class Found(NamedTuple):
    """Something secret, by the line where it begins."""

    line: int
    what: str


def find(text: str) -> set[Found]:
    """Everything in `text` that must not be committed."""
    return set(_find(text, _DEPTH))


def looks_random(value: str) -> bool:
    """Whether nobody would make `value` up: it has a digit, and is of three kinds of characters or long and varied."""
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]", "[^a-zA-Z0-9]"))
    if len(value) < 12 or not re.search("[0-9]", value):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    entropy = -sum(share * math.log2(share) for share in shares)  # bits per character
    return (kinds >= 3 and entropy >= 2.5) or (len(value) >= 16 and kinds >= 2 and entropy >= 3.3)


def _find(text: str, depth: int) -> Iterator[Found]:
    for match in (*_PEM.finditer(text), *_PUTTY.finditer(text)):
        if _KEY_MATERIAL.search(text[match.end() : match.end() + 500].partition("-----END")[0]):
            yield Found(_line(text, match.start()), "private key")
    for match in _BEARER.finditer(text):
        if looks_random(match["token"]):
            yield Found(_line(text, match.start("token")), "bearer token")
    for match in _BASIC.finditer(text):
        if b":" in _decoded(match["pair"]):
            yield Found(_line(text, match.start("pair")), "user and password")
    yield from _kubeconfigs(text)
    for match in _KEYED.finditer(text):
        value = match["quoted"] or match["bare"]
        if looks_random(value) and not _PLACEHOLDER.fullmatch(value):
            yield Found(_line(text, match.start()), "credential")
    if depth:
        for match in _BASE64.finditer(text):
            if any(next(_find(inner, depth - 1), None) for inner in _inside(match[0])):
                yield Found(_line(text, match.start()), "private key or kubeconfig in base64")


def _kubeconfigs(text: str) -> Iterator[Found]:
    """The credentials of each YAML or JSON document that is a kubeconfig, whatever they look like."""
    if "users" not in text or "Config" not in text:
        return
    try:
        for document in yaml.compose_all(text.replace("\t", " "), Loader=yaml.SafeLoader):  # JSON may have tabs
            for user in _users(document):
                yield from _credentials(user, set())
    except (yaml.YAMLError, RecursionError):
        return  # no document; what stands in it is found by its form


def _users(document: yaml.Node | None) -> list[yaml.Node]:
    fields = _fields(document)
    kind, users = fields.get("kind"), fields.get("users")
    is_config = isinstance(kind, yaml.ScalarNode) and kind.value == "Config"
    return list(users.value) if is_config and isinstance(users, yaml.SequenceNode) else []


def _credentials(node: yaml.Node, seen: set[int]) -> Iterator[Found]:
    if id(node) in seen:  # an alias may point at what it stands in
        return
    seen.add(id(node))
    for key, value in _fields(node).items():
        if isinstance(value, yaml.ScalarNode):
            if key in KEYS and not _PLACEHOLDER.fullmatch(value.value):
                yield Found(value.start_mark.line + 1, f"kubeconfig with {key}")
        else:
            yield from _credentials(value, seen)


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _inside(run: str) -> Iterator[str]:
    """What `run` may be the base64 of, where that is a text of interest; a stray character may stand before it."""
    joined = "".join(run.split())
    for start in range(4):
        decoded = _decoded(joined[start:])
        if any(sign in decoded for sign in (b"PRIVATE KEY", b"PuTTY-User-Key-File", b"users", b"LS0tLS1CRUdJTi")):
            yield decoded.decode(errors="replace")


def _decoded(text: str) -> bytes:
    text = text.rstrip("=")
    text = text[: len(text) - 1] if len(text) % 4 == 1 else text
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return b""


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1

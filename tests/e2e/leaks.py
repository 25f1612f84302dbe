"""Finds secrets in what a program has said, whole, cut or encoded: a secret of which sixteen characters show is told.

What is looked for are all pieces of `PIECE` characters of each secret, and of its usual encodings, in the text as it is
and in the text without what may have split it: spaces, line ends, quotes, escapes.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

PIECE = 16  # characters
SHORTEST = 8  # of what is looked for: less is in any text by chance
_PUBLIC = re.compile(r"SCRAM-SHA-256\$\d+:|[$:]")  # of a verifier: what is the same in all, and what parts the rest
_PEM = re.compile(r"-----[A-Z ]+-----")
_SPLIT = re.compile(r"\\[nrt]|[\s\\\"'`,;+|]+")


class Leaks:
    """What must not be said.

    Args:
        secrets: passwords, tokens, verifiers, keys in PEM; of a JSON Web Token only the signature is secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._whole: set[str] = set()  # too short to be cut in pieces
        self._pieces: dict[str, str] = {}  # and the beginning of the secret that each is of
        for secret in secrets:
            for part in _secret_parts(secret):
                for form in _forms(part):
                    self._note(form, secret)

    def __len__(self) -> int:
        return len(self._pieces) + len(self._whole)

    def found_in(self, text: str) -> list[str]:
        """What shows in `text`: each piece, and some of the text about it."""
        found = []
        for look in (text, _SPLIT.sub("", text)):
            places = {look.find(piece) for piece in self._seen_in(look)}
            places |= {place for short in self._whole if (place := look.find(short)) >= 0}
            found += [look[max(0, place - 60) : place + 60] for place in sorted(places)]
        return found

    def _seen_in(self, text: str) -> set[str]:
        seen = set()
        for start in range(0, len(text), 100_000):  # a set of all pieces of a long text would be large
            part = text[start : start + 100_000 + PIECE]
            seen |= self._pieces.keys() & {part[at : at + PIECE] for at in range(len(part) - PIECE + 1)}
        return seen

    def _note(self, form: str, secret: str) -> None:
        if SHORTEST <= len(form) < PIECE:
            self._whole.add(form)
        for at in range(len(form) - PIECE + 1):
            self._pieces[form[at : at + PIECE]] = secret[:8]


def _secret_parts(secret: str) -> Iterator[str]:
    if secret.startswith("SCRAM-"):
        yield from (part for part in _PUBLIC.split(secret) if len(part) >= PIECE)
    elif secret.startswith("eyJ") and secret.count(".") == 2:
        yield secret.rpartition(".")[2]
    elif "-----BEGIN" in secret:
        for body in _PEM.split(secret):
            joined = "".join(body.split())
            if joined:
                yield joined[64:]  # its beginning says what sort of key it is
    else:
        yield secret


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield secret
    yield json.dumps(secret)[1:-1]
    yield quote(secret, safe="")
    yield raw.hex()
    yield raw.hex().upper()
    for shift in range(3):  # wherever it began in what was encoded
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        inner = encoded[4 if shift else 0 : len(encoded) - len(encoded) % 4]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")

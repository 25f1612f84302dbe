"""Takes out of a text by somebody else what looks like a credential, and leaves the rest to be read.

It guesses, on the safe side: what follows `token:` is gone, whatever it is. A credential that looks like a word, with
nothing before it that says what it is, stays.
"""

import re

_HIDDEN = "***"
_URL = re.compile(r"(?<=://)[^\s/@]+(?=@)")  # user and password
_JWT = re.compile(r"\beyJ[\w-]*(?:\.[\w-]*)*")
_NAMED = re.compile(
    r"""((?:token|passw(?:or)?d|passphrase|pwd|secret|credential|authorization|cookie|(?:api|access|private)[-_ ]?key)
    s?[\w-]{0,40}["']?\s*[=:]\s*
    |(?<![\w-])--[\w-]{0,40}(?:token|password|secret|key)[\w-]{0,40}\s+
    |\b(?:bearer|basic)\s+(?=\S*[\d=]))
    (?:"[^"\n]*"?|'[^'\n]*'?|(?:(?:bearer|basic)\s+)?[^\s"'&,;]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
_HEX = re.compile(r"[0-9A-Fa-f]{32}")
_EACH = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))


def without_credentials(text: str) -> str:
    """Return `text` with `***` in place of what looks like a credential.

    That is: a JWT; a value after `token`, `password`, `secret`, `authorization` and the like with `=` or `:`; the user
    and password of a URL; a long run of hex digits, or of base64 (small and capital letters and digits).
    """
    text = _URL.sub(_HIDDEN, text)
    text = _JWT.sub(_HIDDEN, text)
    text = _NAMED.sub(rf"\1{_HIDDEN}", text)
    return _RUN.sub(lambda run: _HIDDEN if _is_key(run[0]) else run[0], text)


def _is_key(run: str) -> bool:
    """Whether a run of characters is no path and no name, but one that a machine has made."""
    parts = [part for part in run.split("/") if len(part) >= 20] if run.startswith("/") else [run]
    return any(_HEX.search(part) or all(each.search(part) for each in _EACH) for part in parts)

r"""Go's regular expressions (RE2) in Python.

The two languages agree on most patterns. `compile_pattern` translates the places where they differ: `$` is the very end
in Go, `\z`, `[[:alpha:]]`, `\Q...\E`, and `\d \w \s` are ASCII. What RE2 refuses (look-around, back-references) is
refused. Unicode classes (`\p{L}`) have no equal in Python's `re`: `UnsupportedPatternError` says so, and the caller
lets values pass.
"""

import re

_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_TOKEN = re.compile(
    r"\\Q(?P<literal>.*?)(?:\\E|$)|(?P<escape>\\.)|\[:(?P<posix>\^?\w+):\]|(?P<look>\(\?<?[=!])|(?P<char>.)", re.DOTALL
)


class InvalidPatternError(ValueError):
    """Go would not compile this pattern. The text is what the API server says."""


class UnsupportedPatternError(ValueError):
    """Go knows this pattern, Python does not."""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a Go pattern; use `search` on the result.

    Raises:
        InvalidPatternError: Go refuses it.
        UnsupportedPatternError: it cannot be said in Python.
    """
    parts: list[str] = []
    in_class = False
    multiline = re.match(r"\(\?[a-z]*m", pattern) is not None
    for token in _TOKEN.finditer(pattern):
        if (literal := token["literal"]) is not None:
            parts.append(re.escape(literal))
        elif token["look"] and not in_class:
            raise InvalidPatternError(f"error parsing regexp: invalid or unsupported Perl syntax: `{token['look']}`")
        elif name := token["posix"]:
            if not in_class or name.startswith("^") or name not in _POSIX:
                raise UnsupportedPatternError(f"{pattern!r} has a character class that Python cannot write")
            parts.append(_POSIX[name])
        elif escape := token["escape"]:
            if escape[1] in "pP":
                raise UnsupportedPatternError(f"{pattern!r} has a Unicode class, which Python cannot write")
            if escape[1] in "123456789" or escape in {r"\Z", r"\G", r"\k"}:
                raise InvalidPatternError(f"error parsing regexp: invalid escape sequence: `{escape}`")
            parts.append(r"\Z" if escape == r"\z" else escape)
        else:
            char = token[0]
            if in_class:
                in_class = char != "]" or parts[-1] in {"[", "[^"}
                char = "\\[" if char == "[" else char
            elif char == "[":
                in_class = True
            elif char == "$" and not multiline:
                char = r"\Z"
            parts.append(char)
    try:
        return re.compile("".join(parts), re.ASCII)
    except re.error as error:
        raise InvalidPatternError(f"error parsing regexp: {error.msg}: `{error.pattern!s}`") from error

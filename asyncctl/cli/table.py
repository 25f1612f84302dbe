"""The rows of a check as text: a table for people, lines for `grep`, JSON for programs."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

import orjson

from asyncctl.operator.checking import Row, State

_MARKS = {State.OK: "✓", State.WARNING: "!", State.FAILED: "✗", State.SKIPPED: "-"}
_ASCII = {State.OK: "+", State.FAILED: "x"}
_COLOURS = {State.OK: "32", State.WARNING: "33", State.FAILED: "31", State.SKIPPED: "2"}
_WORD = max(len(state) for state in State)
_NARROW, _NAME, _TEXT = (
    40,
    44,
    30,
)  # columns: the least width that is filled; the widest name of several words; the narrowest text


def as_table(rows: Sequence[Row], *, width: int, colour: bool, unicode: bool) -> str:
    """Return an aligned table, wrapped to `width` columns, and a line that sums it up.

    A name breaks between words only; where that leaves too little for the texts, they are below the names.

    Args:
        rows: What was found.
        width: Of the terminal, in columns.
        colour: Whether to colour the states.
        unicode: Whether the terminal can show more than ASCII.
    """
    width = max(width, _NARROW)
    indent = 2 + _WORD + 2
    word = max((len(word) for row in rows for word in row.check.split()), default=0)
    name = max((len(row.check) for row in rows), default=0)
    name_width = min(name, max(min(_NAME, width - indent - 2 - _TEXT), word))
    text_width = width - indent - name_width - 2
    below = text_width < _TEXT
    if below:
        name_width = text_width = width - indent
    lines: list[str] = []
    for row in rows:
        mark = _MARKS[row.state] if unicode else _ASCII.get(row.state, _MARKS[row.state])
        state = f"{mark} {row.state:<{_WORD}}"
        if colour:
            state = f"\x1b[{_COLOURS[row.state]}m{state}\x1b[0m"
        names = textwrap.wrap(row.check, name_width, break_on_hyphens=False)
        texts = [part for line in row.message.splitlines() for part in _wrapped(line, text_width)] or [""]
        if below:
            found = [*names, *filter(None, texts)]
        else:
            found = [f"{part:<{name_width}}  {text}" for part, text in zip_longest(names, texts, fillvalue="")]
        heads = [state, *[" " * (indent - 2)] * (len(found) - 1)]
        lines += [f"{head}  {part}".rstrip() for head, part in zip(heads, found, strict=True)]
    return "\n".join([*lines, "", *textwrap.wrap(_sum(rows), width, break_on_hyphens=False)])


def as_lines(rows: Sequence[Row]) -> str:
    """Return one line for each row, however long, and one that sums them up."""
    name_width = max((len(row.check) for row in rows), default=0)
    lines = [f"{row.state:<{_WORD}}  {row.check:<{name_width}}  {_in_one_line(row.message)}" for row in rows]
    return "\n".join([*lines, _sum(rows)])


def as_json(rows: Sequence[Row]) -> str:
    """Return `{"checks": [{"check", "state", "message", "details"}], "summary": {"passed", "ok", "warning", …}}`."""
    checks = [
        {"check": row.check, "state": str(row.state), "message": row.message, "details": row.details} for row in rows
    ]
    counted = Counter(row.state for row in rows)
    summary = {"passed": not counted[State.FAILED], **{str(state): counted[state] for state in State}}
    return orjson.dumps({"checks": checks, "summary": summary}, option=orjson.OPT_INDENT_2).decode()


def _in_one_line(message: str) -> str:
    """The lines of a message with "; " between them, but after what announces or ends; an item loses its "- "."""
    said = ""
    for line in message.splitlines():
        if part := " ".join(line.split()).removeprefix("- "):
            said += ("" if not said else " " if said[-1] in ":;." else "; ") + part
    return said


def _wrapped(line: str, width: int) -> list[str]:
    """A line that begins with "- " is an item, and hangs."""
    hang = "  " if line.lstrip().startswith("- ") else ""
    return textwrap.wrap(line, width, subsequent_indent=hang, break_on_hyphens=False) or [""]


def _sum(rows: Sequence[Row]) -> str:
    counted = Counter(row.state for row in rows)
    counts = ", ".join(f"{counted[state]} {state}" for state in State if counted[state])
    if counted[State.FAILED]:
        failed = ", ".join(row.check for row in rows if row.state is State.FAILED)
        return f"not ready: {failed} ({counts})"
    return f"ready ({counts})"

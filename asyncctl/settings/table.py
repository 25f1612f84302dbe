"""The table of settings, as text: for a person at a terminal of any width, and for `grep`."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Row", "as_text"]

_MEANING = 40  # columns: what the meanings need to stand beside the values and not below them


class Row(NamedTuple):
    """One line of the table that `--help` prints."""

    variable: str
    default: str
    in_force: str
    meaning: str


def as_text(rows: Sequence[Row], width: int | None = None) -> str:
    """Return the table.

    Args:
        rows: What is in it.
        width: Of the terminal, in columns: meanings are wrapped to it, or are below where there is no room beside.
            None: one line for each setting, however long.
    """
    told = [
        (row.variable, row.in_force, f"{row.meaning} (default: {row.default})" if row.in_force != row.default else
         row.meaning)
        for row in rows
    ]  # fmt: skip
    names, values = (max((len(row[column]) for row in [_HEAD, *told]), default=0) for column in (0, 1))
    beside = names + 2 + values + 2
    lines = []
    if width is None or width - beside >= _MEANING:
        for name, value, meaning in [_HEAD, *told]:
            parts = textwrap.wrap(meaning, width - beside) if width is not None else [meaning]
            first, *rest = parts or [""]
            lines += [f"{name:<{names}}  {value:<{values}}  {first}", *(" " * beside + part for part in rest)]
    else:
        lines.append(f"{_HEAD[0]:<{names}}  {_HEAD[1]}")
        for name, value, meaning in told:
            lines.append(f"{name:<{names}}  {value}")
            lines += textwrap.wrap(meaning, max(width, _MEANING), initial_indent="    ", subsequent_indent="    ")
    return "\n".join(line.rstrip() for line in lines)


_HEAD = ("VARIABLE", "IN FORCE", "MEANING")

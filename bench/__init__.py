"""Figures, never tests: what a start, an idle daemon and a request cost. Run them with `make bench`."""

Figures = dict[str, float | None]
"""What was measured, by what it is and its unit; None: could not be had."""

DETAIL = " | "
"""Stands in a name between a figure and what is told of it: its spread, its ratio to another."""

"""Figures, never tests: what a start costs and what an idle daemon holds. Run it with `make bench`."""

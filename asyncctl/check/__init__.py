"""What `asyncctl check` looks at: whether an operator can do its work where it is told to, before it is deployed.

It only looks: its transport refuses every write, and what it posts are reviews and a dry run, which store nothing.
"""

from asyncctl.check.run import check_operator

__all__ = ["check_operator"]

"""A program made of controllers: what it declares, and the supervised life of it."""

from asyncctl.operator.cached import Cached
from asyncctl.operator.checking import Checking, State
from asyncctl.operator.operator import Operator
from asyncctl.operator.running import LeaseLost, Running

__all__ = ["Cached", "Checking", "LeaseLost", "Operator", "Running", "State"]

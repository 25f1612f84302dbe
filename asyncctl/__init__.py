"""The asyncio-native controller runtime for Kubernetes: the names that a controller author needs.

Objects of Kubernetes itself are in `asyncctl.objects`, what requests give in `asyncctl.client`, and errors of the API
server in `asyncctl.client.errors`.
"""

from asyncctl.cache.header import Header, Key
from asyncctl.cache.index import of_header
from asyncctl.client import Client, ClusterConfig, Patch
from asyncctl.clock import Clock, SystemClock
from asyncctl.controller.context import Context
from asyncctl.controller.outcome import NotOwned, Requeue, TerminalError, TransientError
from asyncctl.controller.sources import (
    Predicate,
    Watch,
    annotations_changed,
    any_change,
    generation_changed,
    labels_changed,
    of_change,
    of_object,
    to_every,
    to_indexed,
)
from asyncctl.objects import (
    Column,
    Condition,
    Meta,
    Part,
    Resource,
    Rule,
    Spec,
    Status,
    Unstructured,
    field,
    list_map,
    ready_column,
)
from asyncctl.observe import Logger, Metrics
from asyncctl.operator import Cached, Checking, LeaseLost, Operator, Running, State
from asyncctl.settings import Address, Duration, Problem, Settings, SettingsError, setting
from asyncctl.version import __version__

__all__ = [
    "Address",
    "Cached",
    "Checking",
    "Client",
    "Clock",
    "ClusterConfig",
    "Column",
    "Condition",
    "Context",
    "Duration",
    "Header",
    "Key",
    "LeaseLost",
    "Logger",
    "Meta",
    "Metrics",
    "NotOwned",
    "Operator",
    "Part",
    "Patch",
    "Predicate",
    "Problem",
    "Requeue",
    "Resource",
    "Rule",
    "Running",
    "Settings",
    "SettingsError",
    "Spec",
    "State",
    "Status",
    "SystemClock",
    "TerminalError",
    "TransientError",
    "Unstructured",
    "Watch",
    "__version__",
    "annotations_changed",
    "any_change",
    "field",
    "generation_changed",
    "labels_changed",
    "list_map",
    "of_change",
    "of_header",
    "of_object",
    "ready_column",
    "setting",
    "to_every",
    "to_indexed",
]

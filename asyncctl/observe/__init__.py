"""What a process tells of itself: its log, and its metrics."""

from asyncctl.observe.logs import Logger, make_logger, route_stdlib
from asyncctl.observe.metrics import ControllerMetrics, Count, Distribution, InformerMetrics, Metrics, RequestMetrics

__all__ = [
    "ControllerMetrics",
    "Count",
    "Distribution",
    "InformerMetrics",
    "Logger",
    "Metrics",
    "RequestMetrics",
    "make_logger",
    "route_stdlib",
]

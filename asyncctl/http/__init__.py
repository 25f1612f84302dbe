"""The side server: whether the process is well, and what it counts. Knows only callables."""

from asyncctl.http.probes import Probe, Probes
from asyncctl.http.server import ListenError, SideServer

__all__ = ["ListenError", "Probe", "Probes", "SideServer"]

"""The side server: whether the process is well, what it counts, and what it is doing. Knows only callables."""

from asyncctl.http.access import Access
from asyncctl.http.certificate import ServingTLS
from asyncctl.http.debug import Look, debug_pages, only_from_here
from asyncctl.http.pages import metrics_page, probe_pages
from asyncctl.http.probes import Probe, Probes
from asyncctl.http.server import Limits, Server
from asyncctl.http.sockets import ListenError

__all__ = [
    "Access",
    "Limits",
    "ListenError",
    "Look",
    "Probe",
    "Probes",
    "Server",
    "ServingTLS",
    "debug_pages",
    "metrics_page",
    "only_from_here",
    "probe_pages",
]

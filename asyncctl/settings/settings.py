"""What every asyncctl program can be told."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from asyncctl.settings.declared import Declared
from asyncctl.settings.setting import Problem, setting
from asyncctl.settings.values import Address, Duration, is_loopback

__all__ = ["DEBUG_ADDRESS", "Settings"]

DEBUG_ADDRESS = Address("127.0.0.1", 8082)
_NAMESPACE = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class Settings(Declared, prefix="ASYNCCTL_"):
    """What every asyncctl program can be told. Times are in seconds.

    A subclass adds its own::

        class WidgetSettings(Settings, prefix="WIDGETS_"):
            size: int = setting(default=3, at_least=1, meaning="parts of a new widget")

    Its field is read from `WIDGETS_SIZE`. A field that is declared again keeps its variable, and changes its default.
    Understood types: str, int, float, bool, Path, Duration, Address, Literal of strings, tuple[str, ...], and each of
    them `| None`.
    """

    namespaces: tuple[str, ...] = setting(
        default=(),
        shown="all",
        meaning="the only namespaces this process may touch, separated by commas",
        matches=_NAMESPACE,
        allowed="names of namespaces, separated by commas",
    )
    kubeconfig: str | None = setting(default=None, meaning="kubeconfig, instead of those that are looked for")
    context: str | None = setting(default=None, meaning="context of the kubeconfig, instead of its current one")
    qps: float = setting(default=50.0, at_least=0, meaning="requests a second, reads and writes each; 0 = no limit")
    burst: int = setting(default=100, at_least=0, meaning="requests at once before that limit holds")
    request_timeout: Duration = setting(default=30.0, at_least=0.001, meaning="one request, its retries not counted")
    workers: int = setting(default=10, at_least=1, meaning="reconciles at once, per controller")
    reconcile_timeout: Duration = setting(default=300.0, at_least=0.001, meaning="one reconcile; it is cancelled then")
    resync: Duration = setting(default=36000.0, at_least=1, meaning="each object is reconciled at least this often")
    retry_base: Duration = setting(default=5.0, at_least=0.001, meaning="wait before the first retry")
    retry_max: Duration = setting(default=60.0, at_least=0.001, meaning="longest wait before a retry")
    retry_limit: int = setting(default=10, at_least=1, meaning="counted failures until an object is parked")
    leader_election: bool = setting(default=True, meaning="wait for the Lease before working")
    lease_name: str | None = setting(
        default=None,
        shown="<program>-leader",
        meaning="name of the Lease",
        matches=r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
        allowed="the name of an object",
    )
    lease_namespace: str | None = setting(
        default=None,
        shown="the pod's own, else controllers",
        meaning="namespace of the Lease",
        matches=_NAMESPACE,
        allowed="the name of a namespace",
    )
    lease_duration: Duration = setting(default=15.0, at_least=1, meaning="a Lease not renewed for so long is free")
    renew_deadline: Duration = setting(
        default=10.0, at_least=0.001, meaning="a leader that can't renew for so long stops"
    )
    retry_period: Duration = setting(default=2.0, at_least=0.001, meaning="between two tries to get or renew the Lease")
    http_address: Address = setting(
        default=Address("0.0.0.0", 8080),  # noqa: S104  # the kubelet comes from outside
        meaning="listener for /livez /readyz /healthz, and /metrics unless it has its own",
    )
    metrics_address: Address | None = setting(default=None, meaning="a listener of its own for /metrics")
    metrics_tls: bool = setting(default=True, meaning="TLS on that listener")
    metrics_auth: Literal["token", "none"] = setting(
        default="token", meaning="who may read there; token: whom RBAC allows to get /metrics; none: everybody"
    )
    metrics_cert: Path | None = setting(
        default=None, shown="self-signed", meaning="its certificate, as PEM; reloaded when it changes"
    )
    metrics_key: Path | None = setting(default=None, meaning="the key of its certificate")
    debug_address: Address | None = setting(
        default=DEBUG_ADDRESS, meaning="listener for /debug/, on loopback; empty = off"
    )
    pod_name: str = setting(
        default_factory=socket.gethostname, shown="host name", meaning="name of this pod; part of the Lease identity"
    )
    cluster_id: str | None = setting(
        default=None,
        shown="uid of namespace kube-system",
        meaning="names this cluster in claims on outside systems",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        default="info", meaning="the least that is logged: debug, info, warning, error"
    )
    log_format: Literal["auto", "json", "console"] = setting(
        default="auto", meaning="json, console (for people), or auto: console on a terminal, else json"
    )
    drain_timeout: Duration = setting(
        default=25.0, at_least=0, meaning="how long workers may go on after SIGTERM; less than the pod's grace period"
    )
    termination_log: Path | None = setting(
        default=Path("/dev/termination-log"),
        meaning="file for the reason of an exit; written only where it is there, as in a container",
    )

    def check(self) -> Iterator[Problem]:
        """See `Declared.check`."""
        yield from super().check()
        if self.qps > 0 and self.burst < 1:
            yield self.problem("burst", "qps", must="be at least 1 while {1} is more than 0")
        if self.lease_duration != int(self.lease_duration):
            yield self.problem("lease_duration", must="be whole seconds: the Lease's record knows no others")
        if self.lease_duration <= self.renew_deadline:
            yield self.problem("lease_duration", "renew_deadline", must="be longer than {1}")
        if self.renew_deadline <= 1.2 * self.retry_period:
            yield self.problem("renew_deadline", "retry_period", must="be longer than 1.2 times {1}")
        if self.retry_max < self.retry_base:
            yield self.problem("retry_max", "retry_base", must="not be less than {1}")
        yield from self._check_listeners()

    def _check_listeners(self) -> Iterator[Problem]:
        pair = [name for name in ("metrics_cert", "metrics_key") if getattr(self, name) is not None]
        if self.metrics_address is None:
            without = [*pair, *([] if self.metrics_tls else ["metrics_tls"])]
            without += [] if self.metrics_auth == "token" else ["metrics_auth"]
            for name in without:
                yield self.problem(name, "metrics_address", must="be left out: ASYNCCTL_METRICS_ADDRESS is empty")
        elif not self.metrics_tls:
            for name in pair:
                yield self.problem(name, "metrics_tls", must="be left out while {1}")
            if self.metrics_auth == "token":
                yield self.problem(
                    "metrics_auth", "metrics_tls", must="be none while {1}: tokens would cross the network in the clear"
                )
        elif len(pair) == 1:
            other = "metrics_key" if pair == ["metrics_cert"] else "metrics_cert"
            yield self.problem(*pair, other, must=f"come with ASYNCCTL_{other.upper()}, its other half")
        debug = self.debug_address
        if debug is not None and not is_loopback(debug.host):
            yield self.problem(
                "debug_address",
                must="be on loopback, such as 127.0.0.1:8082: whoever reaches it may read; use kubectl port-forward",
            )
        taken: dict[Address, str] = {}
        for name in ("http_address", "metrics_address", "debug_address"):
            address: Address | None = getattr(self, name)
            if address is None or address.port == 0:
                continue
            if address in taken:
                yield self.problem(name, taken[address], must="not be that of {1}")
            taken[address] = name

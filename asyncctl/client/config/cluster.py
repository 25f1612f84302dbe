"""Which cluster, and as whom: the search for a configuration, told in the order it is made.

In-cluster when the service-account directory and `KUBERNETES_SERVICE_HOST` exist; else `KUBECONFIG` (a list of files
is merged); else `~/.kube/config`; else one error that names all three and what was missing in each. A place that is
there and broken ends the search: what is further down may be another cluster. What comes out is a plain value; nothing
is connected here, and no command is run.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio.to_thread

from asyncctl.client.config.exec_plugin import ExecPlugin
from asyncctl.client.config.oidc import Oidc
from asyncctl.client.config.proxy_choice import BadProxyVariable, choose_proxy, redacted
from asyncctl.client.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_CHARACTERS = frozenset("!#$&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, kw_only=True)
class Impersonation:
    """Somebody else to act as; the server asks RBAC whether we may (`impersonate` on users, groups, ...)."""

    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The request headers that ask for it (client-go's `transport/round_trippers.go`)."""
        found = [("Impersonate-User", self.user)]
        found += [("Impersonate-Uid", self.uid)] if self.uid else []
        found += [("Impersonate-Group", group) for group in self.groups]
        found += [(f"Impersonate-Extra-{_escaped(key)}", value) for key, values in self.extra for value in values]
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A server, how to trust it, and who we are. Immutable, so that threads may share it.

    Of who we are, `token_file` comes before `authorization`, and both before `exec_plugin` and `oidc`; a client
    certificate of our own is shown to the server in any case.
    """

    server: str
    source: str = "given"
    user: str = "anonymous"
    namespace: str = "default"
    ca_file: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    """PEM, instead of a file; so are the next two `_data`."""
    verify: bool = True
    tls_server_name: str | None = None
    client_certificate: str | None = None
    client_certificate_data: bytes | None = field(default=None, repr=False)
    client_key: str | None = None
    client_key_data: bytes | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    """URL of the proxy that leads to the server: http, https or socks5 (which resolves names itself)."""
    authorization: str | None = field(default=None, repr=False)
    """A fixed `Authorization` header."""
    token_file: Path | None = None
    """A file that holds a bearer token and is read again each minute; comes before `authorization`."""
    exec_plugin: ExecPlugin | None = None
    oidc: Oidc | None = None
    impersonate: Impersonation | None = None
    warnings: tuple[str, ...] = ()

    def describe(self) -> dict[str, str]:
        """What was chosen, for one log line; never a credential."""
        found = {"source": self.source, "server": self.server, "user": self.user}
        if self.proxy is not None:
            found["proxy"] = redacted(self.proxy)
        if self.impersonate is not None:
            found["impersonates"] = self.impersonate.user
        return found


async def find_config(
    environ: Mapping[str, str],
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    service_account: Path = SERVICE_ACCOUNT,
    home: Path | None = None,
) -> ClusterConfig:
    """Search for the cluster to talk to.

    Args:
        environ: The process's environment.
        kubeconfig: `ASYNCCTL_KUBECONFIG`: this file (or list of files) alone is looked at.
        context: `ASYNCCTL_CONTEXT`: a context other than the current one.
        service_account: Where a pod's token and CA are mounted.
        home: Whose `.kube/config` is the last resort.

    Raises:
        ConfigError: With each place that was looked at, and what was missing there.
    """
    return await anyio.to_thread.run_sync(_find, environ, kubeconfig, context, service_account, home)


def _find(
    environ: Mapping[str, str], kubeconfig: str | None, context: str | None, service_account: Path, home: Path | None
) -> ClusterConfig:
    if kubeconfig:
        found = _from_kubeconfig(kubeconfig, "ASYNCCTL_KUBECONFIG", context, environ)
        if found is None:
            raise ConfigError(f"ASYNCCTL_KUBECONFIG ({kubeconfig}): no such file; set it to a kubeconfig file")
        return found
    looked: list[str] = []
    if context:
        looked.append("in-cluster: not looked at, because ASYNCCTL_CONTEXT chooses a context of a kubeconfig")
    else:
        host = environ.get("KUBERNETES_SERVICE_HOST")
        if host and service_account.is_dir():
            return _in_cluster(host, environ, service_account)
        missing = [] if host else ["KUBERNETES_SERVICE_HOST is not set"]
        missing += [] if service_account.is_dir() else [f"{service_account} does not exist"]
        looked.append(f"in-cluster: {', '.join(missing)}")
    listed = environ.get("KUBECONFIG")
    at_home = _at_home(home)
    if listed:
        found = _from_kubeconfig(listed, "KUBECONFIG", context, environ)
        looked += [f"KUBECONFIG ({listed}): no such file", f"{at_home}: not looked at, because KUBECONFIG is set"]
    elif at_home is not None:
        found = _from_kubeconfig(str(at_home), "~/.kube/config", context, environ)
        looked += ["KUBECONFIG: not set", f"{at_home}: does not exist"]
    else:
        found = None
        looked += ["KUBECONFIG: not set", "~/.kube/config: this user has no home folder"]
    if found is not None:
        return found
    places = "".join(f"\n  - {place}" for place in looked)
    raise ConfigError(
        f"no cluster found; looked at:{places}\n"
        "Set KUBECONFIG to a kubeconfig file, or try `asyncctl dev`, which needs no cluster."
    )


def _at_home(home: Path | None) -> Path | None:
    try:
        return (home or Path.home()) / ".kube" / "config"
    except RuntimeError:  # a container's user of any number
        return None


def _in_cluster(host: str, environ: Mapping[str, str], service_account: Path) -> ClusterConfig:
    for name in ("token", "ca.crt"):
        file = service_account / name
        try:
            empty = not file.read_bytes().strip()
        except FileNotFoundError:
            raise ConfigError(
                f"in-cluster: {file} is missing; is automountServiceAccountToken off, or the projected volume "
                "incomplete?"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"in-cluster: {file} can't be read: {error.strerror}; check runAsUser and fsGroup of the pod"
            ) from error
        if empty:
            raise ConfigError(f"in-cluster: {file} is empty; is the node out of disk, or the kubelet still starting?")
    port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    if not is_address(server) or set(host + port) & set("/?#@"):
        raise ConfigError(
            f"in-cluster: {server!r} is no address of a server; check KUBERNETES_SERVICE_HOST and _PORT, which the "
            "kubelet sets"
        )
    try:
        namespace = (service_account / "namespace").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        namespace = ""
    return ClusterConfig(
        server=server,
        source="in-cluster",
        user="service account",
        namespace=namespace or "default",
        ca_file=str(service_account / "ca.crt"),
        token_file=service_account / "token",
        proxy=choose_proxy(server, None, environ),
    )


def _from_kubeconfig(listed: str, source: str, context: str | None, environ: Mapping[str, str]) -> ClusterConfig | None:
    """What a list of files says; None when none of them exists."""
    from asyncctl.client.config import kubeconfig  # a pod needs no YAML
    from asyncctl.client.config.kubecontext import resolve

    try:
        merged = kubeconfig.read([_expanded(part) for part in listed.split(os.pathsep) if part])
        return None if merged is None else resolve(merged, context, source, environ)
    except BadProxyVariable:
        raise
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _expanded(part: str) -> Path:
    try:
        return Path(part).expanduser()
    except RuntimeError as error:  # of a user who does not exist
        raise ConfigError(f"{part}: {error}") from error


def is_address(server: str) -> bool:
    """Whether `server` is the URL of one: http or https, and a host."""
    try:
        parts = urlsplit(server)
        plain = server.isprintable() and " " not in server
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and plain
    except ValueError:
        return False


def _escaped(key: str) -> str:
    """A key as a part of a header's name: what is no token character is percent-encoded, and so is `%`."""
    return "".join(chr(byte) if chr(byte) in _TOKEN_CHARACTERS else f"%{byte:02X}" for byte in key.encode())

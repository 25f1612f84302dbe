"""Which cluster, and as whom: the search for a configuration, told in the order it is made.

In-cluster when the service-account directory and `KUBERNETES_SERVICE_HOST` exist; else `KUBECONFIG` (a list of files
is merged); else `~/.kube/config`; else one error that names all three and what was missing in each.
kubernetes-asyncio reads kubeconfig files, and is imported on that path only: its models cost 39 MB, which a pod never
pays. What comes out is a plain value; nothing is opened or connected here.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio.to_thread
import yaml

from asyncctl.client.errors import ConfigError
from asyncctl.objects.json import JsonObject

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A server, how to trust it, and who we are. Immutable, so that threads may share it."""

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
    proxy: str | None = None
    """URL of the proxy that leads to the server: http, https or socks5."""
    authorization: str | None = field(default=None, repr=False)
    """A fixed `Authorization` header."""
    token_file: Path | None = None
    """A file that holds a bearer token and is read again each minute; comes before `authorization`."""
    warnings: tuple[str, ...] = ()

    def describe(self) -> dict[str, str]:
        """What was chosen, for one log line; never a credential."""
        return {"source": self.source, "server": self.server, "user": self.user}


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
    return await anyio.to_thread.run_sync(_find, environ, kubeconfig, context, service_account, home or Path.home())


def _find(
    environ: Mapping[str, str], kubeconfig: str | None, context: str | None, service_account: Path, home: Path
) -> ClusterConfig:
    if kubeconfig:
        return _from_kubeconfig(kubeconfig, "ASYNCCTL_KUBECONFIG", context)
    looked: list[str] = []
    if not context:
        host = environ.get("KUBERNETES_SERVICE_HOST")
        if host and service_account.is_dir():
            return _in_cluster(host, environ.get("KUBERNETES_SERVICE_PORT", "443"), service_account)
        missing = [] if host else ["KUBERNETES_SERVICE_HOST is not set"]
        missing += [] if service_account.is_dir() else [f"{service_account} does not exist"]
        looked.append(f"in-cluster: {', '.join(missing)}")
    listed = environ.get("KUBECONFIG")
    if listed:
        return _from_kubeconfig(listed, "KUBECONFIG", context)
    looked.append("KUBECONFIG: not set")
    at_home = home / ".kube" / "config"
    if at_home.exists():
        return _from_kubeconfig(str(at_home), "~/.kube/config", context)
    looked.append(f"{at_home}: does not exist")
    places = "".join(f"\n  - {place}" for place in looked)
    raise ConfigError(
        f"no cluster found; looked at:{places}\n"
        "Set KUBECONFIG to a kubeconfig file, or try `asyncctl dev`, which needs no cluster."
    )


def _in_cluster(host: str, port: str, service_account: Path) -> ClusterConfig:
    for name in ("token", "ca.crt"):
        if not (service_account / name).is_file():
            raise ConfigError(
                f"in-cluster: {service_account / name} is missing; is automountServiceAccountToken off, or the "
                "projected volume incomplete?"
            )
    namespace = service_account / "namespace"
    return ClusterConfig(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        source="in-cluster",
        user="service account",
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        ca_file=str(service_account / "ca.crt"),
        token_file=service_account / "token",
    )


def _from_kubeconfig(paths: str, source: str, context: str | None) -> ClusterConfig:
    from kubernetes_asyncio.config.config_exception import ConfigException
    from kubernetes_asyncio.config.kube_config import KubeConfigMerger

    files = [Path(part).expanduser() for part in paths.split(os.pathsep) if part]
    where = f"{source} ({os.pathsep.join(map(str, files))})"
    contents = {file: _read(file, source) for file in files if file.is_file()}
    if not contents:
        raise ConfigError(f"{where}: no such file; set {source} to a kubeconfig file")
    present = [file for file, content in contents.items() if content]
    if not any(content.get("clusters") for content in contents.values()):
        raise ConfigError(f"{where} is not a kubeconfig: it has no `clusters`")
    # kubectl's rule is that the first file to name a context wins; the merger's is the last
    chosen = context or next(filter(None, (content.get("current-context") for content in contents.values())), None)
    if not chosen:
        raise ConfigError(f"{where}: no current-context is set; choose one with ASYNCCTL_CONTEXT")
    try:
        merged = KubeConfigMerger(os.pathsep.join(map(str, present))).config
        assert merged is not None
        return _resolve(merged.value, where, present, chosen)
    except (ConfigException, OSError, TypeError, ValueError, LookupError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ConfigError(f"{where}: {what}; check the file with `kubectl config view`") from error


def _read(file: Path, source: str) -> JsonObject:
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{source}: {file} is not YAML: {problem}") from error
    except OSError as error:
        raise ConfigError(f"{source}: {file} can't be read: {error.strerror}") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{source}: {file} is not a kubeconfig: it has no `clusters`")
    return content or {}


def _resolve(merged: JsonObject, where: str, files: list[Path], context: str) -> ClusterConfig:
    from kubernetes_asyncio.config.kube_config import FileOrData

    entry, _ = _named(merged, "contexts", context, where)
    cluster, cluster_base = _named(merged, "clusters", entry["cluster"], where)
    user, user_base = _named(merged, "users", entry["user"], where) if entry.get("user") else ({}, "")
    for key in ("exec", "auth-provider", "username", "as"):
        if user.get(key):
            raise ConfigError(
                f"{where}: user {entry['user']!r} gets its credentials from {key!r}, which asyncctl can't use yet; "
                "use a token, a tokenFile or a client certificate"
            )
    if cluster.get("proxy-url"):
        raise ConfigError(f"{where}: cluster {entry['cluster']!r} has a 'proxy-url', which asyncctl can't use yet")
    server = str(cluster["server"]).rstrip("/")
    if not _is_address(server):
        raise ConfigError(f"{where}: {server!r} is no address of a server; it should look like https://host:6443")
    return ClusterConfig(
        server=server,
        source=f"{where}, context {context}",
        user=entry.get("user") or "anonymous",
        namespace=entry.get("namespace") or "default",
        ca_file=FileOrData(cluster, "certificate-authority", file_base_path=cluster_base).as_file(),
        verify=not cluster.get("insecure-skip-tls-verify"),
        tls_server_name=cluster.get("tls-server-name"),
        client_certificate=FileOrData(user, "client-certificate", file_base_path=user_base).as_file(),
        client_key=FileOrData(user, "client-key", file_base_path=user_base).as_file(),
        authorization=f"Bearer {user['token']}" if user.get("token") else None,
        token_file=Path(user_base, user["tokenFile"]) if user.get("tokenFile") else None,
        warnings=tuple(_warnings(files, cluster)),
    )


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _named(merged: JsonObject, kind: str, name: str, where: str) -> tuple[JsonObject, str]:
    """The entry's content, and the folder its relative paths start from."""
    entries = merged.get(kind) or []
    for entry in entries:
        if entry["name"] == name:
            return dict(entry.value.get(kind[:-1]) or {}), str(Path(entry.path).parent)
    known = ", ".join(repr(entry["name"]) for entry in entries) or "none"
    raise ConfigError(f"{where}: {kind[:-1]} {name!r} does not exist; the file has {known}")


def _warnings(files: list[Path], cluster: JsonObject) -> list[str]:
    found = [
        f"{file} is readable by others (mode {file.stat().st_mode & 0o777:04o}); run: chmod 600 {file}"
        for file in files
        if file.stat().st_mode & 0o077
    ]
    if cluster.get("insecure-skip-tls-verify"):
        found.append("insecure-skip-tls-verify is set: anyone on the network can read and change what is sent")
    return found

"""A kubeconfig's context as a `ClusterConfig`: what kubectl would do with its cluster and its user.

Which credential wins, and what may not stand together, is client-go's choice (`tools/clientcmd/client_config.go`,
`validation.go`, `rest/transport.go`): a token comes before an exec plugin or an auth-provider, which are not asked
then; to a plain HTTP server nothing is sent. What is legal and unwise becomes a warning.
"""

import base64
import binascii
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from asyncctl.client.config.cluster import ClusterConfig, Impersonation, is_address
from asyncctl.client.config.exec_plugin import API_VERSIONS, ExecPlugin, cleaned
from asyncctl.client.config.jwt import expires_at
from asyncctl.client.config.kubeconfig import Cluster, Context, Entry, Exec, Kubeconfig, User
from asyncctl.client.config.oidc import Oidc, OidcTokens
from asyncctl.client.config.proxy_choice import ProxyEnvironment, choose_proxy, redacted
from asyncctl.client.errors import ConfigError

_EXTENSION = "client.authentication.k8s.io/exec"
_REPLACED = {  # auth-providers that kubectl 1.26 dropped
    "gcp": "gke-gcloud-auth-plugin; `gcloud container clusters get-credentials` writes it",
    "azure": "kubelogin; `kubelogin convert-kubeconfig` writes it",
    "openstack": "client-keystone-auth",
}
_LARGEST = 2**20  # bytes of a certificate or token file
_INSECURE = "insecure-skip-tls-verify is set: anyone on the network can read and change what is sent"


def resolve(merged: Kubeconfig, chosen: str | None, source: str, environ: Mapping[str, str]) -> ClusterConfig:
    """What the context `chosen`, or the current one, stands for.

    Raises:
        ConfigError: The file, entry and key that are wrong, and what to do.
    """
    files = os.pathsep.join(map(str, merged.files))
    name = chosen or merged.current_context
    if not name:
        raise ConfigError(f"{files}: no current-context is set; choose one with ASYNCCTL_CONTEXT")
    context = _named(merged.contexts, "context", name, files)
    if not context.content.cluster:
        raise context.wrong("'cluster' is missing")
    cluster = _named(merged.clusters, "cluster", context.content.cluster, files)
    user_name = context.content.user
    user = _named(merged.users, "user", user_name, files) if user_name else Entry("user", "", context.file, User())
    made = _Resolver(merged, context, cluster, user, environ)
    return made.config(f"{source} ({files}), context {name}")


class _Resolver:
    """Makes the configuration, and notes warnings on the way."""

    def __init__(
        self,
        merged: Kubeconfig,
        context: Entry[Context],
        cluster: Entry[Cluster],
        user: Entry[User],
        environ: Mapping[str, str],
    ) -> None:
        self._context = context
        self._cluster = cluster
        self._user = user
        self._environ = environ
        self._warnings = [
            f"{file} is readable by others (mode {mode:04o}); run: chmod 600 {file}"
            for file, mode in merged.open_to_others
        ]

    def config(self, source: str) -> ClusterConfig:
        cluster, user = self._cluster, self._user
        server = _server(cluster)
        ca_file, ca_data = _file_or_data(cluster, "certificate-authority")
        verify = not cluster.content.insecure_skip_tls_verify
        if not verify and (ca_file or ca_data):
            raise cluster.wrong(
                "'insecure-skip-tls-verify' and a certificate-authority exclude each other, as in kubectl; remove one"
            )
        if not verify:
            self._warnings.append(_INSECURE)
        if ca_data is not None and b"-----BEGIN CERTIFICATE-----" not in ca_data:
            raise cluster.wrong("'certificate-authority-data': there is no PEM certificate in it")
        impersonate = self._impersonation()
        config = ClusterConfig(
            server=server,
            source=source,
            user=user.name or "anonymous",
            namespace=self._context.content.namespace or "default",
            ca_file=ca_file,
            ca_data=ca_data,
            verify=verify,
            tls_server_name=cluster.content.tls_server_name or None,
            proxy=self._proxy(server),
            impersonate=impersonate,
        )
        changes = self._credentials(config)
        return replace(config, **changes, warnings=tuple(self._warnings))

    def _proxy(self, server: str) -> str | None:
        try:
            return choose_proxy(server, self._cluster.content.proxy_url, self._environ)
        except ConfigError as error:
            if self._cluster.content.proxy_url:
                raise self._cluster.wrong(str(error)) from error
            raise

    def _impersonation(self) -> Impersonation | None:
        entry, user = self._user, self._user.content
        if not user.impersonate:
            if user.impersonate_uid or user.impersonate_groups or user.impersonate_extra:
                raise entry.wrong("'as-uid', 'as-groups' and 'as-user-extra' need 'as', the user to act as")
            return None
        extra = tuple((key, tuple(values)) for key, values in sorted((user.impersonate_extra or {}).items()))
        found = Impersonation(
            user=user.impersonate,
            uid=user.impersonate_uid or "",
            groups=tuple(user.impersonate_groups or ()),
            extra=extra,
        )
        for key, value in (
            ("as", found.user),
            ("as-uid", found.uid),
            *(("as-groups", group) for group in found.groups),
        ):
            _check_text(entry, key, value)
        for key, values in extra:
            for value in (key, *values):
                _check_text(entry, "as-user-extra", value)
        return found

    def _credentials(self, config: ClusterConfig) -> dict[str, Any]:
        entry, user = self._user, self._user.content
        certificate = self._certificate()
        basic = bool(user.username)
        if (user.token and (basic or user.password)) or (user.token_file and basic):
            raise entry.wrong("'username' and 'token' exclude each other, as in kubectl; remove one")
        if user.exec is not None and user.auth_provider is not None:
            raise entry.wrong("'exec' and 'auth-provider' exclude each other, as in kubectl; remove one")
        plugin = self._exec_plugin(user.exec, config) if user.exec is not None else None
        oidc = self._oidc()
        if config.server.startswith("http:"):  # client-go's IsConfigTransportTLS
            if certificate or basic or user.token or user.token_file or plugin or oidc:
                self._warnings.append(
                    f"{config.server} is plain HTTP: the credentials of user {entry.name!r} are not sent, as in kubectl"
                )
            return {}
        found: dict[str, Any] = dict(certificate)
        if user.token or user.token_file:
            found |= self._token()
        elif basic:
            pair = f"{user.username or ''}:{user.password or ''}".encode()
            found["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif plugin is not None and not certificate:
            self._check_command(plugin)
            found["exec_plugin"] = plugin
        elif oidc is not None:
            found["oidc"] = oidc
        if user.password and not basic:
            self._note_unused("password", "username")
        self._note_long_lived()
        return found

    def _certificate(self) -> dict[str, Any]:
        entry, user = self._user, self._user.content
        certificate, certificate_data = _file_or_data(entry, "client-certificate")
        if certificate is None and certificate_data is None:
            if user.client_key or user.client_key_data:
                self._note_unused("client-key", "client-certificate")
            return {}
        key, key_data = _file_or_data(entry, "client-key")
        if key is None and key_data is None:
            raise entry.wrong("'client-certificate' has no key; set 'client-key' or 'client-key-data'")
        if certificate_data is not None and b"-----BEGIN CERTIFICATE-----" not in certificate_data:
            raise entry.wrong("'client-certificate-data': there is no PEM certificate in it")
        if key_data is not None and b"PRIVATE KEY-----" not in key_data:
            raise entry.wrong("'client-key-data': there is no PEM private key in it")
        return {
            "client_certificate": certificate,
            "client_certificate_data": certificate_data,
            "client_key": key,
            "client_key_data": key_data,
        }

    def _token(self) -> dict[str, Any]:
        entry, user = self._user, self._user.content
        found: dict[str, Any] = {}
        if user.token:
            token = user.token.strip()
            if not token.isascii() or not token.isprintable() or " " in token or not token:
                raise entry.wrong("'token' is no bearer token: it has characters that none has")
            found["authorization"] = f"Bearer {token}"
        if user.token_file:
            file = Path(entry.path(user.token_file))
            if not user.token:
                _read(entry, "tokenFile", str(file))
            found["token_file"] = file
        return found

    def _exec_plugin(self, plugin: Exec, config: ClusterConfig) -> ExecPlugin:
        entry = self._user
        if not plugin.command:
            raise entry.wrong("'exec.command' is missing")
        if plugin.api_version not in API_VERSIONS:
            hint = (
                "which kubectl 1.24 dropped; update the plugin, and set client.authentication.k8s.io/v1beta1 or v1"
                if plugin.api_version == "client.authentication.k8s.io/v1alpha1"
                else f"it should be one of {', '.join(API_VERSIONS)}"
            )
            raise entry.wrong(f"'exec.apiVersion': {plugin.api_version or '(nothing)'}: {hint}")
        mode = plugin.interactive_mode or ("IfAvailable" if plugin.api_version.endswith("v1beta1") else "")
        if mode == "Always":
            raise entry.wrong(
                f"'exec.interactiveMode' is Always: {plugin.command} wants to ask somebody at a terminal, and a daemon "
                "has none; use a plugin, or options of it, that asks nothing"
            )
        if mode not in {"IfAvailable", "Never"}:
            raise entry.wrong("'exec.interactiveMode' should be Never or IfAvailable")
        env: list[tuple[str, str]] = []
        for variable in plugin.env or ():
            if not variable.name or "=" in variable.name or "\0" in f"{variable.name}{variable.value}":
                raise entry.wrong("'exec.env' has a variable without a name, or one that no process can have")
            env.append((variable.name, variable.value or ""))
        arguments = tuple(plugin.args or ())
        if any("\0" in text for text in (plugin.command, *arguments)):
            raise entry.wrong("'exec' has a null character in its command")
        return ExecPlugin(
            command=entry.path(plugin.command) if "/" in plugin.command else plugin.command,
            args=arguments,
            environ=tuple((dict(self._environ) | dict(env)).items()),
            search_path=self._environ.get("PATH"),
            api_version=plugin.api_version,
            install_hint=cleaned(plugin.install_hint or ""),
            cluster=self._cluster_info(config) if plugin.provide_cluster_info else None,
        )

    def _check_command(self, plugin: ExecPlugin) -> None:
        if shutil.which(plugin.command, path=plugin.search_path) is None:
            raise self._user.wrong(f"'exec.command': {plugin.not_found()}")

    def _cluster_info(self, config: ClusterConfig) -> bytes:
        """`spec.cluster` of an ExecCredential (client-go's `rest/exec.go`)."""
        content = self._cluster.content
        info: dict[str, Any] = {"server": config.server}
        info |= {"tls-server-name": config.tls_server_name} if config.tls_server_name else {}
        info |= {} if config.verify else {"insecure-skip-tls-verify": True}
        ca = config.ca_data
        if config.ca_file:
            ca = _read(self._cluster, "certificate-authority", config.ca_file)
        info |= {"certificate-authority-data": base64.b64encode(ca).decode()} if ca else {}
        info |= {"proxy-url": content.proxy_url} if content.proxy_url else {}
        info |= {"disable-compression": True} if content.disable_compression else {}
        for each in content.extensions or ():
            if each.name == _EXTENSION:
                info["config"] = each.extension
        try:
            return orjson.dumps(info)
        except TypeError as error:
            raise self._cluster.wrong(f"the extension {_EXTENSION!r} can't be told in JSON: {error}") from error

    def _oidc(self) -> Oidc | None:
        entry, provider = self._user, self._user.content.auth_provider
        if provider is None:
            return None
        if provider.name != "oidc":
            instead = _REPLACED.get(provider.name or "", "an exec plugin of your identity provider")
            raise entry.wrong(
                f"'auth-provider' {provider.name!r} is not supported, by kubectl neither; use the exec plugin {instead}"
            )
        config = provider.config or {}
        for key in ("idp-issuer-url", "client-id"):
            if not config.get(key):
                raise entry.wrong(f"'auth-provider.config.{key}' is missing")
        issuer = config["idp-issuer-url"]
        if not (is_address(issuer) and issuer.startswith("https:")):
            raise entry.wrong("'auth-provider.config.idp-issuer-url' should be an https address")
        ca_file = config.get("idp-certificate-authority") or None
        ca_data = _decoded(entry, "auth-provider.config.idp-certificate-authority-data", config.get(
            "idp-certificate-authority-data"
        ))  # fmt: skip
        tokens = OidcTokens(id_token=config.get("id-token") or "", refresh_token=config.get("refresh-token") or "")
        if not tokens.id_token and not tokens.refresh_token:
            raise entry.wrong("'auth-provider.config' has neither an id-token nor a refresh-token; log in again")
        return Oidc(
            issuer=issuer,
            client_id=config["client-id"],
            client_secret=config.get("client-secret") or "",
            ca_file=entry.path(ca_file) if ca_file else None,
            ca_data=ca_data,
            file=entry.file,
            user=entry.name,
            proxies=ProxyEnvironment.of(self._environ),
            tokens=tokens,
        )

    def _note_unused(self, key: str, without: str) -> None:
        entry = self._user
        self._warnings.append(f"{entry.file}: user {entry.name!r} has a {key} and no {without}: it is not used")

    def _note_long_lived(self) -> None:
        user = self._user.content
        found = [
            name
            for name, there in (
                ("client-key-data", user.client_key_data and (user.client_certificate or user.client_certificate_data)),
                ("password", user.password),
                ("token", user.token and expires_at(user.token.strip()) is None),
            )
            if there
        ]
        if found:
            self._warnings.append(
                f"{self._user.file}: user {self._user.name!r} has long-lived credentials in the file "
                f"({', '.join(found)}); better: an exec plugin, or a short-lived token of `kubectl create token`"
            )


def _server(cluster: Entry[Cluster]) -> str:
    server = cluster.content.server or ""
    if not server:
        raise cluster.wrong("'server' is missing")
    if not is_address(server):
        raise cluster.wrong(
            f"'server': {redacted(server)!r} is no address of a server; it should look like https://host:6443"
        )
    parts = urlsplit(server)
    if "@" in parts.netloc:  # it is told in logs and error texts
        raise cluster.wrong(
            "'server' has a user or a password in it; set 'username' and 'password' of the user instead"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _named(
    entries: Mapping[str, Entry[Context]] | Mapping[str, Entry[Cluster]] | Mapping[str, Entry[User]],
    kind: str,
    name: str,
    files: str,
) -> Entry[Any]:
    if name in entries:
        return entries[name]
    known = ", ".join(map(repr, entries)) or "none"
    raise ConfigError(f"{files}: {kind} {name!r} does not exist; the file has {known}")


def _file_or_data(entry: Entry[Any], key: str) -> tuple[str | None, bytes | None]:
    attribute = key.replace("-", "_")
    file: str | None = getattr(entry.content, attribute)
    encoded: str | None = getattr(entry.content, f"{attribute}_data")
    if file and encoded:
        raise entry.wrong(f"'{key}' and '{key}-data' exclude each other, as in kubectl; remove one")
    if file:
        path = entry.path(file)
        _read(entry, key, path)
        return path, None
    return None, _decoded(entry, f"{key}-data", encoded)


def _decoded(entry: Entry[Any], key: str, encoded: str | None) -> bytes | None:
    if not encoded:
        return None
    try:
        return base64.b64decode(encoded.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise entry.wrong(f"'{key}' is not base64; check the file with `kubectl config view`") from error


def _read(entry: Entry[Any], key: str, path: str) -> bytes:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - a path as it stands
            return stream.read(_LARGEST)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise entry.wrong(f"'{key}': {path} can't be read: {reason}") from error


def _check_text(entry: Entry[Any], key: str, value: str) -> None:
    if any(character < " " or character == "\x7f" for character in value):
        raise entry.wrong(f"'{key}' has a character that no header can have")

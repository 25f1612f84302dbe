"""Which proxy leads to a server, if any: nothing is opened here.

A kubeconfig's `proxy-url` comes first and is asked nothing more. Else the environment, by the rules of Go's
`golang.org/x/net/http/httpproxy`, which client-go follows: `HTTPS_PROXY` for https servers, `HTTP_PROXY` for http ones
(never in a CGI program, where a client could set it), each also in small letters, and `NO_PROXY`; localhost and
loopback addresses are never proxied. A proxy's password is in no error text.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from asyncctl.client.errors import ConfigError

_SCHEMES = ("http", "https", "socks5")
_PORTS = {"http": 80, "https": 443}


class BadProxyVariable(ConfigError):
    """A variable of the environment names a proxy that can't be used: of whichever file the server is."""


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class ProxyEnvironment:
    """What the environment says of proxies."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    exempt: str = ""
    """`NO_PROXY`: host names (with all below them), `.domain` (only what is below), addresses, networks, `*`."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "ProxyEnvironment":
        """The part of `environ` that matters."""
        cgi = bool(environ.get("REQUEST_METHOD"))
        return cls(
            http="" if cgi else _either(environ, "HTTP_PROXY"),
            https=_either(environ, "HTTPS_PROXY"),
            exempt=_either(environ, "NO_PROXY"),
        )

    def choose(self, server: str) -> str | None:
        """The URL of the proxy for `server`, or None to go straight.

        Raises:
            BadProxyVariable: There is one, and its address can't be used.
        """
        parts = urlsplit(server)
        proxy = {"http": self.http, "https": self.https}.get(parts.scheme, "")
        host = _ascii(parts.hostname or "")
        if not proxy or self._exempts(host, parts.port or _PORTS[parts.scheme]):
            return None
        try:
            return checked(proxy if "://" in proxy else f"http://{proxy}", f"{parts.scheme.upper()}_PROXY")
        except ConfigError as error:
            raise BadProxyVariable(str(error)) from error

    def _exempts(self, host: str, port: int) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(
            _matches(rule.strip().lower(), host, address, str(port)) for rule in self.exempt.split(",") if rule.strip()
        )


def choose_proxy(server: str, proxy_url: str | None, environ: Mapping[str, str]) -> str | None:
    """The URL of the proxy for `server`, or None to go straight.

    Args:
        server: The API server's URL.
        proxy_url: `proxy-url` of the cluster in the kubeconfig.
        environ: The process's environment.

    Raises:
        ConfigError: The address of the proxy that should be used can't be.
    """
    return checked(proxy_url, "proxy-url") if proxy_url else ProxyEnvironment.of(environ).choose(server)


def checked(proxy: str, source: str) -> str:
    """Return `proxy` in the form that is dialled: http, https or socks5, with a host.

    Raises:
        ConfigError: It has another form; the text names `source`.
    """
    hint = "it should look like http://host:3128, https://host:3128 or socks5://host:1080"
    try:
        parts = urlsplit(proxy)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{source} {redacted(proxy)!r} is no address of a proxy; {hint}") from error
    if scheme == "socks5h":  # in Go both mean that the proxy resolves names
        scheme = "socks5"
    if scheme not in _SCHEMES or not host or port == 0 or any(character <= " " for character in proxy):
        raise ConfigError(f"{source} {redacted(proxy)!r} is no address of a proxy that can be used; {hint}")
    return urlunsplit((scheme, parts.netloc, "", "", ""))


def redacted(url: str) -> str:
    """`url` as it may be shown: without a password, and without anything before the host if that is unclear."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    userinfo, at, host = rest.rpartition("@")
    if not at:
        return url
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}{separator}{f'{user}:***' if colon else '***'}@{host}"


def _either(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.lower()) or ""


def _ascii(host: str) -> str:
    """A host name as DNS knows it, in small letters."""
    if not host.isascii():
        try:
            return host.encode("idna").decode().lower()
        except UnicodeError:
            pass
    return host.strip().lower()


def _address(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not text.rpartition("/")[2].isdecimal() or "/" not in text:
        return None
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    return ipaddress.ip_network((mapped, found.prefixlen - 96), strict=False) if mapped is not None else found


def _split_port(rule: str) -> tuple[str, str]:
    """`host:port` and `[address]:port` in two; anything else is all host."""
    if rule.startswith("["):
        inside, bracket, rest = rule[1:].partition("]")
        return (inside, rest[1:]) if bracket and rest.startswith(":") and ":" not in rest[1:] else (rule, "")
    host, colon, port = rule.partition(":")
    return (host, port) if colon and ":" not in port else (rule, "")


def _matches(rule: str, host: str, address: _Address | None, port: str) -> bool:
    if rule == "*":
        return True
    network = _network(rule)
    if network is not None:
        return address is not None and address.version == network.version and address in network
    name, only_port = _split_port(rule)
    if not name or (only_port and only_port != port):
        return False
    wanted = _address(name)
    if wanted is not None:
        return wanted == address
    if address is not None:
        return False
    name = name.removeprefix("*") if name.startswith("*.") else name
    suffix = _ascii(name) if name.startswith(".") else f".{_ascii(name)}"
    return host.endswith(suffix) or (not name.startswith(".") and host == suffix[1:])

"""The hosts of servers: what one may look like, and which of them a tenant may have us connect to.

A host is a name or an address and nothing else that libpq understands: neither a list of hosts nor a socket's folder.
Names are not resolved here: who allows a name trusts whoever answers for it in DNS.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address

HOST = r"^([A-Za-z0-9][-A-Za-z0-9_.]*|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9]+)?)\Z"
_LONGEST = 253  # characters of a name in DNS
_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)")  # `127.1`, `0x7f000001`: no name in DNS ends so (RFC 3696)
_LOCAL = re.compile(r"(.*\.)?localhost")
_FOR_ADDRESSES = re.compile(r"[0-9.?*\[\]!-]*|.*:.*")


def is_host(text: str) -> bool:
    """Whether it is a name or an address."""
    return len(text) <= _LONGEST and re.match(HOST, text) is not None


def is_allowed(host: str, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns is for this host.

    One of digits and dots, or with a colon, is for addresses: `10.1.*` must not match the name `10.1.example.com`,
    which anybody can have. This machine, what is on no routed network (a cloud's metadata service is there), and an
    address in another form than is usual, which may be one of these, are matched only by a pattern that says it without
    a wildcard.

    Args:
        host: As `is_host` wants it; case and a dot at its end do not matter.
        patterns: Of shells: `*`, `?`, `[seq]`.
    """
    host = host.lower().removesuffix(".")
    address = _address(host)
    special = _is_special(address) if address else bool(_LOCAL.fullmatch(host) or _NUMBER.fullmatch(host))
    for pattern in (each.lower().removesuffix(".") for each in patterns):
        if pattern == host:
            return True
        if special or (address is None and pattern != "*" and _FOR_ADDRESSES.fullmatch(pattern)):
            continue
        if fnmatchcase(host, pattern):
            return True
    return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_special(address: IPv4Address | IPv6Address) -> bool:
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = inner or address
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast

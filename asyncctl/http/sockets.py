"""Sockets that listen on a configured address, or one line that says why there are none and what to do."""

import asyncio
import errno
import socket

from asyncctl.settings import Address

__all__ = ["ListenError", "listen"]

_BACKLOG = 128


class ListenError(Exception):
    """The address can't be listened on. Its text is one line: which, why, and what to do."""


async def listen(address: Address, variable: str) -> list[socket.socket]:
    """Listen on every address that the host has; port 0 takes a free one, the same for all.

    Args:
        address: Where.
        variable: The setting that the address came from, for the error's text.

    Raises:
        ListenError: The address is taken, not ours, or not allowed.
    """
    host, port = address
    if host == "::" and socket.has_dualstack_ipv6():  # it would be listened on for IPv6 alone
        found = [(socket.AF_INET6, ("::", port))]
    else:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ListenError(_text(address, variable, error)) from error
        found = list(dict.fromkeys((info[0], (str(info[4][0]), port)) for info in infos))
    made: list[socket.socket] = []
    absent: OSError | None = None
    for family, (each, _) in found:
        port = made[0].getsockname()[1] if made else address.port
        try:
            made.append(_listener(family, each, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:  # of `localhost` that is also ::1, on a machine without IPv6
                absent = error
                continue
            for one in made:
                one.close()
            raise ListenError(_text(address, variable, error)) from error
    if not made:
        raise ListenError(_text(address, variable, absent or OSError("it has no address"))) from absent
    return made


def _listener(family: int, host: str, port: int) -> socket.socket:
    dual = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
    made = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    made.setblocking(False)
    return made


def _text(address: Address, variable: str, error: OSError) -> str:
    return f"can't listen on {address}: {_advice(address, variable, error)}"


def _advice(address: Address, variable: str, error: OSError) -> str:
    another = f"set {variable} to another one"
    if error.errno == errno.EADDRINUSE:
        return f"something listens there already; stop it or {another}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine does not have that address; {another}, such as 0.0.0.0:{address.port}"
    if error.errno == errno.EACCES:
        return f"that port is not allowed to this user; {another}, with a port from 1024 up"
    if isinstance(error, socket.gaierror):
        return f"that name has no address ({error.strerror}); {another}"
    return f"{error.strerror or error}; {another}"

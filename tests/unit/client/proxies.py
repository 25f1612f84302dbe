"""Proxies for tests, of HTTP (CONNECT and whole URLs) and of SOCKS 5 (RFC 1928, 1929), on loopback."""

import asyncio
import base64
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.unit.support import raw_server


class Seen(list):
    """What each connection asked for: `CONNECT host:port`, `GET http://host:port/path`, `socks host:port`."""


async def _pump(reader, writer):
    with suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _join(reader, writer, host, port, first=b""):
    there, back = await asyncio.open_connection(host, port)
    back.write(first)
    await asyncio.gather(_pump(reader, back), _pump(there, writer))


def _user(head):
    line = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"proxy-authorization: ")), b"")
    return base64.b64decode(line.rpartition(b" ")[2]).decode()


@asynccontextmanager
async def http_proxy(*, user=None, refuse=None, names=None, ssl_context=None):
    """A proxy; yields its URL and what it was asked for.

    Args:
        user: `name:password` that it wants.
        refuse: The status line with which it answers CONNECT.
        names: Addresses by host name, as its own DNS would know them.
        ssl_context: To be spoken to in TLS.
    """
    seen = Seen()

    async def handler(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        seen.append(f"{method} {target}")
        if user is not None and _user(head) != user:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if refuse is not None:
            writer.write(refuse)
            return
        url = urlsplit(target if method != "CONNECT" else f"//{target}")
        host = (names or {}).get(url.hostname, url.hostname)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
            await _join(reader, writer, host, url.port)
        else:
            rest = head.partition(b"\r\n")[2]
            await _join(reader, writer, host, url.port, f"{method} {url.path} HTTP/1.1\r\n".encode() + rest)

    async with raw_server(handler, ssl_context) as url:
        yield url, seen


@asynccontextmanager
async def socks_proxy(*, user=None, refuse=0, names=None):
    """A SOCKS 5 proxy, as `http_proxy`; `refuse` is the code with which it answers."""
    seen = Seen()

    async def handler(reader, writer):
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if user else 0
        writer.write(bytes((5, wanted if wanted in methods else 255)))
        if wanted not in methods:
            return
        if user:
            _, size = await reader.readexactly(2)
            name = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = f"{name.decode()}:{password.decode()}" == user
            writer.write(bytes((1, 0 if good else 1)))
            if not good:
                return
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(map(str, await reader.readexactly(4)))
        port = int.from_bytes(await reader.readexactly(2))
        seen.append(f"socks {host}:{port}")
        writer.write(bytes((5, refuse, 0, 1, 0, 0, 0, 0, 0, 0)))
        if not refuse:
            await _join(reader, writer, (names or {}).get(host, host), port)

    async with raw_server(handler) as url:
        yield url.replace("http:", "socks5:"), seen

"""How a connection to the API server is made: names, sockets, proxies and TLS, in that order.

Addresses are tried as RFC 8305 says (happy eyeballs). A proxy of HTTP is asked to CONNECT for an `https` server and
gets whole URLs for an `http` one; one of SOCKS 5 resolves the name itself. A dead peer is found within 30 seconds. The
way to the server takes `CONNECT_TIMEOUT` at most, or what is said, and so does TLS with it.
"""

import asyncio
import base64
import socket
import ssl
from urllib.parse import SplitResult, unquote, urlsplit

import aiohappyeyeballs
import anyio.to_thread

from asyncctl.client.config.proxy_choice import redacted
from asyncctl.client.config.trust import verifying_context
from asyncctl.client.transport.connection import Connection

CONNECT_TIMEOUT = 10.0  # seconds
_ATTEMPT_DELAY = 0.25  # seconds between two addresses of one name, as RFC 8305 recommends
_MAX_PROXY_HEAD = 2**16  # bytes
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class ProxyError(OSError):
    """The proxy did not let us through; the text names it, without its password, and what it said."""


class HandshakeFailed(OSError):
    """TLS could not be agreed on; the cause says how it ended. `proxy`: the URL of the proxy, if it was with that."""

    def __init__(self, proxy: str | None = None) -> None:
        super().__init__("the TLS handshake has failed")
        self.proxy = proxy


class Dialer:
    """Makes connections to one server.

    Args:
        server: Its URL.
        proxy: URL of the proxy in between, or None.
        server_name: The name in the server's certificate, where it is another than the URL's host.
        timeout: Seconds for the way to the server, and for TLS with it; None: `CONNECT_TIMEOUT`.
    """

    def __init__(
        self, server: str, *, proxy: str | None = None, server_name: str | None = None, timeout: float | None = None
    ) -> None:
        self._server = urlsplit(server)
        self.timeout = timeout or CONNECT_TIMEOUT
        self._proxy = urlsplit(proxy) if proxy else None
        self._server_name = server_name or self._server.hostname

    async def __call__(self, context: ssl.SSLContext | None) -> Connection:
        """Make a connection; with `context`, over TLS.

        Raises:
            OSError: Nobody answers there (`ConnectionRefusedError`, `socket.gaierror`, `TimeoutError` …).
            HandshakeFailed: TLS has failed.
            ProxyError: The proxy has refused.
        """
        if self._proxy is not None and self._proxy.scheme.startswith("http"):
            return await self._through(self._proxy, context)
        async with asyncio.timeout(self.timeout):
            sock = await (_connect(self._server) if self._proxy is None else self._socks(self._proxy))
        connection = Connection(context=context)
        await _speak(sock, context, self._server_name, connection, self.timeout)
        return connection

    async def peer_certificate(self, context: ssl.SSLContext) -> bytes:
        """The certificate that the server shows, as DER, for a context that does not verify it."""
        connection = await self(context)
        try:
            return connection.peer_certificate()
        finally:
            connection.abort()

    async def _socks(self, proxy: SplitResult) -> socket.socket:
        from python_socks import ProxyError as SocksError
        from python_socks.async_.asyncio import Proxy

        url = proxy._replace(scheme="socks5").geturl()
        try:
            sock = await Proxy.from_url(url, rdns=True).connect(
                str(self._server.hostname), _port(self._server), timeout=self.timeout
            )
        except SocksError as error:
            raise ProxyError(f"the proxy {redacted(proxy.geturl())} refuses: {error}") from error
        return _tuned(sock)

    async def _through(self, proxy: SplitResult, context: ssl.SSLContext | None) -> Connection:
        """A proxy of HTTP, itself spoken to in TLS where its URL says so."""
        outer = await anyio.to_thread.run_sync(verifying_context) if proxy.scheme == "https" else None
        authorization = _authorization(proxy)
        async with asyncio.timeout(self.timeout):
            sock = await _connect(proxy)
        if context is None:
            connection = Connection(prefix=f"http://{self._server.netloc.rpartition('@')[2]}", extra=authorization)
            await self._to_proxy(sock, proxy, outer, connection)
            return connection
        tunnel = _Tunnel()
        transport = await self._to_proxy(sock, proxy, outer, tunnel)
        try:
            target = _netloc(str(self._server.hostname), _port(self._server))
            transport.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n".encode())
            async with asyncio.timeout(self.timeout):
                _judge(proxy, await tunnel.head)
            connection = Connection(context=context)
            try:
                inner = await asyncio.get_running_loop().start_tls(
                    transport, connection, context, server_hostname=self._server_name,
                    ssl_handshake_timeout=self.timeout,
                )  # fmt: skip
            except OSError as error:
                raise HandshakeFailed from error
            assert inner is not None
            connection.connection_made(inner)
        except BaseException:
            transport.abort()
            raise
        return connection

    async def _to_proxy(
        self, sock: socket.socket, proxy: SplitResult, outer: ssl.SSLContext | None, protocol: asyncio.Protocol
    ) -> asyncio.Transport:
        try:
            return await _speak(sock, outer, proxy.hostname, protocol, self.timeout)
        except HandshakeFailed as error:
            raise HandshakeFailed(_without_user(proxy)) from error.__cause__


async def _speak(
    sock: socket.socket, context: ssl.SSLContext | None, name: str | None, protocol: asyncio.Protocol, seconds: float
) -> asyncio.Transport:
    """Let `protocol` speak over a socket; with `context`, in TLS with the host `name`."""
    loop = asyncio.get_running_loop()
    tls = {"ssl": context, "server_hostname": name, "ssl_handshake_timeout": seconds} if context else {}
    try:
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock, **tls)  # type: ignore[call-overload]
    except BaseException as error:
        sock.close()
        if context is not None and isinstance(error, OSError):
            raise HandshakeFailed from error
        raise
    made: asyncio.Transport = transport
    return made


class _Tunnel(asyncio.Protocol):
    """Waits for the head of a proxy's answer to CONNECT, or for as much of it as there will be."""

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if b"\r\n\r\n" in self._data or len(self._data) > _MAX_PROXY_HEAD:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._end()

    def _end(self) -> None:
        if not self.head.done():
            self.head.set_result(self._data)


def _judge(proxy: SplitResult, head: bytes) -> None:
    shown = redacted(proxy.geturl())
    if b"\r\n\r\n" not in head:
        how = "has no end" if head else "never came: it has closed the connection without an answer"
        raise ProxyError(f"the answer of the proxy {shown} {how}")
    line = head.partition(b"\r\n")[0].decode("latin-1")
    version, _, rest = line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ProxyError(f"the proxy {shown} speaks no HTTP: {line[:80]!r}")
    if rest.startswith("407"):
        advice = "those in its URL are not accepted" if proxy.username else "put them into its URL"
        raise ProxyError(f"the proxy {shown} wants a user and password ({rest}); {advice}")
    if not rest.startswith("2"):
        raise ProxyError(f"the proxy {shown} refuses to connect: {rest}")


def _without_user(url: SplitResult) -> str:
    """`url` as one would write it of a server."""
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def _authorization(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _port(url: SplitResult) -> int:
    return url.port if url.port is not None else _PORTS.get(url.scheme, 443)


async def _connect(url: SplitResult) -> socket.socket:
    """A socket connected to the host of `url`."""
    loop = asyncio.get_running_loop()
    host, port = str(url.hostname), _port(url)
    try:  # an address, as a pod is given, needs nobody to ask, and so no thread
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one that is too long
        raise socket.gaierror(socket.EAI_NONAME, f"it is no name: {error}") from error
    return await aiohappyeyeballs.start_connection(
        found, happy_eyeballs_delay=_ATTEMPT_DELAY, interleave=1, loop=loop, socket_factory=_socket
    )


def _socket(address: tuple[object, ...]) -> socket.socket:
    family, kind, protocol = address[0], address[1], address[2]
    return _tuned(socket.socket(family, kind, protocol))  # type: ignore[arg-type]  # an addrinfo tuple


def _tuned(sock: socket.socket) -> socket.socket:
    """Send at once, and find a dead peer within 30 seconds."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock

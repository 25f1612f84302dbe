"""Certificates of every kind, and servers in threads that shake hands well or badly; real sockets, real TLS."""

import asyncio
import ipaddress
import socket
import ssl
import struct
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from asyncctl.client.tls.context import ClientTLS, explain
from asyncctl.clock import SystemClock
from tests.unit.support import Log

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
PEM = serialization.Encoding.PEM


class Issued:
    """A certificate that is as odd as a test wants it, with its key."""

    def __init__(
        self,
        name,
        issuer=None,
        *,
        names=(),
        ca=False,
        begins=-30 * DAY,
        ends=30 * DAY,
        usage=None,
        bare=False,
        key=None,
    ):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + begins)
            .not_valid_after(NOW + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_name(each) for each in names]), critical=False
            )
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if not bare:
            signer = (issuer or self).key.public_key()
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False
            ).add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        self.certificate = builder.sign((issuer or self).key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(PEM)

    def key_pem(self, password=None, form=serialization.PrivateFormat.PKCS8):
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(PEM, form, lock)

    def write(self, folder, name):
        (folder / f"{name}.crt").write_bytes(self.pem)
        (folder / f"{name}.key").write_bytes(self.key_pem())
        return {"client_certificate": str(folder / f"{name}.crt"), "client_key": str(folder / f"{name}.key")}


def _name(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class Volume:
    """A folder as the kubelet mounts it: files are links through `..data`, which is swapped in one step."""

    def __init__(self, path):
        path.mkdir()
        self.path = path
        self._number = 0

    def put(self, **files):
        self._number += 1
        (self.path / f"..{self._number}").mkdir()
        for name, content in files.items():
            (self.path / f"..{self._number}" / name).write_bytes(content)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..data_tmp").symlink_to(f"..{self._number}")
        (self.path / "..data_tmp").rename(self.path / "..data")


def server_context(folder, issued, *, chain=(), client_ca=None, version=None):
    """A server's context that shows `issued` (and the rest of its `chain`), and demands certificates of `client_ca`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.write(folder, "server")
    (folder / "server.crt").write_bytes(b"".join(each.pem for each in (issued, *chain)))
    made.load_cert_chain(folder / "server.crt", folder / "server.key")
    if client_ca is not None:
        made.load_verify_locations(cadata=client_ca.pem.decode())
        made.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        made.minimum_version = made.maximum_version = version
    return made


@contextmanager
def serving(handle, scheme="https"):
    """Give each connection to `handle`, in a thread; yields the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                if over.is_set():
                    return
                with suppress(OSError):  # a handshake that fails is what the tests are about
                    handle(connection)

    over = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


def answers(context):
    """Shake hands, read a request, and answer it. What the client has not read yet is never cut off by a reset."""

    def handle(connection):
        try:
            with context.wrap_socket(connection.dup(), server_side=True) as secured:
                secured.settimeout(5)
                if secured.recv(10_000):
                    secured.sendall(REPLY)
        finally:
            drain(connection)

    return handle


def says(reply):
    """Answer whatever comes with the same bytes."""

    def handle(connection):
        connection.recv(10_000)
        connection.sendall(reply)
        drain(connection)

    return handle


def closes(connection):
    """Read the client's hello, and leave."""
    connection.recv(10_000)


def resets(connection):
    """Read a part of the client's hello, and reset."""
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stops_halfway(context):
    """Send one half of the server's part of the handshake, and close."""

    def handle(connection):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(10_000))
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            flight = outgoing.read()
            connection.sendall(flight[: len(flight) // 2])
            connection.shutdown(socket.SHUT_WR)
            drain(connection)

    return handle


def drain(connection):
    """Read until the client leaves."""
    while connection.recv(10_000):
        pass


class Exchange(asyncio.Protocol):
    """Sends a request, and keeps what came of it."""

    def __init__(self):
        self.outcome = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def data_received(self, data):
        if not self.outcome.done():
            self.outcome.set_result(data)

    def connection_lost(self, error):
        self.closed.set()
        if not self.outcome.done():
            self.outcome.set_exception(error or EOFError("closed"))


async def exchange(config, context, patience=5.0):
    """Ask once over a new connection; returns the answer. `failed.handshake` tells where it failed."""
    loop, url = asyncio.get_running_loop(), urlsplit(config.server)
    name = (config.tls_server_name or url.hostname) if context else None
    try:
        transport, protocol = await loop.create_connection(
            Exchange, url.hostname, url.port, ssl=context, server_hostname=name,
            ssl_handshake_timeout=patience if context else None,
        )  # fmt: skip
    except OSError as error:
        raise Failed(handshake=True) from error
    try:
        async with asyncio.timeout(5):
            return await protocol.outcome
    except (OSError, EOFError) as error:
        raise Failed(handshake=False) from error
    finally:
        transport.abort()
        await protocol.closed.wait()


class Failed(Exception):
    """An exchange has failed; why is its cause."""

    def __init__(self, *, handshake):
        self.handshake = handshake


async def peer_certificate(config):
    """The server's certificate as DER, whatever it is."""
    url = urlsplit(config.server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(
        Exchange, url.hostname, url.port, ssl=context, server_hostname=url.hostname
    )
    protocol.outcome.cancel()
    try:
        return transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        transport.abort()
        await protocol.closed.wait()


async def ask(config, *, peer=peer_certificate, patience=5.0, certificate=None, **how):
    """Ask `config`'s server, and raise what `explain` makes of a failure; returns the answer."""
    context = await ClientTLS(config, SystemClock(), Log().logger).context(certificate)
    try:
        return await exchange(config, context, patience)
    except Failed as failed:
        told = await explain(
            config, failed, lambda: peer(config), handshake=failed.handshake, certificate=certificate, **how
        )
        if told is None:
            raise
        raise told from failed

"""The certificate that an API server shows, to read in it: until when it is good, for which names, who has signed it.

It is fetched over a connection of its own, without judging it; nothing is sent there.
"""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import anyio.to_thread

from asyncctl.client.config import ClusterConfig

DEADLINE = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of itself."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    expires: datetime


async def server_certificate(config: ClusterConfig) -> Certificate | None:
    """Return the server's certificate; None where it speaks no TLS, can't be reached, or is behind a proxy."""
    address = urlsplit(config.server)
    if address.scheme != "https" or config.proxy or not address.hostname:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is only read
    try:
        async with asyncio.timeout(DEADLINE):
            _, writer = await asyncio.open_connection(
                address.hostname, address.port or 443, ssl=context,
                server_hostname=config.tls_server_name or address.hostname,
            )  # fmt: skip
    except (OSError, ssl.SSLError):
        return None
    try:
        der: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
    return await anyio.to_thread.run_sync(read_certificate, der) if der else None


def read_certificate(der: bytes) -> Certificate | None:
    """Return what a certificate says; None where it can't be read. Imports a library of some size."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(der)
        try:
            alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = tuple(str(name.value) for name in alternatives)
        except x509.ExtensionNotFound:
            names = ()
        subject, issuer = found.subject.rfc4514_string(), found.issuer.rfc4514_string()
    except ValueError:
        return None
    return Certificate(subject, issuer, names, found.not_valid_after_utc)

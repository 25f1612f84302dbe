"""How a server is verified, whoever it is: the API server, an identity provider, a proxy.

As Go does it, and so as kubectl would: Python's own `create_default_context` is strict beyond that from Python 3.13 on,
and refuses the CAs of many clusters, which have no key identifiers; and it logs sessions' keys where SSLKEYLOGFILE
says so.
"""

import ssl


def verifying_context(ca: bytes | None = None) -> ssl.SSLContext:
    """A context that trusts the certificates in `ca`, else the system's CAs. Reads files then: call it in a thread.

    Args:
        ca: PEM; there may be comments between the certificates. Whatever is in it is trusted, root or not.

    Raises:
        ssl.SSLError: `ca` has a broken certificate, or none.
        ValueError: `ca` is empty.
    """
    context = plain_context()
    if ca is None:
        context.load_default_certs()  # honours SSL_CERT_FILE and SSL_CERT_DIR
    else:
        text = ca.decode("utf-8", "replace").encode("ascii", "replace")  # of the comments
        context.load_verify_locations(cadata=text.decode("ascii"))
    return context


def plain_context() -> ssl.SSLContext:
    """A context that trusts nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context

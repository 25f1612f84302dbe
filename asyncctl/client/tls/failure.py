"""Why TLS failed, in words a person can act on: which host or file, what is wrong with it, and what to do.

OpenSSL says little, and not what the server's certificate has in it; so that is asked for once more, without
verification, to name its dates, hosts and issuer. Where that fails too, OpenSSL's own words have to do.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio.to_thread

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import ClientCertificate
from asyncctl.client.errors import (
    BadServerCertificate,
    CertificateExpired,
    CertificateNotYetValid,
    ClientCertificateRefused,
    HandshakeInterrupted,
    HandshakeTimeout,
    HostnameMismatch,
    PlainHTTP,
    ProtocolMismatch,
    SelfSignedCertificate,
    TLSError,
    TLSRequired,
    UnknownAuthority,
)
from asyncctl.client.tls.certificates import Certificate, has_signed, read_der, read_pem
from asyncctl.client.tls.pem import authority, client_pair
from asyncctl.clock import Clock, SystemClock

__all__ = ["explain", "explain_reply", "utc"]

PATIENCE = 5.0  # seconds for a second look at the server's certificate
_NAMES = 8  # of a certificate, or of the trusted CAs, in one text

# X509_V_ERR_* of OpenSSL's x509_vfy.h
_NOT_YET = {9, 13}
_EXPIRED = {10, 14}
_SELF_SIGNED = {18}
_UNKNOWN = {2, 7, 19, 20, 21, 27, 29, 30, 31}
_MISMATCH = {62, 64}

# What is refused by an alert of the server, and what that means where we have a certificate
_REFUSALS = {
    "CERTIFICATE_REQUIRED": "says that it got none",
    "UNKNOWN_CA": "does not know the CA that signed it",
    "BAD_CERTIFICATE": "does not accept it",
    "CERTIFICATE_UNKNOWN": "does not accept it",
    "NO_CERTIFICATE": "says that it got none",
    "UNSUPPORTED_CERTIFICATE": "can't use one of this kind; was it made for clients (extended key usage)?",
    "CERTIFICATE_EXPIRED": "says that it has expired",
    "CERTIFICATE_REVOKED": "says that it was revoked",
    "ACCESS_DENIED": "does not let its holder in",
    "DECRYPT_ERROR": "could not check our signature with it",
}
_NOT_TLS = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST|UNKNOWN_PROTOCOL")
_NO_VERSION = re.compile("PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW")
_NO_CIPHER = re.compile("HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY|NO_SHARED_CIPHER|NO_CIPHERS|DH_KEY_TOO_SMALL")
_TLS_WANTED = re.compile(
    rb"HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS|speaking plain HTTP to"
)
_ALERT_NAME = re.compile("ALERT_([A-Z]+(?:_[A-Z]+)*)")
_ENDS = (ConnectionError, EOFError, TimeoutError)  # of a connection, in the middle of a handshake
_ALERT = b"\x15\x03"  # how a TLS record that holds an alert begins


class _Case(NamedTuple):
    """What is known when the words are chosen."""

    config: ClusterConfig
    error: BaseException
    peer: bytes | None
    certificate: ClientCertificate | None
    handshake: bool
    now: datetime


async def explain(
    config: ClusterConfig,
    error: BaseException,
    peer_certificate: Callable[[], Awaitable[bytes]],
    *,
    handshake: bool = False,
    certificate: ClientCertificate | None = None,
    sent: bool = False,
    clock: Clock | None = None,
) -> TLSError | None:
    """Find what TLS has to do with `error`, along its causes; raises nothing of its own.

    Args:
        config: Whom we talked to. For an https proxy, one whose `server` is the proxy's URL.
        error: What a connection, or a request on it, has failed with. In TLS 1.3 a server refuses our certificate only
            after the handshake, and the first read fails.
        peer_certificate: Opens a second connection, without verification, and returns the server's certificate as DER.
        handshake: The handshake was under way, so that an end of the connection, or a time-out, is one of TLS.
        certificate: The exec plugin's, when that was shown to the server.
        sent: Whether the server may have seen the request, for the error that is returned.
        clock: Where "now" comes from.

    Returns:
        The error to raise, or None when TLS is not the trouble.
    """
    found = _culprit(error, handshake=handshake)
    if found is None or isinstance(found, TLSError):
        return found
    peer = None
    if isinstance(found, ssl.SSLCertVerificationError):
        try:
            async with asyncio.timeout(PATIENCE):
                peer = await peer_certificate()
        except Exception:  # noqa: BLE001 - whatever it is, the first error is the one to tell
            peer = None
    case = _Case(config, found, peer, certificate, handshake, (clock or SystemClock()).now())
    kind, text = await anyio.to_thread.run_sync(_words, case, abandon_on_cancel=True)
    return kind(text, sent=sent)


def explain_reply(config: ClusterConfig, reply: bytes) -> TLSError | None:
    """What TLS has to do with a reply to plain HTTP: the body of a 400, or bytes that are no HTTP at all.

    Go's servers say "Client sent an HTTP request to an HTTPS server."; others have their own words, or send an alert.
    """
    if not config.server.startswith("http:") or not (_TLS_WANTED.search(reply) or reply.startswith(_ALERT)):
        return None
    address = "https" + config.server.removeprefix("http")
    return TLSRequired(
        f"{config.server}: the server answers only to TLS on this port; use {address} ({config.source})", sent=False
    )


def utc(moment: datetime) -> str:
    """A moment as logs and texts have it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _culprit(error: BaseException, *, handshake: bool) -> BaseException | None:
    """What TLS has to do with, among all that led to `error`: what says most, then what is nearest."""
    waiting, seen, found = [error], set[int](), list[tuple[int, BaseException]]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, TLSError):
            found.append((0, each))
        elif isinstance(each, ssl.SSLError):  # a library's own may be of this class, and have none of its attributes
            found.append((1 if hasattr(each, "reason") else 2, each))
        elif (handshake and isinstance(each, _ENDS) and not isinstance(each, ConnectionRefusedError)) or (
            isinstance(each, ConnectionAbortedError) and "SSL handshake" in str(each)
        ):
            found.append((3, each))
        inner = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [cause for cause in (*inner, each.__cause__ or each.__context__) if cause is not None]
    return min(found, key=lambda pair: pair[0], default=(0, None))[1]


def _words(case: _Case) -> tuple[type[TLSError], str]:
    if isinstance(case.error, ssl.SSLCertVerificationError):
        kind, text = _distrust(case, case.error)
    elif isinstance(case.error, ssl.SSLError) and not isinstance(case.error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        kind, text = _failure(case, case.error)
    elif isinstance(case.error, TimeoutError) or "taking longer" in str(case.error):
        kind, text = HandshakeTimeout, (
            "the server accepted the connection, but did not go on with the TLS handshake; is it overloaded, or does "
            "something else listen on this port?"
        )  # fmt: skip
    else:
        kind, text = HandshakeInterrupted, (
            "the connection was closed in the middle of the TLS handshake"
            f"{_os_words(case.error)}; is this the right port, and is there a server behind the load balancer or proxy?"
        )  # fmt: skip
    return kind, f"{case.config.server}: {text}"


def _os_words(error: BaseException) -> str:
    return f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""


def _distrust(case: _Case, error: ssl.SSLCertVerificationError) -> tuple[type[TLSError], str]:
    try:
        peer = read_der(case.peer) if case.peer else None
    except ValueError:
        peer = None
    code = getattr(error, "verify_code", 0)
    if code in _EXPIRED:
        return CertificateExpired, _dates(case, peer, over=True)
    if code in _NOT_YET:
        return CertificateNotYetValid, _dates(case, peer, over=False)
    if code in _MISMATCH:
        return HostnameMismatch, _mismatch(case.config, peer)
    if code in _SELF_SIGNED:
        whose = f" ({peer.subject})" if peer else ""
        return SelfSignedCertificate, (
            f"the server's certificate{whose} is self-signed, and not among {_trusted(case.config)}; "
            f"{_add(case.config)}"
        )
    if code in _UNKNOWN:
        return UnknownAuthority, _unknown(case, peer)
    whose = f" ({peer.subject}, issued by {peer.issuer})" if peer else ""
    said = getattr(error, "verify_message", "") or str(error)
    return BadServerCertificate, (
        f"the server's certificate{whose} is not acceptable: {said} (OpenSSL's code {code}); have another one issued"
    )


def _dates(case: _Case, peer: Certificate | None, *, over: bool) -> str:
    """The date at fault is that of the server's certificate, or else of a CA's that it rests on."""
    clock = f"this machine's clock says {utc(case.now)}: set it right if it is wrong, or have the certificate renewed"
    verb = "has expired" if over else "is not valid yet"
    if peer is None:
        return f"the server's certificate, or one of a CA above it, {verb}; {clock}"
    wrong = _wrong_in([peer], case.now, over=over)
    if wrong is not None:
        return f"the server's certificate ({wrong.subject}) {_when(wrong, case.now, over=over)}; {clock}"
    ca = authority(case.config)
    wrong = _wrong_in(_read_trusted(case.config), case.now, over=over)
    if ca is not None and wrong is not None:
        return f"the CA {wrong.subject} in {ca} {_when(wrong, case.now, over=over)}; {clock}"
    return f"a CA above the server's certificate ({peer.subject}, issued by {peer.issuer}) {verb}; {clock}"


def _wrong_in(certificates: list[Certificate], now: datetime, *, over: bool) -> Certificate | None:
    return next((each for each in certificates if (each.not_after < now if over else each.not_before > now)), None)


def _when(certificate: Certificate, now: datetime, *, over: bool) -> str:
    if over:
        return f"expired on {utc(certificate.not_after)}, {_span(now - certificate.not_after)} ago"
    return f"is valid only from {utc(certificate.not_before)} on, in {_span(certificate.not_before - now)}"


def _span(length: timedelta) -> str:
    for seconds, unit in ((31_557_600, "year"), (86400, "day"), (3600, "hour"), (60, "minute")):
        count = int(length.total_seconds() // seconds)
        if count:
            return f"{count} {unit}{'s' * (count > 1)}"
    return "less than a minute"


def _mismatch(config: ClusterConfig, peer: Certificate | None) -> str:
    asked = config.tls_server_name or urlsplit(config.server).hostname
    names = _some(peer.names) if peer else ""
    has = f"it is for {names}" if names else "it names no host" if peer else "it is for others"
    return (
        f"the server's certificate is not for {asked}; {has}. Use one of its names in the server's address, or set "
        f"tls-server-name to one ({config.source})"
    )


def _unknown(case: _Case, peer: Certificate | None) -> str:
    config = case.config
    if peer is None or case.peer is None:
        return f"the server's certificate is signed by a CA that is not among {_trusted(config)}; {_add(config)}"
    signed = f"the server's certificate is signed by the CA {peer.issuer}"
    if any(each.subject == peer.issuer for each in _read_trusted(config)):
        if _trusts_by_now(config, case.peer):
            return f"{signed}, which was not yet among {_trusted(config)}; it is now, and the next connection trusts it"
        return (
            f"{signed}; {_trusted(config)} include one of that name, but with another key (was the "
            f"cluster made anew?); {_add(config)}"
        )
    return (
        f"{signed}, which is not among {_trusted(config)}; {_add(config)}; if it is an intermediate one, let the "
        "server send it along"
    )


def _trusted(config: ClusterConfig) -> str:
    ca = authority(config)
    if ca is None:
        paths = ssl.get_default_verify_paths()
        where = paths.cafile or paths.capath or f"none is at {paths.openssl_cafile}"
        return f"the system's CAs ({where})"
    names = _some(tuple(each.subject for each in _read_trusted(config)))
    return f"those of {ca}" + (f" ({names})" if names else "")


def _add(config: ClusterConfig) -> str:
    ca = authority(config)
    if config.source == "in-cluster":
        return "does something else answer for the API server, or is the pod's service account of another cluster?"
    if ca is not None and ca.path is not None:
        return f"write this cluster's CA into {ca.path}, or correct the server's address ({config.source})"
    return f"set certificate-authority to this cluster's CA, or correct the server's address ({config.source})"


def _read_trusted(config: ClusterConfig) -> list[Certificate]:
    ca = authority(config)
    try:
        return read_pem(ca.read()) if ca is not None else []
    except (TLSError, ValueError):  # changed since
        return []


def _trusts_by_now(config: ClusterConfig, peer: bytes) -> bool:
    """Whether the CA's file has come to fit since the connection was tried."""
    ca = authority(config)
    try:
        return ca is not None and has_signed(ca.read(), peer)
    except (TLSError, ValueError):
        return False


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _failure(case: _Case, error: ssl.SSLError) -> tuple[type[TLSError], str]:
    # Where Python does not know the name of OpenSSL's reason, there is its text alone
    what = (getattr(error, "reason", None) or str(error)).upper().replace(" ", "_")
    named = _ALERT_NAME.search(what)
    alert = named[1] if named else ""
    if alert in _REFUSALS:
        return ClientCertificateRefused, _refusal(case, alert)
    if case.handshake and _NOT_TLS.search(what):
        return PlainHTTP, (
            "the server does not speak TLS on this port, but plain HTTP, it seems; use the port on which it does, or "
            f"http:// in its address ({case.config.source})"
        )
    if _NO_VERSION.search(what):
        return ProtocolMismatch, (
            f"the server and we share no version of TLS: we speak 1.2 and 1.3 (OpenSSL says {what}); let the server "
            "allow one of them"
        )
    if _NO_CIPHER.search(what):
        if _ours(case):
            perhaps, fix = "", "let the server allow one of today's"
        else:  # what it says in TLS 1.2 where it wants one
            perhaps = ", or it demands a client certificate"
            fix = f"let the server allow one of today's, or set client-certificate ({case.config.source})"
        return ProtocolMismatch, (
            f"the server and we share no cipher suite for TLS 1.2 or 1.3{perhaps} (OpenSSL says {what}); {fix}"
        )
    if "NO_APPLICATION_PROTOCOL" in what:
        return ProtocolMismatch, "the server does not speak HTTP/1.1 here; is this the address of an API server?"
    if "UNRECOGNIZED_NAME" in what:
        asked = case.config.tls_server_name or urlsplit(case.config.server).hostname
        return HostnameMismatch, (
            f"the server has no certificate for {asked}; correct the server's address, or set tls-server-name "
            f"({case.config.source})"
        )
    return TLSError, f"TLS has failed: {what}; what does the server's log say?"


def _ours(case: _Case) -> str:
    """Our certificate, as it is called; empty when there is none."""
    chain, _ = client_pair(case.config, case.certificate)
    return "" if chain is None else str(chain)


def _refusal(case: _Case, alert: str) -> str:
    chain, _ = client_pair(case.config, case.certificate)
    if chain is None:
        return (
            f"the server demands a client certificate, and there is none (alert {alert}); set client-certificate and "
            f"client-key ({case.config.source})"
        )
    try:
        ours = read_pem(chain.read())[0]
    except (TLSError, ValueError):
        facts = ""
    else:
        facts = f" ({ours.subject}, issued by {ours.issuer}, valid until {utc(ours.not_after)})"
    return (
        f"the server refuses {chain}{facts}: it {_REFUSALS[alert]} (alert {alert}); use one that this cluster has "
        "issued and that is still valid"
    )

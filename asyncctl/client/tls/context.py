"""TLS towards the API server: contexts that are made from files or PEM data, and made anew when those change.

What a context trusts is what kubectl would trust: the CA that is configured, else the system's. A change on disk is
seen within a minute, and what can't be used never replaces what can. Why a connection failed is told by `explain`.
"""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import anyio.to_thread

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import ClientCertificate
from asyncctl.client.config.trust import plain_context, verifying_context
from asyncctl.client.errors import BadCertificateFile, ClientKeyEncrypted, ClientKeyMismatch, ClientKeyMissing, TLSError
from asyncctl.client.tls.certificates import Certificate, read_pem
from asyncctl.client.tls.failure import explain, explain_reply, utc
from asyncctl.client.tls.pem import Pem, Stamp, authority, client_pair, momentary_file
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger

__all__ = ["ClientTLS", "explain", "explain_reply", "identify", "make_context"]

LOOK = 60.0  # seconds between two looks at the files: as often as a token's
SOON = timedelta(days=7)
_NO_PAIR = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}  # OpenSSL's names for it


class _Made(NamedTuple):
    context: ssl.SSLContext
    ours: Certificate | None
    stamps: tuple[Stamp | None, ...]
    plugins: ClientCertificate | None
    """The plugin's, which it was made with."""


class ClientTLS:
    """The TLS of one API server within one event loop."""

    def __init__(self, config: ClusterConfig, clock: Clock, logger: Logger) -> None:
        self._config = config
        self._clock = clock
        self._logger = logger
        self._plain = not config.server.startswith("https:")
        self._made: _Made | None = None
        self._certificate: ClientCertificate | None = None  # the plugin's, at the last look; it may not have done
        self._looked_at = float("-inf")
        self._look_lock = asyncio.Lock()
        self._problem = ""  # what the last look found, as it was warned of
        self._told_of: tuple[Certificate, bool] | None = None  # whose end was warned of: before it, or after

    async def context(self, certificate: ClientCertificate | None = None) -> ssl.SSLContext | None:
        """The context for the next connection, or None for plain HTTP.

        It is the same object as before, unless a file or `certificate` has changed: connections that were made with
        another one are of an old identity, and should not be kept when they are idle.

        Args:
            certificate: The exec plugin's, which comes before those of the configuration.

        Raises:
            TLSError: There is none yet, and none can be made.
        """
        if self._plain:
            return None
        if not self._fresh(certificate):
            known = self._made is not None and certificate == self._certificate
            if known:  # who comes meanwhile goes on with what there is, and does not wait for the disk
                self._looked_at = self._clock.monotonic()
            async with self._look_lock:
                if known or not self._fresh(certificate):
                    await self._look(certificate)
        assert self._made is not None
        return self._made.context

    def look_again(self) -> None:
        """After a handshake that failed: look at the files with the next `context`, however short ago the last was."""
        self._looked_at = float("-inf")

    def _fresh(self, certificate: ClientCertificate | None) -> bool:
        recent = self._clock.monotonic() - self._looked_at < LOOK
        return recent and self._made is not None and certificate == self._certificate

    async def _look(self, certificate: ClientCertificate | None) -> None:
        before = self._made
        seen = before.stamps if before is not None and certificate == before.plugins else None
        try:
            made = await anyio.to_thread.run_sync(
                _make_unless, self._config, certificate, seen, abandon_on_cancel=True
            )  # fmt: skip
        except TLSError as error:
            if before is None:
                raise
            if str(error) != self._problem:
                self._problem = str(error)
                self._logger.warning(
                    "the new TLS files can't be used, and the old ones stay in use", problem=str(error)
                )
        else:
            self._problem = ""
            if made is not None:
                self._made = made
                if before is not None:
                    self._logger.info("TLS has new certificates from now on", **self._ends(made))
        self._certificate = certificate
        self._looked_at = self._clock.monotonic()
        self._mind_the_end()

    def _ends(self, made: _Made) -> dict[str, str]:
        found = {}
        if made.ours is not None:
            found["client_certificate_expires"] = utc(made.ours.not_after)
        if authority(self._config) is not None:
            ends = [ssl.cert_time_to_seconds(str(ca["notAfter"])) for ca in made.context.get_ca_certs()]
            found |= {"ca_expires": utc(datetime.fromtimestamp(min(ends), UTC))} if ends else {}
        return found

    def _mind_the_end(self) -> None:
        """Warn of our certificate's end, once when it is near and once when it has come.

        Near is a week, or a fifth of a life that is shorter. A plugin's are short-lived, and renewed by the plugin.
        """
        if self._made is None or self._made.ours is None or self._made.plugins is not None:
            return
        ours = self._made.ours
        left = ours.not_after - self._clock.now()
        over = left <= timedelta()
        if left < min(SOON, (ours.not_after - ours.not_before) / 5) and self._told_of != (ours, over):
            self._told_of = (ours, over)
            what, _ = client_pair(self._config, None)
            self._logger.warning(
                "the client certificate has expired; renew it" if over else "the client certificate expires soon",
                certificate=str(what),
                subject=ours.subject,
                expires=utc(ours.not_after),
            )


def make_context(config: ClusterConfig, certificate: ClientCertificate | None = None) -> ssl.SSLContext | None:
    """The context for `config`, or None for plain HTTP. Reads files: call it in a thread.

    Raises:
        TLSError: A CA, certificate or key is missing, broken, or does not belong to the other.
    """
    return _make(config, certificate)[0] if config.server.startswith("https:") else None


def _make_unless(
    config: ClusterConfig, certificate: ClientCertificate | None, seen: tuple[Stamp | None, ...] | None
) -> _Made | None:
    """A new context; None while the files are as `seen`."""
    pieces = (authority(config) if config.verify else None, *client_pair(config, certificate))
    stamps = tuple(None if piece is None else piece.stamp() for piece in pieces)  # before they are read
    return None if stamps == seen else _Made(*_make(config, certificate), stamps, certificate)


def _make(config: ClusterConfig, certificate: ClientCertificate | None) -> tuple[ssl.SSLContext, Certificate | None]:
    if config.verify:
        context = _verifying(authority(config))
    else:
        context = plain_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    chain, key = client_pair(config, certificate)
    if chain is None and key is None:
        return context, None
    if chain is None:
        raise BadCertificateFile(f"{key} has no certificate; set client-certificate ({config.source})")
    if key is None:
        raise ClientKeyMissing(f"{chain} has no key; set client-key ({config.source})")
    return context, identify(context, chain, key)


def _verifying(ca: Pem | None) -> ssl.SSLContext:
    if ca is None:
        return verifying_context()
    content = ca.read()
    try:
        return verifying_context(content)
    except ssl.SSLError as error:
        raise _broken(ca, error) from error


def identify(context: ssl.SSLContext, chain: Pem, key: Pem) -> Certificate | None:
    """Let `context` show a certificate, and return what it says of itself. Reads files: call it in a thread.

    Raises:
        BadCertificateFile: One of the two can't be used, or they do not belong together.
    """
    certificate, secret = chain.read(), key.read()
    try:
        ours = read_pem(certificate)[0]
    except ValueError:
        ours = None  # OpenSSL is the judge

    def no_passphrase() -> str:  # without it, OpenSSL would ask for one on the terminal
        raise ClientKeyEncrypted(
            f"{key} is encrypted, and nobody is there to type its passphrase; decrypt it "
            "(`openssl pkey -in KEY -out PLAIN`), and keep the plain key readable by this user alone"
        )

    try:
        with momentary_file(certificate) as certificate_path, momentary_file(secret) as key_path:
            context.load_cert_chain(certificate_path, key_path, no_passphrase)
    except ssl.SSLError as error:
        if error.reason in _NO_PAIR:
            whose = f" ({ours.subject})" if ours is not None else ""
            raise ClientKeyMismatch(
                f"{key} does not belong to {chain}{whose}; use the key that this certificate was made for"
            ) from error
        if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
            why = error.reason.replace("_", " ").lower()
            raise BadCertificateFile(f"{chain} is too weak for OpenSSL ({why}); have a stronger one issued") from error
        raise _broken(chain if ours is None else key, error) from error
    except OSError as error:
        raise BadCertificateFile(
            f"{key} can't be loaded, for want of a temporary file: {error.strerror}; set TMPDIR to a writable folder"
        ) from error
    return ours


def _broken(piece: Pem, error: ssl.SSLError) -> BadCertificateFile:
    why = f" ({error.reason.replace('_', ' ').lower()})" if error.reason else ""
    fix = piece.fix[0].upper() + piece.fix[1:]
    return BadCertificateFile(f"{piece} is broken{why}: was it cut off, or is it still being written? {fix}")

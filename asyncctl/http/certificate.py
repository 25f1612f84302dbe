"""TLS of a listener of ours: a certificate and key in files that somebody renews, or one that we sign ourselves.

The files are looked at again every ten seconds in which somebody connects; a pair that changed is used from the next
connection on. One that is broken, or only half written, never replaces one that works: that is warned of once for each
thing that is wrong, and looked at again. Where no files are given, a certificate is made at the start: it keeps readers
out and proves nothing of who we are, and the log says so.
"""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anyio import to_thread

from asyncctl.client.errors import BadCertificateFile
from asyncctl.client.tls.certificates import Certificate, read_pem
from asyncctl.client.tls.context import identify
from asyncctl.client.tls.pem import Pem, Stamp, momentary_file
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["ServingTLS"]

LOOK = 10.0  # seconds between two looks at the files
LIFE = timedelta(days=365)  # of a certificate that we sign ourselves, as controller-runtime's
_BEFORE = timedelta(hours=1)  # it is valid already: clocks differ
SOON = timedelta(days=7)


class _Made(NamedTuple):
    context: ssl.SSLContext
    shown: Certificate | None
    stamps: tuple[Stamp | None, ...]


class ServingTLS:
    """Call it for the context of the next connection.

    Args:
        certificate: PEM: ours, and those between it and its root; None: one is made.
        key: PEM, its key.
        setting: Where they are told, without its last word: `ASYNCCTL_METRICS`.
        names: Of this process; in the certificate that is made.
        clock: Time.
        logger: For what changes, and for what is wrong, once.
    """

    def __init__(
        self, certificate: Path | None, key: Path | None, *, setting: str, names: Sequence[str], clock: Clock,
        logger: Logger,
    ) -> None:  # fmt: skip
        self._files = None
        if certificate is not None and key is not None:
            self._files = (
                Pem("serving certificate", "CERTIFICATE", f"{setting}_CERT", "the environment", str(certificate), None),
                Pem("serving key", "PRIVATE KEY", f"{setting}_KEY", "the environment", str(key), None),
            )
        self._setting = setting
        self._names = names
        self._clock = clock
        self._logger = logger
        self._made: _Made | None = None
        self._looked_at = float("-inf")
        self._look_lock = asyncio.Lock()
        self._problem = ""
        self._told_of: tuple[datetime, bool] | None = None  # whose end was warned of: before it, or after

    async def __call__(self) -> ssl.SSLContext:
        """The context for the next connection; the same as before while nothing has changed.

        Raises:
            BadCertificateFile: There is none yet, and the files can't be used.
        """
        if self._made is None or self._clock.monotonic() - self._looked_at >= LOOK:
            if self._made is not None:  # who comes meanwhile goes on with what there is, and does not wait for the disk
                self._looked_at = self._clock.monotonic()
            async with self._look_lock:
                await self._look()
        assert self._made is not None
        return self._made.context

    async def _look(self) -> None:
        before = self._made
        try:
            made = await to_thread.run_sync(self._make_unless, before, abandon_on_cancel=True)
        except BadCertificateFile as error:
            if before is None:
                raise
            if str(error) != self._problem:
                self._problem = str(error)
                self._logger.warning("the new serving certificate can't be used, and the old one stays in use",
                                     problem=str(error))  # fmt: skip
        else:
            self._problem = ""
            if made is not before:
                self._made = made
                self._tell(made, first=before is None)
        self._looked_at = self._clock.monotonic()
        self._mind_the_end()

    def _tell(self, made: _Made, *, first: bool) -> None:
        shown = made.shown
        facts = {"subject": shown.subject, "expires": shown.not_after.isoformat()} if shown is not None else {}
        if self._files is None:
            self._logger.warning(
                "the listener shows a certificate that it has signed itself: who reads can't tell whether it is us",
                instead=f"set {self._setting}_CERT and {self._setting}_KEY", **facts,
            )  # fmt: skip
        elif not first:
            self._logger.info("there is a new serving certificate from now on", **facts)

    def _mind_the_end(self) -> None:
        """Warn once when the end is near, a week or a fifth of a life that is shorter, and once when it has come."""
        shown = self._made.shown if self._made is not None else None
        if shown is None:
            return
        left = shown.not_after - self._clock.now()
        over = left <= timedelta()
        if left < min(SOON, (shown.not_after - shown.not_before) / 5) and self._told_of != (shown.not_after, over):
            self._told_of = (shown.not_after, over)
            self._logger.warning(
                "the serving certificate has expired; renew it" if over else "the serving certificate expires soon",
                subject=shown.subject, expires=shown.not_after.isoformat(),
            )  # fmt: skip

    def _make_unless(self, before: _Made | None) -> _Made:
        """A new context, or the one before while the files are as they were."""
        if self._files is None:
            now = self._clock.now()
            if before is not None and before.shown is not None and before.shown.not_after - now > LIFE / 10:
                return before
            context = _context()
            return _Made(context, _self_signed(context, self._names, now), ())
        stamps = tuple(each.stamp() for each in self._files)  # before they are read
        if before is not None and before.stamps == stamps:
            return before
        context = _context()
        return _Made(context, identify(context, *self._files), stamps)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _self_signed(context: ssl.SSLContext, names: Sequence[str], now: datetime) -> Certificate:
    """Let `context` show a certificate that is made here, of a key that nobody else ever sees."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    alternatives = [_alternative(name) for name in dict.fromkeys((*names, "localhost", "127.0.0.1")) if name.isascii()]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with momentary_file(chain) as chain_path, momentary_file(secret) as key_path:
        context.load_cert_chain(chain_path, key_path)
    return read_pem(chain)[0]


def _alternative(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)

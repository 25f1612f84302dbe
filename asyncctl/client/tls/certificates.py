"""What an X.509 certificate says of itself, in the few words that logs and error texts need.

`cryptography` reads it, and is imported here only when a certificate is looked into: it costs 10 MB, which a pod that
has a token and no trouble never pays. Nothing here decides whether to trust; that is OpenSSL's work.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["Certificate", "has_signed", "read_der", "read_pem"]


class Certificate(NamedTuple):
    """One certificate. `names` are the hosts and addresses it was made for, as text."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime


def read_der(der: bytes) -> Certificate:
    """Look into one certificate, as a server sends it. Raises ValueError when it can't be read."""
    from cryptography import x509

    return _facts(lambda: [x509.load_der_x509_certificate(der)])[0]


def read_pem(pem: bytes) -> list[Certificate]:
    """Look into each certificate of a file, in its order. Raises ValueError when there is none that can be read."""
    from cryptography import x509

    return _facts(lambda: x509.load_pem_x509_certificates(pem))


def has_signed(pem: bytes, der: bytes) -> bool:
    """Whether the key of one of the certificates in `pem` has signed `der`. Raises ValueError as the others do."""
    from cryptography import exceptions, x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        for each in x509.load_pem_x509_certificates(pem):
            with suppress(exceptions.InvalidSignature, ValueError, TypeError):
                certificate.verify_directly_issued_by(each)
                return True
    except Exception as error:
        raise ValueError(str(error)) from error
    return False


def _facts(load: Callable[[], "list[x509.Certificate]"]) -> list[Certificate]:
    try:
        return [_fact(each) for each in load()]
    except Exception as error:  # its errors have no root in common, and an odd certificate has many ways to be odd
        raise ValueError(str(error)) from error


def _fact(certificate: "x509.Certificate") -> Certificate:
    return Certificate(
        subject=certificate.subject.rfc4514_string() or "(no name)",
        issuer=certificate.issuer.rfc4514_string() or "(no name)",
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _names(certificate: "x509.Certificate") -> tuple[str, ...]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value) for each in common)
    hosts = extension.get_values_for_type(x509.DNSName)
    return (*hosts, *map(str, extension.get_values_for_type(x509.IPAddress)))

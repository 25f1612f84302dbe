"""PEM that was configured: a CA, a client certificate or its key, in a file or as data, read and looked at.

What can't be used is told by name: the file, or the kubeconfig's field; never its content. Files are read here, in one
go, so that what was looked at is what OpenSSL gets. All of it blocks: call it in a thread.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.credentials import ClientCertificate
from asyncctl.client.errors import BadCertificateFile, ClientKeyMissing

__all__ = ["Pem", "Stamp", "authority", "client_pair", "momentary_file"]

Stamp = tuple[int, ...]
"""What tells one state of a file from the next."""

_CERTIFICATE = "CERTIFICATE"
_KEY = "PRIVATE KEY"
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_TWICE_ENCODED = b"LS0tLS1CRUdJTi"  # base64 of "-----BEGIN"


@dataclass(frozen=True, slots=True)
class Pem:
    """One piece of PEM. `str` of it is what an error text calls it."""

    what: str
    label: str
    setting: str
    source: str
    path: str | None
    data: bytes | None

    def __str__(self) -> str:
        if self.path is not None:
            return f"the {self.what} file {self.path}"
        return f"{self.setting}-data of {self.source}" if self.setting else f"the {self.what} of {self.source}"

    @property
    def fix(self) -> str:
        """What to do about it."""
        if not self.setting:
            return "see what the plugin prints"
        if self.source == "in-cluster":
            return "see that the volume of the pod's service account is mounted as a whole"
        if self.path is None:
            return f"write {self.setting}-data anew, as base64 of PEM"
        return f"write the file anew, as PEM, or correct {self.setting} ({self.source})"

    def stamp(self) -> Stamp | None:
        """The file's present state, behind all symbolic links, as the kubelet swaps them; None for data."""
        if self.path is None:
            return None
        try:
            found = Path(self.path).stat()
        except OSError as error:
            return (error.errno or 0,)
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev

    def read(self) -> bytes:
        """The PEM itself.

        Raises:
            BadCertificateFile: It is missing, unreadable, empty, or no PEM of this kind; `ClientKeyMissing` for a key's
                file that is not there.
        """
        content = (self.data or b"") if self.path is None else self._file(self.path)
        if not content.strip():
            raise BadCertificateFile(f"{self} is empty; {self.fix}")
        labels = [label.decode() for label in _LABEL.findall(content)]
        if not any(label.endswith(self.label) for label in labels):
            raise BadCertificateFile(f"{self} has no {self.label} in PEM form; {_seen(content, labels)}{self.fix}")
        return content

    def _file(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            kind = ClientKeyMissing if self.label == _KEY else BadCertificateFile
            raise kind(f"{self} does not exist; {self.fix}") from error
        except PermissionError as error:
            raise BadCertificateFile(
                f"{self} can't be read by user {os.geteuid()}{_mode(path)}; let this user read it"
            ) from error
        except OSError as error:
            raise BadCertificateFile(f"{self} can't be read: {error.strerror}; {self.fix}") from error


def authority(config: ClusterConfig) -> Pem | None:
    """The CA that `config` trusts, or None for the system's."""
    return _configured(config, "CA", _CERTIFICATE, "certificate-authority", config.ca_file, config.ca_data)


def client_pair(config: ClusterConfig, certificate: ClientCertificate | None) -> tuple[Pem | None, Pem | None]:
    """Our certificate and its key: the exec plugin's `certificate` where there is one, else what `config` has."""
    if certificate is not None:
        plugin = "the exec plugin"
        return (
            Pem("client certificate", _CERTIFICATE, "", plugin, None, certificate.certificate),
            Pem("client key", _KEY, "", plugin, None, certificate.key),
        )
    return (
        _configured(
            config, "client certificate", _CERTIFICATE, "client-certificate",
            config.client_certificate, config.client_certificate_data,
        ),
        _configured(config, "client key", _KEY, "client-key", config.client_key, config.client_key_data),
    )  # fmt: skip


def _configured(
    config: ClusterConfig, what: str, label: str, setting: str, path: str | None, data: bytes | None
) -> Pem | None:
    if data is not None:  # comes before the file, as in client-go
        return Pem(what, label, setting, config.source, None, data)
    return Pem(what, label, setting, config.source, path, None) if path else None


def _mode(path: str) -> str:
    try:
        found = Path(path).stat()
    except OSError:  # nor may its folder be searched
        return ""
    return f" (its owner is {found.st_uid}, its mode {found.st_mode & 0o777:04o})"


def _seen(content: bytes, labels: list[str]) -> str:
    if labels:
        return f"it has {', '.join(dict.fromkeys(labels))}; "
    if content.lstrip().startswith(_TWICE_ENCODED):
        return "it is base64 of PEM, and has to be decoded once more; "
    if content.startswith(b"\x30\x82"):
        return "it looks like DER, which `openssl x509 -inform der` or `openssl pkey -inform der` turns into PEM; "
    return ""


@contextmanager
def momentary_file(content: bytes) -> Iterator[str]:
    """A file that only this process's user can read, for what can only be loaded by its path; gone at the end.

    In memory where the system has such files, else in the folder for temporary files.
    """
    descriptor = _in_memory()
    if descriptor is None:
        with tempfile.NamedTemporaryFile() as file:  # its mode is 0600
            file.write(content)
            file.flush()
            yield file.name
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"


def _in_memory() -> int | None:
    try:
        descriptor = os.memfd_create("pem")
        os.fchmod(descriptor, 0o600)
    except (AttributeError, OSError):  # not Linux, or forbidden
        return None
    if Path(f"/proc/self/fd/{descriptor}").exists():
        return descriptor
    os.close(descriptor)
    return None

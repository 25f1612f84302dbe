"""Certificates of authorities, as files: libpq takes no others.

They come from Secrets of tenants, so that each is looked at: what is not a certificate is left out, and what holds
none is refused. A file is named by its content, is in a folder that nobody else can write to, and goes with `close`.
"""

import contextlib
import hashlib
import os
import re
import ssl
import tempfile
import threading
from pathlib import Path

import anyio.to_thread

LARGEST = 256 * 1024
"""Bytes of PEM, which is more than all public authorities together have."""
_MOST = 1000  # files at once; what is used again is written again
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def certificates(pem: bytes) -> bytes:
    """Return the certificates in it, and nothing else: a key beside them is nobody's business.

    Raises:
        ValueError: There is none, one can't be read, or it is too large. The text quotes nothing of it.
    """
    if len(pem) > LARGEST:
        raise ValueError(f"is larger than {LARGEST // 1024} KiB")
    found = b"\n".join(_CERTIFICATE.findall(pem)) + b"\n"
    if found == b"\n":
        raise ValueError("holds no certificate in PEM")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ValueError("holds a certificate that can't be read") from None
    return found


class Authorities:
    """Files of certificates, for the life of a program; `close` removes them.

    A folder is made with the first one. Of more than a thousand, those that were asked for longest ago go.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._used: dict[Path, None] = {}  # the last one used last
        self._lock = threading.Lock()

    async def file(self, pem: bytes) -> tuple[Path, bytes]:
        """Return a file of the certificates in `pem`, and what is in it.

        Raises:
            ValueError: As `certificates`.
            OSError: It can't be written.
        """
        return await anyio.to_thread.run_sync(self._file, pem)

    async def close(self) -> None:
        """Remove the files."""
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        with self._lock:
            self._used.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _file(self, pem: bytes) -> tuple[Path, bytes]:
        found = certificates(pem)
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="asyncctl-")  # mode 0700
            path = Path(self._folder.name, f"{hashlib.sha256(found).hexdigest()}.crt")
            if self._used.pop(path, False) is False or not path.is_file():
                unfinished = path.with_suffix(".new")
                unfinished.write_bytes(found)
                os.replace(unfinished, path)  # noqa: PTH105 - whoever opens it meanwhile finds all of it
            self._used[path] = None
            while len(self._used) > _MOST:
                oldest = next(iter(self._used))
                del self._used[oldest]
                with contextlib.suppress(FileNotFoundError):
                    oldest.unlink()
        return path, found

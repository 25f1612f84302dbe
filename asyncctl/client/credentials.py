"""The `Authorization` header of each request, kept fresh.

A token file (a pod's bound token) is read again once a minute, and at once after a 401. Each event loop that talks to
the API server opens its own `Credentials` from the shared, immutable `ClusterConfig`.
"""

from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from asyncctl.client.config import ClusterConfig
from asyncctl.client.errors import ConfigError
from asyncctl.clock import Clock

REREAD = 60.0  # seconds: as client-go's; the kubelet rotates a bound token at 80 % of its life


class ClientCertificate(NamedTuple):
    """A certificate and its key, as PEM, that an exec plugin gave."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "ClientCertificate(...)"


class Credentials:
    """Who we are, as a header. `current` may suspend to read a file, at most once a minute."""

    def __init__(self, config: ClusterConfig, clock: Clock) -> None:
        self._fixed = config.authorization
        self._file = config.token_file
        self._clock = clock
        self._read_at = float("-inf")

    async def current(self) -> str | None:
        """The header's value, or None for an anonymous user. Raises `ConfigError` when there is no token to read."""
        if self._file is not None and self._clock.monotonic() - self._read_at >= REREAD:
            await self._read(self._file)
        return self._fixed

    async def refresh(self) -> bool:
        """After a 401: read again now. True when the header has changed, so that one more try makes sense."""
        if self._file is None:
            return False
        before = self._fixed
        await self._read(self._file)
        return self._fixed != before

    async def _read(self, file: Path) -> None:
        try:
            token = (await anyio.to_thread.run_sync(file.read_text, "ascii")).strip()
            if not token:
                raise ValueError("it is empty")  # noqa: TRY301 - one way out for all that is wrong with it
        except (OSError, ValueError) as error:
            if self._fixed is None:
                raise ConfigError(f"the token file {file} can't be used: {error}") from error
            return  # the last token may still be good; the server will say
        self._fixed = f"Bearer {token}"
        self._read_at = self._clock.monotonic()

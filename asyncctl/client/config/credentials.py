"""Who we are, as headers and a certificate, kept fresh.

A token file (a pod's bound token) is read again once a minute; an exec plugin is run and an OIDC token refreshed a
little before the last credential ends; and each at once after a 401. Nobody waits for it while the last credential is
valid, and all who have to wait share one attempt, which outlives those who are cancelled. Where it fails, the last
credential goes on being used as long as it is valid, and the trouble is told once. What no header can have in it is
no credential, wherever it comes from. Each event loop that talks to the
API server has its own `Credentials` of the shared, immutable `ClusterConfig`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from asyncctl.client.config import exec_plugin, oidc
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.config.exec_plugin import ClientCertificate, ExecPlugin
from asyncctl.client.config.jwt import expires_at
from asyncctl.client.config.oidc import Oidc
from asyncctl.client.errors import CredentialsError
from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger

__all__ = ["REREAD", "ClientCertificate", "Credentials", "Identity"]

REREAD = 60.0  # seconds: as client-go's; the kubelet rotates a bound token at 80 % of its life
_FILE = 10.0  # seconds in which a file has to be read: its volume may hang
_PAUSE = 10.0  # seconds between two attempts of what is dear, or not urgent, while the last was of no use


class Identity(NamedTuple):
    """What a request has to show: headers (`Authorization`, `Impersonate-*`), and a certificate of a plugin."""

    headers: tuple[tuple[str, str], ...] = ()
    certificate: ClientCertificate | None = None

    def __repr__(self) -> str:
        return f"Identity({', '.join(name for name, _ in self.headers)})"


class _Held(NamedTuple):
    """A credential, and how long it does."""

    authorization: str | None
    certificate: ClientCertificate | None = None
    renew_at: datetime | None = None
    expires: datetime | None = None
    read_again_at: float | None = None
    """By the monotonic clock; when it is due, one waits for it."""

    def __repr__(self) -> str:
        return f"_Held(expires={self.expires})"


_Fetch = Callable[[str | None], Awaitable[_Held]]
"""Gets a credential; the argument is an `Authorization` that was refused, or None."""


class Credentials:
    """Who we are, in one event loop. Close it at the end: an attempt may be under way."""

    def __init__(
        self, config: ClusterConfig, clock: Clock, logger: Logger, *, plugin_deadline: float = exec_plugin.DEADLINE
    ) -> None:
        self._clock = clock
        self._logger = logger
        self._plugin_deadline = plugin_deadline
        self._also = config.impersonate.headers() if config.impersonate is not None else ()
        self._held: _Held | None = None
        self._dear = True
        self._source = f"the Authorization of {config.source}"
        self._fetch: _Fetch | None = None
        if config.token_file is not None:
            self._fetch, self._dear = self._file(config.token_file), False
            self._source = f"the token file {config.token_file}"
            if config.authorization is not None:
                self._held = _Held(config.authorization, read_again_at=float("-inf"))
        elif config.authorization is not None:
            self._held = _Held(config.authorization)
        elif config.exec_plugin is not None:
            self._fetch = self._plugin(config.exec_plugin)
            self._source = f"the exec plugin {config.exec_plugin.command}"
        elif config.oidc is not None:
            self._fetch = self._oidc(config.oidc)
            self._source = f"the id-token of {config.oidc.issuer} for user {config.oidc.user!r} ({config.oidc.file})"
            self._held = self._id_token(config.oidc.tokens.id_token)
        else:
            self._held = _Held(None)
        given = self._held
        if given is not None and not _fits_a_header(given):
            self._held = None
            self._fetch = self._fetch or _same(given)
        self._identity = self._shown()
        self._task: asyncio.Task[None] | None = None
        self._error: CredentialsError | None = None
        """Why the last attempt has failed, if it has."""
        self._told: str | None = None
        self._helped = False
        self._closed = False
        self._not_before = float("-inf")

    async def current(self) -> Identity:
        """Who we are now. May wait for a file, a plugin or an identity provider, but not while the last is valid.

        Raises:
            CredentialsError: There is no valid credential, and no way to get one now.
        """
        held = self._held
        if self._fetch is None or (held is not None and not self._due(held)):
            return self._identity
        if not self._closed and (self._error is None or self._clock.monotonic() >= self._not_before):
            attempt = self._attempt()
            if held is None or not self._valid(held) or held.read_again_at is not None:
                await _end(attempt)
        if self._held is None or not self._valid(self._held):
            raise CredentialsError(str(self._error or "no credential: the client is closed")) from self._error
        return self._identity

    async def refresh(self, used: Identity | None = None) -> bool:
        """After a 401: get another credential now. All 401s of one moment share one attempt.

        Args:
            used: What the refused request had shown. If that is not what `current` gives now, nothing is done.

        Returns:
            True when one more try makes sense, because the request would show something else.
        """
        if self._fetch is None or self._closed:
            return False
        if used is not None and used != self._identity:
            return True
        if self._dear and self._task is None and self._clock.monotonic() < self._not_before:
            return used is None and self._helped
        before = self._identity
        await _end(self._attempt(refused=True))
        return self._identity != before

    async def aclose(self) -> None:
        """End an attempt that is under way, and begin no other; a plugin is killed."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _attempt(self, *, refused: bool = False) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._renew(refused=refused), name="credentials")
        return self._task

    async def _renew(self, *, refused: bool) -> None:
        assert self._fetch is not None
        try:
            held = await self._fetch(self._held.authorization if refused and self._held is not None else None)
            if not _fits_a_header(held):
                raise CredentialsError(  # noqa: TRY301 - one way out for all that is wrong with it
                    f"{self._source} can't be used: it has a line end, a control character or one that is not ASCII "
                    "within; write it anew"
                )
            self._held = held
        except CredentialsError as error:
            self._error = error
            self._tell(error)
        else:
            self._error = self._told = None
            before, self._identity = self._identity, self._shown()
            self._helped = self._identity != before
        finally:
            self._task = None
            useless = self._error is not None and (self._dear or self._held is not None)
            if useless or (self._dear and refused):
                self._not_before = self._clock.monotonic() + _PAUSE

    def _tell(self, error: CredentialsError) -> None:
        """Of trouble that nobody else hears of, since the last credential still does."""
        if self._held is not None and self._valid(self._held) and str(error) != self._told:
            self._told = str(error)
            self._logger.warning("the credential could not be renewed; the last one is used", cause=str(error))

    def _shown(self) -> Identity:
        held = self._held or _Held(None)
        own = (("Authorization", held.authorization),) if held.authorization is not None else ()
        return Identity((*own, *self._also), held.certificate)

    def _due(self, held: _Held) -> bool:
        if held.read_again_at is not None:
            return self._clock.monotonic() >= held.read_again_at
        return held.renew_at is not None and self._clock.now() >= held.renew_at

    def _valid(self, held: _Held) -> bool:
        return held.expires is None or self._clock.now() < held.expires

    def _file(self, file: Path) -> _Fetch:
        async def fetch(_: str | None) -> _Held:
            try:
                with anyio.fail_after(_FILE):
                    token = await anyio.to_thread.run_sync(file.read_text, "ascii", abandon_on_cancel=True)
                token = token.strip()
                if not token:
                    raise ValueError("it is empty")  # noqa: TRY301 - one way out for all that is wrong with it
            except (OSError, ValueError) as error:
                what = error.strerror if isinstance(error, OSError) else error
                if isinstance(error, TimeoutError):
                    what = f"it could not be read within {_FILE:g} s; does its volume answer?"
                raise CredentialsError(f"the token file {file} can't be used: {what}") from error
            return _Held(f"Bearer {token}", read_again_at=self._clock.monotonic() + REREAD)

        return fetch

    def _plugin(self, plugin: ExecPlugin) -> _Fetch:
        async def fetch(_: str | None) -> _Held:
            found = await exec_plugin.run(plugin, self._clock, deadline=self._plugin_deadline)
            authorization = f"Bearer {found.token}" if found.token is not None else None
            return _Held(authorization, found.certificate, self._early(found.expires), found.expires)

        return fetch

    def _oidc(self, provider: Oidc) -> _Fetch:
        async def fetch(refused: str | None) -> _Held:
            now = self._clock.now()
            stale = refused.removeprefix("Bearer ") if refused is not None else None
            token = provider.tokens.id_token
            if token == stale or not oidc.usable(token, now):
                token = await oidc.refresh(provider, now, self._logger, stale=stale)
            held = self._id_token(token)
            if held is None or held.renew_at is None or held.renew_at > now:
                return held or _Held(f"Bearer {token}")
            return held._replace(renew_at=self._early(held.expires))  # a very short life

        return fetch

    def _id_token(self, token: str) -> _Held | None:
        expires = expires_at(token)
        return None if expires is None else _Held(f"Bearer {token}", None, oidc.renew_at(token), expires)

    def _early(self, expires: datetime | None) -> datetime | None:
        return None if expires is None else oidc.early(expires, expires - self._clock.now())


def _fits_a_header(held: _Held) -> bool:
    authorization = held.authorization or ""
    return authorization.isascii() and authorization.isprintable()


def _same(held: _Held) -> _Fetch:
    async def fetch(_: str | None) -> _Held:
        return held

    return fetch


async def _end(attempt: asyncio.Task[None]) -> None:
    """Wait for an attempt, whoever began it; being cancelled does not cancel it."""
    await asyncio.wait([attempt])
    if not attempt.cancelled():
        attempt.result()

"""A kubeconfig's auth-provider `oidc`: an id-token, and a refresh-token to get the next one with.

The new tokens are written back to the kubeconfig, as kubectl does: an identity provider that rotates refresh-tokens
takes the old one for stolen when it comes again, and would lock out the kubectl of whoever owns the file. So the tokens
are one box for all event loops of the process, and what another process has written meanwhile is taken over. After
client-go's `plugin/pkg/client/auth/oidc`. kubernetes-asyncio's requestor is not used: it verifies no certificate where
no CA is given, has no deadline, and expects each provider to rotate.
"""

import asyncio
import base64
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote_plus, urlsplit

import aiohttp
import anyio.to_thread
import orjson

from asyncctl.client.config.jwt import expires_at, issued_at
from asyncctl.client.config.proxy_choice import ProxyEnvironment
from asyncctl.client.config.trust import verifying_context
from asyncctl.client.errors import ConfigError, CredentialsError
from asyncctl.observe.logs import Logger

EARLY = timedelta(minutes=1)
DEADLINE = 30.0  # seconds for a refresh, all its requests together
_TURN = 0.05  # seconds between two looks whether another event loop has done it
_LARGEST = 2**20  # bytes of an answer
_OTHER_CA = "set idp-certificate-authority to the CA that signed it"
_FIXES = {  # by OpenSSL's X509_V_ERR_ number
    9: "is this machine's clock right?",
    10: "have it renewed, or set this machine's clock",
    62: "use a name that is in it in idp-issuer-url",
    64: "use an address that is in it in idp-issuer-url",
}
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)


class OidcTokens:
    """The tokens as they are now; the one part of a configuration that changes. Whoever changes it holds `lock`.

    `written` are both as the file had them when it was last looked at: only what is not that is news from others.
    """

    def __init__(self, *, id_token: str, refresh_token: str) -> None:
        self.lock = threading.Lock()
        self.id_token = id_token
        self.refresh_token = refresh_token
        self.written = (id_token, refresh_token)
        self.told = False

    def __repr__(self) -> str:
        return "OidcTokens(...)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Oidc:
    """An identity provider, and who we are to it."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    ca_file: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    file: Path
    """The kubeconfig that has the user."""
    user: str
    proxies: ProxyEnvironment
    tokens: OidcTokens


def early(end: datetime, life: timedelta) -> datetime:
    """When to renew what ends at `end`: a minute before, or of a short life the last fifth."""
    return end - min(EARLY, life / 5)


def renew_at(token: str) -> datetime | None:
    """When to refresh an id-token; None when it tells no end."""
    end, issued = expires_at(token), issued_at(token)
    if end is None:
        return None
    return end - EARLY if issued is None or issued >= end else early(end, end - issued)


def usable(token: str, now: datetime) -> bool:
    """Whether an id-token need not be refreshed yet."""
    moment = renew_at(token)
    return moment is not None and now < moment


async def refresh(oidc: Oidc, now: datetime, logger: Logger, *, stale: str | None = None) -> str:
    """Return an id-token that is valid, or at least another than `stale`.

    Args:
        oidc: Whose.
        now: The wall's time.
        logger: Hears when the kubeconfig can't be written.
        stale: An id-token that the API server has refused, whatever it says of itself.

    Raises:
        CredentialsError: There is none, and what the identity provider said.
    """
    try:
        async with asyncio.timeout(DEADLINE), _turn(oidc.tokens):
            return await _refresh(oidc, now, logger, stale)
    except TimeoutError:
        raise CredentialsError(f"{oidc.issuer}: no new id-token within {DEADLINE:g} s; is it reachable?") from None
    except (aiohttp.ClientError, OSError) as error:
        raise CredentialsError(f"{oidc.issuer}: no new id-token: {_words(error)}") from error


@asynccontextmanager
async def _turn(tokens: OidcTokens) -> AsyncIterator[None]:
    """Hold the lock, which a thread's event loop may wait for no other way than by looking again."""
    while not tokens.lock.acquire(blocking=False):  # noqa: ASYNC110 - as said
        await asyncio.sleep(_TURN)
    try:
        yield
    finally:
        tokens.lock.release()


async def _refresh(oidc: Oidc, now: datetime, logger: Logger, stale: str | None) -> str:
    from asyncctl.client.config.kubeconfig_tokens import read_tokens, write_tokens  # a pod needs no YAML

    tokens = oidc.tokens
    if tokens.id_token != stale and usable(tokens.id_token, now):
        return tokens.id_token  # another event loop has done it
    written = await anyio.to_thread.run_sync(read_tokens, oidc.file, oidc.user)
    if written is not None and written != tokens.written:  # another process has done it, or somebody has logged in
        tokens.id_token, tokens.refresh_token = tokens.written = written
        if tokens.id_token != stale and usable(tokens.id_token, now):
            return tokens.id_token
    if not tokens.refresh_token:
        raise CredentialsError(
            f"{oidc.file}: user {oidc.user!r}: the id-token has ended, and there is no refresh-token; log in again"
        )
    answer = await _ask(oidc)
    id_token, refresh_token = answer.get("id_token"), answer.get("refresh_token") or tokens.refresh_token
    if not isinstance(id_token, str) or not isinstance(refresh_token, str):
        raise CredentialsError(
            f"{oidc.issuer}: the answer to a refresh has no id_token; log in again with the scope openid, or use an "
            "exec plugin"
        )
    end = expires_at(id_token)
    if end is None or end <= now:
        raise CredentialsError(
            f"{oidc.issuer}: the new id-token has ended already; is the clock of this machine right?"
        )
    tokens.id_token, tokens.refresh_token = id_token, refresh_token
    problem = await anyio.to_thread.run_sync(write_tokens, oidc.file, oidc.user, id_token, refresh_token)
    if problem is None:
        tokens.written = (id_token, refresh_token)
    elif refresh_token != tokens.written[1] and not tokens.told:
        tokens.told = True
        logger.warning(
            "the new refresh-token could not be written to the kubeconfig; kubectl may have to log in again",
            file=str(oidc.file), user=oidc.user, cause=problem,
        )  # fmt: skip
    return id_token


async def _ask(oidc: Oidc) -> dict[str, object]:
    context = await anyio.to_thread.run_sync(_context, oidc)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_TIMEOUT,
        headers={"Accept": "application/json"},
    ) as session:
        discovery = f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, found = await _send(session, oidc, "GET", discovery)
        endpoint = found.get("token_endpoint")
        if status != 200 or not isinstance(endpoint, str):
            raise CredentialsError(f"{discovery}: answered {status} without a token_endpoint; check idp-issuer-url")
        if urlsplit(endpoint).scheme != "https":
            raise CredentialsError(f"{discovery}: its token_endpoint is not https; nothing was sent to it")
        form = {"grant_type": "refresh_token", "refresh_token": oidc.tokens.refresh_token}
        in_body = form | {"client_id": oidc.client_id}
        if oidc.client_secret:  # RFC 6749, 2.3.1: a header, with both parts in form encoding; some know the body only
            pair = f"{quote_plus(oidc.client_id)}:{quote_plus(oidc.client_secret)}".encode()
            login = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
            status, found = await _send(session, oidc, "POST", endpoint, form, login)
            in_body["client_secret"] = oidc.client_secret
            if 400 <= status < 500 and found.get("error") != "invalid_grant":
                status, found = await _send(session, oidc, "POST", endpoint, in_body)
        else:
            status, found = await _send(session, oidc, "POST", endpoint, in_body)
    if status != 200:
        said = ", ".join(str(found[key]) for key in ("error", "error_description") if found.get(key))
        hint = "; log in again" if found.get("error") == "invalid_grant" else ""
        raise CredentialsError(f"{oidc.issuer}: the refresh-token was answered with {status} {said}{hint}")
    return found


async def _send(
    session: aiohttp.ClientSession,
    oidc: Oidc,
    method: str,
    url: str,
    form: dict[str, str] | None = None,
    login: dict[str, str] | None = None,
) -> tuple[int, dict[str, object]]:
    """The answer's code, and its JSON object; none of it when it is something else."""
    try:
        proxy = oidc.proxies.choose(url)
    except ConfigError as error:
        raise CredentialsError(f"{oidc.issuer}: {error}") from error
    if proxy is not None and proxy.startswith("socks5"):
        raise CredentialsError(f"{oidc.issuer}: HTTPS_PROXY is a socks5 proxy, which can't be used here; set NO_PROXY")
    follow = method == "GET"  # never with a secret
    async with session.request(
        method, url, data=form, headers=login, proxy=proxy, allow_redirects=follow, max_redirects=5
    ) as response:
        body = bytearray()
        async for chunk in response.content.iter_chunked(65536):
            body += chunk
            if len(body) > _LARGEST:
                raise CredentialsError(f"{url}: the answer has more than {_LARGEST // 2**20} MiB")
    try:
        found = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        return response.status, {}
    return response.status, found if isinstance(found, dict) else {}


def _context(oidc: Oidc) -> ssl.SSLContext:
    try:
        return verifying_context(Path(oidc.ca_file).read_bytes() if oidc.ca_file is not None else oidc.ca_data)
    except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
        where = f"idp-certificate-authority {oidc.ca_file}" if oidc.ca_file else "idp-certificate-authority-data"
        raise CredentialsError(f"{oidc.issuer}: the CA of {where} can't be used: {error}") from error


def _words(error: Exception) -> str:
    """What went wrong with TLS or a file, and what to do."""
    cause: BaseException | None = error
    while cause is not None and (isinstance(cause, aiohttp.ClientError) or not isinstance(cause, ssl.SSLError)):
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        said = cause.verify_message.rstrip(".")
        return f"its certificate is not trusted ({said}); {_FIXES.get(cause.verify_code, _OTHER_CA)}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS has failed ({(cause.reason or str(cause)).replace('_', ' ').lower()}); is idp-issuer-url right?"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.host}:{error.port} can't be connected to: {error.strerror}"
    return str(error)

"""TLS towards the API server: the context, and what its failures mean in words a person can act on."""

import ssl

import aiohttp
import anyio.to_thread

from asyncctl.client.config import ClusterConfig
from asyncctl.client.errors import TLSError

_VERIFY_HINTS = {
    10: "the server's certificate has expired; renew it, or check this machine's clock",
    9: "the server's certificate is not valid yet; check this machine's clock",
    18: "the server's certificate is self-signed and not among the trusted CAs; check certificate-authority",
    19: "the server's certificate is signed by a CA that is not trusted; check certificate-authority",
    20: "the server's certificate is signed by a CA that is not trusted; check certificate-authority",
    62: "the server's certificate is for another host; use the name it was made for, or set tls-server-name",
    64: "the server's certificate is for another address; use the name it was made for, or set tls-server-name",
}  # the X509_V_ERR_* codes of OpenSSL


def make_context(config: ClusterConfig) -> ssl.SSLContext | None:
    """The context for `config`, or None for plain HTTP. Reads files: call it in a thread.

    Raises:
        TLSError: A CA, certificate or key file is missing, broken, or does not belong to the other.
    """
    if not config.server.startswith("https:"):
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise TLSError(f"the CA file {config.ca_file} can't be used: {error}") from error
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_certificate:
        if not config.client_key:
            raise TLSError(f"the client certificate {config.client_certificate} has no key; set client-key")
        try:
            context.load_cert_chain(config.client_certificate, config.client_key)
        except (OSError, ssl.SSLError) as error:
            raise TLSError(
                f"the client certificate {config.client_certificate} and key {config.client_key} can't be used "
                f"together: {error}"
            ) from error
    return context


def explain(server: str, error: BaseException) -> str | None:
    """What TLS has to do with `error`, found along its causes; None when it is not the trouble."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, aiohttp.ClientError):
            pass  # aiohttp's own are of ssl's classes, but have none of their attributes
        elif isinstance(seen, ssl.SSLCertVerificationError):
            hint = _VERIFY_HINTS.get(seen.verify_code, seen.verify_message)
            return f"{server}: {hint}"
        elif isinstance(seen, ssl.SSLError):
            if seen.reason == "WRONG_VERSION_NUMBER":
                return f"{server}: the server speaks plain HTTP on this port; use http://, or the TLS port"
            return f"{server}: TLS has failed: {seen.reason or seen}"
        seen = seen.__cause__ or seen.__context__
    return None


class ClientTLS:
    def __init__(self, config, clock, logger):
        self._config = config
        self._made = False

    async def context(self, certificate):
        if not self._made:
            self._context = await anyio.to_thread.run_sync(make_context, self._config)
            self._made = True
        return self._context

"""How the way to the server is protected, and until when the certificates on both its ends are good."""

from datetime import datetime
from urllib.parse import urlsplit

import anyio.to_thread

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import TLSError
from asyncctl.client.tls.certificates import Certificate, read_pem
from asyncctl.client.tls.pem import authority, client_pair
from asyncctl.client.transport.peer import server_certificate
from asyncctl.objects.json import JsonObject
from asyncctl.operator.checking import Row, State

EXPIRES_SOON = 7  # days


async def check_tls(config: ClusterConfig, now: datetime) -> Row:
    """Say how a server that was reached is verified; one that is not trusted was not reached."""
    if not config.server.startswith("https:"):
        return _plain(urlsplit(config.server).hostname or "")
    details: JsonObject = {"encrypted": True, "verified": config.verify}
    state = State.OK
    if config.verify:
        ca = authority(config)
        details["ca"] = str(ca) if ca is not None else "the machine's CAs"
        said = [f"verified by {details['ca']}"]
    else:
        state = State.WARNING
        said = ["not verified (insecure-skip-tls-verify): anyone on the way can pose as the server; set its CA instead"]
    ours = await anyio.to_thread.run_sync(_own_certificate, config)
    for name, whose, certificate in (
        ("certificate", "the server's certificate", await server_certificate(config)),
        ("clientCertificate", "our certificate", ours),
    ):
        if certificate is None:
            continue
        details[name] = {
            "subject": certificate.subject, "issuer": certificate.issuer, "names": list(certificate.names),
            "expires": certificate.not_after.isoformat(),
        }  # fmt: skip
        days = (certificate.not_after - now).days
        end = f"{certificate.not_after:%Y-%m-%d %H:%M} UTC"
        when = f"expires {end}, in {days} days" if days >= 0 else f"has expired, {end}"
        said.append(f"{whose} {certificate.subject} {when}")
        if days < EXPIRES_SOON:
            state = State.WARNING
            said[-1] += ": renew it"
    return Row("tls", state, "; ".join(said), details)


def _plain(host: str) -> Row:
    if host in {"localhost", "::1"} or host.startswith("127."):
        return Row("tls", State.OK, "plain HTTP, on this machine", {"encrypted": False})
    text = "plain HTTP: everybody on the way can read and change what is sent; use an https:// address"
    return Row("tls", State.WARNING, text, {"encrypted": False})


def _own_certificate(config: ClusterConfig) -> Certificate | None:
    """That of the configuration; an exec plugin's is short-lived, and renewed by the plugin."""
    chain, _ = client_pair(config, None)
    try:
        return read_pem(chain.read())[0] if chain is not None else None
    except (TLSError, ValueError):  # OpenSSL, which has taken it, is the judge
        return None

"""What can go wrong between us and the API server, as one tree.

`StatusError` is an answer of the server (its `Status`); `TransportError` means that there was no answer; `ConfigError`
means that nobody could even be asked, `CredentialsError` that there is nothing to ask as; `Fenced` means that this
process may not write any more. Each says what happened, to which object, and what to do. Nothing here is ever raised
for a bug of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import orjson

from asyncctl.objects.json import JsonObject


class KubernetesError(Exception):
    """The root of every error that talking to the API server can raise."""


class ConfigError(KubernetesError):
    """No usable cluster configuration; the text names each place that was looked at and what was missing there."""


class CredentialsError(KubernetesError):
    """No credential now: the plugin, identity provider or token file that the text names has none; tried again."""


class Fenced(KubernetesError):
    """A write was refused because this process no longer holds its Lease: here before it was sent, or by the server."""


class TransportError(KubernetesError):
    """The request got no answer: refused, reset, timed out. `sent` tells whether the server may have seen it."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class TLSError(TransportError):
    """The connection is refused for a reason of TLS; the text names the host or file and the fix."""

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message, sent=sent)


class BadServerCertificate(TLSError):
    """What the server showed of itself is not trusted."""


class UnknownAuthority(BadServerCertificate):
    """The server's certificate is signed by a CA that is not among the trusted ones."""


class SelfSignedCertificate(UnknownAuthority):
    """The server signed its certificate itself, and it is not among the trusted ones."""


class CertificateExpired(BadServerCertificate):
    """The server's certificate, or one that it rests on, has ended; or this machine's clock is wrong."""


class CertificateNotYetValid(BadServerCertificate):
    """The server's certificate, or one that it rests on, begins later; or this machine's clock is wrong."""


class HostnameMismatch(BadServerCertificate):
    """The server's certificate was made for other hosts than the one that was asked for."""


class BadCertificateFile(TLSError):
    """A CA, certificate or key of ours, in a file or in a kubeconfig, can't be used."""


class ClientKeyMissing(BadCertificateFile):
    """There is a client certificate, but not the key that belongs to it."""


class ClientKeyMismatch(BadCertificateFile):
    """The client key belongs to another certificate."""


class ClientKeyEncrypted(BadCertificateFile):
    """The client key wants a passphrase, which a daemon can't type."""


class ClientCertificateRefused(TLSError):
    """The server demands a client certificate, or does not accept ours."""


class PlainHTTP(TLSError):
    """The server does not speak TLS on a port where we do."""


class TLSRequired(TLSError):
    """The server speaks TLS on a port where we do not."""


class ProtocolMismatch(TLSError):
    """The server and we have no version of TLS, no cipher suite or no application protocol in common."""


class HandshakeInterrupted(TLSError):
    """The connection was closed or reset in the middle of the handshake."""


class HandshakeTimeout(TLSError):
    """The server did not go on with the handshake."""


class StreamError(KubernetesError):
    """A watch stream broke: a line that is not JSON, or an end in the middle of one."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request was about, for error texts and logs."""

    verb: str
    resource: str
    namespace: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource} {where}".rstrip()


class StatusError(KubernetesError):
    """The API server said no. `reason` and `code` are its own; `causes` are (reason, message, field)."""

    reason: ClassVar[str] = ""
    body: bytes = b""
    """The answer as it came; empty for a refusal of our own."""
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, target: Target, code: int, status: JsonObject, *, retry_after: float | None = None, audit_id: str = ""
    ) -> None:
        self.target = target
        self.code = code
        self.server_reason = str(status.get("reason") or "")
        self.server_message = str(status.get("message") or "")
        details = status.get("details")
        self.details: JsonObject = details if isinstance(details, dict) else {}
        self.retry_after = retry_after
        self.audit_id = audit_id
        super().__init__(f"{target}: {code} {self.server_reason or type(self).__name__}: {self.server_message}")

    @property
    def causes(self) -> list[tuple[str, str, str]]:
        """Each cause as (reason, message, field path)."""
        found = self.details.get("causes")
        return [
            (str(cause.get("reason", "")), str(cause.get("message", "")), str(cause.get("field", "")))
            for cause in (found if isinstance(found, list) else [])
            if isinstance(cause, dict)
        ]


class BadRequest(StatusError):
    """400: the request makes no sense to the server."""

    reason = "BadRequest"


class Unauthorized(StatusError):
    """401: the credentials are not accepted."""

    reason = "Unauthorized"


class Forbidden(StatusError):
    """403: authenticated, but not allowed."""

    reason = "Forbidden"


class NamespaceBoundaryExceeded(Forbidden):
    """The request is outside of `ASYNCCTL_NAMESPACES`; it was never sent. Not to be taken for `NotFound`."""

    reason = "NamespaceBoundaryExceeded"


class NotFound(StatusError):
    """404: there is no such object, or no such kind."""

    reason = "NotFound"


class Conflict(StatusError):
    """409: the object has changed since it was read; or, for a JSON Patch, its `test` failed."""

    reason = "Conflict"


class AlreadyExists(StatusError):
    """409: an object of that name is there already."""

    reason = "AlreadyExists"


class ApplyConflict(StatusError):
    """409 of a server-side apply: other managers own fields that we want (the causes name them)."""

    reason = "ApplyConflict"


class Gone(StatusError):
    """410: the resourceVersion or continue token is no longer in the server's memory."""

    reason = "Gone"


class Expired(Gone):
    """410 as list and watch say it."""

    reason = "Expired"


class Invalid(StatusError):
    """422: the object breaks a rule of its schema; `causes` name the fields."""

    reason = "Invalid"


class TooManyRequests(StatusError):
    """429: the server asks to come back later; `retry_after` is in seconds."""

    reason = "TooManyRequests"


class ServerError(StatusError):
    """5xx, or a reply that is no Status at all (an HTML page of a proxy)."""

    reason = "InternalError"


class ServerTimeout(ServerError):
    """The server could not answer in time."""

    reason = "ServerTimeout"


class ServiceUnavailable(ServerError):
    """503: the server is there, but not serving."""

    reason = "ServiceUnavailable"


_BY_REASON: Mapping[str, type[StatusError]] = {
    kind.reason: kind
    for kind in (
        BadRequest, Unauthorized, Forbidden, NotFound, Conflict, AlreadyExists, Gone, Expired, Invalid,
        TooManyRequests, ServerError, ServerTimeout, ServiceUnavailable,
    )
} | {"Timeout": ServerTimeout}  # fmt: skip
_BY_CODE: Mapping[int, type[StatusError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone, 422: Invalid,
    429: TooManyRequests, 503: ServiceUnavailable, 504: ServerTimeout,
}  # fmt: skip

_FENCE_MARK = "asyncctl-fenced:"  # how the shipped admission policy begins its refusal


def error_from_reply(
    target: Target, code: int, body: bytes, headers: Mapping[str, str], *, json_patch: bool = False
) -> KubernetesError:
    """The error for an answer of 400 and above, or for a `Status` that came where an object was asked for.

    A body that is no Status keeps its first 200 characters in the message. `json_patch`: the server answers a failed
    `test` with 422 and no causes, which means what a 409 means.
    """
    error = _error(target, code, body, headers, json_patch=json_patch)
    if isinstance(error, StatusError):
        error.body, error.headers = body, headers
    return error


def _error(target: Target, code: int, body: bytes, headers: Mapping[str, str], *, json_patch: bool) -> KubernetesError:
    status = _status(body)
    said = (status or {}).get("code")
    code = said if isinstance(said, int) and said >= 400 else code  # the ERROR event of a watch comes with 200
    if status is None:
        start = body[:200].decode(errors="replace").strip() or "(empty body)"
        status = {"message": f"the reply is not a Kubernetes Status: {start}"}
        kind = _BY_CODE.get(code, ServerError) if code in {401, 403, 404, 429} else ServerError
    else:
        by_code = _BY_CODE.get(code, StatusError if 400 <= code < 500 else ServerError)
        kind = _BY_REASON.get(str(status.get("reason")), by_code)
    error = kind(target, code, status, retry_after=_retry_after(status, headers), audit_id=headers.get("Audit-Id", ""))
    if isinstance(error, Forbidden) and _FENCE_MARK in error.server_message:
        return Fenced(f"{target}: {error.server_message}")
    if isinstance(error, Conflict) and any(reason == "FieldManagerConflict" for reason, _, _ in error.causes):
        return ApplyConflict(target, code, status, audit_id=error.audit_id)
    if json_patch and isinstance(error, Invalid) and not error.causes:
        return Conflict(target, code, status, audit_id=error.audit_id)
    return error


def not_an_object(target: Target, body: bytes) -> ServerError:
    """The error for an answer of success that is not what was asked for: a page of a proxy, a list, a Status."""
    start = body[:200].decode(errors="replace").strip() or "(empty body)"
    return ServerError(target, 200, {"message": f"the reply is not a Kubernetes object of that kind: {start}"})


def boundary_error(
    target: Target, namespaces: tuple[str, ...], *, namespaced: bool = True
) -> NamespaceBoundaryExceeded:
    """The refusal of a request outside of the namespaces this process may touch."""
    allowed = ", ".join(namespaces)
    if namespaced:
        where = f"namespace {target.namespace!r}" if target.namespace else "all namespaces"
        message = f"{where} is outside of ASYNCCTL_NAMESPACES ({allowed}); add it there, and its Role and RoleBinding"
    else:
        message = (
            f"{target.resource} are in no namespace, and so outside of ASYNCCTL_NAMESPACES ({allowed}) unless a "
            "controller declares them; declare it in reads="
        )
    return NamespaceBoundaryExceeded(target, 403, {"reason": "NamespaceBoundaryExceeded", "message": message})


def _status(body: bytes) -> JsonObject | None:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else None


def _retry_after(status: JsonObject, headers: Mapping[str, str]) -> float | None:
    details = status.get("details")
    wanted = headers.get("Retry-After") or (details.get("retryAfterSeconds") if isinstance(details, dict) else None)
    try:
        return float(wanted) if wanted is not None else None
    except (TypeError, ValueError):  # an HTTP date: no API server sends one
        return None

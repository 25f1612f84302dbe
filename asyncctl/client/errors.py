"""What can go wrong between us and the API server, as one tree.

`StatusError` is an answer of the server (its `Status`); `TransportError` means that there was no answer; `ConfigError`
means that nobody could even be asked, `CredentialsError` that there is nothing to ask as; `Fenced` means that this
process may not write any more. Each says what happened, to which object, and what to do. Nothing here is ever raised
for a bug of ours.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from asyncctl.client.reply import START, TEXT, retry_after, start_of, status_of, visible, without_values
from asyncctl.client.target import Target
from asyncctl.objects.json import JsonObject

__all__ = [
    "AlreadyExists",
    "ApplyConflict",
    "BadCertificateFile",
    "BadRequest",
    "BadServerCertificate",
    "Cause",
    "CertificateExpired",
    "CertificateNotYetValid",
    "ClientCertificateRefused",
    "ClientKeyEncrypted",
    "ClientKeyMismatch",
    "ClientKeyMissing",
    "ConfigError",
    "Conflict",
    "CredentialsError",
    "DisruptionBudgetExceeded",
    "Expired",
    "Fenced",
    "Forbidden",
    "Gone",
    "HandshakeInterrupted",
    "HandshakeTimeout",
    "HostnameMismatch",
    "Invalid",
    "KubernetesError",
    "MethodNotAllowed",
    "NamespaceBoundaryExceeded",
    "NotAcceptable",
    "NotFound",
    "PlainHTTP",
    "ProtocolMismatch",
    "RequestEntityTooLarge",
    "SelfSignedCertificate",
    "ServerError",
    "ServerTimeout",
    "ServiceUnavailable",
    "StatusError",
    "StreamError",
    "TLSError",
    "TLSRequired",
    "Target",
    "TooManyRequests",
    "TransportError",
    "Unauthorized",
    "UnknownAuthority",
    "UnsupportedMediaType",
]

_NO_SUCH_PATH = b"404 page not found"  # Go's own words


class KubernetesError(Exception):
    """The root of every error that talking to the API server can raise."""


class ConfigError(KubernetesError):
    """No usable cluster configuration; the text names each place that was looked at and what was missing there."""


class CredentialsError(KubernetesError):
    """No credential now: the plugin, identity provider or token file that the text names has none; tried again."""


class Fenced(KubernetesError):
    """A write was refused because this process does not hold its Lease.

    `by_server` tells who has refused it: False where it was not sent, or not waited for, by this process's own clock;
    True where the API server's admission policy did (`asyncctl.generate.fence`), which has not acted on it.
    """

    def __init__(self, message: str, *, by_server: bool = False) -> None:
        super().__init__(message)
        self.by_server = by_server


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


class Cause(NamedTuple):
    """One thing that is wrong: such as `FieldValueInvalid`, in words, and the path of the field."""

    reason: str
    message: str
    field: str


class StatusError(KubernetesError):
    """The API server said no, or said something that is no answer.

    Attributes:
        target: What was asked for.
        code: The HTTP status, or the one that an event of a watch carries.
        server_reason: The `Status.reason`, empty where there is none.
        server_message: The `Status.message`.
        details: The `Status.details`.
        retry_after: Seconds after which the server wants to be asked again.
        audit_id: Under which the request is in the API server's audit log.
        body: The answer as it came; empty for a refusal of our own.
        headers: Of the answer.
    """

    reason: ClassVar[str] = ""
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        target: Target,
        code: int,
        status: JsonObject,
        *,
        retry_after: float | None = None,
        audit_id: str = "",
        body: bytes = b"",
    ) -> None:
        self.target = target
        self.code = code
        self.server_reason = str(status.get("reason") or "")
        message = str(status.get("message") or "")
        self.server_message = without_values(message) if target.is_secret else message
        details = status.get("details")
        self.details: JsonObject = details if isinstance(details, dict) else {}
        self.retry_after = retry_after
        self.audit_id = audit_id
        self.body = body
        said = visible(self.server_message, TEXT, keep="\n\t") or "(no message)"
        shown = visible(self.server_reason, START) or type(self).__name__
        super().__init__(f"{target}: {code} {shown}: {said}{self._advice()}")

    @property
    def causes(self) -> list[Cause]:
        """What is wrong, one by one, where the server says so."""
        found = self.details.get("causes")
        shown = without_values if self.target.is_secret else str
        return [
            Cause(*(shown(str(cause.get(key) or "")) for key in ("reason", "message", "field")))
            for cause in (found if isinstance(found, list) else [])
            if isinstance(cause, dict)
        ]

    def _advice(self) -> str:
        """What to do, to be appended to the text."""
        return ""


class BadRequest(StatusError):
    """400: the request makes no sense to the server."""

    reason = "BadRequest"


class Unauthorized(StatusError):
    """401: the credentials are not accepted."""

    reason = "Unauthorized"

    def _advice(self) -> str:
        return (
            "; the credential is not accepted: has it expired, or is it of another cluster? `asyncctl check` shows "
            "which is used"
        )


class Forbidden(StatusError):
    """403: authenticated, but not allowed. Where it is RBAC that refuses, the text has the rule that would allow it.

    A quota or an admission webhook refuses with 403 too; no rule helps there, and none is proposed.
    """

    reason = "Forbidden"

    def _advice(self) -> str:
        # what every authoriser's refusal looks like: apiserver/pkg/endpoints/handlers/responsewriters/errors.go
        refused = re.search(r'cannot \S+ (resource|path) "', self.server_message)
        return f"; {self.target.permission()}" if refused else ""


class NamespaceBoundaryExceeded(Forbidden):
    """The request is outside of `ASYNCCTL_NAMESPACES`; it was never sent. Not to be taken for `NotFound`."""

    reason = "NamespaceBoundaryExceeded"

    def _advice(self) -> str:
        return ""


class NotFound(StatusError):
    """404: there is no such object; or no such kind is served (`no_such_kind`)."""

    reason = "NotFound"

    @property
    def no_such_kind(self) -> bool:
        """Whether the server knows no such path: no object is named, a definition or a version is missing."""
        # a group that it knows, and one that it has never heard of
        return not self.target.is_path and (
            self.server_message == "the server could not find the requested resource"
            or self.body.strip() == _NO_SUCH_PATH
        )

    def _advice(self) -> str:
        if self.details.get("kind") == "namespaces" and self.target.plural != "namespaces":
            return "; create the namespace first"
        if not self.no_such_kind:
            return ""
        resource, group = self.target.resource.partition("/")[0], self.target.group
        if "." not in group or group.endswith(".k8s.io"):
            return f"; this server does not serve {self.target.resource} in that version; is it older or newer?"
        return f"; install the CustomResourceDefinition {resource}, or ask for a version that it serves"


class Conflict(StatusError):
    """409: the object has changed since it was read; or, for a JSON Patch, its `test` failed.

    The change may be our own: when the answer to a write with a resourceVersion is lost, the transport repeats it, and
    the repeat of what was done already is refused with this. Either way: read again, and look.
    """

    reason = "Conflict"


class AlreadyExists(StatusError):
    """409: an object of that name is there already."""

    reason = "AlreadyExists"


class ApplyConflict(StatusError):
    """409 of a server-side apply: other managers own fields that we want (the causes name them)."""

    reason = "ApplyConflict"


class MethodNotAllowed(StatusError):
    """405: the resource has no such verb."""

    reason = "MethodNotAllowed"


class NotAcceptable(StatusError):
    """406: the server can't answer in the form that was asked for."""

    reason = "NotAcceptable"


class RequestEntityTooLarge(StatusError):
    """413: the object is larger than the server takes (3 MiB, and 1.5 MiB for etcd)."""

    reason = "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    """415: the server can't read such a body; a strategic merge patch of a custom resource is one."""

    reason = "UnsupportedMediaType"


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


class DisruptionBudgetExceeded(TooManyRequests):
    """429 of an eviction: a PodDisruptionBudget does not let the pod go now. The server is not overloaded."""

    reason = "DisruptionBudget"

    def _advice(self) -> str:
        budgets = " ".join(cause.message for cause in self.causes if cause.reason == self.reason).rstrip(".")
        return f" {visible(budgets, TEXT)}; wait until more of its pods are healthy, or change the PodDisruptionBudget"


class ServerError(StatusError):
    """5xx, or a reply that is no Status at all (an HTML page of a proxy)."""

    reason = "InternalError"


class ServerTimeout(ServerError):
    """The server could not answer in time."""

    reason = "ServerTimeout"


class ServiceUnavailable(ServerError):
    """503: the server is there, but not serving."""

    reason = "ServiceUnavailable"


_KINDS = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, AlreadyExists, Gone,
    Expired, RequestEntityTooLarge, UnsupportedMediaType, Invalid, TooManyRequests, ServerError, ServerTimeout,
    ServiceUnavailable,
)  # fmt: skip
_BY_REASON: Mapping[str, type[StatusError]] = {kind.reason: kind for kind in _KINDS} | {"Timeout": ServerTimeout}
_BY_CODE: Mapping[int, type[StatusError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 406: NotAcceptable,
    409: Conflict, 410: Gone, 413: RequestEntityTooLarge, 415: UnsupportedMediaType, 422: Invalid, 429: TooManyRequests,
    503: ServiceUnavailable, 504: ServerTimeout,
}  # fmt: skip
# What these mean is plain, whoever on the way has said it. Not 404: for a clean-up it would mean that all is done.
_SURE = frozenset({401, 403, 413, 415, 429})

FENCE_MARK = "asyncctl-fenced:"  # how the shipped admission policy begins its refusal


def error_from_reply(
    target: Target, code: int, body: bytes, headers: Mapping[str, str], *, json_patch: bool = False
) -> KubernetesError:
    """The error for an answer of 300 and above, or for a `Status` that came where an object was asked for.

    Args:
        target: What was asked for.
        code: The HTTP status of the answer; the ERROR event of a watch, which comes with 200, says its own.
        body: The answer. One that is no Status keeps its start in the text.
        headers: Of the answer: `Retry-After`, `Date`, `Audit-Id`.
        json_patch: The server answers a failed `test` with 422 and no causes, which means what a 409 means.
    """
    error = _error(target, code, body, headers, json_patch=json_patch)
    if isinstance(error, StatusError):
        error.headers = headers
    return error


def _error(target: Target, code: int, body: bytes, headers: Mapping[str, str], *, json_patch: bool) -> KubernetesError:
    status = status_of(body)
    said = (status or {}).get("code")
    code = said if isinstance(said, int) and 400 <= said < 600 else code
    if status is None:
        unknown = body.strip() == _NO_SUCH_PATH
        said = "the server has no such path" if unknown else f"the reply is not a Kubernetes Status: {start_of(body)}"
        if location := headers.get("Location"):
            said = f"something on the way wants to send us to {visible(location, TEXT)}; {said}"
        status = {"message": said}
        kind = _BY_CODE.get(code, ServerError) if code in _SURE or unknown else ServerError
    else:
        by_code = _BY_CODE.get(code, StatusError if 400 <= code < 500 else ServerError)
        kind = _BY_REASON.get(str(status.get("reason")), by_code)
    error = kind(
        target, code, status, retry_after=retry_after(status, headers), audit_id=headers.get("Audit-Id", ""), body=body
    )
    reasons = {cause.reason for cause in error.causes}
    if isinstance(error, Forbidden) and FENCE_MARK in error.server_message:
        return Fenced(f"{target}: {visible(error.server_message, TEXT)}", by_server=True)
    if isinstance(error, Conflict) and "FieldManagerConflict" in reasons:
        kind = ApplyConflict
    elif isinstance(error, TooManyRequests) and DisruptionBudgetExceeded.reason in reasons:
        kind = DisruptionBudgetExceeded
    elif json_patch and isinstance(error, Invalid) and not reasons:
        kind = Conflict
    else:
        return error
    return kind(target, code, status, retry_after=error.retry_after, audit_id=error.audit_id, body=body)


def not_an_object(target: Target, body: bytes, error: Exception | None = None) -> ServerError:
    """The error for an answer of success that is not what was asked for: a page of a proxy, a list, a Status.

    `error` is what reading it raised. Secrets and tokens are not quoted.
    """
    hidden = target.plural == "secrets" or target.subresource == "token"
    start = "(not shown, since it may be a secret)" if hidden else start_of(body)
    what = "nested too deeply" if isinstance(error, RecursionError) else "not a Kubernetes object of that kind"
    message = f"the reply is {what}: {start}"
    return ServerError(target, 200, {"message": message}, body=body)


def boundary_error(
    target: Target, namespaces: tuple[str, ...], *, namespaced: bool | None = True
) -> NamespaceBoundaryExceeded:
    """The refusal of a request outside of the namespaces this process may touch.

    Args:
        target: What was asked for.
        namespaces: Those that may be touched.
        namespaced: Whether its kind is in namespaces; None when nobody knows.
    """
    boundary = f"outside of ASYNCCTL_NAMESPACES ({', '.join(namespaces)})"
    if target.namespace:
        message = f"namespace {target.namespace!r} is {boundary}; add it there, and its Role and RoleBinding"
    elif namespaced is False:
        message = (
            f"{target.resource} are in no namespace, and so {boundary} unless a controller declares them; "
            "declare it in reads="
        )
    else:
        message = f"all namespaces is {boundary}; name one of these in the request, or unset ASYNCCTL_NAMESPACES"
        if namespaced is None:
            message += f"; or, if {target.resource} are in no namespace, let a controller declare them in reads="
    return NamespaceBoundaryExceeded(target, 403, {"reason": "NamespaceBoundaryExceeded", "message": message})

"""Errors between kubernetes-asyncio and us: ours as its `ApiException`, and the way back for the queue.

kubernetes-asyncio is imported inside functions only, and not at all by `as_ours`: where it was never imported, no error
is one of its own.
"""

import sys
from collections.abc import Mapping
from typing import NoReturn

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from asyncctl.client.bridge.answer import phrase
from asyncctl.client.errors import KubernetesError, StatusError, Target, error_from_reply


def as_ours(error: Exception) -> Exception:
    """The error of ours that an `ApiException` stands for; any other error as it is.

    One that was made elsewhere (by kubernetes-asyncio's `Watch`, or by an `ApiClient` of the author's own) becomes what
    its status and body would have become here.
    """
    exceptions = sys.modules.get("kubernetes_asyncio.client.exceptions")  # not imported: then it is none of them
    known: type[Exception] | None = getattr(exceptions, "ApiException", None)
    if known is None or not isinstance(error, known):
        return error
    cause: BaseException | None = error
    while cause is not None and isinstance(cause, known):
        cause = cause.__cause__
    if isinstance(cause, KubernetesError):
        return cause
    code, body = getattr(error, "status", None), getattr(error, "body", None)
    if not isinstance(code, int) or code < 400:
        return error
    if not body:
        body = _status_body(code, "", str(getattr(error, "reason", "")), {})
    headers = getattr(error, "headers", None) or {}
    ours = error_from_reply(Target("call", "kubernetes-asyncio"), code, _bytes(body), headers)
    ours.__cause__ = error
    return ours


def api_exception(error: StatusError) -> Exception:
    """The `ApiException` to raise from `error`: its status, its body as it came or as a `Status`, its headers."""
    from kubernetes_asyncio.client.exceptions import ApiException

    made = ApiException(status=error.code, reason=phrase(error.code) or error.server_reason)
    body = error.body or _status_body(error.code, error.server_reason, error.server_message, error.details)
    made.body = body.decode(errors="replace").encode()  # ApiClient decodes it, and would fail
    made.headers = CIMultiDictProxy(CIMultiDict(error.headers))
    return made


def refuse(message: str) -> NoReturn:
    """Raise what that library raises for a call that makes no sense."""
    from kubernetes_asyncio.client.exceptions import ApiValueError

    raise ApiValueError(message)


def _status_body(code: int, reason: str, message: str, details: Mapping[str, object]) -> bytes:
    return orjson.dumps(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
        | {"reason": reason, "message": message, "details": details}
    )


def _bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode(errors="replace")

"""The ways a request fails: one exception that is a `Status`, and a constructor for each reason the API server has.

Messages, reasons and details are those of the real kube-apiserver, to the letter: clients match on them. Nothing here
knows HTTP beyond the status code and the headers that belong to a failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncctl.apiserver.wire import JsonObject

TOO_OLD_WATCH = "The resourceVersion for the provided watch is too old."
TOO_OLD_LIST = "The resourceVersion for the provided list is too old."
TOO_OLD_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: a reason such as `FieldValueInvalid`, a message, and the field's path."""

    reason: str
    message: str
    field: str = ""

    def json(self) -> JsonObject:
        """Return the cause as it stands in `details.causes`."""
        body = {"reason": self.reason, "message": self.message, "field": self.field}
        return {key: value for key, value in body.items() if value}


class ApiError(Exception):
    """A request that failed. `text` replaces the Status by a plain body, as for unknown paths."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: JsonObject | None = None,
        headers: Mapping[str, str] | None = None,
        meta: JsonObject | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.meta = meta or {}
        self.text = text

    def status(self) -> JsonObject:
        """Return the `Status` object of this failure."""
        body: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.meta,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def details(kind: str, name: str = "", group: str = "", causes: Sequence[Cause] = (), uid: str = "") -> JsonObject:
    """Build `details`, leaving out what is empty. `kind` is the plural resource, but the Kind for Invalid."""
    body: JsonObject = {"name": name, "group": group, "kind": kind, "uid": uid}
    body["causes"] = [cause.json() for cause in causes]
    return {key: value for key, value in body.items() if value}


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """404: there is no such object."""
    message = f'{_qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=details(plural, name, group))


def no_such_path() -> ApiError:
    """404 as text: no such group, version or resource."""
    return ApiError(404, "NotFound", "404 page not found", text="404 page not found\n")


def no_such_resource() -> ApiError:
    """404: a built-in group has no such resource or subresource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(group: str, plural: str, name: str, *, terminating: bool = False) -> ApiError:
    """409: the name is taken, perhaps by an object that is going."""
    prefix = "object is being deleted: " if terminating else ""
    message = f'{prefix}{_qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=details(plural, name, group))


def conflict(group: str, plural: str, name: str, why: str = MODIFIED) -> ApiError:
    """409: the object is not the one the request was meant for. `plural` is the Kind for delete preconditions."""
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=details(plural, name, group))


def apply_conflict(causes: Sequence[Cause]) -> ApiError:
    """409: other managers own fields that an apply wants to change."""
    if len(causes) == 1:
        text = f"1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        by_manager: dict[str, list[str]] = {}
        for cause in causes:
            by_manager.setdefault(cause.message.removeprefix("conflict"), []).append(f"- {cause.field}")
        lines = [line for manager, paths in sorted(by_manager.items()) for line in (f"conflicts{manager}:", *paths)]
        text = f"{len(causes)} conflicts: " + "\n".join(lines)
    causes_json = [cause.json() for cause in causes]
    return ApiError(409, "Conflict", f"Apply failed with {text}", details={"causes": causes_json})


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422: the object breaks its kind's rules, each cause says one."""
    texts = [f"{cause.field}: {cause.message}" for cause in dict.fromkeys(causes)]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{_qualified(kind, group)} "{name}" is invalid: {text}'
    return ApiError(422, "Invalid", message, details=details(kind, name, group, causes))


def invalid_options(options: str, causes: Sequence[Cause]) -> ApiError:
    """422: the query of a request breaks the rules of `options`, such as `ListOptions`."""
    return invalid("meta.k8s.io", options, "", causes)


def bad_patch() -> ApiError:
    """422: a JSON patch could not be applied. The real server tells no more than this."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", details={})


def bad_request(message: str) -> ApiError:
    """400: the request makes no sense."""
    return ApiError(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    """403: the request is understood and refused."""
    subject = f'{_qualified(plural, group)} "{name}"' if name else _qualified(plural, group)
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", details=details(plural, name, group, causes))


def method_not_allowed() -> ApiError:
    """405: a built-in resource has no such verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def verb_not_supported(group: str, plural: str, verb: str) -> ApiError:
    """405: a custom resource has no such verb."""
    message = f'{verb} is not supported on resources of kind "{_qualified(plural, group)}"'
    return ApiError(405, "MethodNotAllowed", message, details=details(plural, group=group))


def not_acceptable(media_types: Sequence[str], *, custom: bool) -> ApiError:
    """406: the client accepts nothing the server can write. Built-in kinds are refused one layer further out."""
    names = ", ".join(media_types)
    if custom:
        return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {names}")
    streams = ", ".join(f"{name};stream=watch" for name in media_types if not name.endswith("yaml"))
    message = f"406: Not Acceptable\n\nAvailable representations: {names}, {streams}"
    return ApiError(406, "NotAcceptable", message, details={})


def wrong_form(form: str, go_type: str, *, is_list: bool) -> ApiError:
    """406: the metadata of an object was asked for and it is a list, or the other way round."""
    shown = "a list" if is_list else "not a list"
    return ApiError(406, "NotAcceptable", f"you requested {form}, but the requested object is {shown} ({go_type})")


def unsupported_media_type(media_types: Sequence[str]) -> ApiError:
    """415: the server cannot read the body."""
    names = ", ".join(media_types)
    message = f"the body of the request was in an unknown format - accepted media types include: {names}"
    return ApiError(415, "UnsupportedMediaType", message)


def protobuf_not_served() -> ApiError:
    """415: ours alone, since the real server reads it. `kubectl create KIND` sends it and tries nothing else."""
    message = (
        "this API server reads no protobuf yet, only JSON and YAML: "
        "with kubectl, add --dry-run=client --output=yaml to the command and pipe it into `kubectl apply -f -`"
    )
    return ApiError(415, "UnsupportedMediaType", message)


def unsupported_patch_type() -> ApiError:
    """415: a built-in kind has no such patch."""
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})


def too_large(limit: int) -> ApiError:
    """413: the body has more than `limit` bytes."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def expired(message: str, continuation: str = "") -> ApiError:
    """410: the history that was asked for is forgotten. `continuation` is a token that goes on inconsistently."""
    return ApiError(410, "Expired", message, meta={"continue": continuation} if continuation else None)


def too_old(asked: int, oldest: int) -> ApiError:
    """410: a watch from `asked` cannot be served, the history begins after `oldest`."""
    return expired(f"too old resource version: {asked} ({oldest})")


def too_large_version(asked: int, current: int) -> ApiError:
    """504: a read wants a resourceVersion that is not there yet."""
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
        headers={"Retry-After": "1"},
    )


def internal(message: str) -> ApiError:
    """500 with the reason InternalError: the server could not do it."""
    return ApiError(
        500, "InternalError", f"Internal error occurred: {message}", details={"causes": [{"message": message}]}
    )


def unclassified(message: str) -> ApiError:
    """500 without a reason: an error the real server never gave one."""
    return ApiError(500, "", message)

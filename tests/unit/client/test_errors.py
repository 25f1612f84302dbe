"""From what the server answered to the error of the tree."""

import orjson
import pytest

from asyncctl.client import errors
from asyncctl.client.errors import Target, boundary_error, error_from_reply

TARGET = Target("update", "configmaps", "team", "a")


def reply(code, body, headers=None, **options):
    content = orjson.dumps(body) if isinstance(body, dict) else body
    return error_from_reply(TARGET, code, content, headers or {}, **options)


def status(reason="", code=None, message="no", **details):
    body = {"kind": "Status", "reason": reason, "message": message, "details": details}
    return body if code is None else body | {"code": code}


@pytest.mark.parametrize(
    "code, reason, kind",
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.MethodNotAllowed),
        (405, "", errors.MethodNotAllowed),
        (406, "NotAcceptable", errors.NotAcceptable),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Gone", errors.Gone),
        (410, "Expired", errors.Expired),
        (413, "RequestEntityTooLarge", errors.RequestEntityTooLarge),
        (415, "UnsupportedMediaType", errors.UnsupportedMediaType),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (500, "ServerTimeout", errors.ServerTimeout),
        (503, "ServiceUnavailable", errors.ServiceUnavailable),
        (504, "Timeout", errors.ServerTimeout),
        (500, "", errors.ServerError),
        (599, "Whatever", errors.ServerError),
        (404, "", errors.NotFound),
        (418, "Whatever", errors.StatusError),
    ],
)
def test_reason_then_code_tell_the_kind(code, reason, kind):
    error = reply(code, status(reason))
    assert type(error) is kind
    assert error.code == code


def test_a_kind_of_error_says_who_what_and_why():
    cause = {"reason": "FieldValueInvalid", "message": "must be less than 10", "field": "spec.size"}
    error = reply(422, status("Invalid", message="bad size", causes=[cause]), {"Audit-Id": "audit"})
    assert str(error) == "update configmaps team/a: 422 Invalid: bad size"
    assert error.causes == [("FieldValueInvalid", "must be less than 10", "spec.size")]
    assert error.audit_id == "audit"


def test_a_field_manager_conflict_is_a_conflict_of_apply():
    causes = [{"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"', "field": ".data.a"}]
    error = reply(409, status("Conflict", causes=causes))
    assert type(error) is errors.ApplyConflict
    assert not isinstance(error, errors.Conflict)
    assert error.causes[0][2] == ".data.a"


def test_a_422_without_causes_is_a_conflict_for_a_json_patch_alone():
    assert type(reply(422, status("Invalid"), json_patch=True)) is errors.Conflict
    assert type(reply(422, status("Invalid"))) is errors.Invalid
    causes = [{"reason": "FieldValueInvalid", "field": "spec"}]
    assert type(reply(422, status("Invalid", causes=causes), json_patch=True)) is errors.Invalid


def test_the_fence_of_the_api_server():
    error = reply(403, status("Forbidden", message="denied request: asyncctl-fenced: pod b leads"))
    assert type(error) is errors.Fenced
    assert type(reply(403, status("Forbidden", message="no rights"))) is errors.Forbidden


@pytest.mark.parametrize(
    "code, kind",
    [(502, errors.ServerError), (403, errors.Forbidden), (404, errors.NotFound), (401, errors.Unauthorized),
     (429, errors.TooManyRequests), (400, errors.ServerError), (302, errors.ServerError)],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"<html><h1>Bad Gateway</h1>" + b"x" * 9999, b"", b"[]", b"\xff\xfe", b'{"kind":"Pod"}', b'"Status"']
)
def test_a_reply_that_is_no_status_is_never_taken_for_one(code, kind, body):
    error = reply(code, body)
    assert type(error) is kind
    assert "the reply is not a Kubernetes Status: " in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize("details", [None, [], "x", {"causes": "x"}, {"causes": [1, {"reason": None}]}])
def test_odd_details_are_no_trouble(details):
    error = reply(409, {"kind": "Status", "reason": "Conflict", "details": details})
    assert type(error) is errors.Conflict
    assert isinstance(error.causes, list)


def test_an_error_event_has_the_code_of_its_status():
    error = reply(500, status("", code=410))
    assert type(error) is errors.Gone
    assert error.code == 410


@pytest.mark.parametrize(
    "headers, details, expected",
    [
        ({"Retry-After": "7"}, {}, 7.0),
        ({}, {"retryAfterSeconds": 3}, 3.0),
        ({"Retry-After": "7"}, {"retryAfterSeconds": 3}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),
        ({}, {}, None),
    ],
)
def test_retry_after(headers, details, expected):
    assert reply(429, status("TooManyRequests", **details), headers).retry_after == expected


def test_the_boundary_is_a_forbidden_and_no_not_found():
    error = boundary_error(TARGET, ("a", "b"))
    assert isinstance(error, errors.Forbidden)
    assert not isinstance(error, errors.NotFound)
    assert (error.code, "namespace 'team' is outside of ASYNCCTL_NAMESPACES (a, b)" in str(error)) == (403, True)


def test_the_boundary_says_what_to_do_about_a_kind_that_is_in_no_namespace():
    error = boundary_error(Target("get", "namespaces", None, "team"), ("a", "b"), namespaced=False)
    assert "namespaces are in no namespace" in str(error)
    assert "declare it in reads=" in str(error)
    assert "all namespaces" not in str(error)

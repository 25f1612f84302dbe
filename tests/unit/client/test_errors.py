"""From what the server answered to the error of the tree."""

import orjson
import pytest
from hypothesis import example, given, strategies as st

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
    [(502, errors.ServerError), (403, errors.Forbidden), (404, errors.ServerError), (401, errors.Unauthorized),
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


def test_a_404_is_a_missing_object_only_if_the_api_server_says_so():
    """A page of a load balancer would let a clean-up believe that all is gone."""
    assert type(reply(404, b"<html>default backend - 404</html>")) is errors.ServerError
    assert type(reply(404, b"404 page not found\n")) is errors.NotFound
    assert type(reply(404, status("NotFound"))) is errors.NotFound


def test_a_redirect_says_where_to():
    error = errors.error_from_reply(errors.Target("get", "pods"), 302, b"", {"Location": "https://login.example.com/"})
    assert "something on the way wants to send us to https://login.example.com/" in str(error)


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
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),  # nothing to hold it against
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:10 GMT"}, {}, 50.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:29:00 GMT"}, {}, None),
        ({"Retry-After": "Wed, 99 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:29:00 GMT"}, {}, None),
        ({"Retry-After": "soon"}, {}, None),
        ({"Retry-After": "inf"}, {}, None),
        ({"Retry-After": "-1"}, {}, None),
        ({}, {"retryAfterSeconds": []}, None),
        ({}, {}, None),
    ],
)
def test_retry_after(headers, details, expected):
    assert reply(429, status("TooManyRequests", **details), headers).retry_after == expected


def test_a_401_says_what_to_do():
    error = reply(401, status("Unauthorized", message="Unauthorized"))
    assert str(error).endswith("has it expired, or is it of another cluster? `asyncctl check` shows which is used")


def test_the_boundary_is_a_forbidden_and_no_not_found():
    error = boundary_error(TARGET, ("a", "b"))
    assert isinstance(error, errors.Forbidden)
    assert not isinstance(error, errors.NotFound)
    assert (error.code, "namespace 'team' is outside of ASYNCCTL_NAMESPACES (a, b)" in str(error)) == (403, True)


def test_the_boundary_says_what_to_do_about_a_request_for_all_namespaces():
    error = str(boundary_error(Target("list", "pods"), ("a", "b")))
    assert error.endswith("(a, b); name one of these in the request, or unset ASYNCCTL_NAMESPACES")


def test_the_boundary_says_what_to_do_about_a_kind_that_is_in_no_namespace():
    error = boundary_error(Target("get", "namespaces", None, "team"), ("a", "b"), namespaced=False)
    assert "namespaces are in no namespace" in str(error)
    assert "declare it in reads=" in str(error)
    assert "all namespaces" not in str(error)


def test_an_error_has_what_the_server_said_whole():
    body = status("Invalid", message="x" * 9999, group="g")
    error = reply(422, body)
    assert error.server_message == "x" * 9999
    assert len(str(error)) < 5000
    assert error.details == {"group": "g"}
    assert orjson.loads(error.body) == body


RBAC = 'secrets "a" is forbidden: User "u" cannot get resource "secrets" in API group "" in the namespace "team"'


def test_what_rbac_refuses_comes_with_the_rule_that_would_allow_it():
    error = error_from_reply(
        Target("get", "secrets", "team", "a"), 403, orjson.dumps(status("Forbidden", message=RBAC)), {}
    )
    assert str(error) == (
        f"get secrets team/a: 403 Forbidden: {RBAC}; a Role in namespace team would allow it with the rule "
        '{apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: ["a"]}, bound to this user by a '
        "RoleBinding"
    )


@pytest.mark.parametrize(
    "message",
    [
        'pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
        'admission webhook "x" denied the request: resource "secrets" cannot be touched',
        'pods "a" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can\'t set',
        'roles "a" is forbidden: user "u" is attempting to grant RBAC permissions not currently held',
        "",
    ],
)
def test_no_rule_is_proposed_where_none_would_help(message):
    assert "would allow it" not in str(reply(403, status("Forbidden", message=message)))


def not_found(target, body):
    return error_from_reply(target, 404, body if isinstance(body, bytes) else orjson.dumps(body), {})


WIDGET = Target("get", "widgets.example.com", "team", "a")


def test_no_such_object_is_no_matter_of_kinds():
    body = status("NotFound", message='widgets.example.com "a" not found', kind="widgets", name="a")
    error = not_found(WIDGET, body)
    assert not error.no_such_kind
    assert str(error).endswith('"a" not found')


@pytest.mark.parametrize(
    "body", [b"404 page not found\n", status("NotFound", message="the server could not find the requested resource")]
)
def test_no_such_kind_says_what_to_install(body):
    error = not_found(WIDGET, body)
    assert error.no_such_kind
    assert str(error).endswith(
        "; install the CustomResourceDefinition widgets.example.com, or ask for a version that it serves"
    )
    assert "does not serve leases.coordination.k8s.io" in str(
        not_found(Target("get", "leases.coordination.k8s.io"), body)
    )
    assert not not_found(Target("get", "/nowhere"), body).no_such_kind


def test_a_404_of_somebody_else_says_nothing_of_kinds():
    error = not_found(WIDGET, status("NotFound", message="the webhook says no"))
    assert type(error) is errors.NotFound
    assert not error.no_such_kind


def test_a_missing_namespace_is_the_one_to_create():
    body = status("NotFound", message='namespaces "team" not found', kind="namespaces", name="team")
    assert str(not_found(Target("create", "pods", "team", "a"), body)).endswith("; create the namespace first")
    assert str(not_found(Target("get", "namespaces", None, "team"), body)).endswith("not found")


def test_nothing_in_a_reply_can_hide_or_move_what_is_shown():
    nasty = "\x1b[2J\r\u202eevil\x00"
    for error in (reply(500, nasty.encode()), reply(500, status("Bad\x1b", message=nasty)), reply(200, b"\x1b")):
        assert str(error).isprintable()
    assert str(reply(409, status("Conflict", message="a\n- b"))).endswith("a\n- b")


def test_what_may_be_a_secret_is_not_quoted():
    for target in (Target("get", "secrets", "team", "a"), Target("create", "serviceaccounts/token", "team", "a")):
        error = errors.not_an_object(target, b'{"token":"hunter2"}')
        assert "hunter2" not in str(error)
        assert "not shown" in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=10,
)
REASONS = st.sampled_from(["FieldManagerConflict", "DisruptionBudget", "x"])
CAUSES = st.lists(st.fixed_dictionaries({}, optional={"reason": REASONS | JSON, "message": JSON}))
DETAILS = st.fixed_dictionaries(
    {}, optional={"causes": CAUSES | JSON, "retryAfterSeconds": JSON, "kind": JSON, "name": JSON}
)
STATUS = st.fixed_dictionaries(
    {"kind": st.just("Status")},
    optional={
        "reason": st.sampled_from(sorted(errors._BY_REASON)) | JSON,
        "message": JSON | st.just(RBAC),
        "code": st.integers(400, 599) | JSON,
        "details": DETAILS | JSON,
    },
).map(lambda body: orjson.dumps(body, default=str) if _fits(body) else b"{")
HEADERS = st.fixed_dictionaries(
    {}, optional={"Retry-After": st.text() | st.sampled_from(["1", "Wed, 21 Oct 2026 07:28:00 GMT"]), "Date": st.text()}
)
TARGETS = st.builds(
    Target,
    st.sampled_from(["get", "apply", "create"]),
    st.sampled_from(["secrets", "widgets.example.com/status", "/path"]),
    st.none() | st.text(),
    st.none() | st.text(),
)


def _fits(body):
    try:
        orjson.dumps(body)
    except TypeError:  # an integer that JSON's writer does not take
        return False
    return True


@example(TARGET, 500, b"[" * 100_000, {}, False)
@example(TARGET, 404, b'{"kind":"Status","code":' + b"1" * 400 + b"}", {}, False)
@example(TARGET, 403, b'{"kind":"Status","message":"\\ud800"}', {}, False)
@example(TARGET, 302, b"404 page not found", {}, False)
@given(TARGETS, st.integers(100, 599), st.binary() | JSON.map(repr).map(str.encode) | STATUS, HEADERS, st.booleans())
def test_whatever_comes_is_an_error_of_ours_and_says_something(target, code, body, headers, json_patch):
    error = error_from_reply(target, code, body, headers, json_patch=json_patch)
    assert isinstance(error, errors.KubernetesError)
    assert str(error).startswith(target.verb)
    str(error).encode()
    if isinstance(error, errors.StatusError):
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")
        assert isinstance(error.causes, list)
        assert 100 <= error.code < 600
    else:
        assert type(error) is errors.Fenced

"""The reviews clients ask for before they act: everyone may do everything here, and every token is good."""

from asyncctl.apiserver.wire import Json, JsonObject

USER: JsonObject = {"username": "admin", "uid": "admin", "groups": ["system:masters", "system:authenticated"]}
"""Who every client is."""

_ALLOWED: JsonObject = {"allowed": True}
_ANSWERS: dict[tuple[str, str], tuple[str, JsonObject]] = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): ("SelfSubjectAccessReview", _ALLOWED),
    ("authorization.k8s.io", "subjectaccessreviews"): ("SubjectAccessReview", _ALLOWED),
    ("authentication.k8s.io", "selfsubjectreviews"): ("SelfSubjectReview", {"userInfo": USER}),
    ("authentication.k8s.io", "tokenreviews"): ("TokenReview", {"authenticated": True, "user": USER}),
}


def review(group: str, plural: str, body: Json) -> JsonObject | None:
    """Answer a POST of a review; None when `group` has no such review."""
    found = _ANSWERS.get((group, plural))
    if found is None:
        return None
    kind, status = found
    spec = body.get("spec") if isinstance(body, dict) else None
    answer: JsonObject = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}}
    if spec is not None:
        answer["spec"] = spec
    return {**answer, "status": status}


def known(group: str, plural: str) -> bool:
    """Tell whether there is such a review."""
    return (group, plural) in _ANSWERS

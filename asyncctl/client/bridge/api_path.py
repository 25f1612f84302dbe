"""What a path of the API is about: which resource, in which namespace, which object and subresource of it.

The rules are those of the API server's own request resolver, so that what is allowed here is what is done there. A path
that could mean something else to a server that cleans paths (`..`, an empty part) has no meaning here.
"""

from dataclasses import dataclass
from urllib.parse import unquote

_OF_A_NAMESPACE = ("status", "finalize")  # subresources of the Namespace object itself


@dataclass(frozen=True, slots=True)
class ApiPath:
    """A path below `/api/v1` or `/apis/<group>/<version>` that names a resource; what it does not name is None."""

    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @property
    def resource(self) -> str:
        """The name in errors: `configmaps`, `widgets.example.com`, `pods/log`."""
        named = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{named}/{self.subresource}" if self.subresource else named


def parse_api_path(path: str) -> ApiPath | None:
    """Read `path`, which may be percent-encoded and has no query. None: it is about no resource (`/version`, `/apis`).

    Source: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.

    Raises:
        ValueError: The path has an empty part, `.` or `..`, or a name with a slash in it.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if not {".", ".."}.isdisjoint(unquote(path).split("/")):
        raise ValueError(f"{path!r}: '.' and '..' can't stand for a name")
    if parts[0] not in {"api", "apis"}:
        return None
    group = parts.pop(1) if parts[0] == "apis" and len(parts) > 1 else ""
    if len(parts) < 3:
        return None
    _, version, *rest = parts
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _OF_A_NAMESPACE:
        namespace, *rest = rest[1:]
    named = [version, *rest[:3], *([] if namespace is None else [namespace]), *([group] if parts[0] == "apis" else [])]
    if any(not part or "/" in part for part in named):
        raise ValueError(f"{path!r}: an empty part, or a slash, can't stand for a name")
    name, subresource = (*rest[1:3], None, None)[:2]
    return ApiPath(group, version, rest[0], namespace, name, subresource)

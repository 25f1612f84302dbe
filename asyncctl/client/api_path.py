"""What a path of the API is about: which resource, in which namespace, which object and subresource of it.

The rules are those of the API server's own request resolver, which decodes a path once and then splits it, so that what
is allowed here is what is done there. A path that somebody on the way could read otherwise (`..`, an empty part, a
slash that is encoded, or encoded twice) has no meaning here.
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
    watch: bool = False
    """Whether it is the old `/watch/` in front of a resource."""

    @property
    def resource(self) -> str:
        """The name in errors: `configmaps`, `widgets.example.com`, `pods/log`."""
        named = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{named}/{self.subresource}" if self.subresource else named


def parse_api_path(path: str) -> ApiPath | None:
    """Read `path`, which may be percent-encoded and has no query. None: it is about no resource (`/version`, `/apis`).

    What is behind a subresource is somebody else's path (`services/s/proxy/…`), which may have any encoding.

    Source: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go; no name has a slash or a `%` in it:
    k8s.io/apimachinery/pkg/api/validation/path/name.go.

    Raises:
        ValueError: The path has an empty part, `.` or `..`, or a part with a slash or `%` in it.
    """
    parts = unquote(path).split("/")[1:]
    if parts and not parts[-1]:
        parts.pop()
    place, beyond = _read(parts)
    own = parts[: len(parts) - beyond]
    as_written = [unquote(part) for part in path.split("/")[1:]][: len(own)]
    if own != as_written or not all(own) or "%" in "".join(own) or not {".", ".."}.isdisjoint(parts):
        raise ValueError(
            f"{path!r} is no path such as /apis/apps/v1: an empty part, '.', '..', or one with a slash or '%' in it "
            "can't stand for a name"
        )
    return place


def _read(parts: list[str]) -> tuple[ApiPath | None, int]:
    """What the parts name, and how many are left."""
    match parts:
        case ["api", version, _, *_]:
            group, rest = "", parts[2:]
        case ["apis", group, version, _, *_]:
            rest = parts[3:]
        case _:
            return None, 0
    watch = rest[0] == "watch"
    if watch:
        rest = rest[1:]
    if not rest:
        return None, 0
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _OF_A_NAMESPACE:
        namespace, *rest = rest[1:]
    name, subresource = (*rest[1:3], None, None)[:2]
    return ApiPath(group, version, rest[0], namespace, name, subresource, watch), len(rest[3:])

"""What an API server serves: its groups, versions and resources, and its own version, as plain values.

Two requests where the server knows aggregated discovery v2 (KEP-3352; since Kubernetes 1.30), else one for each
version of the groups that are asked for. A part of it that is broken (an aggregated API server that is down, a path
that is not there) is told beside the rest in `problems`; only a server that can't be reached at all is an error.
Nothing is kept: who asks again hears what is true then.
"""

import asyncio
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from asyncctl.client.errors import KubernetesError, StatusError, Target, not_an_object
from asyncctl.client.transport.transport import Lane, Reply, Request, Transport
from asyncctl.objects.resource import ResourceType

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_AT_ONCE = 8  # requests, where each version is asked by itself
_RELEASE = re.compile(r"v?(\d+)\.(\d+)")

S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class ServedResource:
    """One resource of one version: what it is called, and what may be asked of it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    subresources: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The verbs of each, by its name: `status`, `scale`."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """One version of a group. `problem` tells why its resources are not known, or may be out of date."""

    version: str
    resources: tuple[ServedResource, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ServedGroup:
    """A group, its versions in the server's order: the preferred one first."""

    name: str
    versions: tuple[ServedVersion, ...]

    @property
    def preferred(self) -> str:
        """The version that the server would choose."""
        return self.versions[0].version


@dataclass(frozen=True, slots=True)
class Served:
    """All that was asked for. `problems` are the parts that could not be learnt: by their path, in words."""

    groups: Mapping[str, ServedGroup]
    problems: Mapping[str, str] = field(default_factory=dict)

    def version(self, group: str, version: str) -> ServedVersion | None:
        """One version of a group, None where it is not served."""
        found = self.groups.get(group)
        return next((each for each in found.versions if each.version == version), None) if found else None

    def resource(self, kind: ResourceType) -> ServedResource | None:
        """The resource by which `kind` is served in its version, None where it is not."""
        found = self.version(kind.group, kind.version)
        return next((each for each in found.resources if each.plural == kind.plural), None) if found else None

    def versions_of(self, group: str, kind: str) -> tuple[str, ...]:
        """The versions of a group in which a Kind is served, the preferred one first."""
        found = self.groups.get(group)
        return tuple(
            each.version
            for each in (found.versions if found else ())
            if any(resource.kind == kind for resource in each.resources)
        )


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """What a server says it is: `v1.36.3`, and that as numbers (None where it can't be read)."""

    text: str
    release: tuple[int, int] | None


class _Kind(msgspec.Struct):
    kind: str = ""
    version: str = ""


class _Name(msgspec.Struct):
    name: str = ""


class _Subresource(msgspec.Struct):
    subresource: str
    verbs: list[str] | None = None


class _Resource(msgspec.Struct, rename="camel"):
    resource: str
    response_kind: _Kind | None = None
    scope: str = ""
    verbs: list[str] | None = None
    subresources: list[_Subresource] | None = None


class _Version(msgspec.Struct):
    version: str
    resources: list[_Resource] | None = None
    freshness: str = ""


class _Group(msgspec.Struct):
    metadata: _Name
    versions: list[_Version] | None = None


class _GroupVersion(msgspec.Struct):
    version: str


class _PlainGroup(msgspec.Struct, rename="camel"):
    name: str
    versions: list[_GroupVersion]
    preferred_version: _GroupVersion | None = None


class _Answer(msgspec.Struct):
    """`/api` or `/apis`, in whichever of the three forms the server chose; `kind` tells."""

    kind: str
    items: list[_Group] | None = None
    groups: list[_PlainGroup] | None = None
    versions: list[str] | None = None


class _PlainResource(msgspec.Struct):
    name: str
    kind: str
    namespaced: bool
    verbs: list[str] | None = None


class _ResourceList(msgspec.Struct):
    resources: list[_PlainResource] | None = None


class _VersionInfo(msgspec.Struct, rename="camel"):
    git_version: str


async def discover(transport: Transport, *, groups: Collection[str] | None = None) -> Served:
    """Ask what is served.

    Args:
        transport: To the server.
        groups: Those that matter, "" for the core group; None for all. What they save is requests to servers that
            know no aggregated discovery.

    Raises:
        TransportError: There was no answer.
        Unauthorized: As `TransportError`: the credentials are not accepted, so that nothing can be learnt.
    """
    found: dict[str, ServedGroup] = {}
    problems: dict[str, str] = {}
    for path in ("/api", "/apis"):
        if groups is not None and not any(path == ("/apis" if name else "/api") for name in groups):
            continue
        try:
            answer = _decoded(_Answer, path, await _get(transport, path, f"{AGGREGATED},application/json"))
        except StatusError as error:
            if error.code == 401:
                raise
            problems[path] = str(error)
            continue
        if answer.kind == "APIGroupDiscoveryList":
            made = [_aggregated(each) for each in answer.items or ()]
        else:
            made = await _one_by_one(transport, _listed(answer), groups)
        for group in made:
            if group.versions and (groups is None or group.name in groups):
                found[group.name] = group
                problems |= {path_of(group.name, each.version): each.problem for each in group.versions if each.problem}
    return Served(found, problems)


def path_of(group: str, version: str = "") -> str:
    """Where a version of a group is told by itself; without one: where it is listed whether there is the group."""
    above = "/apis" if group else "/api"
    return "/".join(filter(None, (above, group, version))) if version else above


async def server_version(transport: Transport) -> tuple[ServerVersion, Reply]:
    """Ask `/version`; returns what it says, and the whole reply.

    Raises:
        StatusError: The server answers with an error.
        TransportError: There was no answer.
    """
    reply = await _get(transport, "/version", "application/json")
    text = _decoded(_VersionInfo, "/version", reply).git_version
    match = _RELEASE.match(text)  # k3s, EKS and others append to it
    return ServerVersion(text, (int(match[1]), int(match[2])) if match else None), reply


async def _get(transport: Transport, path: str, accept: str) -> Reply:
    target = Target("get", path)
    request = Request(target=target, method="GET", path=path, lane=Lane.READ, repeatable=True, accept=accept)
    return await transport.request(request)


def _decoded(form: type[S], path: str, reply: Reply) -> S:
    try:
        return msgspec.json.decode(reply.body, type=form)
    except (ValueError, RecursionError) as error:
        raise not_an_object(Target("get", path), reply.body) from error


def _aggregated(group: _Group) -> ServedGroup:
    name = group.metadata.name
    versions = []
    for each in group.versions or ():
        resources = tuple(_resource(name, each.version, found) for found in each.resources or ())
        stale = each.freshness == "Stale"
        problem = f"{_group_version(name, each.version)}: {_STALE}" if stale else None
        versions.append(ServedVersion(each.version, resources, problem))
    return ServedGroup(name, tuple(versions))


_STALE = (
    "the API server behind it does not answer now, and what is known of it is old; look at `kubectl get apiservices`"
)


def _resource(group: str, version: str, found: _Resource) -> ServedResource:
    return ServedResource(
        group, version, found.resource, found.response_kind.kind if found.response_kind else "",
        found.scope == "Namespaced", frozenset(found.verbs or ()),
        {each.subresource: frozenset(each.verbs or ()) for each in found.subresources or ()},
    )  # fmt: skip


def _listed(answer: _Answer) -> list[tuple[str, list[str]]]:
    """Each group with its versions, the preferred one first."""
    if answer.kind == "APIVersions":
        return [("", answer.versions or [])]
    listed = []
    for group in answer.groups or ():
        versions = [each.version for each in group.versions]
        preferred = group.preferred_version.version if group.preferred_version else None
        listed.append((group.name, sorted(versions, key=lambda version: version != preferred)))
    return listed


async def _one_by_one(
    transport: Transport, listed: list[tuple[str, list[str]]], groups: Collection[str] | None
) -> list[ServedGroup]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(group: str, version: str) -> ServedVersion:
        path = path_of(group, version)
        try:
            async with turns:
                answer = _decoded(_ResourceList, path, await _get(transport, path, "application/json"))
        except StatusError as error:
            return ServedVersion(version, (), f"{_group_version(group, version)}: {error}")
        return ServedVersion(version, _plain(group, version, answer.resources or []))

    wanted = [(name, versions) for name, versions in listed if groups is None or name in groups]
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [
                (name, [tasks.create_task(ask(name, version), name=f"discovery {name}/{version}") for version in known])
                for name, known in wanted
            ]
    except* KubernetesError as failed:
        raise _first(failed) from None
    return [ServedGroup(name, tuple(task.result() for task in versions)) for name, versions in asked]


def _first(failed: BaseExceptionGroup[KubernetesError]) -> KubernetesError:
    """All that failed at once failed alike: one of it says it."""
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _plain(group: str, version: str, listed: list[_PlainResource]) -> tuple[ServedResource, ...]:
    below: dict[str, dict[str, frozenset[str]]] = {}
    for each in listed:
        plural, _, subresource = each.name.partition("/")
        if subresource:
            below.setdefault(plural, {})[subresource] = frozenset(each.verbs or ())
    return tuple(
        ServedResource(
            group, version, each.name, each.kind, each.namespaced, frozenset(each.verbs or ()), below.get(each.name, {})
        )
        for each in listed
        if "/" not in each.name
    )


def _group_version(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version

"""What the server tells of itself: groups, versions and resources, one by one and aggregated (KEP-3352).

Each function makes the body of one path from the kinds served at that moment. Built-in groups come first, in the order
given; custom ones follow by name.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence

from asyncctl.apiserver.names import version_priority
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.wire import JsonObject

_SUBRESOURCE_VERBS = ["get", "patch", "update"]


def api_versions(address: str) -> JsonObject:
    """`/api`: the versions of the core group. `address` is `host:port`, where the server is reached."""
    clients = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": clients}


def api_group_list(kinds: Iterable[ResourceKind]) -> JsonObject:
    """`/apis`: the named groups."""
    groups = [_group(name, members) for name, members in _groups(kinds) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(kinds: Iterable[ResourceKind], group: str) -> JsonObject | None:
    """`/apis/GROUP`: one group; None if it has no kind."""
    members = [kind for kind in kinds if kind.group == group]
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, members)} if members else None


def api_resource_list(kinds: Iterable[ResourceKind], group: str, version: str) -> JsonObject | None:
    """`/api/v1`, `/apis/GROUP/VERSION`: the resources and subresources of a version; None if it has no kind."""
    members = _sorted(kind for kind in kinds if (kind.group, kind.version) == (group, version))
    if not members:
        return None
    return {
        "kind": "APIResourceList",
        # The server leaves it out for the core group.
        **({"apiVersion": "v1"} if group else {}),
        "groupVersion": members[0].api_version,
        "resources": [entry for kind in members for entry in _resources(kind)],
    }


def aggregated(kinds: Iterable[ResourceKind], *, core: bool) -> JsonObject:
    """`/api` (`core`) or `/apis` as `APIGroupDiscoveryList`: everything in one answer."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name} if name else {},
                "versions": [
                    {
                        "version": version,
                        "resources": [
                            _aggregated_resource(kind) for kind in _sorted(members) if kind.version == version
                        ],
                        "freshness": "Current",
                    }
                    for version in _versions(members)
                ],
            }
            for name, members in _groups(kinds)
            if core == (not name)
        ],
    }


def _groups(kinds: Iterable[ResourceKind]) -> list[tuple[str, list[ResourceKind]]]:
    groups: dict[str, list[ResourceKind]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.group if kind.custom else ""):
        groups.setdefault(kind.group, []).append(kind)
    return list(groups.items())


def _sorted(kinds: Iterable[ResourceKind]) -> list[ResourceKind]:
    return sorted(kinds, key=lambda kind: kind.plural)


def _versions(kinds: Sequence[ResourceKind]) -> list[str]:
    return sorted({kind.version for kind in kinds}, key=version_priority)


def _group(name: str, kinds: Sequence[ResourceKind]) -> JsonObject:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in _versions(kinds)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _storage_hash(kind: ResourceKind) -> str:
    # Events of both groups are stored as core ones; definitions are still stored in a version no longer served.
    group = "" if kind.group == "events.k8s.io" else kind.group
    version = "v1beta1" if kind.group == "apiextensions.k8s.io" else kind.version
    digest = hashlib.sha256(f"{group}/{version}/{kind.kind}".encode()).digest()
    return b64encode(digest[:8]).decode()


def _names(kind: ResourceKind) -> JsonObject:
    names = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    return {key: value for key, value in names.items() if value}


def _subresources(kind: ResourceKind) -> list[tuple[str, ResourceKind | None]]:
    """Return each subresource and the kind it speaks: None is autoscaling/v1's Scale."""
    found: list[tuple[str, ResourceKind | None]] = [("status", kind)] if kind.status else []
    if kind.scale:
        # Built-in subresources are listed by name, custom ones status first.
        found.insert(len(found) if kind.custom else 0, ("scale", None))
    return found


def _resources(kind: ResourceKind) -> list[JsonObject]:
    entries: list[JsonObject] = [
        {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
            **_names(kind),
            "storageVersionHash": _storage_hash(kind),
        }
    ]
    for action in kind.actions:
        speaks_of = {"group": action.group, "version": action.version, "kind": action.kind}
        own = {"name": f"{kind.plural}/{action.name}", "singularName": "", "namespaced": kind.namespaced}
        entries.append({**own, **speaks_of, "verbs": ["create"]})
    for name, speaks in _subresources(kind):
        scale = {} if speaks else {"group": "autoscaling", "version": "v1"}
        entries.append(
            {
                "name": f"{kind.plural}/{name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                **scale,
                "kind": speaks.kind if speaks else "Scale",
                "verbs": _SUBRESOURCE_VERBS,
            }
        )
    return entries


def _aggregated_resource(kind: ResourceKind) -> JsonObject:
    # A built-in kind's group and version go without saying; the server leaves them empty.
    own = (
        {"group": kind.group, "version": kind.version, "kind": kind.kind}
        if kind.custom
        else {"group": "", "version": "", "kind": kind.kind}
    )
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    entry: JsonObject = {
        "resource": kind.plural,
        "responseKind": own,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
        **_names(kind),
    }
    subresources: list[JsonObject] = [
        {"subresource": name, "responseKind": {"group": group, "version": version, "kind": of}, "verbs": ["create"]}
        for name, group, version, of in kind.actions
    ]
    subresources += [
        {"subresource": name, "responseKind": own if speaks else scale, "verbs": _SUBRESOURCE_VERBS}
        for name, speaks in _subresources(kind)
    ]
    return {**entry, "subresources": subresources} if subresources else entry

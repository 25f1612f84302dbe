"""Server-side apply, and who owns which field: `metadata.managedFields` kept true by every write.

An entry belongs to a manager, an operation and a subresource. A write by Update takes what it changed from everyone; an
Apply takes what it states, in conflict with whoever owns a field it would change unless it forces; what its manager
stated before and no longer does goes away unless another owns it. The algorithm is KEP-555's, as in
`structured-merge-diff/merge/update.go` and `apimachinery/pkg/util/managedfields`. Not here: the cap on the number of
Update entries, and kubectl's last-applied annotation.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from asyncctl.apiserver import errors, fields, wire
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.fields import Comparison, FieldSet, Path
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.schema import OPEN, Node
from asyncctl.apiserver.wire import Json, JsonObject

_UNOWNED: frozenset[Path] = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "clusterName",
                "generation",
                "managedFields",
                "resourceVersion",
            )
        ),
    }
)
"""What no one owns, since the server sets it or it names the object."""


@dataclass(frozen=True, slots=True)
class _Id:
    """Who owns: an applier is the same in every version, an updater is not (`buildmanagerinfo.go`)."""

    manager: str
    operation: str
    subresource: str
    api_version: str = ""

    def shown(self) -> str:
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True)
class _Owned:
    """What an owner has, in which version it said so, and when it last changed that."""

    paths: FieldSet
    api_version: str
    time: str


_Owners = dict[_Id, _Owned]


def _read(managed: Json) -> _Owners:
    owners: _Owners = {}
    for entry in managed or ():
        operation, api_version = entry.get("operation", ""), entry.get("apiVersion", "")
        identity = _Id(
            entry.get("manager", ""),
            operation,
            entry.get("subresource", ""),
            "" if operation == "Apply" else api_version,
        )
        owners[identity] = _Owned(fields.decode(entry.get("fieldsV1") or {}), api_version, entry.get("time", ""))
    return owners


def _write(meta: JsonObject, owners: _Owners) -> None:
    meta.pop("managedFields", None)
    entries: list[JsonObject] = []
    for identity, owned in owners.items():
        entry: JsonObject = {
            "manager": identity.manager,
            "operation": identity.operation,
            "apiVersion": owned.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields.encode(owned.paths),
        }
        if identity.subresource:
            entry["subresource"] = identity.subresource
        if not owned.time:
            del entry["time"]
        entries.append(entry)
    entries.sort(
        key=lambda entry: (
            entry["operation"],
            entry.get("time", ""),
            entry["manager"],
            entry["apiVersion"],
            entry.get("subresource", ""),
        )
    )
    if entries:
        meta["managedFields"] = entries


def _root(kind: ResourceKind) -> Node:
    return kind.schema.root if kind.schema is not None else OPEN


def _reset_fields(kind: ResourceKind, subresource: str) -> tuple[Path, ...]:
    """Return the fields that a write to this (sub)resource cannot change, and so cannot own."""
    if subresource == "status":
        if kind.custom:
            return (("f:metadata",), ("f:spec",))
        labels = (("f:metadata", "f:labels"),) if kind.resource == "deployments.apps" else ()
        return (("f:spec",), *labels)
    return (("f:status",),) if kind.status else ()


def _filtered(paths: set[Path] | FieldSet, reset: tuple[Path, ...]) -> FieldSet:
    return frozenset(path for path in paths if not any(path[: len(prefix)] == prefix for prefix in reset))


def _bare(obj: JsonObject) -> JsonObject:
    """Return the object without managedFields, which are not fields to be managed."""
    return {**obj, "metadata": {name: value for name, value in obj["metadata"].items() if name != "managedFields"}}


def _empty(kind: ResourceKind) -> JsonObject:
    return {**kind.empty, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}}


def _disown(owners: _Owners, but: _Id | None, paths: set[Path] | FieldSet) -> None:
    """Take paths from every owner but one; who is left with nothing goes."""
    for identity, owned in list(owners.items()):
        if identity == but:
            continue
        left = owned.paths - paths
        if left:
            owners[identity] = replace(owned, paths=frozenset(left))
        else:
            del owners[identity]


def track_update(
    kind: ResourceKind, live: JsonObject | None, new: JsonObject, manager: str, subresource: str, now: datetime
) -> None:
    """Set the managedFields of `new`, in place, after a write that is no apply.

    Args:
        kind: of the object.
        live: the object as it is; None when it is created.
        new: the object as it is to be; managedFields it brings along count, `[{}]` and `[]` clear them.
        manager: who writes.
        subresource: what is written to, empty for the object itself.
        now: the time of the write.
    """
    given = new["metadata"].get("managedFields")
    owners = _read(given) if given and given != [{}] else {}
    if not owners and given != [{}] and (live is not None and (given is None or subresource or given != [])):
        owners = _read(live["metadata"].get("managedFields"))
    if live is None or owners:
        # What has no key, as its list's schema wants it, is refused for that a moment later (UpdateNoErrors there).
        with suppress(ValueError):
            _track(kind, _empty(kind) if live is None else live, new, owners, (manager, subresource), now)
    _write(new["metadata"], owners)


def _track(
    kind: ResourceKind, live: JsonObject, new: JsonObject, owners: _Owners, who: tuple[str, str], now: datetime
) -> None:
    manager, subresource = who
    identity = _Id(manager, "Update", subresource, kind.api_version)
    reset = _reset_fields(kind, subresource)
    difference = Comparison(_bare(live), _bare(new), _root(kind))
    changed, removed = _filtered(difference.changed, reset), _filtered(difference.removed, reset)
    have = owners[identity].paths if identity in owners else frozenset[Path]()
    _disown(owners, None, changed | removed)
    if taken := changed - _UNOWNED:
        owners[identity] = _Owned((have - removed) | taken, kind.api_version, wire.time(now))


def apply(
    kind: ResourceKind,
    live: JsonObject | None,
    config: JsonObject,
    manager: str,
    subresource: str,
    *,
    force: bool,
    now: datetime,
) -> JsonObject:
    """Return the object that an apply of `config` makes of `live`, with its managedFields.

    Args:
        kind: of the object.
        live: the object as it is; None when it is created.
        config: what the manager wants, and no more than it wants to own.
        manager: who applies.
        subresource: what is applied to, empty for the object itself.
        force: take over fields from others instead of failing.
        now: the time of the write.

    Raises:
        ApiError: 400 for a config of another type, 409 with a cause for each field another manager owns,
            500 when the config has fields the schema does not.
    """
    _check_config(kind, config)
    base = _empty(kind) if live is None else live
    owners = _read(base["metadata"].get("managedFields"))
    if live is not None and not owners:
        _track(kind, _empty(kind), live, owners, ("before-first-apply", subresource), now)
    identity, root, reset = _Id(manager, "Apply", subresource), _root(kind), _reset_fields(kind, subresource)
    base = _bare(base)
    try:
        fields.check(config, root)
        merged: JsonObject = fields.merge(base, config, root)
        stated = _filtered(fields.paths_of(config, root), reset)
    except ValueError as error:
        raise _untyped(config, str(error)) from None
    last = owners.get(identity)
    owners[identity] = _Owned(stated, kind.api_version, wire.time(now))
    if last is not None and last.paths:
        merged = _prune(merged, last.paths, owners, root)
    difference = Comparison(base, merged, root)
    changed, removed = _filtered(difference.changed, reset), _filtered(difference.removed, reset)
    if not force:
        _check_conflicts(owners, identity, changed)
    _disown(owners, identity, changed | removed)
    # What changes nothing has no time of its own.
    when = wire.time(now) if merged != base else last.time if last else ""
    owners[identity] = _Owned(stated - _UNOWNED, kind.api_version, when)
    if not owners[identity].paths:
        del owners[identity]
    if merged is base:
        merged = dict(base)
    merged["metadata"] = dict(merged["metadata"])
    _write(merged["metadata"], owners)
    return merged


def is_owned(obj: JsonObject, path: Path) -> bool:
    """Tell whether anyone owns a field of an object."""
    return any(path in owned.paths for owned in _read(obj["metadata"].get("managedFields")).values())


def _check_config(kind: ResourceKind, config: JsonObject) -> None:
    api_version, name = config.get("apiVersion") or "", config.get("kind") or ""
    if not api_version or not name or (kind.custom and (api_version, name) != (kind.api_version, kind.kind)):
        raise errors.bad_request(f"invalid object type: {_shown_type(config)}")
    if api_version != kind.api_version:
        raise errors.bad_request(
            "Incorrect version specified in apply patch. "
            f"Specified patch version: {api_version}, expected: {kind.api_version}"
        )
    if (config.get("metadata") or {}).get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    if kind.schema is not None:
        unknown = kind.schema.prune(fields.copy(config))
        if unknown:
            raise _untyped(config, f".{unknown[0]}: field not declared in schema")


def _shown_type(config: JsonObject) -> str:
    group, _, version = (config.get("apiVersion") or "").rpartition("/")
    return f"{group}/{version}, Kind={config.get('kind') or ''}"


def _untyped(config: JsonObject, why: str) -> errors.ApiError:
    meta = config.get("metadata") or {}
    where = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {_shown_type(config)}"
    return errors.unclassified(f"failed to create typed patch object ({where}): {why}")


def _check_conflicts(owners: _Owners, applier: _Id, changed: FieldSet) -> None:
    found = [
        Cause("FieldManagerConflict", f"conflict with {identity.shown()}", fields.shown(path))
        for identity, owned in sorted(owners.items(), key=lambda item: item[0].shown())
        if identity != applier
        for path in sorted(owned.paths & changed, key=fields.order)
    ]
    if found:
        raise errors.apply_conflict(found)


def _prune(merged: JsonObject, last: FieldSet, owners: _Owners, root: Node) -> JsonObject:
    """Drop what the applier stated last time and no one, itself included, states now."""
    had = fields.with_parents(fields.paths_of(merged, root), root)
    pruned = fields.remove(merged, fields.with_parents(last, root), root)
    kept = fields.with_parents(fields.paths_of(pruned, root), root)
    owned: set[Path] = set()
    for entry in owners.values():
        owned |= fields.with_parents(entry.paths, root)
    # First what someone owns comes back, then what the applier never stated (it hung below something it did).
    pruned = fields.remove(merged, had - (kept | owned), root)
    kept = fields.with_parents(fields.paths_of(pruned, root), root)
    left: JsonObject = fields.remove(merged, (had - kept) & fields.with_parents(last, root), root)
    return left


def keep_times(obj: JsonObject, old: JsonObject) -> None:
    """Take the times of managedFields back to what they were, in place, when nothing else has changed."""
    now, was = obj["metadata"].get("managedFields"), old["metadata"].get("managedFields")
    if not now or not was or len(now) != len(was) or now == was:
        return
    if any({**a, "time": None} != {**b, "time": None} for a, b in zip(now, was, strict=True)):
        return
    trial = {**obj, "metadata": {**obj["metadata"], "managedFields": was}}
    if {**trial, "metadata": {**trial["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}} == old:
        obj["metadata"]["managedFields"] = was

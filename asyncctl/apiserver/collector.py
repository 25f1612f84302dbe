"""What follows from a deletion: dependents of an owner that is gone, and everything in a namespace that is going.

The real controllers do this about 0.1 s after the deletion, here it is done in the same step. An object goes when none
of its owners is there any more; `foregroundDeletion` waits for dependents that block, `orphan` cuts them loose.
"""

from collections.abc import Callable, Iterable

from asyncctl.apiserver import behaviour
from asyncctl.apiserver.registry import DeleteOptions, Registry, Write
from asyncctl.apiserver.request import WriteOptions
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.store import Record

_Place = tuple[str, str]
"""A collection's name and a key in it."""


class Collector:
    """Keeps track of who owns whom, and deletes what is left over.

    Args:
        registry: deletes and updates.
        kinds: gives all served kinds, one version of each.
    """

    def __init__(self, registry: Registry, kinds: Callable[[], Iterable[ResourceKind]]) -> None:
        self._registry = registry
        self._kinds = kinds
        self._objects: dict[str, _Place] = {}
        self._dependents: dict[str, set[_Place]] = {}

    def stored(self, kind: ResourceKind, record: Record) -> None:
        """Take note of an object that was written."""
        meta = record.object["metadata"]
        place = (behaviour.of(kind).storage, record.key)
        self._objects[meta["uid"]] = place
        owners = meta.get("ownerReferences") or ()
        for owner in owners:
            self._dependents.setdefault(owner["uid"], set()).add(place)
        if owners and not any(owner["uid"] in self._objects for owner in owners):
            self._delete(place)
        if "deletionTimestamp" in meta:
            self._going(kind, record)

    def removed(self, kind: ResourceKind, record: Record) -> None:
        """Take note of an object that is gone."""
        meta = record.object["metadata"]
        place = (behaviour.of(kind).storage, record.key)
        self._objects.pop(meta["uid"], None)
        for owner in meta.get("ownerReferences") or ():
            dependents = self._dependents.get(owner["uid"])
            if dependents is not None:
                dependents.discard(place)
                if not dependents:
                    del self._dependents[owner["uid"]]
                self._recheck(owner["uid"])
        for dependent in sorted(self._dependents.get(meta["uid"], ())):
            self._lost_owner(dependent)
        if kind.namespaced and (namespace := meta.get("namespace")):
            self._finish_namespace(namespace)

    def _find(self, place: _Place) -> tuple[ResourceKind, Record] | None:
        for kind in self._kinds():
            if behaviour.of(kind).storage == place[0]:
                record = self._registry.collection(kind).records.get(place[1])
                return (kind, record) if record is not None else None
        return None

    def _lost_owner(self, place: _Place) -> None:
        found = self._find(place)
        if found is None:
            return
        owners = found[1].object["metadata"].get("ownerReferences") or ()
        if owners and not any(owner["uid"] in self._objects for owner in owners):
            self._delete(place)

    def _delete(self, place: _Place, policy: str = "Background") -> None:
        found = self._find(place)
        if found is None or "deletionTimestamp" in found[1].object["metadata"]:
            return
        kind, record = found
        self._registry.delete(_write(kind, record), DeleteOptions(policy=policy))

    def _going(self, kind: ResourceKind, record: Record) -> None:
        meta = record.object["metadata"]
        finalizers = meta.get("finalizers") or ()
        if "orphan" in finalizers:
            for place in sorted(self._dependents.get(meta["uid"], ())):
                self._cut(place, meta["uid"])
            self._release(kind, record, "orphan")
        elif "foregroundDeletion" in finalizers:
            for place in sorted(self._dependents.get(meta["uid"], ())):
                self._delete(place, "Foreground")
            self._recheck(meta["uid"])
        elif kind.resource == "namespaces":
            self._empty_namespace(record.key)

    def _recheck(self, uid: str) -> None:
        """Let an owner go that waited for its dependents."""
        found = self._find(self._objects[uid]) if uid in self._objects else None
        if found is None:
            return
        kind, record = found
        meta = record.object["metadata"]
        if "deletionTimestamp" not in meta or "foregroundDeletion" not in (meta.get("finalizers") or ()):
            return
        for place in self._dependents.get(uid, ()):
            dependent = self._find(place)
            owners = dependent[1].object["metadata"].get("ownerReferences", ()) if dependent else ()
            if any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners):
                return
        self._release(kind, record, "foregroundDeletion")

    def _cut(self, place: _Place, uid: str) -> None:
        found = self._find(place)
        if found is None:
            return
        kind, record = found
        obj = behaviour.from_storage(kind, record.copy())
        meta = obj["metadata"]
        meta["ownerReferences"] = [owner for owner in meta.get("ownerReferences", ()) if owner["uid"] != uid]
        if not meta["ownerReferences"]:
            del meta["ownerReferences"]
        self._dependents.get(uid, set()).discard(place)
        self._registry.update(_write(kind, record), lambda _: obj)

    def _release(self, kind: ResourceKind, record: Record, finalizer: str) -> None:
        obj = behaviour.from_storage(kind, record.copy())
        left = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
        if left:
            obj["metadata"]["finalizers"] = left
        else:
            del obj["metadata"]["finalizers"]
        self._registry.update(_write(kind, record), lambda _: obj)

    def _empty_namespace(self, name: str) -> None:
        for kind in list(self._kinds()):
            if kind.namespaced:
                for record in list(self._registry.collection(kind).scan(f"{name}/")):
                    if record.key in self._registry.collection(kind).records:
                        self._registry.delete(_write(kind, record), DeleteOptions(policy="Background"))
        self._finish_namespace(name)

    def _finish_namespace(self, name: str) -> None:
        """Let a namespace go once nothing is left in it."""
        namespaces = next(kind for kind in self._kinds() if kind.resource == "namespaces")
        record = self._registry.collection(namespaces).records.get(name)
        if record is None or "deletionTimestamp" not in record.object["metadata"]:
            return
        for kind in self._kinds():
            if kind.namespaced and next(self._registry.collection(kind).scan(f"{name}/"), None) is not None:
                return
        obj = record.copy()
        obj["spec"] = {}
        write = _write(namespaces, record)
        write.subresource = "finalize"
        self._registry.update(write, lambda _: obj)


def _write(kind: ResourceKind, record: Record) -> Write:
    meta = record.object["metadata"]
    options = WriteOptions("kube-controller-manager", "Ignore")
    return Write(kind, meta.get("namespace", ""), meta["name"], options)

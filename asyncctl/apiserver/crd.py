"""The life of a CustomResourceDefinition: its names are accepted, its kinds served, and its objects go before it does.

What the real server's naming, establishing and finalizing controllers do a few milliseconds after the write is done
here in the same step, in the same order and with the same conditions. Objects keep the version they were stored in;
there is no conversion but that of `apiVersion`.
"""

from collections.abc import Callable
from datetime import datetime

from asyncctl.apiserver import apply, behaviour, wire
from asyncctl.apiserver.resources import ResourceKind, from_crd
from asyncctl.apiserver.store import Record, Store
from asyncctl.apiserver.wire import JsonObject

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class Definitions:
    """Keeps the served custom kinds in step with the CustomResourceDefinitions in the store.

    Args:
        kind: the CustomResourceDefinition's own kind.
        store: where they are.
        now: gives the time as an aware UTC datetime.
        delete_all: deletes the objects of a kind; what finalizers hold stays.
    """

    def __init__(
        self,
        kind: ResourceKind,
        store: Store,
        now: Callable[[], datetime],
        delete_all: Callable[[ResourceKind], None],
    ) -> None:
        self._kind = kind
        self._store = store
        self._now = now
        self._delete_all = delete_all
        self.served: dict[str, list[ResourceKind]] = {}
        """The kinds of each established definition, by its name."""
        self._serving: dict[str, object] = {}  # what the real server makes a new storage for when it changes

    def changed(self, name: str) -> None:
        """Look at the definition of this name, after a write to it or to one of its objects."""
        record = self._store.collection(behaviour.CRD).records.get(name)
        if record is None:
            self.served.pop(name, None)
            self._serving.pop(name, None)
            self._store.drop(name)
            return
        if "deletionTimestamp" in record.object["metadata"]:
            self._finalize(record)
            return
        if not _is(record.object, "Established"):
            record = self._accept(record)
        if _is(record.object, "Established"):
            self._store.collection(name)
            self.served[name] = from_crd(record.object)
            serving = (record.object["spec"], record.object["status"].get("acceptedNames"))
            if self._serving.setdefault(name, serving) != serving:
                self._serving[name] = serving
                self._store.renew(name)

    def touched(self, kind: ResourceKind) -> None:
        """Note that an object of a custom kind is gone: a definition that waits for that goes on."""
        record = self._store.collection(behaviour.CRD).records.get(kind.resource)
        if record is not None and "deletionTimestamp" in record.object["metadata"]:
            self._finish(record)

    def _accept(self, record: Record) -> Record:
        names = record.object["spec"]["names"]
        conflict = self._conflict(record.object)
        obj = record.copy()
        if conflict:
            accepted = ("False", *conflict)
            established = ("False", "NotAccepted", "not all names are accepted")
        else:
            accepted = ("True", "NoConflicts", "no conflicts found")
            established = ("True", "InitialNamesAccepted", "the initial names have been accepted")
            obj["status"]["acceptedNames"] = dict(names)
        self._set(obj, "NamesAccepted", *accepted)
        if conflict:
            self._set(obj, "Established", *established)
            return self._save(obj, record)
        record = self._save(obj, record)
        obj = record.copy()
        self._set(obj, "Established", *established)
        return self._save(obj, record)

    def _conflict(self, obj: JsonObject) -> tuple[str, str] | None:
        """Return the reason and message why a name cannot be had, if it is another definition's of the same group."""
        kinds: set[str] = set()
        plurals: set[str] = set()
        for record in self._store.collection(behaviour.CRD).records.values():
            other = record.object
            if other["spec"]["group"] != obj["spec"]["group"] or record.key == obj["metadata"]["name"]:
                continue
            taken = other.get("status", {}).get("acceptedNames") or {}
            plurals |= {taken.get("plural", ""), taken.get("singular", ""), *(taken.get("shortNames") or ())}
            kinds |= {taken.get("kind", ""), taken.get("listKind", "")}
        names = obj["spec"]["names"]
        wanted = [
            ("PluralConflict", names["plural"], plurals),
            ("SingularConflict", names.get("singular", ""), plurals),
            *(("ShortNamesConflict", name, plurals) for name in names.get("shortNames") or ()),
            ("KindConflict", names["kind"], kinds),
            ("ListKindConflict", names.get("listKind", ""), kinds),
        ]
        found = [(reason, f'"{name}" is already in use') for reason, name, taken in wanted if name and name in taken]
        # The real server tests one after the other and reports the last that failed.
        return found[-1] if found else None

    def _set(self, obj: JsonObject, type_: str, status: str, reason: str, message: str) -> None:
        conditions = obj["status"].get("conditions") or []
        condition = {
            "type": type_,
            "status": status,
            "lastTransitionTime": wire.time(self._now()),
            "reason": reason,
            "message": message,
        }
        obj["status"]["conditions"] = [*(old for old in conditions if old["type"] != type_), condition]

    def _save(self, obj: JsonObject, record: Record) -> Record:
        apply.track_update(self._kind, record.object, obj, "kube-apiserver", "status", self._now())
        return self._store.put(self._store.collection(behaviour.CRD), record.key, obj)

    def _finalize(self, record: Record) -> None:
        conditions = record.object["status"].get("conditions") or ()
        if any(condition["reason"] == "InstanceDeletionPending" for condition in conditions):
            obj = record.copy()
            self._set(
                obj, "Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"
            )
            record = self._save(obj, record)
            if record.key in self.served:
                self._delete_all(self.served[record.key][0])
        current = self._store.collection(behaviour.CRD).records.get(record.key)
        if current is not None:
            self._finish(current)

    def _finish(self, record: Record) -> None:
        """Let a definition go once it has no objects."""
        collection = self._store.collection(behaviour.CRD)
        if record.key not in collection.records or self._store.collection(record.key).records:
            return
        obj = record.copy()
        others = [name for name in obj["metadata"].get("finalizers") or () if name != FINALIZER]
        if others:
            if len(others) != len(obj["metadata"]["finalizers"]):
                obj["metadata"]["finalizers"] = others
                self._store.put(collection, record.key, obj)
            return
        self._store.delete(collection, record.key, obj)
        self.changed(record.key)

    def terminating(self, kind: ResourceKind) -> bool:
        """Tell whether the definition of a custom kind is going, so that nothing new may be created."""
        record = self._store.collection(behaviour.CRD).records.get(kind.resource)
        return record is not None and "deletionTimestamp" in record.object["metadata"]


def mark_terminating(obj: JsonObject, now: datetime) -> None:
    """Set, in place, what the deletion of a definition begins with: the finalizer and the condition."""
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)
    condition = {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": wire.time(now),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }
    conditions = obj["status"].get("conditions") or []
    obj["status"]["conditions"] = [*(old for old in conditions if old["type"] != "Terminating"), condition]


def _is(obj: JsonObject, type_: str) -> bool:
    conditions = obj.get("status", {}).get("conditions") or ()
    return any(condition["type"] == type_ and condition["status"] == "True" for condition in conditions)

"""Writing an object: create, update, patch, apply, delete, with everything that must hold before it is stored.

The order of the steps is the real server's (`apiserver/pkg/registry/generic/registry/store.go` and
`apiserver/pkg/registry/rest`), since the order decides which of two mistakes a client hears of. Nothing here waits, so
each write is atomic. How a body was encoded and how an answer is written is not known here.
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from asyncctl.apiserver import apply, behaviour, causes as why, crd, decoding, errors, validation, wire
from asyncctl.apiserver.errors import Cause
from asyncctl.apiserver.request import WriteOptions
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.store import Collection, Record, Store
from asyncctl.apiserver.wire import JsonObject

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # pragma: allowlist secret
"""The characters of generated names: no vowels and no look-alikes (apimachinery's `util/rand`)."""

PROTECTED_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
GARBAGE_FINALIZERS = ("orphan", "foregroundDeletion")


@dataclass(slots=True)
class Write:
    """One write: the kind in the version the client speaks, the place, the options, and the warnings it gathers."""

    kind: ResourceKind
    namespace: str
    name: str
    options: WriteOptions
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The key of the object in its collection."""
        return object_key(self.kind, self.namespace, self.name)


@dataclass(slots=True)
class DeleteOptions:
    """What a delete asks for. `grace` is in seconds; `policy` is `Foreground`, `Background`, `Orphan` or empty."""

    uid: str | None = None
    version: str | None = None
    grace: int | None = None
    policy: str = ""
    orphan: bool | None = None
    dry_run: bool = False


def object_key(kind: ResourceKind, namespace: str, name: str) -> str:
    """Return the key of an object in its collection: `namespace/name`, or the name of a cluster-scoped one."""
    return f"{namespace}/{name}" if kind.namespaced else name


def decoded(kind: ResourceKind, obj: JsonObject, options: WriteOptions, strict: list[str]) -> list[str]:
    """Bring a decoded object into its kind's form, in place: known fields only, defaults filled in.

    Args:
        kind: what it should be.
        obj: what the client sent.
        options: whether unknown fields fail, warn or are dropped silently.
        strict: what strict decoding had against the body already.

    Returns:
        The warnings for the client.

    Raises:
        ApiError: 400 when the type is another, or in strict mode when there is something to warn of.
    """
    behaviour.check_type(kind, obj)
    if text := decoding.decode_error(kind, obj):
        raise behaviour.cannot_handle(kind, text)
    behaviour.metadata(obj)
    complaints = list(strict)
    if kind.schema is not None:
        kind.schema.default(obj)
        complaints += [f'unknown field "{path}"' for path in kind.schema.prune(obj)]
    if complaints and options.validation == "Strict":
        raise behaviour.cannot_handle(kind, f"strict decoding error: {', '.join(complaints)}")
    validation.prepare(kind, obj)
    behaviour.default(kind, obj)
    behaviour.fill(obj, kind.empty)
    return complaints if options.validation == "Warn" else []


def _raise(kind: ResourceKind, obj: JsonObject, found: list[Cause]) -> None:
    if found:
        # Events of both groups are judged in the version that is stored.
        group = kind.group if behaviour.of(kind).storage == kind.resource else ""
        raise errors.invalid(group, obj["kind"], obj["metadata"].get("name", ""), found)


def _ignore(kind: ResourceKind, record: Record) -> None:
    del kind, record


class Registry:
    """Writes objects of every kind to a store.

    Args:
        store: where they are kept.
        now: gives the time as an aware UTC datetime.
        rng: what generated names are drawn from.
    """

    def __init__(self, store: Store, now: Callable[[], datetime], rng: random.Random) -> None:
        self.store = store
        self.now = now
        self._rng = rng
        self.stored: Callable[[ResourceKind, Record], None] = _ignore
        """Called after an object was written."""
        self.removed: Callable[[ResourceKind, Record], None] = _ignore
        """Called after an object is gone."""

    def collection(self, kind: ResourceKind) -> Collection:
        """Return the collection that holds the objects of a kind, in all its versions."""
        return self.store.collection(behaviour.of(kind).storage)

    def find(self, kind: ResourceKind, namespace: str, name: str) -> Record:
        """Return a record; raise 404."""
        record = self.collection(kind).records.get(object_key(kind, namespace, name))
        if record is None:
            raise errors.not_found(kind.group, kind.plural, name)
        return record

    def create(self, write: Write, obj: JsonObject) -> Record:
        """Create `obj`, already `decoded`. Raise what the real server answers when that cannot be."""
        self._place(write, obj)
        for name in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "selfLink"):
            obj["metadata"].pop(name, None)
        apply.track_update(write.kind, None, obj, write.options.manager, write.subresource, self.now())
        self._admit_create(write, obj)
        return self._insert(write, obj)

    @staticmethod
    def _place(write: Write, obj: JsonObject) -> None:
        meta = behaviour.metadata(obj)
        if not write.kind.namespaced:
            meta.pop("namespace", None)
            return
        if meta.get("namespace", "") not in {"", write.namespace}:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        meta["namespace"] = write.namespace

    def _admit_create(self, write: Write, obj: JsonObject) -> None:
        if not write.kind.namespaced:
            return
        namespace = self.store.collection("namespaces").records.get(write.namespace)
        if namespace is None:
            raise errors.not_found("", "namespaces", write.namespace)
        if namespace.object["metadata"].get("deletionTimestamp"):
            text = f"namespace {write.namespace} is being terminated"
            cause = Cause("NamespaceTerminating", text, "metadata.namespace")
            refusal = f"unable to create new content in namespace {write.namespace} because it is being terminated"
            name = obj["metadata"].get("name", "")
            raise errors.forbidden(write.kind.group, write.kind.plural, name, refusal, [cause])

    def _insert(self, write: Write, obj: JsonObject) -> Record:
        kind, meta = write.kind, obj["metadata"]
        if not meta.get("name") and (base := meta.get("generateName")):
            meta["name"] = base[:58] + "".join(self._rng.choices(_SUFFIX, k=5))
        write.name = meta.get("name", "")
        meta["uid"] = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        meta["creationTimestamp"] = wire.time(self.now())
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            meta.pop(name, None)
        behaviour.prepare_create(kind, obj)
        if kind.has_generation:
            meta["generation"] = 1
        _raise(kind, obj, validation.validate_create(kind, obj))
        write.warnings += validation.warnings(kind, obj)
        version = meta.pop("resourceVersion", "")
        existing = self.collection(kind).records.get(write.key)
        if version not in {"", "0"}:
            raise errors.unclassified("resourceVersion should not be set on objects to be created")
        if existing is not None:
            terminating = "deletionTimestamp" in existing.object["metadata"]
            raise errors.already_exists(kind.group, kind.plural, write.name, terminating=terminating)
        return self._put(write, obj)

    def _put(self, write: Write, obj: JsonObject) -> Record:
        stored = behaviour.to_storage(write.kind, behaviour.ordered(write.kind, obj))
        if write.options.dry_run:
            return Record(write.key, 0, stored)
        record = self.store.put(self.collection(write.kind), write.key, stored)
        self.stored(write.kind, record)
        return record

    def update(
        self,
        write: Write,
        transform: Callable[[JsonObject | None], JsonObject],
        *,
        uid: str = "",
        create: bool = False,
    ) -> tuple[Record, bool]:
        """Replace an object by what `transform` makes of it (PUT, patches and apply all end here).

        Args:
            write: the place and the options.
            transform: gets the object as it is, a copy of its own, or None; returns the new one, with managedFields.
            uid: when given, the object must have it.
            create: whether a missing object is created, whatever its kind.

        Returns:
            The record, and whether it was created.

        Raises:
            ApiError: what the real server answers.
        """
        kind = write.kind
        current = self.collection(kind).records.get(write.key)
        if current is None and not create and not kind.create_on_update:
            raise errors.not_found(kind.group, kind.plural, write.name)
        if uid and uid != (current.object["metadata"]["uid"] if current else ""):
            raise self._uid_mismatch(write, uid, current)
        if current is None and write.subresource:
            raise errors.not_found(kind.group, kind.plural, write.name)
        old = behaviour.from_storage(kind, current.copy()) if current else None
        obj = transform(None if current is None else behaviour.from_storage(kind, current.copy()))
        if current is None or old is None:
            self._admit_create(write, obj)
            obj["metadata"].pop("resourceVersion", None)
            return self._insert(write, obj), True
        self._check_version(write, obj, current)
        self._prepare_update(write, obj, old)
        _raise(kind, obj, validation.validate_update(kind, obj, old, write.subresource))
        write.warnings += validation.warnings(kind, obj, old)
        apply.keep_times(obj, old)
        obj["metadata"]["resourceVersion"] = str(current.version)
        if old["metadata"].get("deletionTimestamp") and behaviour.finished(kind, obj):
            if not write.options.dry_run:
                self._remove(write, current)
            return Record(write.key, current.version, behaviour.to_storage(kind, behaviour.ordered(kind, obj))), False
        if obj == old:
            return current, False
        return self._put(write, obj), False

    def _remove(self, write: Write, record: Record) -> Record:
        # A watcher is told of the object as it was stored, under the deletion's own version, whatever the last write
        # would have made of it (the real server's storage knows no more at that point).
        gone = self.store.delete(self.collection(write.kind), write.key, record.copy())
        self.removed(write.kind, gone)
        return gone

    def _uid_mismatch(self, write: Write, uid: str, current: Record | None) -> errors.ApiError:
        actual = current.object["metadata"]["uid"] if current else ""
        path = f"/registry/{behaviour.of(write.kind).prefix}/{write.key}"
        text = (
            f"StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"
        )
        return errors.conflict(write.kind.group, write.kind.plural, write.name, text)

    def _check_version(self, write: Write, obj: JsonObject, current: Record) -> None:
        kind, version = write.kind, obj["metadata"].get("resourceVersion", "")
        if version in {"", "0"}:
            if kind.unconditional_update:
                return
            cause = why.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(kind.group, kind.plural, write.name, [cause])
        if version != str(current.version):
            raise errors.conflict(kind.group, kind.plural, write.name)

    def _prepare_update(self, write: Write, obj: JsonObject, old: JsonObject) -> None:
        meta, was = obj["metadata"], old["metadata"]
        behaviour.prepare_update(write.kind, obj, old, write.subresource)
        meta = obj["metadata"]
        meta.setdefault("uid", was["uid"])
        for name in ("name", "namespace", "creationTimestamp", "deletionTimestamp", "generateName"):
            if name in was and (name in {"creationTimestamp", "deletionTimestamp"} or not meta.get(name)):
                meta[name] = was[name]
        if "deletionGracePeriodSeconds" in was:
            meta.setdefault("deletionGracePeriodSeconds", was["deletionGracePeriodSeconds"])
        meta.pop("generation", None)
        if "generation" in was:
            meta["generation"] = was["generation"] + behaviour.changes_generation(write.kind, obj, old)

    def delete(self, write: Write, options: DeleteOptions) -> tuple[Record, bool]:
        """Delete an object, or mark it as going when finalizers or a grace period hold it.

        Returns:
            The record as the request leaves it, and whether it is gone.
        """
        kind = write.kind
        record = self.find(kind, write.namespace, write.name)
        meta = record.object["metadata"]
        if options.uid is not None and options.uid != meta["uid"]:
            text = (
                f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). "
                "The object might have been deleted and then recreated"
            )
            raise errors.conflict(kind.group, kind.kind, write.name, text)
        if options.version is not None and options.version != str(record.version):
            text = (
                f"the ResourceVersion in the precondition ({options.version}) does not match the ResourceVersion in "
                f"record ({record.version}). The object might have been modified"
            )
            raise errors.conflict(kind.group, kind.kind, write.name, text)
        if kind.plural == "namespaces" and not kind.group and write.name in PROTECTED_NAMESPACES:
            raise errors.forbidden("", "namespaces", write.name, "this namespace may not be deleted")
        obj = record.copy()
        meta = obj["metadata"]
        finalizers = self._finalizers(meta.get("finalizers") or [], options)
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        going = "deletionTimestamp" in meta
        grace = behaviour.grace(kind, obj, options.grace)
        if going:
            grace = min(grace, meta.get("deletionGracePeriodSeconds", 0))
        if kind.resource == behaviour.CRD and not going:
            crd.mark_terminating(obj, self.now())
        elif not grace and not finalizers and not behaviour.holds(kind, obj) and not behaviour.of(kind).graceful:
            return (record if options.dry_run else self._remove(write, record)), True
        if not going:
            if "generation" in meta:
                meta["generation"] += 1
            meta["deletionTimestamp"] = wire.time(self.now() + timedelta(seconds=grace))
        if behaviour.of(kind).marks_grace:
            meta["deletionGracePeriodSeconds"] = grace
        behaviour.mark_deleted(kind, obj)
        if options.dry_run:
            return Record(write.key, record.version, obj), False
        if obj != record.object:
            record = self.store.put(self.collection(kind), write.key, behaviour.ordered(kind, obj))
            self.stored(kind, record)
        if behaviour.of(kind).graceful and not grace and not finalizers:
            self._remove(write, record)
            return record, True
        return record, False

    def _finalizers(self, finalizers: list[str], options: DeleteOptions) -> list[str]:
        wanted = None
        if options.orphan is not None:
            wanted = "orphan" if options.orphan else ""
        elif options.policy:
            wanted = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}.get(options.policy, "")
        if wanted is None:
            return finalizers
        kept = [name for name in finalizers if name not in GARBAGE_FINALIZERS]
        return [*kept, wanted] if wanted else kept

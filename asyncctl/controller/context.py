"""What a pass is given: reads from the cache, writes that own what they write, and ways to say something.

A `Context` lives for one pass over one object. What it reads includes its own writes; what it writes goes through the
fence.
"""

import builtins
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, overload

import orjson

from asyncctl.cache.header import Entry, Header, Key, read_entry
from asyncctl.cache.informer import Informer
from asyncctl.client.bridge.rest_client import Opening
from asyncctl.client.client import Client
from asyncctl.client.errors import Conflict, Invalid, NotFound, Target
from asyncctl.client.patch import Patch
from asyncctl.client.transport.transport import Fence
from asyncctl.clock import Clock
from asyncctl.controller.applied import ANNOTATION, contains, digest, fingerprint
from asyncctl.controller.events import EventRecorder
from asyncctl.controller.outcome import NotOwned
from asyncctl.controller.status import write_status
from asyncctl.objects.base import Part
from asyncctl.objects.builtin import ObjectReference
from asyncctl.objects.codec import decode, to_dict
from asyncctl.objects.conditions import Status
from asyncctl.objects.json import JsonObject
from asyncctl.objects.meta import OwnerReference
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of
from asyncctl.observe.logs import Logger

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

R = TypeVar("R", bound=Resource)
OWNER = "asyncctl/owner"
"""Annotation of an applied object that has no owner reference: whose it is all the same."""
_SERVER_SET = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")


@dataclass(slots=True)
class Environment:
    """What all passes of one controller share."""

    controller: str
    kind: Kind
    client: Client
    informers: dict[ResourceType, Informer]
    events: EventRecorder
    clock: Clock
    logger: Logger
    fence: Fence
    applied: dict[tuple[ResourceType, Key], int] = field(default_factory=dict)
    """The fingerprint of each object as our last apply was answered."""

    @property
    def resource(self) -> ResourceType:
        """The kind that is reconciled."""
        return resource_type_of(self.kind)

    def informer(self, kind: ResourceType) -> Informer:
        """The cache of `kind`; it has to be declared."""
        found = self.informers.get(kind)
        if found is None:
            raise LookupError(
                f"controller {self.controller!r} has not declared {kind}: add it to owns=, watches= or reads=, so that "
                "it is cached and its RBAC rule is generated; or read it live, with ctx.client"
            )
        return found


class Context:
    """One pass: `ctx` in `reconcile(ctx, obj)`.

    Attributes:
        attempt: 1, and one more for each retry since the last success.
        reconcile_id: On each log line of the pass, and as `Audit-ID` on each of its requests.
        deadline: `Clock.monotonic` seconds by which the pass has to be over.
        client: The live client, for what is not cached. What it writes is not laid over the cache: `get` and `list`
            know of it only when the watch has told.
    """

    def __init__(
        self, environment: Environment, entry: Entry, obj: Resource | JsonObject, *,
        attempt: int, reconcile_id: str, deadline: float,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._entry = entry
        self._object = obj
        self._status = _status_of(obj)
        self._generation = entry.header.generation or None
        self._log: Logger | None = None
        self.attempt = attempt
        self.reconcile_id = reconcile_id
        self.deadline = deadline
        self.client = environment.client.with_audit_id(reconcile_id)
        self._bridges: builtins.list[ApiClient] = []

    @property
    def log(self) -> Logger:
        """A logger whose lines carry the object's names and the reconcile id."""
        if self._log is None:
            header = self._entry.header
            kind = self._environment.resource
            self._log = self._environment.logger.bind(
                controller=self._environment.controller, controllerGroup=kind.group, controllerKind=kind.kind,
                namespace=header.namespace, name=header.name, reconcileID=self.reconcile_id, attempt=self.attempt,
            )  # fmt: skip
        return self._log

    @property
    def header(self) -> Header:
        """The header of the object as it is known by now."""
        return self._entry.header

    def fence(self) -> float:
        """Seconds for which this process may still act; raises `Fenced`. Ask it before each effect on the outside."""
        return self._environment.fence()

    def kubernetes_asyncio(self) -> Opening:
        """An `ApiClient` of kubernetes-asyncio, for its generated APIs: `CoreV1Api(api)`.

        `async with ctx.kubernetes_asyncio() as api:` or `api = await ctx.kubernetes_asyncio()`; the pass's end closes
        it. Its requests have the credentials, limits, retries and namespaces of `client`, and its writes go through
        the fence. The first call imports that library, in a thread: 0.35 s and 39 MB.
        """
        return Opening(self._open_bridge)

    async def _open_bridge(self) -> "ApiClient":
        made = await self.client.kubernetes_asyncio()
        self._bridges.append(made)
        return made

    @overload
    def get(self, kind: type[R], name: str, *, namespace: str | None = None) -> R | None: ...
    @overload
    def get(self, kind: Unstructured, name: str, *, namespace: str | None = None) -> JsonObject | None: ...
    def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Resource | JsonObject | None:
        """Read one object from the cache, own writes included; None when there is none.

        Args:
            kind: A kind that the controller declared.
            name: Its name.
            namespace: Default: that of the object being reconciled.

        Raises:
            LookupError: The kind is not declared.
            NamespaceBoundaryExceeded: The namespace is outside of `ASYNCCTL_NAMESPACES`: nothing is known of it.
        """
        resource = resource_type_of(kind)
        informer = self._environment.informer(resource)
        key = self._key(resource, name, namespace)
        self.client.check_boundary(Target("get", resource.resource, key[0] or None, name), resource)
        entry = informer.get(key)
        return None if entry is None else _decoded(kind, entry)

    @overload
    def list(
        self, kind: type[R], *, namespace: str | None = None, labels: dict[str, str] | None = None
    ) -> Iterator[R]: ...
    @overload
    def list(
        self, kind: Unstructured, *, namespace: str | None = None, labels: dict[str, str] | None = None
    ) -> Iterator[JsonObject]: ...
    def list(
        self, kind: Kind, *, namespace: str | None = None, labels: dict[str, str] | None = None
    ) -> Iterator[Resource | JsonObject]:
        """Read objects from the cache, own writes included: of one namespace, or of all that may be read.

        Raises:
            LookupError: The kind is not declared.
            NamespaceBoundaryExceeded: The namespace is outside of `ASYNCCTL_NAMESPACES`: nothing is known of it.
        """
        resource = resource_type_of(kind)
        informer = self._environment.informer(resource)
        if namespace is not None:
            self.client.check_boundary(Target("list", resource.resource, namespace), resource)
        wanted = (labels or {}).items()
        entries = informer.entries(namespace)
        return (_decoded(kind, entry) for entry in entries if wanted <= entry.header.labels.items())

    async def apply(self, obj: R, *, owned: bool = True, adopt: bool = False) -> R:
        """Make `obj` so, by server-side apply; sends nothing when nothing would change.

        What is left out of `obj` and was applied before goes; what others own stays. An owner reference to the object
        being reconciled is added.

        Args:
            obj: What is wanted, complete. Its namespace defaults to that of the object being reconciled.
            owned: False: no owner reference, so that it outlives its owner; an annotation says whose it is.
            adopt: Take over an object of that name which belongs to nobody.

        Returns:
            The object as the server has it.

        Raises:
            NotOwned: There is an object of that name, and it is not ours.
            Conflict: It was deleted or replaced at this moment.
            ValueError: The owner would be in another namespace.
        """
        kind = type(obj).resource_type
        environment = self._environment
        informer = environment.informer(kind)
        wanted = self._wanted(obj, kind, owned=owned)
        metadata = wanted["metadata"]
        key: Key = (metadata.get("namespace", ""), metadata["name"])
        metadata.setdefault("annotations", {})[ANNOTATION] = digest(wanted)
        entry = informer.get(key)
        answer: bytes | None = None
        if entry is None:
            answer = await self._create(kind, key, wanted)
            if answer is None:  # the cache does not know it yet, or a selector hides it
                live = await self.client.get(kind, key[1], namespace=key[0] or None)
                entry = read_entry(live, self.client.field_manager)
        if entry is not None:
            annotations = _annotations(entry)
            self._check_ours(kind, entry, annotations, adopt=adopt)
            if self._is_current(kind, entry, annotations, wanted):
                return decode(type(obj), entry.data)
            answer = await self._update(kind, entry, wanted)
        assert answer is not None
        entry = read_entry(answer, self.client.field_manager)
        informer.wrote(entry)
        mark = fingerprint(entry)
        if mark is not None:
            environment.applied[kind, key] = mark
        return decode(type(obj), entry.data)

    def owns(self, obj: Resource) -> bool:
        """Whether `obj`, as it was read, is the reconciled object's: by owner reference, or by `apply(owned=False)`."""
        return self._is_ours((owner.uid for owner in obj.metadata.owner_references), obj.annotations)

    async def delete(self, obj: Resource) -> None:
        """Delete `obj` as it was read: a namesake, or one that was changed since, is not touched. Gone already is fine.

        Raises:
            Conflict: It was changed or replaced since.
            ValueError: It was not read from the server, so that nothing tells it from a namesake.
        """
        kind, meta = type(obj).resource_type, obj.metadata
        if not meta.uid:
            raise ValueError(
                f"{kind.kind} {meta.name!r} has no uid: delete an object that was read, by ctx.get or list"
            )
        try:
            gone = await self.client.delete(
                kind, meta.name, namespace=meta.namespace or None, uid=meta.uid, resource_version=meta.resource_version
            )
        except NotFound:
            gone = True
        if gone and kind in self._environment.informers:
            self._environment.informers[kind].deleted((meta.namespace, meta.name), meta.uid)

    async def save_status(self) -> None:
        """Send what has changed in the status now: what must be on record before something outside is made.

        Raises:
            NotFound: The object is gone.
            Conflict: Others changed it each time it was tried.
        """
        status = getattr(self._object, "status", None)
        if isinstance(status, Status):
            status.conditions.stamp(self._environment.clock.now(), self._generation)
        after = _status_of(self._object)
        answer = await write_status(self.client, self._environment.resource, self._entry.data, self._status, after)
        self._status = after
        if answer is not None:
            self.took(answer)

    def normal(self, reason: str, note: str) -> None:
        """Say what went as it should, as an Event of the object; `reason` is one CamelCase word."""
        self._environment.events.say(self._reference(), "Normal", reason, note)

    def warning(self, reason: str, note: str) -> None:
        """Say what a person should look at, as an Event of the object."""
        self._environment.events.say(self._reference(), "Warning", reason, note)

    async def finish(self) -> None:
        """Send what has changed in the status, and the generation that it was made from. For the runtime."""
        status = getattr(self._object, "status", None)
        if isinstance(status, Status):
            status.observed_generation = self._generation
        await self.save_status()

    def took(self, answer: bytes) -> None:
        """Know the object being reconciled as a write of ours was answered. For the runtime."""
        self._entry = read_entry(answer, self.client.field_manager)
        self._environment.informer(self._environment.resource).wrote(self._entry)

    async def close(self) -> None:
        """Close what the pass has opened and left open. For the runtime."""
        while self._bridges:
            await self._bridges.pop().close()

    def _reference(self) -> ObjectReference:
        kind, header = self._environment.resource, self._entry.header
        return ObjectReference(
            api_version=kind.api_version, kind=kind.kind, namespace=header.namespace, name=header.name, uid=header.uid
        )

    def _key(self, kind: ResourceType, name: str, namespace: str | None) -> Key:
        if not kind.namespaced:
            return "", name
        return self._entry.header.namespace if namespace is None else namespace, name

    def _wanted(self, obj: Resource, kind: ResourceType, *, owned: bool) -> JsonObject:
        wanted = to_dict(obj)
        wanted.pop("status", None)
        metadata = {key: value for key, value in wanted.get("metadata", {}).items() if key not in _SERVER_SET}
        wanted["metadata"] = metadata
        metadata.get("annotations", {}).pop(ANNOTATION, None)  # there when `obj` was read before it was changed
        mine = self._entry.header
        if kind.namespaced:
            metadata.setdefault("namespace", mine.namespace)
        elif owned and mine.namespace:
            raise ValueError(f"{kind} {obj.name!r} has no namespace and can't be owned by {mine.namespace}/{mine.name}")
        if not owned:
            metadata.setdefault("annotations", {})[OWNER] = self._owner_mark()
            return wanted
        if kind.namespaced and mine.namespace and metadata["namespace"] != mine.namespace:
            raise ValueError(
                f"{kind} {metadata['namespace']}/{obj.name} can't be owned by {mine.namespace}/{mine.name}: an owner "
                "must be in the same namespace; apply it with owned=False and clean it up in a finalizer"
            )
        owner = self._environment.resource
        reference = OwnerReference(
            api_version=owner.api_version, kind=owner.kind, name=mine.name, uid=mine.uid,
            controller=True, block_owner_deletion=True,
        )  # fmt: skip
        others = [each for each in metadata.get("ownerReferences", []) if each["uid"] != mine.uid]
        metadata["ownerReferences"] = [*others, to_dict(reference)]
        return wanted

    def _owner_mark(self) -> str:
        header = self._entry.header
        return "/".join(part for part in (self._environment.resource.resource, header.namespace, header.name) if part)

    def _is_ours(self, owners: Iterable[str], annotations: Mapping[str, str]) -> bool:
        return self._entry.header.uid in owners or annotations.get(OWNER) == self._owner_mark()

    def _check_ours(self, kind: ResourceType, entry: Entry, annotations: dict[str, str], *, adopt: bool) -> None:
        header = entry.header
        if self._is_ours((owner.uid for owner in header.owners), annotations):
            return
        owner = header.controller
        if adopt and owner is None and OWNER not in annotations:
            return
        whose = f"{owner.kind} {owner.name}" if owner else annotations.get(OWNER) or "nobody we know"
        raise NotOwned(
            f"{kind.kind} {'/'.join(part for part in header.key if part)} exists and belongs to {whose}; it was not "
            "touched. Choose another name, or delete it if nobody needs it"
        )

    def _is_current(self, kind: ResourceType, entry: Entry, annotations: dict[str, str], wanted: JsonObject) -> bool:
        if annotations.get(ANNOTATION) != wanted["metadata"]["annotations"][ANNOTATION]:
            return False
        mark = fingerprint(entry)
        if mark is None:
            return False
        known = self._environment.applied.get((kind, entry.header.key))
        if known is not None:
            return known == mark
        # After a restart there is no answer to compare with; and the items of a list do not say their kind.
        said = {key: value for key, value in wanted.items() if key not in {"apiVersion", "kind"}}
        if not contains(orjson.loads(entry.data), said):
            return False
        self._environment.applied[kind, entry.header.key] = mark
        return True

    async def _create(self, kind: ResourceType, key: Key, wanted: JsonObject) -> bytes | None:
        """Apply what can't exist yet; None when it does. A POST would leave the fields owned by an Update as well."""
        pinned = wanted | {"metadata": wanted["metadata"] | {"resourceVersion": "1"}}
        try:
            return await self.client.patch(
                kind, key[1], pinned, patch=Patch.APPLY, namespace=key[0] or None, force=True
            )
        except Conflict:
            return None

    async def _update(self, kind: ResourceType, entry: Entry, wanted: JsonObject) -> bytes:
        header = entry.header
        pinned = wanted | {"metadata": wanted["metadata"] | {"uid": header.uid}}
        try:
            return await self.client.patch(
                kind, header.name, pinned, patch=Patch.APPLY, namespace=header.namespace or None, force=True
            )
        except Invalid as error:
            if any(field == "metadata.uid" for _, _, field in error.causes):  # a namesake the cache has not seen yet
                raise Conflict(
                    error.target, error.code, {"reason": "Conflict", "message": error.server_message}
                ) from error
            raise


def _status_of(obj: Resource | JsonObject) -> JsonObject:
    """A copy of the object's status, as on the wire."""
    if isinstance(obj, Resource):
        status = getattr(obj, "status", None)
        return to_dict(status) if isinstance(status, Part) else {}
    return copy.deepcopy(obj.get("status") or {})


def _decoded(kind: Kind, entry: Entry) -> Resource | JsonObject:
    return decode(kind, entry.data)


def _annotations(entry: Entry) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(entry.data)["metadata"].get("annotations") or {}
    return found

"""What a pass is given: reads from the cache, writes that own what they write, and ways to say something.

A `Context` lives for one pass over one object. What it reads includes its own writes; what it writes goes through the
fence.
"""

import builtins
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import msgspec
import orjson

from asyncctl.cache.header import Entry, Header, Key, read_entry
from asyncctl.client.bridge.rest_client import Opening
from asyncctl.client.client import Client
from asyncctl.client.errors import NotFound, Target
from asyncctl.client.patch import Patch
from asyncctl.controller.applier import Applier, without_nulls
from asyncctl.controller.deleter import Deleter
from asyncctl.controller.environment import Environment, Fence
from asyncctl.controller.ownership import Ownership
from asyncctl.controller.status import write_status
from asyncctl.objects.base import Part
from asyncctl.objects.builtin import ObjectReference
from asyncctl.objects.codec import decode, to_dict
from asyncctl.objects.conditions import Status
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of
from asyncctl.observe.logs import Logger

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

R = TypeVar("R", bound=Resource)
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Context:
    """One pass: `ctx` in `reconcile(ctx, obj)`.

    Attributes:
        attempt: 1, and one more for each retry since the last success.
        deadline: `Clock.monotonic` seconds by which the pass has to be over.
    """

    def __init__(
        self, environment: Environment, entry: Entry, obj: Resource | JsonObject, *,
        attempt: int, deadline: float,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._entry = entry
        self._object = obj
        self._read = entry.data
        self._sent: JsonObject | None = None  # the status as it was sent last; None: it is as it was read
        self._looked = _look_of(obj)
        self._generation = entry.header.generation or None
        self._log: Logger | None = None
        self.attempt = attempt
        self.deadline = deadline
        self._reconcile_id = ""
        self._client: Client | None = None
        self._bridges: builtins.list[ApiClient] = []

    @property
    def reconcile_id(self) -> str:
        """On each log line of the pass, and as `Audit-ID` on each of its requests. Made when it is first asked for."""
        if not self._reconcile_id:
            self._reconcile_id = self._environment.new_id()
        return self._reconcile_id

    @property
    def client(self) -> Client:
        """The live client, for what is not cached.

        What it writes is not laid over the cache: `get` and `list` know of it only when the watch has told.
        """
        if self._client is None:
            self._client = self._environment.client.with_audit_id(self.reconcile_id)
        return self._client

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

    @property
    def fence(self) -> Fence:
        """For effects outside of the cluster, which no API server refuses: `ctx.fence.check()` right before each.

        It returns the seconds that the effect may take, and raises `Fenced` where this process may not act any more.
        """
        return self._environment.fence

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
            ValueError: It is in a namespace, the object being reconciled is in none, and which is not said.
        """
        resource = resource_type_of(kind)
        informer = self._environment.informer(resource)
        key = self._key(resource, name, namespace)
        self._environment.client.check_boundary(Target("get", resource.resource, key[0] or None, name), resource)
        entry = informer.get(key)
        return None if entry is None else _decoded(kind, entry)

    @overload
    async def find(self, kind: type[R], name: str, *, namespace: str | None = None) -> R | None: ...
    @overload
    async def find(self, kind: Unstructured, name: str, *, namespace: str | None = None) -> JsonObject | None: ...
    async def find(self, kind: Kind, name: str, *, namespace: str | None = None) -> Resource | JsonObject | None:
        """Read one object from the cache, and live where that has none; None when there is none on the server either.

        For where a mistake is dear: the cache of a narrowed `Watch` lacks what does not match, such as an object of
        ours that lost its label, and any cache what was made a moment ago. What is not there costs a request.

        Args:
            kind: A kind that the controller declared.
            name: Its name.
            namespace: Default: that of the object being reconciled.

        Raises:
            KubernetesError: It could not be read live.
            LookupError: The kind is not declared.
            NamespaceBoundaryExceeded: The namespace is outside of `ASYNCCTL_NAMESPACES`.
            ValueError: It is in a namespace, the object being reconciled is in none, and which is not said.
        """
        cached = self.get(kind, name, namespace=namespace)
        if cached is not None:
            return cached
        where, _ = self._key(resource_type_of(kind), name, namespace)
        try:
            return await self.client.get(kind, name, namespace=where or None)
        except NotFound:
            return None

    @overload
    def list(
        self, kind: type[R], *, namespace: str | None = None, labels: dict[str, str] | None = None,
        owner: Literal[True] | Resource | JsonObject | str | None = None, index: tuple[str, str] | None = None,
    ) -> Iterator[R]: ...  # fmt: skip
    @overload
    def list(
        self, kind: Unstructured, *, namespace: str | None = None, labels: dict[str, str] | None = None,
        owner: Literal[True] | Resource | JsonObject | str | None = None, index: tuple[str, str] | None = None,
    ) -> Iterator[JsonObject]: ...  # fmt: skip
    def list(
        self, kind: Kind, *, namespace: str | None = None, labels: dict[str, str] | None = None,
        owner: Literal[True] | Resource | JsonObject | str | None = None, index: tuple[str, str] | None = None,
    ) -> Iterator[Resource | JsonObject]:  # fmt: skip
        """Read objects from the cache, own writes included; each is decoded when it is reached.

        Args:
            kind: A kind that the controller declared.
            namespace: Default: all that may be read.
            labels: Only those that have these labels.
            owner: Only those with an owner reference to this object, or to the object of this uid; True: to the one
                being reconciled.
            index: Only those for which this index, by name, has this value; see `Watch`.

        Raises:
            LookupError: The kind, or the index, is not declared.
            NamespaceBoundaryExceeded: The namespace is outside of `ASYNCCTL_NAMESPACES`: nothing is known of it.
        """
        resource = resource_type_of(kind)
        informer = self._environment.informer(resource)
        if namespace is not None:
            self._environment.client.check_boundary(Target("list", resource.resource, namespace), resource)
        uid = None if owner is None else self._uid(owner)
        if index is not None:
            found = informer.by_index(*index)
        elif uid is not None:
            found = informer.by_owner(uid)
        else:
            found = informer.entries(namespace, labels)
        wanted = (labels or {}).items()
        return (
            _decoded(kind, entry) for entry in found
            if (namespace is None or entry.header.namespace == namespace)
            and (not wanted or wanted <= entry.header.labels.items())
            and (uid is None or any(each.uid == uid for each in entry.header.owners))
        )  # fmt: skip

    @overload
    async def apply(self, obj: R, kind: None = None, /, *, owned: bool = True, adopt: bool = False) -> R: ...
    @overload
    async def apply(
        self, obj: JsonObject, kind: Unstructured, /, *, owned: bool = True, adopt: bool = False
    ) -> JsonObject: ...
    async def apply(
        self,
        obj: Resource | JsonObject,
        kind: Unstructured | None = None,
        /,
        *,
        owned: bool = True,
        adopt: bool = False,
    ) -> Resource | JsonObject:
        """Make `obj` so, by server-side apply; sends nothing when nothing would change.

        What is left out of `obj` and was applied before goes; what others own stays. An owner reference to the object
        being reconciled is added.

        Args:
            obj: What is wanted, complete. Its namespace defaults to that of the object being reconciled.
            kind: Of a dict.
            owned: False: no owner reference, so that it outlives its owner; an annotation says whose it is.
            adopt: Take over an object of that name which belongs to nobody.

        Returns:
            The object as the server has it.

        Raises:
            NotOwned: There is an object of that name, and it is not ours.
            Conflict: It was deleted or replaced at this moment, or others have changed it at each of five tries.
            TypeError: Of a dict the kind is not said.
            ValueError: It has no name, or the owner would be in another namespace.
        """
        known = _kind_of(obj, kind)
        applier = Applier(self._environment, lambda: self.client, self._ownership)
        return _decoded(known, await applier.apply(resource_type_of(known), obj, owned=owned, adopt=adopt))

    def owns(self, obj: Resource | JsonObject) -> bool:
        """Whether `obj`, as it was read, is the reconciled object's: controlled by it, or of `apply(owned=False)`."""
        metadata = _metadata(obj)
        owners = metadata.get("ownerReferences") or ()
        controller = next((owner["uid"] for owner in owners if owner.get("controller")), None)
        return self._ownership.has(controller, metadata.get("annotations") or {})

    @overload
    async def delete(self, obj: Resource, kind: None = None, /) -> None: ...
    @overload
    async def delete(self, obj: JsonObject, kind: Unstructured, /) -> None: ...
    async def delete(self, obj: Resource | JsonObject, kind: Unstructured | None = None, /) -> None:
        """Delete `obj` as it was read: a namesake, or one that was changed since, is not touched. Gone already is fine.

        Args:
            obj: What is to go.
            kind: Of a dict.

        Raises:
            Conflict: It was changed or replaced since.
            TypeError: Of a dict the kind is not said.
            ValueError: It was not read from the server, so that nothing tells it from a namesake.
        """
        resource, metadata = resource_type_of(_kind_of(obj, kind)), _metadata(obj)
        name, uid, version = (metadata.get(key, "") for key in ("name", "uid", "resourceVersion"))
        if not uid or not version:
            raise ValueError(
                f"{resource.kind} {name!r} has no {'resourceVersion' if uid else 'uid'}: delete an object that was "
                "read, by ctx.get or list"
            )
        deleter = Deleter(self._environment, self.client, self._ownership)
        await deleter.delete(resource, (metadata.get("namespace", ""), name), uid, version)

    @overload
    async def release(self, obj: Resource, kind: None = None, /) -> None: ...
    @overload
    async def release(self, obj: JsonObject, kind: Unstructured, /) -> None: ...
    async def release(self, obj: Resource | JsonObject, kind: Unstructured | None = None, /) -> None:
        """Take the owner reference off `obj` as it was read, so that it outlives its owner, and change nothing else.

        It stays the owner's as what `apply(owned=False)` makes is: one that is made again under its name has it again.
        Without such a reference nothing is sent.

        Args:
            obj: What is to stay.
            kind: Of a dict.

        Raises:
            Conflict: It was changed or replaced since.
            NotFound: It is gone.
            TypeError: Of a dict the kind is not said.
        """
        resource, metadata = resource_type_of(_kind_of(obj, kind)), _metadata(obj)
        change = self._ownership.released(metadata)
        if change is None:
            return
        answer = await self.client.patch(
            resource, metadata["name"], {"metadata": change}, patch=Patch.MERGE,
            namespace=metadata.get("namespace") or None,
        )  # fmt: skip
        informer = self._environment.informers.get(resource)
        if informer is not None:
            informer.wrote(read_entry(answer, self.client.field_manager))

    @overload
    async def prune(self, kind: type[R], *, keep: Iterable[R | str]) -> builtins.list[R]: ...
    @overload
    async def prune(self, kind: Unstructured, *, keep: Iterable[JsonObject | str]) -> builtins.list[JsonObject]: ...
    async def prune(self, kind: Kind, *, keep: Iterable[Resource | JsonObject | str]) -> builtins.list[Any]:
        """Delete the objects of `kind` that are the reconciled object's, and that this pass no longer wants.

        Its own are those that it controls by owner reference, and those of `apply(owned=False)`, in all namespaces. One
        that is terminating already is left to end; a namesake that took its place meanwhile is not touched.

        Args:
            kind: A kind of `owns`.
            keep: What stays: objects, such as `apply` returned, or their names. Without a namespace, it is that of the
                object being reconciled.

        Returns:
            What was deleted, as it was.

        Raises:
            LookupError: The kind is not among `owns`.
            Conflict: Others changed one each time it was tried.
            TypeError: `keep` is one name, and no list.
            ValueError: What stays is in a namespace, and neither it nor the object being reconciled says in which.
        """
        if isinstance(keep, str):
            raise TypeError(f"keep={keep!r} is a text, and each of its letters would be taken for a name: write a list")
        resource = resource_type_of(kind)
        kept = frozenset(self._key_of(resource, each) for each in keep)
        deleter = Deleter(self._environment, self.client, self._ownership)
        return [_decoded(kind, entry) for entry in await deleter.prune(resource, kept)]

    async def save_status(self) -> None:
        """Send what has changed in the status now: what must be on record before something outside is made.

        Raises:
            NotFound: The object is gone.
            Conflict: Others changed it each time it was tried.
        """
        status = getattr(self._object, "status", None)
        if isinstance(status, Status):
            status.summarize()
            if status.condition_list:
                status.conditions.stamp(self._environment.clock.now(), self._generation)
        look = _look_of(self._object)
        if look is not None and look == self._looked:  # the usual end of a pass
            return
        before = _status_of(self._as_read()) if self._sent is None else self._sent
        after = _status_of(self._object)
        answer = await write_status(self.client, self._environment.resource, self._entry.data, before, after)
        self._sent, self._looked = after, look
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

    def _as_read(self) -> Resource | JsonObject:
        """The object as it was when the pass began."""
        if isinstance(self._object, Resource):
            return decode(type(self._object), self._read)
        found: JsonObject = orjson.loads(self._read)
        return found

    def _reference(self) -> ObjectReference:
        kind, header = self._environment.resource, self._entry.header
        return ObjectReference(
            api_version=kind.api_version, kind=kind.kind, namespace=header.namespace, name=header.name, uid=header.uid
        )

    def _key(self, kind: ResourceType, name: str, namespace: str | None) -> Key:
        if not kind.namespaced:
            return "", name
        found = self._entry.header.namespace if namespace is None else namespace
        if not found:
            mine = self._environment.resource.kind
            raise ValueError(f"{kind} {name!r} is namespaced, and {mine} is not: say in which namespace")
        return found, name

    def _key_of(self, kind: ResourceType, obj: Resource | JsonObject | str) -> Key:
        if isinstance(obj, str):
            return self._key(kind, obj, None)
        metadata = _metadata(obj)
        return self._key(kind, metadata["name"], metadata.get("namespace"))

    @property
    def _ownership(self) -> Ownership:
        return Ownership(self._environment.resource, self._entry.header)

    def _uid(self, owner: Literal[True] | Resource | JsonObject | str) -> str:
        if owner is True:
            return self._entry.header.uid
        uid = owner if isinstance(owner, str) else _metadata(owner).get("uid")
        if not uid:
            raise ValueError("an owner without a uid owns nothing: give an object that was read")
        return str(uid)


def _look_of(obj: Resource | JsonObject) -> bytes | None:
    """Bytes that are the same as long as the status is; not what is sent. None where there is no telling."""
    try:
        if isinstance(obj, Resource):
            return _encode(getattr(obj, "status", None))
        return orjson.dumps(obj.get("status"))
    except (TypeError, ValueError, RecursionError):  # it is written, or refused, by those who can say why
        return None


def _status_of(obj: Resource | JsonObject) -> JsonObject:
    """A copy of the object's status, as on the wire; a null is what is not there, or it would be sent for ever."""
    status = getattr(obj, "status", None) if isinstance(obj, Resource) else obj.get("status")
    found: JsonObject = without_nulls((to_dict(status) if isinstance(status, Part) else status) or {})
    return found


def _decoded(kind: Kind, entry: Entry) -> Resource | JsonObject:
    return decode(kind, entry.data)


def _kind_of(obj: Resource | JsonObject, kind: Unstructured | None) -> Kind:
    if isinstance(obj, Resource):
        return type(obj)
    if kind is None:
        raise TypeError("of a dict it has to be said what kind it is: (obj, Unstructured(...))")
    return kind


def _metadata(obj: Resource | JsonObject) -> JsonObject:
    """The metadata of an object, as on the wire."""
    found: JsonObject = to_dict(obj.metadata) if isinstance(obj, Resource) else obj.get("metadata") or {}
    return found

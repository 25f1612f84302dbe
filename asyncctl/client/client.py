"""The live client: one call, one request, one typed answer or one typed error.

Kinds are classes (`ConfigMap`), `Unstructured`, or a `ResourceType`; objects come back as the class, as a plain dict,
or as the server's bytes. A class may know a part of its kind only, so nothing that a class encodes is ever PUT: what it
changed is laid over what the server has. Reading is in `reads`, what hangs below an object in `subresources`.
"""

import builtins
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from asyncctl.client.bridge.rest_client import Opening, open_bridge
from asyncctl.client.errors import Conflict, Target
from asyncctl.client.listing import read_page
from asyncctl.client.overlay import object_overlay, same
from asyncctl.client.patch import Patch, pins_version, repeatable
from asyncctl.client.reads import Reads
from asyncctl.client.requests import (
    AnyKind,
    Propagation,
    R,
    Selection,
    WriteOptions,
    accepted,
    know,
    read,
    selected,
    type_of,
)
from asyncctl.client.selectors import narrow
from asyncctl.client.subresources import Subresources
from asyncctl.objects.codec import decode, dump, to_dict
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource, ResourceType, Unstructured
from asyncctl.queue.backoff import Backoff

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

T = TypeVar("T")
Mutate = Callable[[T], object]
"""Changes an object in place; may be a coroutine function. What it returns is of no interest."""
UPDATE_TRIES = 5
_UPDATE = Backoff(base=0.01, maximum=1.0, jitter=0.1)


class Client(Reads, Subresources):
    """Requests about objects, and what hangs below them.

    Every write takes `WriteOptions`: `dry_run`, `field_validation`, `field_manager`. A `subresource` is mostly
    `status`.
    """

    def kubernetes_asyncio(self) -> Opening:
        """An `ApiClient` of kubernetes-asyncio whose requests go the way of this client's own.

        `async with client.kubernetes_asyncio() as api:` or `api = await client.kubernetes_asyncio()`, and then
        `CoreV1Api(api)` and the like. The first call imports that library, in a thread: 0.35 s and 39 MB.
        """
        return Opening(self._open_bridge)

    async def _open_bridge(self) -> "ApiClient":
        return await open_bridge(
            self._transport,
            check_boundary=self.check_boundary,
            field_manager=self._field_manager,
            audit_id=self._audit_id,
            caller=self._caller,
        )

    @overload
    async def create(self, obj: R, /, **options: Unpack[WriteOptions]) -> R: ...
    @overload
    async def create(self, obj: JsonObject, kind: Unstructured, /, **options: Unpack[WriteOptions]) -> JsonObject: ...
    async def create(
        self, obj: Resource | JsonObject, kind: Unstructured | None = None, /, **options: Unpack[WriteOptions]
    ) -> Resource | JsonObject:
        """Create an object.

        Args:
            obj: What is wanted; without a name, the server makes one of `metadata.generateName`.
            kind: Of a dict.
            options: See `WriteOptions`.

        Returns:
            The object as the server has it.

        Raises:
            AlreadyExists: There is one of that name.
            Invalid: It breaks a rule of its schema.
            TransportError: There was no answer; with `sent`, it may have been created.
            DecodeError: It was created, and is not what its class says.
            TypeError: Of a dict the kind is not said, or it has what JSON can't say.
            ValueError: It is namespaced, and says no namespace.
        """
        resource, body = _whole(obj, kind)
        metadata = body.get("metadata") or {}
        namespace = metadata.get("namespace")
        if resource.namespaced and not namespace:
            raise ValueError(f"{resource} {metadata.get('name', '')!r} is namespaced: say in which namespace")
        request = self._request(
            "create", "POST", resource, namespace, None, self._write_query(options), body=dump(body),
            shown=metadata.get("name"),
        )  # fmt: skip
        return _like(obj, kind, await self._object(request, resource.kind))

    @overload
    async def replace(self, obj: R, /, *, subresource: str | None = None, **options: Unpack[WriteOptions]) -> R: ...
    @overload
    async def replace(
        self, obj: JsonObject, kind: Unstructured, /, *, subresource: str | None = None, **options: Unpack[WriteOptions]
    ) -> JsonObject: ...
    async def replace(
        self,
        obj: Resource | JsonObject,
        kind: Unstructured | None = None,
        /,
        *,
        subresource: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Resource | JsonObject:
        """Put `obj`, as it was read and then changed, in the place of what the server has.

        A dict is put as it is. What a class knows is laid over what the server has, which is read first for that, so
        that fields which the class does not know stay as they are.

        Args:
            obj: What is wanted, complete; with the resourceVersion that it was read at.
            kind: Of a dict.
            subresource: Such as `status`.
            options: See `WriteOptions`.

        Returns:
            The object as the server has it.

        Raises:
            Conflict: The object has changed since it was read.
            NotFound: It is gone.
            TransportError: There was no answer; with `sent`, it may have been put.
            TypeError: Of a dict the kind is not said.
            ValueError: It has no name; or, of a class, no resourceVersion; or items of a list can't be told
                apart; or the subresource is `scale`.
        """
        self._no_scale(subresource)
        resource, body = _whole(obj, kind)
        name, namespace = _place(resource, body)
        version = body["metadata"].get("resourceVersion")
        if isinstance(obj, Resource):
            if not version:
                raise ValueError(f"{resource} {name!r} has no resourceVersion: read it, then replace it; or apply it")
            raw = await self.get(resource, name, namespace=namespace)
            live = _dict(resource, raw)
            if (found := live["metadata"].get("resourceVersion")) != version:
                target = Target("update", resource.resource, namespace, name)
                message = f"it is at resourceVersion {found}, and was read at {version}; read it again"
                raise Conflict(target, 409, {"reason": "Conflict", "message": message})
            body = _laid_over(resource, name, live, to_dict(decode(type(obj), raw)), body)
        answer = await self._put(resource, name, namespace, body, subresource, options, repeat=pins_version(body))
        return _like(obj, kind, answer)

    @overload
    async def update_with_retry(
        self, kind: type[R], name: str, mutate: Mutate[R], *, namespace: str | None = None,
        subresource: str | None = None, **options: Unpack[WriteOptions],
    ) -> R: ...  # fmt: skip
    @overload
    async def update_with_retry(
        self, kind: Unstructured, name: str, mutate: Mutate[JsonObject], *, namespace: str | None = None,
        subresource: str | None = None, **options: Unpack[WriteOptions],
    ) -> JsonObject: ...  # fmt: skip
    async def update_with_retry(
        self,
        kind: type[R] | Unstructured,
        name: str,
        mutate: Mutate[R] | Mutate[JsonObject],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Resource | JsonObject:
        """Read an object, change it, put it; again, when others have changed it meanwhile (client-go `util/retry`).

        A put whose answer is lost is not repeated: the repeat would look like a conflict, and the change be made twice.

        Args:
            kind: What it is.
            name: Its name.
            mutate: Changes the object in place; a function or a coroutine function. It is called for each try, on the
                object as it is then. When it changes nothing, nothing is sent.
            namespace: Where it is.
            subresource: Such as `status`.
            options: See `WriteOptions`.

        Returns:
            The object as the server has it.

        Raises:
            Conflict: Others were faster each time, five times.
            TransportError: There was no answer; with `sent`, the change may have been made.
            NotFound: There is no such object.
            ValueError: Items of a list can't be told apart, and something would be lost; or the subresource is `scale`.
        """
        self._no_scale(subresource)
        resource = type_of(kind)
        attempt = 1
        while True:
            raw = await self.get(resource, name, namespace=namespace)
            live = _dict(resource, raw)
            obj: Any = read(kind, raw)
            before = to_dict(obj) if isinstance(kind, type) else live
            done = mutate(obj)
            if inspect.isawaitable(done):
                await done
            body = _laid_over(resource, name, live, before, obj)
            if body is live:
                return read(kind, raw)
            body["metadata"] |= {
                key: live["metadata"][key] for key in ("uid", "resourceVersion") if key in live["metadata"]
            }
            try:
                answer = await self._put(resource, name, namespace, body, subresource, options, repeat=False)
            except Conflict:
                if attempt == UPDATE_TRIES:
                    raise
            else:
                with accepted():
                    return read(kind, answer)
            await self._clock.sleep(_UPDATE.delay(attempt - 1, self._random))
            attempt += 1

    @overload
    async def patch(
        self, kind: type[R], name: str, change: JsonObject | Sequence[JsonObject], *, patch: Patch,
        namespace: str | None = None, subresource: str | None = None, force: bool = False,
        **options: Unpack[WriteOptions],
    ) -> R: ...  # fmt: skip
    @overload
    async def patch(
        self, kind: Unstructured, name: str, change: JsonObject | Sequence[JsonObject], *, patch: Patch,
        namespace: str | None = None, subresource: str | None = None, force: bool = False,
        **options: Unpack[WriteOptions],
    ) -> JsonObject: ...  # fmt: skip
    @overload
    async def patch(
        self, kind: ResourceType, name: str, change: JsonObject | Sequence[JsonObject], *, patch: Patch,
        namespace: str | None = None, subresource: str | None = None, force: bool = False,
        **options: Unpack[WriteOptions],
    ) -> bytes: ...  # fmt: skip
    async def patch(
        self, kind: AnyKind, name: str, change: JsonObject | Sequence[JsonObject], *, patch: Patch,
        namespace: str | None = None, subresource: str | None = None, force: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Resource | JsonObject | bytes:  # fmt: skip
        """Change an object, and return it as the server has it.

        Args:
            kind: What it is.
            name: Its name.
            change: The patch; a list of operations for `Patch.JSON`.
            patch: Which of the four it is.
            namespace: Where it is.
            subresource: Such as `status`.
            force: For `Patch.APPLY`: take fields over from other managers.
            options: See `WriteOptions`.

        Raises:
            Conflict: The resourceVersion in the patch is not the object's, or a JSON Patch's test failed.
            ApplyConflict: Others own fields that are wanted, and `force` is not set.
            UnsupportedMediaType: A strategic merge patch of a custom resource.
        """
        resource = type_of(kind)
        request = self._request(
            "apply" if patch is Patch.APPLY else "patch", "PATCH", resource, namespace, name,
            self._write_query(options) | ({"force": "true"} if force else {}),
            body=dump(change if isinstance(change, dict) else [*change]), content_type=patch.value,
            subresource=subresource, repeatable=repeatable(patch, change),
        )  # fmt: skip
        answer = await self._object(request, "Scale" if subresource == "scale" else resource.kind)
        if isinstance(kind, ResourceType):
            return answer
        with accepted():
            return read(kind, answer)

    @overload
    async def apply(
        self, obj: R, /, *, force: bool = False, subresource: str | None = None, **options: Unpack[WriteOptions]
    ) -> R: ...
    @overload
    async def apply(
        self, obj: JsonObject, kind: Unstructured, /, *, force: bool = False, subresource: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> JsonObject: ...  # fmt: skip
    async def apply(
        self, obj: Resource | JsonObject, kind: Unstructured | None = None, /, *, force: bool = False,
        subresource: str | None = None, **options: Unpack[WriteOptions],
    ) -> Resource | JsonObject:  # fmt: skip
        """Make it so, by server-side apply: all that `obj` says is owned by this field manager afterwards.

        What the manager applied before and `obj` leaves out goes; what others own stays. An object that is not there is
        created. `status` is left out, unless it is the subresource, where it is all that is sent.

        Args:
            obj: What is wanted, complete; with a resourceVersion, only of the object as it is at that one.
            kind: Of a dict.
            force: Take fields over from other managers.
            subresource: `status`.
            options: See `WriteOptions`.

        Returns:
            The object as the server has it.

        Raises:
            ApplyConflict: Others own fields that are wanted, and `force` is not set.
            Conflict: The object is not at the resourceVersion of `obj`.
        """
        resource, body = _whole(obj, kind)
        name, namespace = _place(resource, body)
        body["metadata"] = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
        if subresource == "status":
            body = {key: body[key] for key in ("apiVersion", "kind", "metadata", "status") if key in body}
        elif resource.has_status:
            body.pop("status", None)
        answer = await self.patch(
            resource, name, body, patch=Patch.APPLY, namespace=namespace, force=force,
            subresource=subresource, **options,
        )  # fmt: skip
        return _like(obj, kind, answer)

    async def delete(
        self,
        kind: AnyKind,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
        grace_period: int | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Delete an object.

        Args:
            kind: What it is.
            name: Its name.
            namespace: Where it is.
            uid: Only if it is still this one, and no namesake.
            resource_version: Only if it is still at this one.
            propagation: What becomes of what it owns: deleted after it, before it, or left; default: the kind's.
            grace_period: Seconds it has to end; default: its own.
            dry_run: Only ask whether it could be.

        Returns:
            True when it is gone; False when it waits for its finalizers or its grace period.

        Raises:
            NotFound: There is no such object; after a lost answer, since it was deleted.
            Conflict: It is another object, or another version of it.
        """
        answer = await self._deleted(
            type_of(kind), name, namespace,
            _delete_options(propagation, grace_period, dry_run=dry_run, uid=uid, resource_version=resource_version),
        )  # fmt: skip
        return answer is None

    async def delete_answer(
        self, kind: ResourceType, name: str, *, namespace: str | None, uid: str, resource_version: str
    ) -> bytes | None:
        """Delete an object if it is still this one, at this version; see `delete`.

        Returns:
            None when it is gone; the object when it waits for its finalizers or its grace period.

        Raises:
            NotFound: There is no such object; after a lost answer, since it was deleted.
            Conflict: It is another object, or another version of it.
        """
        options = _delete_options(None, None, dry_run=False, uid=uid, resource_version=resource_version)
        return await self._deleted(kind, name, namespace, options)

    async def _deleted(self, kind: ResourceType, name: str, namespace: str | None, options: JsonObject) -> bytes | None:
        repeatable = "uid" in (options.get("preconditions") or {})
        request = self._request(
            "delete", "DELETE", kind, namespace, name, body=dump(options), repeatable=repeatable
        )  # fmt: skip
        reply = await self._transport.request(request)
        known = know(request.target, reply.body, kind.kind, "Status")  # some kinds answer with what was deleted
        waits = known.metadata is not None and known.metadata.deletion_timestamp is not None
        return reply.body if waits else None

    @overload
    async def delete_all(
        self, kind: type[R], *, propagation: Propagation | None = None, grace_period: int | None = None,
        dry_run: bool = False, **which: Unpack[Selection],
    ) -> "builtins.list[R]": ...  # fmt: skip
    @overload
    async def delete_all(
        self, kind: Unstructured, *, propagation: Propagation | None = None, grace_period: int | None = None,
        dry_run: bool = False, **which: Unpack[Selection],
    ) -> "builtins.list[JsonObject]": ...  # fmt: skip
    async def delete_all(
        self, kind: type[R] | Unstructured, *, propagation: Propagation | None = None, grace_period: int | None = None,
        dry_run: bool = False, **which: Unpack[Selection],
    ) -> "builtins.list[Any]":  # fmt: skip
        """Delete all objects of a kind that are selected, in one namespace and one request.

        Args:
            kind: What they are.
            propagation: As for `delete`.
            grace_period: As for `delete`.
            dry_run: Only ask which ones it would be.
            which: See `Selection`; without labels and fields: all of them. The namespace is needed, for a kind that is
                in one.

        Returns:
            What was deleted, as it was; some may still wait for their finalizers.

        Raises:
            ValueError: No namespace is given, or a selector selects everything.
        """
        resource = type_of(kind)
        namespace = which.get("namespace")
        if resource.namespaced and not namespace:
            raise ValueError(f"{resource} is namespaced: say in which namespace all are to be deleted")
        query = {key: narrow(text) for key, text in selected(which).items()}
        request = self._request(
            "deletecollection", "DELETE", resource, namespace, None, query,
            body=dump(_delete_options(propagation, grace_period, dry_run=dry_run)),
        )  # fmt: skip
        page = read_page(request.target, (await self._transport.request(request)).body)
        with accepted():
            return [read(kind, bytes(item)) for item in page.items]

    async def _put(
        self,
        kind: ResourceType,
        name: str,
        namespace: str | None,
        body: JsonObject,
        subresource: str | None,
        options: WriteOptions,
        *,
        repeat: bool,
    ) -> bytes:
        request = self._request(
            "update", "PUT", kind, namespace, name, self._write_query(options), body=dump(body),
            subresource=subresource, repeatable=repeat,
        )  # fmt: skip
        return await self._object(request, kind.kind)


def _laid_over(
    resource: ResourceType, name: str, live: JsonObject, before: JsonObject, after: Resource | JsonObject
) -> JsonObject:
    """`live` with the changes from `before` to `after`; `live` itself where there are none."""
    try:
        body = object_overlay(live, before, to_dict(after) if isinstance(after, Resource) else after)
        return live if same(live, body) else body
    except RecursionError:
        why = "it is nested too deeply"
    except TypeError as error:
        why = str(error)
    raise TypeError(f"{resource} {name!r} can't be written as JSON: {why}; change it by patch")


def _whole(obj: Resource | JsonObject, kind: Unstructured | None) -> tuple[ResourceType, JsonObject]:
    """What `obj` is, and what is sent of it."""
    if isinstance(obj, Resource):
        return type_of(type(obj)), to_dict(obj)
    if kind is None:
        raise TypeError("of a dict the kind has to be said: create({…}, Unstructured('apps/v1', 'Deployment'))")
    resource = kind.resource_type
    return resource, {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _place(kind: ResourceType, body: JsonObject) -> tuple[str, str | None]:
    metadata = body.get("metadata") or {}
    if not metadata.get("name"):
        raise ValueError(f"{kind}: it has no metadata.name; only create may leave that to the server")
    return metadata["name"], metadata.get("namespace")


def _dict(kind: ResourceType, data: bytes) -> JsonObject:
    return decode(Unstructured(kind.api_version, kind.kind), data)


def _like(obj: Resource | JsonObject, kind: Unstructured | None, data: bytes) -> Resource | JsonObject:
    """The answer to a write of `obj`, as what that is."""
    with accepted():
        return decode(type(obj), data) if isinstance(obj, Resource) else decode(kind or Unstructured("", ""), data)


def _delete_options(
    propagation: Propagation | None,
    grace_period: int | None,
    *,
    dry_run: bool,
    uid: str | None = None,
    resource_version: str | None = None,
) -> JsonObject:
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    options: JsonObject = {
        "propagationPolicy": propagation,
        "gracePeriodSeconds": grace_period,
        "dryRun": ["All"] if dry_run else None,
        "preconditions": {key: value for key, value in preconditions.items() if value is not None} or None,
    }
    given = {key: value for key, value in options.items() if value is not None}
    return {"kind": "DeleteOptions", "apiVersion": "v1", **given}

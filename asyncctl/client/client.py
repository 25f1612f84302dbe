"""The live client: one call, one request, one typed answer or one typed error.

Kinds are classes (`ConfigMap`) or `Unstructured`; objects come back as the class, or as a plain dict. Nothing whole
is ever PUT: a class may know a part of its kind only. A request outside of the namespaces this process may touch fails
before it is sent.
"""

import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload
from urllib.parse import quote, urlencode

import msgspec
import orjson

from asyncctl.client.bridge import Opening, open_bridge
from asyncctl.client.errors import Target, boundary_error, not_an_object
from asyncctl.client.patch import Patch
from asyncctl.client.transport import Lane, Request, Transport
from asyncctl.client.watch import lines
from asyncctl.objects.codec import decode, encode
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

R = TypeVar("R", bound=Resource)
PAGE = 500  # objects; client-go's default for a reflector


class Page(NamedTuple):
    """One page of a list: the objects as bytes (views into the page), and where the list stands."""

    items: list[msgspec.Raw]
    resource_version: str
    continue_token: str


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None  # null when it is empty, but always there


class _Meta(msgspec.Struct, rename="camel"):
    deletion_timestamp: str | None = None


class _Known(msgspec.Struct):
    """As much of an answer as tells that it is an object: the rest is skipped, not decoded."""

    kind: str
    metadata: _Meta | None = None


_decode_list = msgspec.json.Decoder(_List).decode
_decode_known = msgspec.json.Decoder(_Known).decode


class Client:
    """Requests about objects. `namespaces`: the only ones that may be touched; empty means all."""

    def __init__(
        self,
        transport: Transport,
        *,
        field_manager: str,
        namespaces: tuple[str, ...] = (),
        cluster_kinds: frozenset[ResourceType] = frozenset(),
        audit_id: str | None = None,
        caller: str = "",
    ) -> None:
        self._transport = transport
        self._field_manager = field_manager
        self._namespaces = namespaces
        self._cluster_kinds = cluster_kinds
        self._audit_id = audit_id
        self._caller = caller

    @property
    def field_manager(self) -> str:
        """The name under which writes are owned."""
        return self._field_manager

    def with_audit_id(self, audit_id: str) -> "Client":
        """The same client, whose requests carry `audit_id` into the API server's audit log."""
        return self._like_this(audit_id=audit_id, caller=self._caller)

    def with_caller(self, caller: str) -> "Client":
        """The same client, for the controller of that name: a warning of the server is logged with it."""
        return self._like_this(audit_id=self._audit_id, caller=caller)

    def _like_this(self, *, audit_id: str | None, caller: str) -> "Client":
        return Client(
            self._transport,
            field_manager=self._field_manager,
            namespaces=self._namespaces,
            cluster_kinds=self._cluster_kinds,
            audit_id=audit_id,
            caller=caller,
        )

    def kubernetes_asyncio(self) -> Opening:
        """An `ApiClient` of kubernetes-asyncio whose requests go the way of this client's own; see `client/bridge.py`.

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
    async def get(self, kind: type[R], name: str, *, namespace: str | None = None) -> R: ...
    @overload
    async def get(self, kind: Unstructured, name: str, *, namespace: str | None = None) -> JsonObject: ...
    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Resource | JsonObject:
        """Read one object. Raises `NotFound` when there is none."""
        return decode(kind, await self.get_raw(resource_type_of(kind), name, namespace=namespace))

    async def get_raw(self, kind: ResourceType, name: str, *, namespace: str | None = None) -> bytes:
        """Read one object as the server's bytes."""
        return await self._send("get", "GET", kind, namespace, name, repeatable=True)

    async def list_page(
        self,
        kind: ResourceType,
        *,
        namespace: str | None = None,
        limit: int = PAGE,
        continue_token: str = "",
        resource_version: str | None = None,
        labels: str | None = None,
    ) -> Page:
        """Read one page of a list; see `Page`. `limit` 0 asks for all at once."""
        query = {"limit": str(limit) if limit else None, "continue": continue_token or None, "labelSelector": labels}
        if not continue_token:
            query["resourceVersion"] = resource_version
        request = self._request("list", "GET", kind, namespace, None, query, lane=Lane.READ, repeatable=True)
        body = (await self._transport.request(request)).body
        try:
            page = _decode_list(body)
        except ValueError as error:
            raise not_an_object(request.target, body) from error
        return Page(page.items or [], page.metadata.resource_version, page.metadata.continue_)

    @overload
    def list(self, kind: type[R], *, namespace: str | None = None, labels: str | None = None) -> AsyncIterator[R]: ...
    @overload
    def list(
        self, kind: Unstructured, *, namespace: str | None = None, labels: str | None = None
    ) -> AsyncIterator[JsonObject]: ...
    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: str | None = None
    ) -> AsyncIterator[Resource | JsonObject]:
        """Iterate over all objects of a kind, page by page. Without `namespace`: of all namespaces."""
        token = ""
        while True:
            page = await self.list_page(
                resource_type_of(kind), namespace=namespace, labels=labels, continue_token=token
            )
            for item in page.items:
                yield decode(kind, bytes(item))
            token = page.continue_token
            if not token:
                return

    @asynccontextmanager
    async def watch(
        self,
        kind: ResourceType,
        *,
        resource_version: str,
        timeout_seconds: int,
        namespace: str | None = None,
        labels: str | None = None,
    ) -> AsyncIterator[AsyncIterator[builtins.list[bytes]]]:
        """Open a watch from `resource_version`; yields batches of lines, each one event as bytes."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
            "labelSelector": labels,
        }
        request = self._request("watch", "GET", kind, namespace, None, query, lane=Lane.WATCH)
        async with self._transport.stream(request) as chunks:
            yield lines(chunks)

    async def create(self, obj: R) -> R:
        """Create `obj`, and return it as the server has it. Raises `AlreadyExists`."""
        kind = obj.resource_type
        request = self._request(
            "create", "POST", kind, obj.namespace, None, self._manager(), lane=Lane.WRITE, body=encode(obj)
        )
        named = replace(request, target=replace(request.target, name=obj.name or None))
        reply = await self._transport.request(named)
        _know(named.target, reply.body, kind.kind)
        return decode(type(obj), reply.body)

    async def patch(
        self,
        kind: ResourceType,
        name: str,
        change: JsonObject | Sequence[JsonObject],
        *,
        patch: Patch,
        namespace: str | None = None,
        subresource: str | None = None,
        force: bool = False,
    ) -> bytes:
        """Change an object, and return it as the server's bytes.

        Args:
            kind: What it is.
            name: Its name.
            change: The patch; a list of operations for `Patch.JSON`.
            patch: Which of the four it is.
            namespace: Where it is.
            subresource: `status` or `scale`.
            force: For `Patch.APPLY`: take fields over from other managers.

        Raises:
            Conflict: The resourceVersion in the patch is not the object's, or a JSON Patch's test failed.
            ApplyConflict: Others own fields that are wanted, and `force` is not set.
        """
        query = self._manager()
        if force:
            query["force"] = "true"
        pinned = patch is Patch.APPLY or (isinstance(change, dict) and _pins_version(change))
        return await self._send(
            "patch", "PATCH", kind, namespace, name, query,
            body=orjson.dumps(change), content_type=patch.value, subresource=subresource, repeatable=pinned,
        )  # fmt: skip

    async def delete(
        self,
        kind: ResourceType,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> bool:
        """Delete an object; with `uid`, only if it is still the same one. Raises `NotFound`, `Conflict`.

        Returns:
            True when it is gone; False when it waits for its finalizers or its grace period.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: JsonObject = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        request = self._request(
            "delete", "DELETE", kind, namespace, name, None,
            lane=Lane.WRITE, body=orjson.dumps(options), repeatable=uid is not None,
        )  # fmt: skip
        reply = await self._transport.request(request)
        known = _know(request.target, reply.body, kind.kind, "Status")  # some kinds answer with what was deleted
        return known.metadata is None or known.metadata.deletion_timestamp is None

    def check_boundary(self, target: Target, kind: ResourceType) -> None:
        """Raise `NamespaceBoundaryExceeded` where this process may not touch what `target` names."""
        if self._namespaces:
            inside = target.namespace in self._namespaces if kind.namespaced else kind in self._cluster_kinds
            if not inside:
                raise boundary_error(target, self._namespaces, namespaced=kind.namespaced)

    def _manager(self) -> dict[str, str | None]:
        return {"fieldManager": self._field_manager, "fieldValidation": "Strict"}

    async def _send(
        self,
        verb: str,
        method: str,
        kind: ResourceType,
        namespace: str | None,
        name: str | None,
        query: Mapping[str, str | None] | None = None,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        subresource: str | None = None,
        repeatable: bool = False,
    ) -> bytes:
        request = self._request(
            verb, method, kind, namespace, name, query,
            lane=Lane.READ if body is None else Lane.WRITE,
            body=body, content_type=content_type, subresource=subresource, repeatable=repeatable,
        )  # fmt: skip
        reply = await self._transport.request(request)
        wanted = "Scale" if subresource == "scale" else kind.kind
        _know(request.target, reply.body, wanted)
        return reply.body

    def _request(
        self,
        verb: str,
        method: str,
        kind: ResourceType,
        namespace: str | None,
        name: str | None,
        query: Mapping[str, str | None] | None,
        *,
        lane: Lane,
        body: bytes | None = None,
        content_type: str = "application/json",
        subresource: str | None = None,
        repeatable: bool = False,
    ) -> Request:
        resource = f"{kind.resource}/{subresource}" if subresource else kind.resource
        target = Target(verb, resource, namespace, name)
        self.check_boundary(target, kind)
        path = kind.path(namespace, name, subresource)
        if query:
            path += "?" + urlencode({key: value for key, value in query.items() if value is not None}, quote_via=quote)
        return Request(
            target=target, method=method, path=path, lane=lane, body=body, content_type=content_type,
            repeatable=repeatable, audit_id=self._audit_id, caller=self._caller,
        )  # fmt: skip


def _know(target: Target, body: bytes, *kinds: str) -> _Known:
    """Raise `ServerError` unless `body` is an object of one of these kinds: whatever a proxy made of the answer."""
    try:
        known = _decode_known(body)
    except ValueError as error:
        raise not_an_object(target, body) from error
    if known.kind not in kinds or (known.metadata is None and known.kind != "Status"):
        raise not_an_object(target, body)
    return known


def _pins_version(change: JsonObject) -> bool:
    metadata = change.get("metadata")
    return isinstance(metadata, dict) and "resourceVersion" in metadata

"""The live client: one call, one request, one typed answer or one typed error.

Kinds are classes (`ConfigMap`) or `Unstructured`; objects come back as the class, or as a plain dict. Nothing whole
is ever PUT of a partial type unless `replace` is asked for by name. A request outside of the namespaces this process
may touch fails before it is sent.
"""

import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple, TypeVar, overload
from urllib.parse import quote, urlencode

import msgspec
import orjson

from asyncctl.client.errors import ServerError, StatusError, Target, boundary_error
from asyncctl.client.patch import Patch
from asyncctl.client.transport import Lane, Request, Transport
from asyncctl.client.watch import lines
from asyncctl.objects.codec import decode, encode
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource, ResourceType, Unstructured, resource_type_of

R = TypeVar("R", bound=Resource)
Kind = type[Resource] | Unstructured
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
    items: list[msgspec.Raw] | None = None


_decode_list = msgspec.json.Decoder(_List).decode


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
    ) -> None:
        self._transport = transport
        self._field_manager = field_manager
        self._namespaces = namespaces
        self._cluster_kinds = cluster_kinds
        self._audit_id = audit_id

    @property
    def field_manager(self) -> str:
        """The name under which writes are owned."""
        return self._field_manager

    def with_audit_id(self, audit_id: str) -> "Client":
        """The same client, whose requests carry `audit_id` into the API server's audit log."""
        return Client(
            self._transport,
            field_manager=self._field_manager,
            namespaces=self._namespaces,
            cluster_kinds=self._cluster_kinds,
            audit_id=audit_id,
        )

    @overload
    async def get(self, kind: type[R], name: str, *, namespace: str | None = None) -> R: ...
    @overload
    async def get(self, kind: Unstructured, name: str, *, namespace: str | None = None) -> JsonObject: ...
    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Resource | JsonObject:
        """Read one object. Raises `NotFound` when there is none."""
        return _object(kind, await self.get_raw(resource_type_of(kind), name, namespace=namespace))

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
        body = await self._send("list", "GET", kind, namespace, None, query, repeatable=True)
        try:
            page = _decode_list(body)
        except msgspec.DecodeError as error:
            raise self._not_an_object(Target("list", kind.resource, namespace), body) from error
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
                yield _object(kind, bytes(item))
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
        return decode(type(obj), (await self._transport.request(named)).body)

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
        answer = await self._send(
            "delete", "DELETE", kind, namespace, name, body=orjson.dumps(options), repeatable=uid is not None
        )
        return "deletionTimestamp" not in orjson.loads(answer).get("metadata", {})  # a Status, or what it was

    async def get_path(self, path: str) -> JsonObject:
        """A raw GET of a path that is no object's, such as `/version`."""
        request = Request(target=Target("get", path), method="GET", path=path, lane=Lane.READ, repeatable=True)
        reply = await self._transport.request(request)
        try:
            found: JsonObject = orjson.loads(reply.body)
        except orjson.JSONDecodeError as error:
            raise self._not_an_object(request.target, reply.body) from error
        return found

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
        if self._namespaces:
            inside = namespace in self._namespaces if kind.namespaced else kind in self._cluster_kinds
            if not inside:
                raise boundary_error(target, self._namespaces)
        path = kind.path(namespace, name, subresource)
        if query:
            path += "?" + urlencode({key: value for key, value in query.items() if value is not None}, quote_via=quote)
        return Request(
            target=target, method=method, path=path, lane=lane, body=body, content_type=content_type,
            repeatable=repeatable, audit_id=self._audit_id,
        )  # fmt: skip

    @staticmethod
    def _not_an_object(target: Target, body: bytes) -> StatusError:
        start = body[:200].decode(errors="replace")
        return ServerError(target, 200, {"message": f"the reply is not a Kubernetes object: {start}"})


def _object(kind: Kind, body: bytes) -> Resource | JsonObject:
    if isinstance(kind, Unstructured):
        found: JsonObject = orjson.loads(body)
        return found
    return decode(kind, body)


def _pins_version(change: JsonObject) -> bool:
    metadata = change.get("metadata")
    return isinstance(metadata, dict) and "resourceVersion" in metadata

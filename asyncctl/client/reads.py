"""Reading live: one object, a list of them, a watch."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Unpack, overload

from asyncctl.client.changes import Event, changes
from asyncctl.client.listing import PAGE, Listing, Page, read_page
from asyncctl.client.requests import AnyKind, R, Requests, Selection, read, selected, type_of
from asyncctl.client.transport.transport import Lane
from asyncctl.client.watch import Lines, lines
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource, ResourceType, Unstructured

# A server that can't leave the rest away gives whole objects.
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class Reads(Requests):
    """Requests that change nothing."""

    @overload
    async def get(
        self, kind: type[R], name: str, *, namespace: str | None = None, subresource: str | None = None
    ) -> R: ...
    @overload
    async def get(
        self, kind: Unstructured, name: str, *, namespace: str | None = None, subresource: str | None = None
    ) -> JsonObject: ...
    @overload
    async def get(
        self, kind: ResourceType, name: str, *, namespace: str | None = None, subresource: str | None = None
    ) -> bytes: ...
    async def get(
        self, kind: AnyKind, name: str, *, namespace: str | None = None, subresource: str | None = None
    ) -> Resource | JsonObject | bytes:
        """Read one object, as the server has it now.

        Args:
            kind: What it is.
            name: Its name.
            namespace: Where it is; None for what is in no namespace.
            subresource: Such as `status`: read that way, which is another right.

        Returns:
            An object of the class; a dict for an `Unstructured`, the server's bytes for a `ResourceType`.

        Raises:
            NotFound: There is no such object, or no such kind.
            DecodeError: The object is not what its class says.
            ValueError: The subresource is `scale`: that is for `get_scale`.
        """
        self._no_scale(subresource)
        resource = type_of(kind)
        request = self._request("get", "GET", resource, namespace, name, subresource=subresource, repeatable=True)
        return read(kind, await self._object(request, resource.kind))

    async def list_page(
        self,
        kind: ResourceType,
        *,
        limit: int = PAGE,
        continue_token: str = "",
        resource_version: str | None = None,
        not_older: bool = False,
        metadata_only: bool = False,
        **which: Unpack[Selection],
    ) -> Page:
        """Read one page of a list.

        Args:
            kind: What they are.
            limit: Objects at most; 0: all.
            continue_token: Of the page before; empty for the first.
            resource_version: How fresh the first page is: default, as fresh as can be; `0`: whatever is at hand;
                other: exactly that.
            not_older: Or newer than that.
            metadata_only: Of each object its metadata alone, as a `PartialObjectMetadata`.
            which: See `Selection`.

        Returns:
            The objects as bytes, and where the list stands.

        Raises:
            Gone: The server has forgotten the moment of the page before: begin anew.
        """
        first = None if continue_token else resource_version
        query = {
            "limit": str(limit) if limit else None,
            "continue": continue_token or None,
            "resourceVersion": first,
            "resourceVersionMatch": "NotOlderThan" if first and not_older else None,
        }
        request = self._request(
            "list", "GET", kind, which.get("namespace"), None, query | selected(which), repeatable=True
        )
        if metadata_only:
            request.accept = _METADATA_LIST
        return read_page(request.target, (await self._transport.request(request)).body)

    @overload
    def list(
        self, kind: type[R], *, limit: int = PAGE, resource_version: str | None = None, **which: Unpack[Selection]
    ) -> Listing[R]: ...
    @overload
    def list(
        self, kind: Unstructured, *, limit: int = PAGE, resource_version: str | None = None, **which: Unpack[Selection]
    ) -> Listing[JsonObject]: ...
    @overload
    def list(
        self, kind: ResourceType, *, limit: int = PAGE, resource_version: str | None = None, **which: Unpack[Selection]
    ) -> Listing[bytes]: ...
    def list(
        self, kind: AnyKind, *, limit: int = PAGE, resource_version: str | None = None, **which: Unpack[Selection]
    ) -> Listing[Any]:
        """List objects: `async for` over what this returns, or await its `all()`.

        Args:
            kind: What they are.
            limit: Objects in one request; 0: all, which are then held at once.
            resource_version: How fresh: default, as fresh as can be; `0`: whatever is at hand; other: exactly that,
                or with `limit` 0 not older than that.
            which: See `Selection`.
        """
        resource = type_of(kind)

        async def page(token: str, *, whole: bool) -> Page:
            if whole:
                return await self.list_page(resource, limit=0, **which)
            return await self.list_page(
                resource, limit=limit, continue_token=token, resource_version=resource_version, **which
            )

        return Listing(page, lambda item: read(kind, item))

    @overload
    def watch(
        self, kind: type[R], *, resource_version: str | None = None, timeout_seconds: int | None = None,
        **which: Unpack[Selection],
    ) -> AbstractAsyncContextManager[AsyncIterator[Event[R]]]: ...  # fmt: skip
    @overload
    def watch(
        self, kind: Unstructured, *, resource_version: str | None = None, timeout_seconds: int | None = None,
        **which: Unpack[Selection],
    ) -> AbstractAsyncContextManager[AsyncIterator[Event[JsonObject]]]: ...  # fmt: skip
    @overload
    def watch(
        self, kind: ResourceType, *, resource_version: str | None = None, timeout_seconds: int | None = None,
        initial: bool = False, metadata_only: bool = False, **which: Unpack[Selection],
    ) -> AbstractAsyncContextManager[Lines]: ...  # fmt: skip
    @asynccontextmanager
    async def watch(
        self, kind: AnyKind, *, resource_version: str | None = None, timeout_seconds: int | None = None,
        initial: bool = False, metadata_only: bool = False, **which: Unpack[Selection],
    ) -> AsyncIterator[Any]:  # fmt: skip
        """Watch objects: `async with client.watch(…) as events`, then `async for event in events`.

        It ends when the server ends it, which is ordinary: watch again from the last resourceVersion.

        Args:
            kind: What they are; a `ResourceType` gives batches of lines, each an event as bytes.
            resource_version: From where on, such as that of a list; without it, what is there now is told first.
            timeout_seconds: After which the server ends it; default: 290 to 580.
            initial: Begin with all there is, not older than `resource_version`; a bookmark that is annotated with
                `k8s.io/initial-events-end` tells when that was all (KEP-3157). For a `ResourceType`.
            metadata_only: Of each object its metadata alone, as a `PartialObjectMetadata`. For a `ResourceType`.
            which: See `Selection`.

        Raises:
            Gone: The server has forgotten that resourceVersion: list again.
            StreamError: The stream broke, or is none.
            DecodeError: An object is not what its class says.
        """
        seconds = 290 + int(290 * self._random()) if timeout_seconds is None else timeout_seconds
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
            "sendInitialEvents": "true" if initial else None,
            "resourceVersionMatch": "NotOlderThan" if initial else None,
        }
        request = self._request(
            "watch", "GET", type_of(kind), which.get("namespace"), None, query | selected(which), lane=Lane.WATCH
        )
        if metadata_only:
            request.accept = _METADATA
        async with self._transport.stream(request) as chunks:
            if isinstance(kind, ResourceType):
                async with aclosing(lines(chunks)) as batches:
                    yield Lines(batches, chunks.peer)
            else:
                async with aclosing(changes(request.target, lines(chunks), lambda item: read(kind, item))) as events:
                    yield events

"""How a request about objects is made: path, query, boundary, whether it may be repeated; and what counts as an answer.

A request outside of the namespaces this process may touch fails before it is sent. An answer that is no object of the
kind asked for, whatever a proxy made of it, is an error. What is in an object is decoded elsewhere.
"""

import random as system_random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from typing import Literal, Self, TypeAlias, TypedDict, TypeVar, overload
from urllib.parse import quote, urlencode

import msgspec

from asyncctl.client.api_path import parse_api_path
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Target, boundary_error, error_from_reply, not_an_object
from asyncctl.client.selectors import Selector, fields, labels
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.clock import Clock, SystemClock
from asyncctl.objects.codec import DecodeError, decode
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Kind, Resource, ResourceType, Unstructured, resource_type_of
from asyncctl.queue.backoff import Random

R = TypeVar("R", bound=Resource)
AnyKind: TypeAlias = Kind | ResourceType
"""A class gives its objects, `Unstructured` dicts, a `ResourceType` the server's bytes."""
Validation: TypeAlias = Literal["Strict", "Warn", "Ignore"]
Propagation: TypeAlias = Literal["Background", "Foreground", "Orphan"]
Query: TypeAlias = Mapping[str, str | None]
_PATH = re.compile(r"/[!\"$-/0->@-~]*")  # visible ASCII, without ? and #
_EVENTS = frozenset({"events", "events.events.k8s.io"})
_LEASES = "leases.coordination.k8s.io"
_REVIEWS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})


class WriteOptions(TypedDict, total=False):
    """What every write but a deletion takes.

    Attributes:
        dry_run: the server does everything but store it.
        field_validation: what happens to fields that the kind does not have: refused (`Strict`, the default), dropped
            with a warning, or dropped.
        field_manager: under which name the written fields are owned; default: the client's.
    """

    dry_run: bool
    field_validation: Validation
    field_manager: str


class Selection(TypedDict, total=False):
    """Which objects of a kind.

    Attributes:
        namespace: where; without it, everywhere.
        labels: by labels, as text or as a map.
        fields: by fields, as text or as a map; which fields can be named depends on the kind.
    """

    namespace: str | None
    labels: Selector | None
    fields: Selector | None


class _Meta(msgspec.Struct, rename="camel"):
    deletion_timestamp: str | None = None


class Known(msgspec.Struct):
    """As much of an answer as tells that it is an object: the rest is skipped, not decoded."""

    kind: str
    metadata: _Meta | None = None
    status: msgspec.Raw = msgspec.Raw()


_decode_known = msgspec.json.Decoder(Known).decode


class Boundary:
    """The only namespaces that may be touched, empty for all: of a client and of all that are made of it."""

    __slots__ = ("namespaces",)

    def __init__(self, namespaces: tuple[str, ...]) -> None:
        self.namespaces = namespaces


class Requests:
    """Makes requests, within what may be touched, and sends them."""

    def __init__(
        self,
        transport: Transport,
        *,
        field_manager: str,
        namespaces: tuple[str, ...] = (),
        cluster_kinds: frozenset[ResourceType] = frozenset(),
        lease: tuple[str, str] | None = None,
        audit_id: str | None = None,
        caller: str = "",
        clock: Clock | None = None,
        random: Random = system_random.random,
    ) -> None:
        """Take what all requests share.

        Args:
            transport: Sends them.
            field_manager: The name under which writes are owned.
            namespaces: The only ones that may be touched; empty means all.
            cluster_kinds: Kinds in no namespace that may be touched all the same.
            lease: Namespace and name of the process's own Lease, which may be touched, and events about it.
            audit_id: Goes with each request into the API server's audit log.
            caller: The controller that asks: a warning of the server is logged with it.
            clock: For waits between tries.
            random: For their jitter.
        """
        self._transport = transport
        self._field_manager = field_manager
        self._boundary = Boundary(namespaces)
        self._cluster_kinds = cluster_kinds
        self._lease = lease
        self._audit_id = audit_id
        self._caller = caller
        self._clock = clock or SystemClock()
        self._random = random

    @property
    def field_manager(self) -> str:
        """The name under which writes are owned."""
        return self._field_manager

    @property
    def config(self) -> ClusterConfig:
        """Which cluster it talks to, and as whom."""
        return self._transport.config

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The only namespaces that may be touched; empty means all."""
        return self._boundary.namespaces

    def set_namespaces(self, namespaces: tuple[str, ...]) -> None:
        """Change which namespaces may be touched: by this client, and by each that was made of it by `with_…`."""
        self._boundary.namespaces = namespaces

    def with_audit_id(self, audit_id: str) -> Self:
        """The same client, whose requests carry `audit_id` into the API server's audit log."""
        other = object.__new__(type(self))  # a tenth of what `copy` takes, for each pass that asks for its client
        other.__dict__.update(self.__dict__)
        other._audit_id = audit_id
        return other

    def with_caller(self, caller: str) -> Self:
        """The same client, for the controller of that name: a warning of the server is logged with it."""
        other = copy(self)
        other._caller = caller  # noqa: SLF001 - of its own kind
        return other

    def check_boundary(self, target: Target, kind: ResourceType, *, certain: bool = True) -> None:
        """Raise `NamespaceBoundaryExceeded` where this process may not touch what `target` names.

        Not `certain`: whether the kind is in namespaces was guessed.
        """
        namespaces = self._boundary.namespaces
        if not namespaces or self._is_exempt(target, kind):
            return
        inside = target.namespace in namespaces if kind.namespaced else kind in self._cluster_kinds
        if not inside:
            raise boundary_error(target, namespaces, namespaced=kind.namespaced if certain else None)

    def _is_exempt(self, target: Target, kind: ResourceType) -> bool:
        if kind.group in _REVIEWS and not kind.namespaced:
            return target.verb == "create"
        if self._lease is None or target.namespace != self._lease[0]:
            return False
        name = target.name or ""
        return (kind.resource == _LEASES and name == self._lease[1]) or (
            kind.resource in _EVENTS and name.startswith(f"{self._lease[1]}.")
        )

    async def get_raw(self, path: str, *, query: Query | None = None) -> bytes:
        """GET any path, such as `/version` or `/apis/apps/v1`, and return what the server answers, as it is.

        Args:
            path: Absolute, without a query. One of objects has to be within the namespaces that may be touched.
            query: Parameters; those that are None are left out.

        Raises:
            ValueError: It is no such path.
        """
        target, kind = _read_path(path)
        if kind is not None and (target.namespace or kind not in self._cluster_kinds):
            self.check_boundary(target, kind, certain=bool(target.namespace or target.name))
        request = Request(
            target=target, method="GET", path=path + _encoded(query), lane=Lane.READ, repeatable=True,
            audit_id=self._audit_id, caller=self._caller,
        )  # fmt: skip
        return (await self._transport.request(request)).body

    @staticmethod
    def _no_scale(subresource: str | None) -> None:
        """Raise `ValueError` for `scale`: what is read and put there is a `Scale`, and no object of the kind."""
        if subresource == "scale":
            raise ValueError("an object's scale is a Scale, and no object of its kind: use get_scale and set_scale")

    def _write_query(self, options: WriteOptions) -> dict[str, str | None]:
        return {
            "fieldManager": options.get("field_manager") or self._field_manager,
            "fieldValidation": options.get("field_validation", "Strict"),
            "dryRun": "All" if options.get("dry_run") else None,
        }

    def _request(
        self,
        verb: str,
        method: str,
        kind: ResourceType,
        namespace: str | None,
        name: str | None,
        query: Query | None = None,
        *,
        lane: Lane | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        subresource: str | None = None,
        repeatable: bool = False,
        shown: str | None = None,
    ) -> Request:
        """Make a request, or raise `NamespaceBoundaryExceeded`. `shown` names in texts what the path does not."""
        resource = f"{kind.resource}/{subresource}" if subresource else kind.resource
        target = Target(verb, resource, namespace or None, name or shown)
        self.check_boundary(target, kind)
        return Request(
            target=target, method=method, path=kind.path(namespace, name, subresource) + _encoded(query),
            lane=lane or (Lane.READ if body is None else Lane.WRITE),
            body=body, content_type=content_type, repeatable=repeatable, audit_id=self._audit_id,
            caller=self._caller,
        )  # fmt: skip

    async def _object(self, request: Request, kind: str) -> bytes:
        """Send `request`; return the answer, which is an object of that kind."""
        body = (await self._transport.request(request)).body
        know(request.target, body, kind)
        return body


def know(target: Target, body: bytes, *kinds: str) -> Known:
    """Raise `ServerError` unless `body` is an object of one of these kinds: whatever a proxy made of the answer.

    A Status has to tell of a success; one that does not is the error that it says.
    """
    try:
        known = _decode_known(body)
    except (ValueError, RecursionError) as error:
        raise not_an_object(target, body, error) from error
    if known.kind not in kinds or (known.metadata is None and known.kind != "Status"):
        raise not_an_object(target, body)
    if known.kind == "Status" and bytes(known.status) != b'"Success"':
        raise error_from_reply(target, 500, body, {})
    return known


def selected(which: Selection) -> dict[str, str | None]:
    """The query that selects. Raises `ValueError` for a map that can't be a selector."""
    return {"labelSelector": labels(which.get("labels")), "fieldSelector": fields(which.get("fields"))}


def type_of(kind: AnyKind) -> ResourceType:
    """What a kind is to the API, however it is said."""
    return kind if isinstance(kind, ResourceType) else resource_type_of(kind)


@overload
def read(kind: type[R], data: bytes) -> R: ...
@overload
def read(kind: Unstructured, data: bytes) -> JsonObject: ...
@overload
def read(kind: ResourceType, data: bytes) -> bytes: ...
@overload
def read(kind: Kind, data: bytes) -> Resource | JsonObject: ...
@overload
def read(kind: AnyKind, data: bytes) -> Resource | JsonObject | bytes: ...
def read(kind: AnyKind, data: bytes) -> Resource | JsonObject | bytes:
    """An object as the kind gives it; a dict says what it is, as an item of a list does not. Raises `DecodeError`."""
    if isinstance(kind, ResourceType):
        return data
    if isinstance(kind, Unstructured):
        resource = kind.resource_type
        return {"apiVersion": resource.api_version, "kind": resource.kind, **decode(kind, data)}
    return decode(kind, data)


@contextmanager
def accepted() -> Iterator[None]:
    """Around the decoding of an answer to a write: a `DecodeError` says that the write is not what has failed."""
    try:
        yield
    except DecodeError as error:
        reason = f"{error.reason}; the server has accepted the write, and this is its answer: correct the class"
        raise DecodeError(error.kind, error.namespace, error.name, error.path, reason) from error


def _encoded(query: Query | None) -> str:
    return _encode(tuple(query.items())) if query else ""


@lru_cache(256)  # those of writes are the same again and again, and encoding one takes longer than its path
def _encode(query: tuple[tuple[str, str | None], ...]) -> str:
    given = [(key, value) for key, value in query if value is not None]
    return "?" + urlencode(given, quote_via=quote) if given else ""


def _read_path(path: str) -> tuple[Target, ResourceType | None]:
    """What a path is about. Raises `ValueError` for what is none."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path such as /apis/apps/v1; parameters go into query=")
    place = parse_api_path(path)
    if place is None:
        return Target("get", path), None
    plural = place.plural
    kind = ResourceType(
        group=place.group, version=place.version, kind=plural, plural=plural, singular=plural, list_kind=plural,
        namespaced=place.namespace is not None or place.name is None,  # such a list may be of all namespaces
    )  # fmt: skip
    verb = "watch" if place.watch else "list" if place.name is None else "get"
    return Target(verb, place.resource, place.namespace, place.name), kind

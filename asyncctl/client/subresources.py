"""What hangs below an object and is no part of it: its scale, its eviction, a service account's tokens."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Unpack

import msgspec

from asyncctl.client.errors import Target, not_an_object
from asyncctl.client.patch import Patch
from asyncctl.client.requests import AnyKind, Requests, WriteOptions, know, type_of
from asyncctl.objects.codec import dump
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import ResourceType, Unstructured

_POD = Unstructured("v1", "Pod").resource_type
_SERVICE_ACCOUNT = Unstructured("v1", "ServiceAccount").resource_type


class Scale(NamedTuple):
    """How many replicas are wanted and how many there are; `selector` finds their pods, as text."""

    replicas: int
    actual: int
    selector: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Token:
    """A bound token of a service account; its `repr` does not show it."""

    token: str = field(repr=False)
    expires: datetime


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Wanted(msgspec.Struct):
    replicas: int = 0


class _Actual(msgspec.Struct):
    replicas: int = 0
    selector: str = ""


class _Scale(msgspec.Struct):
    metadata: _Meta
    spec: _Wanted = msgspec.field(default_factory=_Wanted)
    status: _Actual = msgspec.field(default_factory=_Actual)


class _Issued(msgspec.Struct, rename="camel"):
    token: str
    expiration_timestamp: datetime


class _TokenRequest(msgspec.Struct):
    status: _Issued


class Subresources(Requests):
    """Requests about what hangs below an object."""

    async def get_scale(self, kind: AnyKind, name: str, *, namespace: str | None = None) -> Scale:
        """Read how an object is scaled (autoscaling/v1 Scale).

        Args:
            kind: What it is.
            name: Its name.
            namespace: Where it is.

        Raises:
            NotFound: There is no such object, or its kind can't be scaled.
        """
        request = self._request(
            "get", "GET", type_of(kind), namespace, name, subresource="scale", repeatable=True
        )  # fmt: skip
        return _read_scale(request.target, await self._object(request, "Scale"))

    async def set_scale(
        self,
        kind: AnyKind,
        name: str,
        replicas: int,
        *,
        namespace: str | None = None,
        resource_version: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Scale:
        """Set how many replicas are wanted.

        Args:
            kind: What it is.
            name: Its name.
            replicas: How many.
            namespace: Where it is.
            resource_version: Only if the object is still at this one.
            options: See `WriteOptions`.

        Raises:
            Conflict: It is at another resourceVersion.
        """
        change: JsonObject = {"spec": {"replicas": replicas}}
        if resource_version is not None:
            change["metadata"] = {"resourceVersion": resource_version}
        request = self._request(
            "patch", "PATCH", type_of(kind), namespace, name, self._write_query(options), body=dump(change),
            content_type=Patch.MERGE.value, subresource="scale", repeatable=resource_version is not None,
        )  # fmt: skip
        return _read_scale(request.target, await self._object(request, "Scale"))

    async def evict(
        self,
        name: str,
        *,
        namespace: str,
        uid: str | None = None,
        grace_period: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Ask a pod to go, if the budgets for disruption let it (policy/v1 Eviction).

        Args:
            name: Of the pod.
            namespace: Of the pod.
            uid: Only if it is still this one.
            grace_period: Seconds it has to end; default: its own.
            dry_run: Only ask whether it could.

        Raises:
            DisruptionBudgetExceeded: A PodDisruptionBudget does not let it go now.
            NotFound: There is no such pod.
            Conflict: It is another pod by now.
        """
        options: JsonObject = {}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        await self._post_below(
            _POD, name, namespace, "eviction", "Status", self._write_query({"dry_run": dry_run}),
            {
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
                **({"deleteOptions": options} if options else {}),
            },
        )  # fmt: skip

    async def create_token(
        self, service_account: str, *, namespace: str, audiences: tuple[str, ...] = (), seconds: int | None = None
    ) -> Token:
        """Make a token of a service account (authentication.k8s.io/v1 TokenRequest).

        Args:
            service_account: Its name.
            namespace: Where it is.
            audiences: Whom the token is for; default: the API server.
            seconds: How long it should be good, at least 600; default: an hour. The server may decide otherwise.

        Raises:
            NotFound: There is no such service account.
            Invalid: `seconds` is out of bounds.
        """
        spec: JsonObject = {"audiences": list(audiences)}
        if seconds is not None:
            spec["expirationSeconds"] = seconds
        target, body = await self._post_below(
            _SERVICE_ACCOUNT, service_account, namespace, "token", "TokenRequest", None,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec},
        )  # fmt: skip
        try:
            issued = msgspec.json.decode(body, type=_TokenRequest).status
        except (ValueError, RecursionError):
            raise not_an_object(target, body) from None  # what is wrong might quote it
        return Token(issued.token, issued.expiration_timestamp)

    async def _post_below(
        self,
        kind: ResourceType,
        name: str,
        namespace: str,
        subresource: str,
        answer: str,
        query: dict[str, str | None] | None,
        body: JsonObject,
    ) -> tuple[Target, bytes]:
        request = self._request(
            "create", "POST", kind, namespace, name, query, body=dump(body), subresource=subresource
        )  # fmt: skip
        reply = await self._transport.request(request)
        know(request.target, reply.body, answer)
        return request.target, reply.body


def _read_scale(target: Target, body: bytes) -> Scale:
    try:
        found = msgspec.json.decode(body, type=_Scale)
    except (ValueError, RecursionError) as error:
        raise not_an_object(target, body, error) from error
    return Scale(found.spec.replicas, found.status.replicas, found.status.selector, found.metadata.resource_version)

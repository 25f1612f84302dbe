"""A finalizer: put on before the first pass, taken off when the author's clean-up has returned."""

import re

import msgspec

from asyncctl.cache.header import Header, read_entry
from asyncctl.client.client import Client
from asyncctl.client.errors import Conflict, NotFound
from asyncctl.client.patch import Patch
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import ResourceType

TRIES = 5  # to take one off, where others come and go at the same time
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"(?=[^/]{{1,253}}/){_LABEL}(\.{_LABEL})*/[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_BARE = re.compile(rf"(?=.{{1,63}}\Z){_LABEL}(\.{_LABEL})+")


def check_name(name: str) -> None:
    """Raise `ValueError` unless the API server would take `name` for a finalizer.

    After `IsQualifiedName` of apimachinery's `util/validation/validation.go`. A name without a slash is taken for
    custom resources only, with a warning, and may be one that Kubernetes gives a meaning of its own, such as `orphan`;
    here it has to be a domain, such as `widgets.example.com`.
    """
    if not (_NAME.fullmatch(name) or _BARE.fullmatch(name)):
        raise ValueError(
            f"finalizer {name!r}: a name like 'example.com/widgets' is needed: a lower-case domain, a slash, a word"
        )


async def add(client: Client, kind: ResourceType, header: Header, names: tuple[str, ...]) -> bytes:
    """Put the finalizers on, in one patch; returns the object's bytes. Raises `Conflict` if it was changed."""
    change: JsonObject = {
        "metadata": {
            "uid": header.uid,
            "resourceVersion": str(header.version),
            "finalizers": [*header.finalizers, *names],
        }
    }
    return await client.patch(kind, header.name, change, patch=Patch.MERGE, namespace=header.namespace or None)


async def remove(client: Client, kind: ResourceType, header: Header, name: str) -> bytes | None:
    """Take one finalizer off, wherever in the list it is by now; that somebody else did it is fine.

    Args:
        client: Who does it.
        kind: What the object is.
        header: The object as it is known.
        name: The finalizer.

    Returns:
        The object's bytes, without it; None when the object is gone.

    Raises:
        Conflict: It was moved each time it was tried.
    """
    namespace, uid = header.namespace or None, header.uid
    for attempt in range(1, TRIES + 1):
        index = header.finalizers.index(name)
        change: list[JsonObject] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": str(header.version)},
            {"op": "test", "path": f"/metadata/finalizers/{index}", "value": name},
            {"op": "remove", "path": f"/metadata/finalizers/{index}"},
        ]
        try:
            return await client.patch(kind, header.name, change, patch=Patch.JSON, namespace=namespace)
        except NotFound:
            return None
        except Conflict:
            if attempt == TRIES:
                raise
        try:
            live = await client.get(kind, header.name, namespace=namespace)
        except NotFound:
            return None
        header = read_entry(live).header
        if header.uid != uid:  # a namesake: ours is gone
            return None
        if name not in header.finalizers:
            return live
    raise AssertionError("the last try returns or raises")


class _Metadata(msgspec.Struct, rename="camel"):
    finalizers: tuple[str, ...] = ()
    deletion_grace_period_seconds: int = 0


class _Object(msgspec.Struct):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Object).decode


def was_last(left: bytes) -> bool:
    """Whether an object without one of its finalizers, as `remove` returned it, is gone: nothing holds it any more.

    A Pod has a grace period, and is there until its kubelet has ended it.
    """
    metadata = _decode(left).metadata
    return not metadata.finalizers and not metadata.deletion_grace_period_seconds

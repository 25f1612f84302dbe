"""A finalizer: put on before the first pass, taken off when the author's clean-up has returned."""

import re

from asyncctl.cache.header import Header
from asyncctl.client.client import Client
from asyncctl.client.patch import Patch
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import ResourceType

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def check_name(name: str) -> None:
    """Raise `ValueError` unless the API server would take `name` for a finalizer."""
    if len(name) > 253 or not _NAME.fullmatch(name):
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


async def remove(client: Client, kind: ResourceType, header: Header, name: str) -> bytes:
    """Take one finalizer off; returns the object's bytes. Raises `Conflict` if it is not where it was."""
    index = header.finalizers.index(name)
    change: list[JsonObject] = [
        {"op": "test", "path": "/metadata/uid", "value": header.uid},
        {"op": "test", "path": f"/metadata/finalizers/{index}", "value": name},
        {"op": "remove", "path": f"/metadata/finalizers/{index}"},
    ]
    return await client.patch(kind, header.name, change, patch=Patch.JSON, namespace=header.namespace or None)

"""Server-side apply of what a pass wants, so that it is ours, is what we want, and costs nothing when it is so already.

Nothing that is another's is touched, however many race: what can't exist yet is applied in a way that only creates,
what exists is applied to its uid alone. And to the version that was looked at: an apply that comes late, of a process
that was stopped and is no longer the leader, finds what the next one has made, and changes nothing.
"""

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from asyncctl.cache.header import Entry, Key, read_entry
from asyncctl.client.client import Client
from asyncctl.client.errors import Conflict, NotFound, Target
from asyncctl.client.patch import Patch
from asyncctl.controller.applied import ANNOTATION, digest, shown_digest
from asyncctl.controller.environment import Environment
from asyncctl.controller.ownership import Ownership
from asyncctl.objects.builtin import Secret
from asyncctl.objects.codec import dump, to_dict
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource, ResourceType

_encode = msgspec.json.Encoder(enc_hook=str).encode  # quicker than `to_dict`, and never sent
_TRIES = 5  # of applying to what is changed all the time, such as a Deployment whose pods come and go
_SERVER_SET = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")


def wish(body: JsonObject, kind: ResourceType) -> JsonObject:
    """What `body`, an object of `kind`, wants, in the one form by which wishes are compared.

    A null means nothing to an apply; a Secret's `stringData` the server would keep as `data`; the status and what the
    server sets itself are not for an apply. `body` stays as it is.
    """
    wanted: JsonObject = {"apiVersion": kind.api_version, "kind": kind.kind}
    wanted |= {key: value for key, value in body.items() if key != "status" and key not in wanted}
    metadata = {key: value for key, value in wanted.get("metadata", {}).items() if key not in _SERVER_SET}
    annotations = metadata.get("annotations") or {}
    if ANNOTATION in annotations:  # there when the object was read before it was changed
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != ANNOTATION}
    wanted["metadata"] = metadata
    if kind == Secret.resource_type and wanted.get("stringData"):
        text: JsonObject = without_nulls(wanted.pop("stringData"))
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
        wanted["data"] = (wanted.get("data") or {}) | encoded
    return wanted


def without_nulls(value: Any) -> Any:  # noqa: ANN401 - any part of an object
    """`value` without members that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


class Applier:
    """The applies of one pass, in the name of `owner`.

    Args:
        environment: What the passes share.
        client: Gives the client whose requests carry the pass's id; asked only when there is something to send.
        owner: Whose the objects are.
    """

    def __init__(self, environment: Environment, client: Callable[[], Client], owner: Ownership) -> None:
        self._environment = environment
        self._client = client
        self._owner = owner

    async def apply(self, kind: ResourceType, obj: Resource | JsonObject, *, owned: bool, adopt: bool) -> Entry:
        """Make it so; see `Context.apply`. Returns the object as the server has it."""
        environment, owner = self._environment, self._owner
        informer, applied = environment.informer(kind), environment.applied
        key = _key_of(kind, obj, owner.header.namespace)
        entry = informer.get(key)
        look = _look_of(obj, owned, owner.header.uid)
        if entry is not None and applied.looks_current(kind, entry, look):
            return entry
        wanted = wish(to_dict(obj) if isinstance(obj, Resource) else obj, kind)
        if b"null" in dump(wanted):
            wanted = {name: without_nulls(value) for name, value in wanted.items() if value is not None}
        owner.put_on(wanted, kind, owned=owned)
        metadata, told, shown = wanted["metadata"], digest(wanted), shown_digest(wanted, kind)
        metadata["annotations"] = metadata.get("annotations", {}) | {ANNOTATION: shown}
        answer = None if entry is not None else await self._create(kind, key, wanted)
        attempt = 0
        while answer is None:
            if entry is None:  # the cache does not know it yet, or a selector hides it
                entry = await self._read(kind, key)
            owner.check(kind, entry, adopt=adopt)
            if applied.is_current(kind, entry, wanted, told, look, shown=shown):
                return entry
            try:
                answer = await self._update(kind, entry, wanted)
            except Conflict:
                attempt += 1
                if attempt == _TRIES:
                    raise
                live = await self._read(kind, key)
                if live.header.uid != entry.header.uid:  # a namesake the cache has not seen yet
                    raise
                entry = live
        entry = read_entry(answer, environment.client.field_manager)
        informer.wrote(entry)
        applied.answered(kind, entry, told, look)
        return entry

    async def _create(self, kind: ResourceType, key: Key, wanted: JsonObject) -> bytes | None:
        """Apply what can't exist yet; None when it does. A POST would leave the fields owned by an Update as well."""
        pinned = wanted | {"metadata": wanted["metadata"] | {"resourceVersion": "1"}}
        try:
            return await self._client().patch(
                kind, key[1], pinned, patch=Patch.APPLY, namespace=key[0] or None, force=True
            )
        except Conflict:
            return None

    async def _read(self, kind: ResourceType, key: Key) -> Entry:
        try:
            live = await self._client().get(kind, key[1], namespace=key[0] or None)
        except NotFound as error:
            message = "it was there a moment ago, and has been deleted since"
            target = Target("apply", kind.resource, key[0] or None, key[1])
            raise Conflict(target, 409, {"reason": "Conflict", "message": message}) from error
        return read_entry(live, self._environment.client.field_manager)

    async def _update(self, kind: ResourceType, entry: Entry, wanted: JsonObject) -> bytes:
        header = entry.header
        pinned = {"uid": header.uid, "resourceVersion": str(header.version)}
        return await self._client().patch(
            kind, header.name, wanted | {"metadata": wanted["metadata"] | pinned}, patch=Patch.APPLY,
            namespace=header.namespace or None, force=True,
        )  # fmt: skip


def _look_of(obj: Resource | JsonObject, *whose: object) -> int:
    """The same for the same wish, told without reading it; 0 where there is no telling."""
    try:
        return hash((_encode(obj), *whose))
    except (TypeError, ValueError, OverflowError, RecursionError):  # it is refused by who can say why
        return 0


def _key_of(kind: ResourceType, obj: Resource | JsonObject, default: str) -> Key:
    if isinstance(obj, Resource):
        name, namespace = obj.metadata.name, obj.metadata.namespace
    else:
        metadata = obj.get("metadata") or {}
        name, namespace = metadata.get("name") or "", metadata.get("namespace") or ""
    if not name:
        raise ValueError(f"{kind} without a name can't be applied: only a name tells what it is the next time")
    return (namespace or default) if kind.namespaced else "", name

"""Deletions of one pass: of exactly the object that was meant, and known to the cache as soon as they are answered."""

from asyncctl.cache.header import Entry, Key, read_entry
from asyncctl.client.client import Client
from asyncctl.client.errors import Conflict, NotFound
from asyncctl.controller.environment import Environment
from asyncctl.controller.ownership import OWNER, Ownership
from asyncctl.objects.resource import ResourceType

_TRIES = 5  # of deleting what is changed all the time, such as a Deployment whose pods come and go


class Deleter:
    """Deletes in the name of `owner`, by a client whose requests carry the pass's id."""

    def __init__(self, environment: Environment, client: Client, owner: Ownership) -> None:
        self._environment = environment
        self._client = client
        self._owner = owner

    async def delete(self, kind: ResourceType, key: Key, uid: str, version: str) -> None:
        """Delete the object of this uid, at this version; that it is gone already is fine.

        Raises:
            Conflict: It is another object, or another version of it.
        """
        try:
            left = await self._client.delete_answer(
                kind, key[1], namespace=key[0] or None, uid=uid, resource_version=version
            )
        except NotFound:
            left = None
        informer = self._environment.informers.get(kind)
        if informer is None:
            return
        if left is None:
            informer.deleted(key, uid, int(version))
        else:  # it waits for its finalizers
            informer.wrote(read_entry(left, self._client.field_manager))

    async def prune(self, kind: ResourceType, kept: frozenset[Key]) -> list[Entry]:
        """Delete what is the owner's and not `kept`; see `Context.prune`. Returns what was deleted, as it was."""
        environment = self._environment
        informer = environment.informer(kind)
        if kind not in environment.owns:
            raise LookupError(
                f"controller {environment.controller!r} does not own {kind}, and deletes none: add it to owns="
            )
        by_key = {entry.header.key: entry for entry in informer.by_owner(self._owner.header.uid)}
        by_key |= {entry.header.key: entry for entry in informer.by_annotation(OWNER, self._owner.mark)}
        unwanted = [
            entry
            for key, entry in by_key.items()
            if key not in kept and not entry.header.deleting and self._owner.has_entry(entry)
        ]
        return [entry for entry in unwanted if await self._delete_ours(kind, entry)]

    async def _delete_ours(self, kind: ResourceType, entry: Entry) -> bool:
        """Delete `entry` also where it was changed since, as long as it is the same object, and still ours."""
        uid, key = entry.header.uid, entry.header.key
        for attempt in range(1, _TRIES + 1):
            try:
                await self.delete(kind, key, uid, str(entry.header.version))
            except Conflict:
                if attempt == _TRIES:
                    raise
            else:
                return True
            try:
                live = await self._client.get(kind, key[1], namespace=key[0] or None)
            except NotFound:
                self._environment.informer(kind).deleted(key, uid, entry.header.version)
                return False
            entry = read_entry(live, self._client.field_manager)
            if entry.header.uid != uid or entry.header.deleting or not self._owner.has_entry(entry):
                return False
        raise AssertionError("the last try returns or raises")

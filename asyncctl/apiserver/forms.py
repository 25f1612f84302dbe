"""How an object, a list or a change is written: in the version the client speaks, whole, as metadata only, or as Table.

Bytes that are the same for many readers are made once: an object's JSON stands in its record, a change's line in the
change.
"""

from collections.abc import Callable
from datetime import datetime

import orjson
import yaml

from asyncctl.apiserver import behaviour, errors
from asyncctl.apiserver.listing import Page
from asyncctl.apiserver.request import Form
from asyncctl.apiserver.resources import ResourceKind
from asyncctl.apiserver.store import Change, Record
from asyncctl.apiserver.table import partial_metadata, table
from asyncctl.apiserver.wire import Json, JsonObject

_ONE, _LIST = "PartialObjectMetadata", "PartialObjectMetadataList"


class Unwritable(Exception):
    """An event can't be written in the form that was asked for: the watch ends there, and says nothing."""


class Writer:
    """Writes objects of one kind in one form.

    Args:
        kind: in the version the client speaks.
        form: what it asked for.
        include: which part of the object a Table's rows carry: `None`, `Metadata` or `Object`.
        now: gives the time, for the ages in a Table.
    """

    def __init__(self, kind: ResourceKind, form: Form, include: str, now: Callable[[], datetime]) -> None:
        self._kind = kind
        self._form = form
        self._include = include
        self._now = now
        self.media_type = form.media_type
        self._plain = not form.transform
        self._shared = (kind.api_version, form.transform) if form.transform != "Table" else None
        self._lead = len(f'{{"kind":"{kind.kind}","apiVersion":"{kind.api_version}",')
        self._headers = True

    def object(self, record: Record) -> bytes:
        """Write one object. Raise 406 when the form is that of a list."""
        if self._form.transform == _LIST:
            if self._kind.custom:
                raise errors.unclassified("content is not a list")
            raise errors.wrong_form(_LIST, self._go_type(), is_list=False)
        if self._plain and self._form.media_type == "application/json":
            return self._json(record)
        return self._dump(self._transformed(record))

    def _go_type(self) -> str:
        """What the real server calls the kind where it forgets that nobody asked for Go."""
        group = "" if behaviour.of(self._kind).storage == "events" else self._kind.group
        return f"*{(group or 'core').partition('.')[0]}.{self._kind.kind}"

    def status(self, body: JsonObject) -> bytes:
        """Write a Status or another object that has no other form."""
        return self._dump(body)

    def _dump(self, body: Json) -> bytes:
        if self._form.media_type == "application/yaml":
            return yaml.safe_dump(body, sort_keys=False, allow_unicode=True).encode()
        return orjson.dumps(body)

    def _converted(self, record: Record) -> JsonObject:
        return behaviour.from_storage(self._kind, record.object)

    def _json(self, record: Record) -> bytes:
        if record.object["apiVersion"] == self._kind.api_version:
            return record.json
        return orjson.dumps(self._converted(record))

    def _transformed(self, record: Record) -> Json:
        obj = self._converted(record)
        if self._form.transform == "Table":
            headers, self._headers = self._headers, False
            return table(self._kind, [obj], self._include, self._now(), headers=headers)
        if self._form.transform == _ONE:
            return partial_metadata(obj)
        return obj

    def page(self, page: Page) -> bytes:
        """Write a list. Raise 406 when the form is that of one object."""
        if self._form.transform == _ONE:
            go_list = "*unstructured.UnstructuredList" if self._kind.custom else f"{self._go_type()}List"
            raise errors.wrong_form(_ONE, go_list, is_list=True)
        kind = self._kind
        meta: JsonObject = {"resourceVersion": str(page.version)}
        if page.continuation or kind.custom:
            meta["continue"] = page.continuation
        if page.remaining is not None:
            meta["remainingItemCount"] = page.remaining
        if self._plain and self._form.media_type == "application/json":
            head = orjson.dumps({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta})
            items = b",".join(self._items(page.records))
            return b'%b,"items":[%b]}' % (head[:-1], items)
        objects = [self._converted(record) for record in page.records]
        if self._form.transform == "Table":
            return self._dump(table(kind, objects, self._include, self._now(), meta=meta))
        if self._form.transform:
            partial = [partial_metadata(obj) for obj in objects]
            meta = {key: value for key, value in meta.items() if value != ""}
            return self._dump(
                {"kind": _LIST, "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": partial or None}
            )
        if not kind.custom:
            objects = [{k: v for k, v in obj.items() if k not in {"kind", "apiVersion"}} for obj in objects]
        body = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": objects}
        return self._dump(body)

    def _items(self, records: list[Record]) -> list[bytes]:
        jsons = [self._json(record) for record in records]
        if self._kind.custom:
            return jsons
        # Entries of a built-in list carry no kind and apiVersion; these stand first in each object's JSON.
        return [b"{" + json[self._lead :] for json in jsons]

    def line(self, change: Change, type_: str, record: Record) -> bytes:
        """Write one event of a watch. `record` is the change's own, or the previous one under the new version."""
        if self._shared is None:
            return self._event(type_, record)
        shared = (*self._shared, type_, record is change.record)
        found = change.lines.get(shared)
        if found is None:
            found = change.lines[shared] = self._event(type_, record)
        return found

    def event(self, type_: str, record: Record) -> bytes:
        """Write an event that belongs to no change: an object that was there when the watch began."""
        return self._event(type_, record)

    def _event(self, type_: str, record: Record) -> bytes:
        if self._form.transform == _LIST:
            raise Unwritable
        body = self._json(record) if self._plain else self._dump(self._transformed(record))
        return b'{"type":"%b","object":%b}\n' % (type_.encode(), body)

    def bookmark(self, version: int, *, initial: bool = False) -> bytes:
        """Write a bookmark; `initial` marks the end of the events a watch began with."""
        meta: JsonObject = {"resourceVersion": str(version)}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": meta, **self._kind.empty}
        if self._form.transform == "Table":
            body = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "columnDefinitions": None,
                "rows": [],
            }
        elif self._form.transform:
            body = {"kind": _ONE, "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return b'{"type":"BOOKMARK","object":%b}\n' % orjson.dumps(body)


def error_line(status: JsonObject) -> bytes:
    """Write the event that tells a watch what went wrong."""
    return b'{"type":"ERROR","object":%b}\n' % orjson.dumps(status)

"""What is read of every object that passes by: its header. All else stays bytes until somebody asks.

`managedFields` are cut out of the kept bytes; of a kind that this program applies, the program's own Apply entry is
kept, which tells later whether an apply would change anything.
"""

import sys
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import lru_cache
from typing import cast

import msgspec

Key = tuple[str, str]
"""Namespace (empty for a cluster-wide kind) and name."""

PAUSED = "asyncctl/paused"
RECONCILE_AT = "asyncctl/reconcile-at"
"""Annotation that asks for one pass now, by any new value."""


class Owner(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Labels(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A mapping that is kept as JSON: a third of a dict's memory, and what a reader does to its own changes nothing."""

    raw: bytes

    def __getitem__(self, label: str) -> str:
        return _decode_labels(self.raw)[label]

    def __iter__(self) -> Iterator[str]:
        return iter(_decode_labels(self.raw))

    def __len__(self) -> int:
        return len(_decode_labels(self.raw))

    def __contains__(self, label: object) -> bool:
        return label in _decode_labels(self.raw)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Labels):
            return self.raw == other.raw or _decode_labels(self.raw) == _decode_labels(other.raw)
        return _decode_labels(self.raw) == other

    def __hash__(self) -> int:
        return hash(frozenset(_decode_labels(self.raw).items()))

    def get(self, label: str, default: str | None = None) -> str | None:
        """The value of a label, or `default`."""
        return _decode_labels(self.raw).get(label, default)

    def keys(self) -> KeysView[str]:
        """The labels."""
        return _decode_labels(self.raw).keys()

    def values(self) -> ValuesView[str]:
        """Their values."""
        return _decode_labels(self.raw).values()

    def items(self) -> ItemsView[str, str]:
        """Labels with their values."""
        return _decode_labels(self.raw).items()


class Header(msgspec.Struct, frozen=True, gc=False):
    """Whose object this is and how far it has come. `gc=False` holds: strings make no cycles."""

    name: str
    namespace: str
    uid: str
    version: int
    """The resourceVersion; comparable within one resource of one server (KEP-5504)."""
    generation: int
    deleting: bool
    finalizers: tuple[str, ...]
    labels: Mapping[str, str]
    owners: tuple[Owner, ...]
    annotations: int
    """A digest, within this process: it differs when the annotations do."""
    paused: bool
    asked: int = 0
    """A digest, as above, of the annotation `asyncctl/reconcile-at`; 0 without one."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def controller(self) -> Owner | None:
        """The owner that controls this object."""
        return next((owner for owner in self.owners if owner.controller), None)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An object as it is kept: its header, its bytes without `managedFields`, and our own Apply entry's `fieldsV1`."""

    header: Header
    data: bytes
    applied: bytes | None = None


_NOTHING = msgspec.Raw()  # an optional Raw is not read as such: a union with None decodes to a dict


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    name: str
    uid: str = ""
    resource_version: str = "0"
    namespace: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: msgspec.Raw = _NOTHING
    owner_references: tuple[Owner, ...] = ()
    annotations: msgspec.Raw = _NOTHING
    managed_fields: msgspec.Raw = _NOTHING


class _Object(msgspec.Struct, gc=False):
    metadata: _Metadata


class _Annotations(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _Annotated(msgspec.Struct):
    metadata: _Annotations


class _Asked(msgspec.Struct, gc=False):
    at: msgspec.Raw = msgspec.field(name=RECONCILE_AT, default=_NOTHING)


class _ManagedFields(msgspec.Struct, gc=False, rename="camel"):
    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields_v1: msgspec.Raw = msgspec.field(name="fieldsV1", default=msgspec.Raw(b"{}"))


_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
_decode_object = msgspec.json.Decoder(_Object).decode
_decode_annotated = msgspec.json.Decoder(_Annotated).decode
_decode_managed = msgspec.json.Decoder(list[_ManagedFields]).decode
_decode_asked = msgspec.json.Decoder(_Asked).decode
_OURS = b'"asyncctl/'  # how the name of any annotation of ours begins
_ASKED = f'"{RECONCILE_AT}":'.encode()
_PAUSED = f'"{PAUSED}":"true"'.encode()
_MANAGED = b'"managedFields":'


def read_entry(raw: bytes | msgspec.Raw, manager: str | None = None) -> Entry:
    """Read the header of an object and copy its bytes out of the page or line they came in.

    Args:
        raw: The object as JSON.
        manager: The field manager whose Apply entry is kept; None keeps none.

    Raises:
        msgspec.DecodeError: It is no object with a name.
    """
    metadata = _decode_object(raw).metadata
    data = bytes(raw)
    annotations = bytes(metadata.annotations)
    paused, asked = False, 0
    if _OURS in annotations:
        paused = _PAUSED in annotations
        asked = hash(bytes(_decode_asked(annotations).at)) if _ASKED in annotations else 0
    applied = None
    managed = bytes(metadata.managed_fields)
    if managed:
        if manager is not None:
            applied = _own_fields(managed, manager)
        data = _without(data, managed)
    header = Header(
        metadata.name,
        sys.intern(metadata.namespace),
        metadata.uid,
        int(metadata.resource_version),
        metadata.generation,
        metadata.deletion_timestamp is not None,
        metadata.finalizers and _shared(metadata.finalizers),
        _labels(bytes(metadata.labels)),
        metadata.owner_references and _owners(metadata.owner_references),
        hash(annotations),
        paused,
        asked,
    )
    return Entry(header, data, applied)


def annotations_of(entry: Entry) -> dict[str, str]:
    """The annotations of a kept object; none where they are not what the API promises."""
    try:
        return _decode_annotated(entry.data).metadata.annotations or {}
    except (msgspec.DecodeError, RecursionError):
        return {}


@lru_cache(maxsize=1024)
def _shared(finalizers: tuple[str, ...]) -> tuple[str, ...]:
    """The first of those that are equal, so that objects share it."""
    return finalizers


@lru_cache(maxsize=1024)
def _labels(raw: bytes) -> Mapping[str, str]:
    _decode_labels(raw or b"{}")  # what can't be read is told now, and not when somebody asks
    return cast("Mapping[str, str]", Labels(raw or b"{}"))


def _owners(owners: tuple[Owner, ...]) -> tuple[Owner, ...]:
    """The same, and the names of kinds are shared by all objects that have such an owner."""
    intern = sys.intern
    return tuple([  # a generator would take twice as long
        Owner(intern(owner.api_version), intern(owner.kind), owner.name, owner.uid, owner.controller)
        for owner in owners
    ])  # fmt: skip


def _own_fields(managed: bytes, manager: str) -> bytes | None:
    if manager.encode() not in managed:
        return None
    for entry in _decode_managed(managed):
        if entry.manager == manager and entry.operation == "Apply" and not entry.subresource:
            return bytes(entry.fields_v1)
    return None


def _without(data: bytes, managed: bytes) -> bytes:
    """`data` without its `managedFields`; unchanged when they are not there exactly once, written without spaces."""
    start = data.find(_MANAGED)
    end = start + len(_MANAGED) + len(managed)
    if start < 0:
        return data
    if not data.startswith(managed, start + len(_MANAGED)) or data.find(_MANAGED, end) >= 0:  # a label's name, perhaps
        member = _MANAGED + managed
        start = data.find(member)
        end = start + len(member)
        if start < 0 or data.find(member, end) >= 0:
            return data
    if data[end : end + 1] == b",":
        return data[:start] + data[end + 1 :]
    if data[start - 1 : start] == b",":
        return data[: start - 1] + data[end:]
    return data[:start] + data[end:]

"""What a watch tells, decoded: an object was added, modified or deleted, or the watch has come so far."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from asyncctl.client.errors import StreamError, Target, error_from_reply

T = TypeVar("T")


class Change(NamedTuple, Generic[T]):
    """An object as it is now; for `DELETED` as it was at last, under the resourceVersion of its deletion."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: T


class Bookmark(NamedTuple):
    """Nothing has changed up to this resourceVersion that was not told: watch from here next time."""

    resource_version: str
    type: Literal["BOOKMARK"] = "BOOKMARK"


Event: TypeAlias = Change[T] | Bookmark


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str


class _Versioned(msgspec.Struct):
    metadata: _Version


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_versioned = msgspec.json.Decoder(_Versioned).decode


async def changes(
    target: Target, batches: AsyncIterator[list[bytes]], read: Callable[[bytes], T]
) -> AsyncGenerator[Event[T], None]:
    """Decode the lines of a watch.

    Args:
        target: What is watched, for the texts of errors.
        batches: The lines.
        read: Reads an object.

    Raises:
        StatusError: The server ended the watch with an error; `Gone` when it has forgotten where the watch stood.
        StreamError: A line is no event.
    """
    async for batch in batches:
        for line in filter(None, batch):
            yield _read(target, line, read)


def _read(target: Target, line: bytes, read: Callable[[bytes], T]) -> Event[T]:
    try:
        event = _decode_event(line)
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                pass
            case "BOOKMARK":
                return Bookmark(_decode_versioned(event.object).metadata.resource_version)
            case "ERROR":
                raise error_from_reply(target, 500, bytes(event.object), {})
            case unknown:
                raise StreamError(f"{target}: unknown event type {unknown!r}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StreamError(f"{target}: a line of the watch is no event: {error}") from error
    return Change(event.type, read(bytes(event.object)))

"""A list that comes page by page, and outlives the moment it is of.

A continue token is good for some minutes; when the server has forgotten its moment (410), the whole list is asked for
anew, unpaged, as client-go's `tools/pager` does. Iterating holds one page (after a 410 the whole list), and of each
object that it has given the uid and version, about 235 bytes, where there is more than one page.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from asyncctl.client.errors import Gone, Target, not_an_object

T = TypeVar("T")
PAGE = 500  # objects; client-go's default


class Page(NamedTuple):
    """One page of a list: the objects as bytes (views into the page), and where the list stands."""

    items: list[msgspec.Raw]
    resource_version: str
    continue_token: str


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None  # null when it is empty, but always there


class _Meta(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""


class _Item(msgspec.Struct):
    metadata: _Meta


_decode_list = msgspec.json.Decoder(_List).decode
_decode_item = msgspec.json.Decoder(_Item).decode


def read_page(target: Target, body: bytes) -> Page:
    """Read a list. Raises `ServerError` when `body` is none."""
    try:
        page = _decode_list(body)
    except (ValueError, RecursionError) as error:
        raise not_an_object(target, body, error) from error
    return Page(page.items or [], page.metadata.resource_version, page.metadata.continue_)


class GetPage(Protocol):
    """Gets a page by its continue token; or the `whole` list, as it is now."""

    def __call__(self, token: str, *, whole: bool) -> Awaitable[Page]:
        """Get it."""
        ...


class Listing(Generic[T]):
    """All objects that a list asks for: `async for` gives one after the other, `all` gives them at once.

    Nothing is sent before. Where the server forgets the list's moment half way, `all` begins anew, so that what it
    returns is of one moment. Iterating goes on with a newer moment: what was given already is not given again unless it
    has changed, and of what was deleted meanwhile nothing is told.

    Attributes:
        resource_version: The moment that the list is of, to watch from; empty before the first object was given.
    """

    def __init__(self, page: GetPage, read: Callable[[bytes], T]) -> None:
        """Take how to get a page, and how to read an object."""
        self._page = page
        self._read = read
        self.resource_version = ""

    def __aiter__(self) -> AsyncIterator[T]:
        """Go through the objects, page by page."""
        return self._objects()

    async def all(self) -> list[T]:
        """Return all objects, as they were at `resource_version`."""
        found: list[T] = []
        async for page, anew in self._pages():
            if anew:
                found.clear()
            found += [self._read(bytes(item)) for item in page.items]
        return found

    async def _objects(self) -> AsyncIterator[T]:
        given: set[tuple[str, str]] = set()
        async for page, anew in self._pages():
            for item in page.items:
                if (anew or page.continue_token) and (key := _identity(item)) is not None:
                    if key in given:
                        continue
                    given.add(key)
                yield self._read(bytes(item))

    async def _pages(self) -> AsyncIterator[tuple[Page, bool]]:
        """Each page, and whether it is the whole list, begun anew."""
        token, anew = "", False
        while True:
            try:
                page = await self._page(token, whole=False)
            except Gone:
                if not token:
                    raise
                page, anew = await self._page("", whole=True), True  # one that can't expire half way
            self.resource_version, token = page.resource_version, page.continue_token
            yield page, anew
            if not token:
                return


def _identity(item: msgspec.Raw) -> tuple[str, str] | None:
    """Its uid and version; None for what has no uid, as what other servers aggregate, or can't be read."""
    try:
        metadata = _decode_item(item).metadata
    except (ValueError, RecursionError):
        return None
    return (metadata.uid, metadata.resource_version) if metadata.uid else None
